//! A shard is woken only for what somebody listens to, and misses nothing for it.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Wake, Waker};

use mercure_engine::testing::Faulty;
use mercure_engine::{BodyReader, Clock, Hub, Options, Retention, body};
use support::*;

/// What nobody listens to passes by, however short the memory of the log is.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_something_else_is_no_gap() {
    let clock = Clock::system();
    let retention = Retention { events: 4, ..Retention::default() };
    let options = Options { window_events: 4, ..options() };
    let hub = start(memory(retention, &clock), options, clock).await;
    let mut stream = Stream::live(&hub, &["mine", "https://x/{id}"]);
    for round in 0..20 {
        for _ in 0..500 {
            hub.publish(&update("other", "flood")).await.expect("publish");
        }
        let topic = if round % 2 == 0 { "mine" } else { "https://x/1" };
        hub.publish(&update(topic, &round.to_string())).await.expect("publish");
        assert_eq!(stream.take(1), [round.to_string()]);
    }
}

/// Subscribers come and go, one at a time, so that a shard is empty again and again, while
/// publishers are at work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_to_an_empty_shard_misses_nothing() {
    let hub = simple().await;
    let ends = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = ["a", "b"]
        .map(|topic| tokio::spawn(count(Arc::clone(&hub), topic, Arc::clone(&ends))))
        .into();
    for round in 0..300 {
        let topic = if round % 2 == 0 { "a" } else { "b" };
        // Where it begins is settled before it is attached, as a request's is.
        let last = Stream::live(&hub, &[topic]).take(1).remove(0);
        let from = hub.now();
        let mut stream = Stream::from(&hub, &[topic], from);
        let numbers: Vec<u64> =
            stream.take(20).iter().map(|number| number.parse().expect("number")).collect();
        assert!(numbers[0] > last.parse().expect("number"), "round {round}");
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{round}: {numbers:?}");
    }
    ends.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.await.expect("publisher");
    }
}

async fn count(hub: Arc<Hub>, topic: &str, ends: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        hub.publish(&update(topic, &number.to_string())).await.expect("publish");
        tokio::task::yield_now().await;
    }
}

/// Many come while events are published: the shard has yet to file one of them when an event for it is
/// noted, and cannot skip to there, because another event is pending.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_others_have_news_misses_nothing() {
    let clock = Clock::system();
    let options = Options { shards: 1, ..options() };
    let hub = start(memory(Retention::default(), &clock), options, clock).await;
    let mut live = Stream::live(&hub, &["busy"]);
    // Whoever comes while the first is filed is taken from the mailbox together.
    let (first, _reader) = slow(&hub);
    first.entered();
    let (second, _other) = slow(&hub);
    let (outlet, mut newcomer) = connection();
    hub.attach(subscriber(&hub, outlet, &["mine"]));
    first.open();
    second.entered();
    hub.publish(&update("busy", "news")).await.expect("publish");
    for _ in 0..300 {
        hub.publish(&update("other", "nothing")).await.expect("publish");
    }
    hub.publish(&update("mine", "1")).await.expect("publish");
    second.open();
    assert_eq!(newcomer.block().as_deref(), Some(":ok"));
    assert_eq!(live.take(1), ["news"]);
    hub.publish(&update("mine", "2")).await.expect("publish");
    assert_eq!(newcomer.take(2), ["1", "2"]);
}

/// The same while the shard itself waits for the transport, live at once and resuming.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_a_shard_reads_misses_nothing() {
    for resumes in [false, true] {
        let clock = Clock::system();
        let (transport, faults) = Faulty::new(memory(Retention::default(), &clock));
        let options = Options { shards: 1, window_bytes: 1, ..options() };
        let hub = start(Arc::new(transport), options, clock).await;
        let mut live = Stream::live(&hub, &["busy"]);
        let before = hub.now();
        faults.hold_answers.store(true, Ordering::SeqCst);
        hub.publish(&update("busy", "news")).await.expect("publish");
        while faults.answers.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let from = if resumes { before } else { hub.now() };
        hub.publish(&update("mine", "1")).await.expect("publish");
        let mut newcomer = Stream::from(&hub, &["mine"], from);
        faults.hold_answers.store(false, Ordering::SeqCst);
        assert_eq!(live.take(1), ["news"]);
        hub.publish(&update("mine", "2")).await.expect("publish");
        assert_eq!(newcomer.take(2), ["1", "2"], "resumes: {resumes}");
    }
}

/// A subscriber that a shard takes as long to attach as a gate is closed.
fn slow(hub: &Hub) -> (Arc<Gate>, BodyReader) {
    let gate = Arc::new(Gate::default());
    let (outlet, mut reader) = body();
    let waker = Waker::from(Arc::clone(&gate));
    assert!(reader.poll_next(&mut Context::from_waker(&waker)).is_pending());
    hub.attach(subscriber(hub, outlet, &["unheard"]));
    (gate, reader)
}

/// A waker at which whoever wakes waits.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_entered: bool,
    is_open: bool,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock().expect("lock");
        state.is_entered = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_open).expect("lock"));
    }
}

impl Gate {
    fn entered(&self) {
        let state = self.state.lock().expect("lock");
        drop(self.changed.wait_while(state, |state| !state.is_entered).expect("lock"));
    }

    fn open(&self) {
        self.state.lock().expect("lock").is_open = true;
        self.changed.notify_all();
    }
}
