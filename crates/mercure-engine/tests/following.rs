//! Every subscriber is a cursor: live, resuming, or somewhere in between.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mercure_engine::testing::{Faulty, Subject, conformance};
use mercure_engine::{Clock, From, Hub, Options, Resume, Retention, Transport};
use mercure_protocol::{LastEventId, Publication};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_transport_conforms() {
    conformance(&InMemory { is_slow: false }).await.expect("bare");
    conformance(&InMemory { is_slow: true }).await.expect("through delays");
}

struct InMemory {
    is_slow: bool,
}

impl Subject for InMemory {
    fn fresh(&self) -> String {
        String::new()
    }

    fn node(&self, _: &str, retention: Retention) -> Arc<dyn Transport> {
        let (faulty, faults) = Faulty::new(memory(retention, &Clock::system()));
        faults.delay.store(if self.is_slow { 3 } else { 0 }, Ordering::SeqCst);
        Arc::new(faulty)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_its_listeners_once_and_nobody_else() {
    let hub = simple().await;
    let mut exact = Stream::live(&hub, &["https://x/1", "https://x/{id}", "*"]);
    let mut template = Stream::live(&hub, &["https://x/{id}"]);
    let mut other = Stream::live(&hub, &["https://y/1"]);
    hub.publish(&update("https://x/1", "one")).await.expect("publish");
    hub.publish(&update("https://y/1", "two")).await.expect("publish");
    assert_eq!(exact.take(2), ["one", "two"], "three matchers, one delivery; and the wildcard");
    assert_eq!(template.take(1), ["one"]);
    assert_eq!(other.take(1), ["two"]);
    hub.shutdown();
    assert_eq!(template.data(), None, "the stream ends cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_events_reach_only_readers_with_a_grant() {
    let hub = simple().await;
    let mut anonymous = Stream::live(&hub, &["*"]);
    let mut wrong = Stream::attach(&hub, &["*"], |new| new.grants = may_read(&["b"]));
    let mut granted = Stream::attach(&hub, &["*"], |new| new.grants = may_read(&["a"]));
    let private = |topics: Vec<&str>, data: &str| {
        build(&Publication { topics, data, private: true, ..Publication::default() })
    };
    hub.publish(&private(vec!["a"], "1")).await.expect("publish");
    hub.publish(&private(vec!["c", "b"], "2")).await.expect("publish");
    hub.publish(&update("d", "3")).await.expect("publish");
    assert_eq!(anonymous.take(1), ["3"]);
    assert_eq!(wrong.take(2), ["2", "3"]);
    assert_eq!(granted.take(2), ["1", "3"]);

    // The same rules hold for replay.
    let mut replayed = Stream::attach(&hub, &["*"], |new| {
        new.grants = may_read(&["b"]);
        new.from = From::Oldest;
    });
    assert_eq!(replayed.take(2), ["2", "3"]);
}

/// Between a request and its stream, and between an acknowledgement and a shard's turn, others
/// publish: neither may show.
#[tokio::test(flavor = "multi_thread")]
async fn from_now_on_is_the_moment_of_the_request() {
    let hub = simple().await;
    for round in 0..200 {
        let id = hub.publish(&update("t", "before")).await.expect("publish").id;
        let from = hub.now();
        let last = LastEventId::parse(id.as_str()).expect("not empty");
        assert_eq!(from, hub.resume(&last).await.expect("resume").from, "round {round}");
        let behind_a_backlog = Stream::from(&hub, &["t"], hub.now());
        hub.publish(&update("t", "after")).await.expect("publish");
        for mut stream in [behind_a_backlog, Stream::from(&hub, &["t"], from)] {
            assert_eq!(stream.take(1), ["after"], "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_says_where_it_begins() {
    let hub = simple().await;
    let id = hub.publish(&update("t", "1")).await.expect("publish").id;
    hub.publish(&update("t", "2")).await.expect("publish");
    let resume = |text: &str| {
        let last = LastEventId::parse(text).expect("not empty");
        let hub = Arc::clone(&hub);
        async move { hub.resume(&last).await.expect("resume") }
    };
    let known = resume(id.as_str()).await;
    assert_eq!(known.preceding.as_deref(), Some(id.as_str()));
    assert_eq!(Stream::from(&hub, &["t"], known.from).take(1), ["2"]);
    for text in ["earliest", "unknown"] {
        let Resume { from, preceding } = resume(text).await;
        assert_eq!((from, preceding), (From::Oldest, None), "{text}");
        assert_eq!(Stream::from(&hub, &["t"], from).take(2), ["1", "2"]);
    }
}

/// Subscribers attach at random cursors while publishers are at work; the window is tiny and
/// reads are short and slow, so that every way of catching up is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handover_from_replay_to_live_loses_and_repeats_nothing() {
    const EVENTS: usize = 3000;
    let clock = Clock::system();
    let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
    faults.delay.store(2, Ordering::SeqCst);
    faults.short_reads.store(7, Ordering::SeqCst);
    let options = Options { window_events: 8, ..options() };
    let hub = start(Arc::new(transport), options, clock).await;

    let publisher = {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            for number in 0..EVENTS {
                hub.publish(&numbered(number)).await.expect("publish");
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let readers: Vec<_> = (0..24)
        .map(|reader| {
            let hub = Arc::clone(&hub);
            let runtime = tokio::runtime::Handle::current();
            std::thread::spawn(move || follow_from_some_id(&hub, &runtime, reader * 100, EVENTS))
        })
        .collect();
    publisher.await.expect("publisher");
    for reader in readers {
        reader.join().expect("every event once, in order");
    }
    assert!(
        faults.reads.load(Ordering::SeqCst) > 100,
        "the transport was read, not only the window"
    );
}

fn numbered(number: usize) -> mercure_protocol::Update {
    let (data, id) = (number.to_string(), format!("id-{number}"));
    build(&Publication { topics: vec!["t"], data: &data, id: Some(&id), ..Publication::default() })
}

/// Waits until the event before `first` was published, resumes after it, and expects the rest.
fn follow_from_some_id(hub: &Hub, runtime: &tokio::runtime::Handle, first: usize, events: usize) {
    let last = LastEventId::parse(&format!("id-{first}")).expect("id");
    let resume = loop {
        let resume = runtime.block_on(hub.resume(&last)).expect("resume");
        if resume.preceding.is_some() {
            break resume;
        }
        std::thread::yield_now();
    };
    let mut stream = Stream::from(hub, &["t"], resume.from);
    for expected in first + 1..events {
        assert_eq!(stream.data().as_deref(), Some(expected.to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_transport_delays_but_loses_nothing() {
    let clock = Clock::system();
    let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
    let options = Options { window_events: 1, ..options() };
    let hub = start(Arc::new(transport), options, clock).await;
    for number in 0..20 {
        hub.publish(&update("t", &number.to_string())).await.expect("publish");
    }
    faults.fail_reads.store(3, Ordering::SeqCst);
    let mut stream = Stream::from(&hub, &["t"], From::Oldest);
    assert_eq!(stream.take(20), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());

    faults.refuse_appends.store(true, Ordering::SeqCst);
    assert!(hub.publish(&update("t", "x")).await.is_err(), "refused, not falsely acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_reads_the_same_log() {
    let hub = simple().await;
    for number in 0..3 {
        hub.publish(&numbered(number)).await.expect("publish");
    }
    hub.publish(&update("other", "x")).await.expect("publish");
    let matchers = [selector("t")];
    let interest = mercure_engine::Interest { matchers: &matchers, grants: None };
    let last = LastEventId::parse("id-0").expect("id");
    let resume = hub.resume(&last).await.expect("resume");
    let frames = hub.poll(&interest, resume.from).await.expect("poll");
    let text = String::from_utf8(frames.concat()).expect("UTF-8");
    let head = hub.head().await.expect("head").id.expect("not empty");
    assert_eq!(
        text,
        format!("id: id-1\ndata: 1\n\nid: id-2\ndata: 2\n\nid: {head}\n\n"),
        "the cursor moves past what is not for this reader"
    );
}

/// The log was empty when it was read, and is not any more when the answer arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_does_not_skip_what_happened_meanwhile() {
    let clock = Clock::system();
    let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
    let hub = start(Arc::new(transport), Options { shards: 1, ..options() }, clock).await;
    let mut live = Stream::live(&hub, &["t"]);
    faults.hold_answers.store(true, Ordering::SeqCst);
    let mut resuming = Stream::from(&hub, &["t"], From::Oldest);
    while faults.answers.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    hub.publish(&update("t", "1")).await.expect("publish");
    assert_eq!(live.take(1), ["1"], "the shard has moved on");
    faults.hold_answers.store(false, Ordering::SeqCst);
    assert_eq!(resuming.take(1), ["1"]);
    hub.publish(&update("t", "2")).await.expect("publish");
    assert_eq!(resuming.take(1), ["2"]);
}

/// More readers than may read at once, and many of those who wait leave.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_leave_do_not_strand_those_behind_them() {
    let clock = Clock::system();
    let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
    let options = Options { shards: 1, window_events: 1, heartbeat: None, ..options() };
    let hub = start(Arc::new(transport), options, clock).await;
    for number in 0..3 {
        hub.publish(&numbered(number)).await.expect("publish");
    }
    faults.hold_answers.store(true, Ordering::SeqCst);
    let attach = |count| -> Vec<_> {
        (0..count).map(|_| Stream::from(&hub, &["t"], From::Oldest)).collect()
    };
    let first = attach(64);
    drop(attach(70));
    let mut living = attach(10);
    drop(first);
    faults.hold_answers.store(false, Ordering::SeqCst);
    for stream in &mut living {
        assert_eq!(stream.take(3), ["0", "1", "2"]);
    }
}
