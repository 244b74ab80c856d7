//! A shard is woken only for what somebody listens to, and misses nothing for it.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mercure_engine::{Clock, Hub, Options, Retention};
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
