//! Slow readers, deadlines, heartbeats, limits: how streams wait and how they end.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mercure_engine::{AttachError, Clock, From, Hub, Options, Retention, body};
use support::*;

/// About what the kernel buffers for a loopback connection, and then some.
const FLOOD: usize = 3000;
const PAYLOAD: usize = 8 * 1024;

async fn flood(hub: &Hub) {
    let padding = "x".repeat(PAYLOAD);
    for number in 0..FLOOD {
        hub.publish(&update("t", &format!("{number} {padding}"))).await.expect("publish");
    }
}

fn number_of(data: &str) -> usize {
    data.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_harms_nobody_and_gets_everything_later() {
    let hub = simple().await;
    let mut stalled = Stream::live(&hub, &["t"]);
    let mut healthy = Stream::live(&hub, &["t"]);
    let reader = std::thread::spawn(move || {
        (0..FLOOD)
            .for_each(|number| assert_eq!(number_of(&healthy.data().expect("event")), number));
    });
    flood(&hub).await;
    reader.join().expect("the healthy reader has everything, in order");
    for number in 0..FLOOD {
        assert_eq!(number_of(&stalled.data().expect("event")), number);
    }
    hub.publish(&update("t", "live again")).await.expect("publish");
    assert_eq!(stalled.take(1), ["live again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_place_is_gone_is_cut_not_fed_with_a_hole() {
    let clock = Clock::system();
    let retention = Retention { events: 100, ..Retention::default() };
    let options = Options { window_events: 10, ..options() };
    let hub = start(memory(retention, &clock), options, clock).await;
    let mut stalled = Stream::live(&hub, &["t"]);
    flood(&hub).await;
    let mut expected = 0;
    while let Some(data) = stalled.data() {
        assert_eq!(number_of(&data), expected, "in order and without a hole, as far as it goes");
        expected += 1;
    }
    assert!(expected < FLOOD);
    assert_eq!(hub.stats().gaps, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_bounded_and_catches_up() {
    let hub = simple().await;
    let (outlet, mut reader) = body();
    hub.attach(subscriber(&hub, outlet, &["t"]));
    let mut next = async move || std::future::poll_fn(|cx| reader.poll_next(cx)).await;
    assert_eq!(next().await.as_deref(), Some(&b":ok\n\n"[..]));
    flood(&hub).await;
    for number in 0..FLOOD {
        let frame = String::from_utf8(next().await.expect("frame").to_vec()).expect("UTF-8");
        let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        assert_eq!(number_of(data), number);
    }
    hub.shutdown();
    assert_eq!(next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_deadlines_follow_the_clock() {
    let clock = Clock::manual();
    let options = Options { heartbeat: Some(Duration::from_secs(15)), ..options() };
    let hub = start(memory(Retention::default(), &clock), options, clock.clone()).await;
    let mut stream = Stream::attach(&hub, &["t"], |new| {
        new.deadline = Some(Duration::from_secs(60));
    });
    clock.advance(Duration::from_secs(16));
    hub.publish(&update("t", "1")).await.expect("publish");
    // A heartbeat is a comment line without an empty line: it precedes the event's block or not,
    // depending on which came first.
    assert_eq!(stream.take(1), ["1"]);
    clock.advance(Duration::from_secs(15));
    stream.expect_heartbeat();
    clock.advance(Duration::from_secs(30));
    while stream.data().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_reads_is_closed_after_the_write_timeout() {
    let clock = Clock::manual();
    let hub = start(memory(Retention::default(), &clock), options(), clock.clone()).await;
    let _stalled = Stream::live(&hub, &["t"]);
    flood(&hub).await;
    while hub.stats().memory.backlogs == 0 {
        tokio::task::yield_now().await;
    }
    let memory = hub.stats().memory;
    assert!(memory.backlogs < 128 * 1024, "what waits for one is bounded: {memory:?}");
    assert!((100..1000).contains(&memory.subscribers), "{memory:?}");
    while hub.stats().subscribers > 0 {
        clock.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
    assert_eq!(hub.stats().stalled, 1);
    let memory = hub.stats().memory;
    assert_eq!((memory.backlogs, memory.subscribers), (0, 0), "all is given back");
    assert!(memory.window > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_limited_and_given_back() {
    let clock = Clock::system();
    let options = Options { max_subscribers: 1, ..options() };
    let hub = start(memory(Retention::default(), &clock), options, clock).await;
    let stream = Stream::live(&hub, &["t"]);
    assert_eq!(hub.admit(None).map(drop), Err(AttachError::Full));
    drop(stream);
    while hub.admit(None).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_expire_by_age_count_and_bytes() {
    let clock = Clock::manual();
    let retention = Retention { age: Some(Duration::from_secs(10)), ..Retention::default() };
    let hub = start(memory(retention, &clock), options(), clock.clone()).await;
    hub.publish(&update("t", "old")).await.expect("publish");
    clock.advance(Duration::from_secs(11));
    hub.publish(&update("t", "new")).await.expect("publish");
    assert_eq!(Stream::from(&hub, &["t"], From::Oldest).take(1), ["new"]);

    let clock = Clock::system();
    let retention = Retention { bytes: 10 * PAYLOAD, ..Retention::default() };
    let hub: Arc<Hub> = start(memory(retention, &clock), options(), clock).await;
    flood(&hub).await;
    let first = number_of(&Stream::from(&hub, &["t"], From::Oldest).data().expect("event"));
    assert!((FLOOD - 10..FLOOD).contains(&first), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_drained_end_one_by_one_and_miss_nothing_until_then() {
    let hub = simple().await;
    let streams: Vec<_> = (0..100).map(|_| Stream::live(&hub, &["t"])).collect();
    let clock = Clock::system();
    let begin = clock.now();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let clock = clock.clone();
            std::thread::spawn(move || {
                let (mut seen, mut text) = (0, String::new());
                while let Some(block) = stream.block() {
                    match block.strip_prefix("retry: ") {
                        Some(retry) => text = retry.to_owned(),
                        None => seen += usize::from(block.contains("data: ")),
                    }
                }
                (clock.now().saturating_sub(begin), seen, text)
            })
        })
        .collect();
    // Long enough that a machine which is busy for a second is no flaw of the pace.
    let window = Duration::from_secs(4);
    let draining = hub.drain(window, Duration::from_secs(4));
    let publishing = async {
        hub.publish(&update("t", "while it drains")).await.expect("it is still open");
        assert_eq!(hub.admit(None).err(), Some(AttachError::Stopping));
    };
    tokio::join!(draining, publishing);
    while hub.stats().subscribers > 0 {
        tokio::task::yield_now().await;
    }
    let (mut moments, mut retries) = (Vec::new(), std::collections::HashSet::new());
    for reader in readers {
        let (moment, seen, retry) = reader.join().expect("a reader");
        // One that ended at once may have missed it; it has its cursor.
        assert!(seen <= 1);
        let retry: u64 = retry.parse().expect("it is told when to come back");
        assert!((2000..=6000).contains(&retry));
        retries.insert(retry);
        moments.push(moment);
    }
    moments.sort();
    let spread = moments[95].saturating_sub(moments[5]);
    assert!(spread > window / 2, "{spread:?}");
    assert!(retries.len() > 50, "not all at the same moment");
}
