//! Active subscriptions: told when they begin and when they end, whatever ends them.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mercure_engine::testing::Faulty;
use mercure_engine::{AttachError, Clock, From, Hub, Options, Retention};
use mercure_protocol::{Generation, Limits, Matcher, MatcherType};
use support::*;

const EVENTS: &str = "/.well-known/mercure/subscriptions/{kind}/{topic}/{subscriber}";

fn telling() -> Options {
    Options { subscriptions: vec![Generation::V1], ..options() }
}

async fn hub() -> Arc<Hub> {
    let clock = Clock::system();
    start(memory(Retention::default(), &clock), telling(), clock).await
}

fn watch(hub: &Hub) -> Stream {
    Stream::attach(hub, &[EVENTS], |new| {
        new.from = From::Oldest;
        new.grants = may_read(&["*"]);
    })
}

fn subscribe(hub: &Hub, topics: &[&str]) -> Stream {
    Stream::attach(hub, topics, |new| {
        new.present = hub.enter(&new.matchers, None).expect("not busy");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_told_when_it_begins_and_when_it_ends() {
    let hub = hub().await;
    let mut watcher = watch(&hub);
    let stream = subscribe(&hub, &["a", "b"]);
    for topic in ["a", "b"] {
        let told = watcher.data().expect("an event");
        assert!(told.contains(&format!("\"match\":\"{topic}\"")), "{told}");
        assert!(told.contains("\"active\":true"), "{told}");
    }
    let (before, attendances) = hub.attendances().await.expect("memory").expect("told");
    assert_eq!(attendances.iter().flat_map(|one| one.subscriptions(Generation::V1)).count(), 2);
    drop(stream);
    for _ in 0..2 {
        let told = watcher.data().expect("an event");
        assert!(told.contains("\"active\":false"), "{told}");
    }
    let (after, attendances) = hub.attendances().await.expect("memory").expect("told");
    assert!(attendances.is_empty() && after != before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_and_goes_pushes_nothing_out_of_the_history() {
    let clock = Clock::system();
    let retention = Retention { events: 3, ..Retention::default() };
    let hub = start(memory(retention, &clock), telling(), clock).await;
    for data in ["1", "2", "3", "4"] {
        hub.publish(&update("t", data)).await.expect("publish");
    }
    let mut watcher = watch(&hub);
    for _ in 0..20 {
        drop(subscribe(&hub, &["a"]));
    }
    assert_eq!(watcher.take(40).len(), 40);
    assert_eq!(Stream::from(&hub, &["t"], From::Oldest).take(3), ["2", "3", "4"]);
    hub.publish(&update("t", "5")).await.expect("publish");
    assert_eq!(Stream::from(&hub, &["t"], From::Oldest).take(3), ["3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_twice_is_told_once() {
    let hub = hub().await;
    let mut watcher = watch(&hub);
    let twice = [
        Matcher::parse(MatcherType::Exact, "a", &hub_url(), &Limits::default()).expect("exact"),
        selector("a"),
        selector("b"),
    ];
    let _stream = Stream::attach(&hub, &[], |new| {
        new.matchers = twice.to_vec();
        new.present = hub.enter(&new.matchers, None).expect("not busy");
    });
    for topic in ["a", "b"] {
        assert!(watcher.data().expect("an event").contains(&format!("\"match\":\"{topic}\"")));
    }
}

/// A subscriber that never reached its shard was never there.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_a_subscriber_that_never_came() {
    let hub = hub().await;
    let mut watcher = watch(&hub);
    drop(hub.enter(&[selector("ghost")], None).expect("not busy"));
    let _stream = subscribe(&hub, &["real"]);
    assert!(watcher.data().expect("an event").contains("real"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_refuses_for_a_while_is_told_later() {
    let clock = Clock::system();
    let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
    let hub = start(Arc::new(transport), telling(), clock).await;
    let mut watcher = watch(&hub);
    faults.refuse_appends.store(true, Ordering::SeqCst);
    drop(subscribe(&hub, &["a"]));
    faults.refuse_appends.store(false, Ordering::SeqCst);
    assert!(watcher.data().expect("an event").contains("\"active\":true"));
    assert!(watcher.data().expect("an event").contains("\"active\":false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_are_turned_away_before_the_notes_grow_without_bound() {
    let clock = Clock::system();
    let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
    let hub = start(Arc::new(transport), Options { max_untold: 3, ..telling() }, clock).await;
    faults.refuse_appends.store(true, Ordering::SeqCst);
    let mut streams = Vec::new();
    while let Ok(present) = hub.enter(&[selector("a")], None) {
        let stream = Stream::attach(&hub, &["a"], |new| new.present = present);
        streams.push(stream);
        assert!(streams.len() < 10, "the notes have a bound");
    }
    assert_eq!(hub.enter(&[], None).err(), Some(AttachError::Busy));
    faults.refuse_appends.store(false, Ordering::SeqCst);
    let mut watcher = watch(&hub);
    assert_eq!(watcher.take(streams.len()).len(), streams.len(), "all are told in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_hub_tells_the_end_of_every_subscription() {
    let clock = Clock::system();
    let transport = memory(Retention::default(), &clock);
    let hub = start(Arc::clone(&transport), telling(), clock.clone()).await;
    let streams: Vec<_> = (0..20).map(|n| subscribe(&hub, &[&format!("t{n}")])).collect();
    let ended = Arc::clone(&hub);
    tokio::task::spawn_blocking(move || ended.shutdown()).await.expect("ends");
    hub.say_goodbye().await;
    assert_eq!(transport.head().await.expect("head").position.0, 40);
    drop(streams);
}
