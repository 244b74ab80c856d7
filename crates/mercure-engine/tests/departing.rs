//! Streams that go on in another hub with the same log: nothing lost, repeated or out of order.

mod support;

use std::sync::Arc;

use mercure_engine::{Clock, Departing, From, Hub, MemoryTransport, Options, Retention};
use mercure_protocol::Generation;
use support::*;

/// A hub whose log can be taken along.
struct Movable {
    hub: Arc<Hub>,
    log: Arc<MemoryTransport>,
}

impl Movable {
    async fn start(log: MemoryTransport, options: Options) -> Self {
        let log = Arc::new(log);
        let transport: Arc<MemoryTransport> = Arc::clone(&log);
        Self { hub: start(transport, options, Clock::system()).await, log }
    }

    async fn new(options: Options) -> Self {
        Self::start(MemoryTransport::new(Retention::default(), Clock::system()), options).await
    }

    /// Ends this hub; another one goes on with its log and its streams.
    async fn replace(self, options: Options) -> Self {
        self.hub.refuse_updates().await;
        let departing: Vec<Departing> = self.hub.depart();
        self.hub.say_goodbye().await;
        let history = self.log.end();
        drop(self);
        let log = MemoryTransport::restore(Retention::default(), Clock::system(), history);
        let next = Self::start(log, options).await;
        for subscriber in departing {
            next.hub.welcome(subscriber, None).expect("there is room");
        }
        next
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_goes_on_where_it_was() {
    let mut current = Movable::new(options()).await;
    let mut live = Stream::live(&current.hub, &["t"]);
    let mut stalled = Stream::live(&current.hub, &["t"]);
    let mut resuming = None;
    let padding = "x".repeat(16 * 1024);
    let mut number = 0;
    for round in 0..6 {
        for _ in 0..300 {
            let data = format!("{number} {padding}");
            current.hub.publish(&update("t", &data)).await.expect("publish");
            number += 1;
        }
        if round == 3 {
            // Far behind, and moved at once.
            resuming = Some(Stream::from(&current.hub, &["t"], From::Oldest));
        }
        current = current.replace(options()).await;
    }
    current.hub.publish(&update("t", "last x")).await.expect("publish");
    for stream in [&mut live, &mut stalled, resuming.as_mut().expect("there")] {
        for expected in 0..number {
            let data = stream.data().expect("an event");
            assert_eq!(data.split(' ').next(), Some(expected.to_string().as_str()));
        }
        assert_eq!(stream.data().as_deref(), Some("last x"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_may_read_goes_with_it() {
    let current = Movable::new(options()).await;
    let mut allowed =
        Stream::attach(&current.hub, &["*"], |new| new.grants = may_read(&["private/{id}"]));
    let mut stranger = Stream::live(&current.hub, &["*"]);
    let current = current.replace(options()).await;
    for (topic, data) in [("private/1", "secret"), ("other", "hidden")] {
        let raw = mercure_protocol::Publication {
            topics: vec![topic],
            data,
            private: true,
            ..Default::default()
        };
        current.hub.publish(&build(&raw)).await.expect("publish");
    }
    current.hub.publish(&update("t", "public")).await.expect("publish");
    assert_eq!(allowed.take(2), ["secret", "public"]);
    assert_eq!(stranger.take(1), ["public"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_with_a_stream_is_told_of_neither_as_gone_nor_as_new() {
    let telling = || Options { subscriptions: vec![Generation::V1], ..options() };
    let current = Movable::new(telling()).await;
    let _stream = Stream::attach(&current.hub, &["t"], |new| {
        new.present = current.hub.enter(&new.matchers, None).expect("room");
    });
    let named = async |hub: &Hub| {
        let (_, attendances) = hub.attendances().await.expect("memory").expect("told");
        let ids = attendances.iter().flat_map(|a| a.subscriptions(Generation::V1));
        ids.map(|subscription| subscription.subscriber.to_string()).collect::<Vec<_>>()
    };
    let before = named(&current.hub).await;
    assert_eq!(before.len(), 1);
    let current = current.replace(telling()).await;
    while named(&current.hub).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(named(&current.hub).await, before);
    assert_eq!(current.log.end().records.len(), 1, "it was told once, when it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_positions_are_those_of_the_former_log() {
    let current = Movable::new(options()).await;
    let first = current.hub.publish(&update("t", "1")).await.expect("publish").id;
    current.hub.publish(&update("t", "2")).await.expect("publish");
    let head = current.hub.head().await.expect("head");
    let current = current.replace(options()).await;
    assert_eq!(current.hub.head().await.expect("head"), head);
    assert!(current.hub.holds(&first).await.expect("asked"));
    let last = mercure_protocol::LastEventId::After(first.as_str().into());
    let resume = current.hub.resume(&last).await.expect("found");
    let mut stream = Stream::from(&current.hub, &["t"], resume.from);
    assert_eq!(stream.take(1), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_hub_stays_behind() {
    let mut current = Movable::new(options()).await;
    let _stream = Stream::live(&current.hub, &["t"]);
    for _ in 0..3 {
        let log = Arc::downgrade(&current.log);
        current = current.replace(options()).await;
        // Threads and tasks of the former hub let go of it in their own time.
        while log.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
