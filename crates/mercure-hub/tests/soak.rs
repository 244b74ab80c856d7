//! A hub under everything that happens to one, for long: what it holds must not grow. Some seconds in the
//! ordinary tests; `MERCURE_SOAK=SECONDS` for longer (`make soak`).
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use drill::client::{Stream, Wire, get_figures, publish};
use drill::node::Node;
use drill::{publisher, reader};
use mercure_transports::testing::free_port;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Streams that stay.
const LISTENERS: usize = 200;
/// Clients that come, read a little and go.
const VISITORS: usize = 20;
/// Between two events.
const PACE: Duration = Duration::from_millis(10);

fn duration() -> Duration {
    let given = std::env::vars().find(|(name, _)| name == "MERCURE_SOAK");
    Duration::from_secs(given.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(12))
}

/// What clients share.
#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    received: AtomicU64,
    visits: AtomicU64,
}

/// Publishes numbers from 2 on, each as its own id.
async fn count(address: String, shared: Arc<Shared>) -> u64 {
    let (token, mut number) = (publisher(), 1);
    let mut wire = Wire::connect(&address).await.expect("connect");
    while !shared.over.load(Ordering::Relaxed) {
        number += 1;
        let padding = "x".repeat(fastrand::usize(..500));
        let form = format!("topic=t&id={number}&data={number}.{padding}");
        assert!(publish(&mut wire, &token, &form).await.expect("an answer"));
        tokio::time::sleep(PACE).await;
    }
    number
}

/// Reads up to `most` events; each must be the one after the one before, across streams that end.
async fn read(address: &str, shared: &Shared, cursor: &mut u64, most: u64) {
    let opened = Stream::open(address, "topic=t", &reader(&["*"]), &cursor.to_string()).await;
    let Ok(opened) = opened else {
        return tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut stream = opened.expect("no gap: the log keeps more than anybody misses");
    for _ in 0..most {
        let Ok(event) = stream.next().await else { return };
        *cursor += 1;
        assert!(event.data.starts_with(&format!("{cursor}.")), "{cursor}: {}", event.data);
        shared.received.fetch_add(1, Ordering::Relaxed);
    }
    shared.visits.fetch_add(1, Ordering::Relaxed);
}

async fn listen(address: String, shared: Arc<Shared>, from: u64) {
    let mut cursor = from;
    while !shared.over.load(Ordering::Relaxed) {
        read(&address, &shared, &mut cursor, u64::MAX).await;
    }
}

/// Comes back where it was, each time for a little; what it misses meanwhile, it catches up with.
async fn visit(address: String, shared: Arc<Shared>) {
    let mut cursor = 1;
    while !shared.over.load(Ordering::Relaxed) {
        read(&address, &shared, &mut cursor, fastrand::u64(1..100)).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..500))).await;
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    kilobytes: f64,
    descriptors: f64,
    threads: f64,
    tasks: f64,
}

impl Held {
    async fn of(pid: u32, ops: &str) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
        let figures = get_figures(ops).await.expect("figures");
        let tasks = figures.lines().find_map(|line| line.strip_prefix("mercure_tasks "));
        Self {
            kilobytes: number("VmRSS:"),
            descriptors: descriptors as f64,
            threads: number("Threads:"),
            tasks: tasks.and_then(|n| n.parse().ok()).expect("tasks"),
        }
    }

    /// The medians of a stretch.
    fn median(all: &[Self]) -> Self {
        let of = |get: fn(&Self) -> f64| {
            let mut values: Vec<_> = all.iter().map(get).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            kilobytes: of(|held| held.kilobytes),
            descriptors: of(|held| held.descriptors),
            threads: of(|held| held.threads),
            tasks: of(|held| held.tasks),
        }
    }
}

/// Changes the configuration now and then, and looks at what the hub holds.
async fn watch(node: &Node, file: &std::path::Path, ops: &str, duration: Duration) -> Vec<Held> {
    let (begin, mut samples, mut round) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < duration {
        tokio::time::sleep(Duration::from_secs(1)).await;
        round += 1;
        if round % 5 == 0 {
            std::fs::write(file, configuration(round)).expect("write");
            node.process.signal("HUP");
        }
        samples.push(Held::of(node.process.id(), ops).await);
        if round % 60 == 0 {
            println!("{round} s: {:?}", samples[samples.len() - 1]);
        }
    }
    samples
}

fn configuration(round: u64) -> String {
    format!("max_topics = {}\nmax_matchers = {}\n", 100 + round % 7, 500 + round % 11)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_does_not_grow_with_time() {
    let (folder, ops) = (TempDir::new().expect("folder"), free_port());
    let (file, log) = (folder.path().join("hub.toml"), folder.path().join("log.db"));
    std::fs::write(&file, configuration(0)).expect("write");
    let node = Node::start(
        &format!("sqlite://{}", log.display()),
        &[
            &format!("--config={}", file.display()),
            &format!("--ops-listen=127.0.0.1:{ops}"),
            "--history-size=5000",
            "--max-connection-age=20s",
            "--subscriptions=false",
        ],
    );
    let (shared, mut clients) = (Arc::<Shared>::default(), JoinSet::new());
    // Everybody begins after an event that is there.
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    let first = publish(&mut wire, &publisher(), "topic=t&id=1&data=1.").await;
    assert!(first.expect("an answer"));
    let counting = tokio::spawn(count(node.address(), Arc::clone(&shared)));
    for _ in 0..LISTENERS {
        clients.spawn(listen(node.address(), Arc::clone(&shared), 1));
    }
    for _ in 0..VISITORS {
        clients.spawn(visit(node.address(), Arc::clone(&shared)));
    }
    let samples = watch(&node, &file, &format!("127.0.0.1:{ops}"), duration()).await;
    shared.over.store(true, Ordering::Relaxed);
    let published = counting.await.expect("publishing");
    clients.abort_all();
    while let Some(client) = clients.join_next().await {
        let broken = client.err().filter(|error| error.is_panic());
        assert!(broken.is_none(), "{broken:?}");
    }
    let quarter = samples.len() / 4;
    let (early, late) =
        (Held::median(&samples[quarter..2 * quarter]), Held::median(&samples[3 * quarter..]));
    println!(
        "{published} events, {} deliveries, {} visits\nsecond quarter: {early:?}\nlast quarter: {late:?}",
        shared.received.load(Ordering::Relaxed),
        shared.visits.load(Ordering::Relaxed),
    );
    assert!(!node.words().contains("panicked"), "{}", node.words());
    let grows = |get: fn(&Held) -> f64| get(&late) - get(&early);
    // Visitors come and go, so there are a few more or less of them at each moment.
    assert!(grows(|held| held.descriptors) <= VISITORS as f64, "{early:?} {late:?}");
    assert!(grows(|held| held.tasks) <= VISITORS as f64, "{early:?} {late:?}");
    assert!(grows(|held| held.threads) <= 0.0, "{early:?} {late:?}");
    // A short run is still warming up.
    let most = if samples.len() >= 300 { 0.05 } else { 0.5 };
    assert!(grows(|held| held.kilobytes) <= early.kilobytes * most, "{early:?} {late:?}");
}
