//! What each engine is worth, beside its own round trip and beside one sync for each publication.
//!
//! Prints tables; figures of one run compare, those of different runs do not. A log of a million
//! events for each engine takes some minutes: `EVENTS=100000` for fewer, `ENGINES=SQLite,Redis` for
//! some.
#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints figures")]

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mercure_engine::{
    Batch, Clock, Event, From, Position, ReadLimit, Record, Retention, Tail, Transport,
};
use mercure_protocol::{EventId, Topic};
use mercure_transports::connect;
use mercure_transports::testing::{NatsServer, PostgresServer, RedisServer, is_missing};
use tempfile::TempDir;
use tokio::sync::Notify;

/// How long each rate is measured, and how often.
const SPAN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
/// How often each latency is measured.
const TIMES: usize = 500;
/// What a subscriber reads at once.
const PAGE: ReadLimit = ReadLimit { events: 1024, bytes: 1 << 20 };

/// Counts what a node is told.
#[derive(Debug, Default)]
struct Told {
    count: AtomicU64,
    news: Notify,
}

impl Tail for Told {
    fn on_event(&self, _: Arc<Event>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
    }

    fn on_gap(&self, through: Position) {
        panic!("a gap through {through:?}");
    }
}

/// An event with 256 bytes of data.
fn record(id: &str) -> Record {
    let data = "x".repeat(256);
    Record {
        id: EventId::from_log(id),
        topics: [Topic::from_log("https://example.com/books/1")].into(),
        private: false,
        of_subscription: false,
        frame: Bytes::from(format!("id: {id}\ndata: {data}\n\n")),
    }
}

type Node = (Arc<dyn Transport>, Arc<Told>);

/// From the name of a log to its URL at an engine.
type UrlOf<'a> = Box<dyn Fn(&str) -> String + 'a>;

async fn node(url: &str) -> Node {
    let all = Retention { events: 100_000_000, age: None, bytes: 4 << 30 };
    let transport = connect(url, all, Clock::system()).expect("a valid URL");
    let told = Arc::new(Told::default());
    transport.start(Arc::<Told>::clone(&told)).await.expect("started");
    (transport, told)
}

/// Publications a second, of some publishers that each wait for their acknowledgement.
async fn rate(nodes: &[Node], publishers: usize, clock: &Clock) -> f64 {
    let begin = clock.now();
    let until = begin + SPAN;
    let tasks: Vec<_> = (0..publishers)
        .map(|number| {
            let (transport, clock) = (Arc::clone(&nodes[number % nodes.len()].0), clock.clone());
            tokio::spawn(async move {
                let mut count = 0_u64;
                while clock.now() < until {
                    let id = uuid::Uuid::new_v4().urn().to_string();
                    transport.append(record(&id)).await.expect("accepted");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.expect("no panic");
    }
    total as f64 / (clock.now() - begin).as_secs_f64()
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The median of a latency in microseconds.
async fn median(clock: &Clock, mut one: impl AsyncFnMut()) -> f64 {
    let mut all = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begin = clock.now();
        one().await;
        all.push((clock.now() - begin).as_secs_f64() * 1e6);
    }
    middle(all)
}

/// Syncs a second that the disk does, of what a small transaction writes.
fn syncs(folder: &TempDir, clock: &Clock) -> f64 {
    let mut file = File::create(folder.path().join("syncs")).expect("a file");
    let (begin, mut count) = (clock.now(), 0);
    while clock.now() - begin < SPAN {
        file.write_all(&[0; 4096]).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    f64::from(count) / (clock.now() - begin).as_secs_f64()
}

/// Medians of rounds in which one and many publishers take turns, so that a disk that is slow for a
/// while is slow for both; then those of many at more nodes.
async fn rates(name: &str, url: &dyn Fn(&str) -> String, clock: &Clock) {
    let mut nodes = vec![node(&url("rates")).await];
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(rate(&nodes, 1, clock).await);
        many.push(rate(&nodes, 64, clock).await);
    }
    let (one, many) = (middle(one), middle(many));
    let mut row = format!("| {name} | {one:.0} | {many:.0} | {:.1}x |", many / one);
    for _ in 0..2 {
        if name == "memory" || name == "SQLite" {
            row.push_str(" - |");
            continue;
        }
        nodes.push(node(&url("rates")).await);
        let mut many = Vec::new();
        for _ in 0..ROUNDS {
            many.push(rate(&nodes, 64, clock).await);
        }
        row.push_str(&format!(" {:.0} |", middle(many)));
    }
    println!("{row}");
}

async fn latencies(name: &str, url: &dyn Fn(&str) -> String, clock: &Clock) {
    let (near, _) = node(&url("latencies")).await;
    let (far, told) = node(&url("latencies")).await;
    let trip = median(clock, async || drop(far.head().await.expect("asked"))).await;
    let acknowledged = median(clock, async || {
        let id = fastrand::u64(..).to_string();
        near.append(record(&id)).await.expect("accepted");
    })
    .await;
    let heard = median(clock, async || {
        // What came before was told; what is published now is the next one.
        while told.count.load(Ordering::Relaxed) < far.head().await.expect("asked").position.0 {
            told.news.notified().await;
        }
        let before = told.count.load(Ordering::Relaxed);
        let id = fastrand::u64(..).to_string();
        near.append(record(&id)).await.expect("accepted");
        while told.count.load(Ordering::Relaxed) == before {
            told.news.notified().await;
        }
    })
    .await;
    println!("| {name} | {trip:.0} | {acknowledged:.0} | {heard:.0} |");
}

/// Resumes in logs that grow, from an id near the end and one near the start, and reads all of it.
async fn resuming(name: &str, url: &dyn Fn(&str) -> String, clock: &Clock, sizes: &[usize]) {
    let (transport, _) = node(&url("resuming")).await;
    let mut filled = 0;
    for size in sizes {
        while filled < *size {
            let under_way: Vec<_> = (filled..*size)
                .take(4096)
                .map(|number| transport.append(record(&format!("n{number}"))))
                .collect();
            filled += under_way.len();
            for accepted in under_way {
                accepted.await.expect("accepted");
            }
        }
        let first = async |id: usize| {
            let id = format!("n{id}");
            let place = transport.locate(&id).await.expect("asked").expect("it is there");
            let page = transport.read(From::After(place), PAGE).await.expect("read");
            assert!(matches!(page, Batch::Events(events) if !events.is_empty()));
        };
        let end = median(clock, async || first(*size - 10).await).await;
        let start = median(clock, async || first(10).await).await;
        let (begin, mut from, mut count) = (clock.now(), From::Oldest, 0);
        while let Batch::Events(events) = transport.read(from, PAGE).await.expect("read")
            && let Some(last) = events.last()
        {
            from = From::After(last.position);
            count += events.len();
        }
        assert_eq!(count, *size, "every event");
        let replay = count as f64 / (clock.now() - begin).as_secs_f64();
        println!("| {name} | {size} | {end:.0} | {start:.0} | {replay:.0} |");
    }
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let clock = Clock::system();
    let events = std::env::vars().find(|(name, _)| name == "EVENTS");
    let events: usize = events.and_then(|(_, count)| count.parse().ok()).unwrap_or(1_000_000);
    let sizes = [1000, events / 10, events];
    let folder = TempDir::new().expect("folder");
    let chosen = std::env::vars().find(|(name, _)| name == "ENGINES").map(|(_, names)| names);
    let is_chosen = |name: &str| chosen.as_ref().is_none_or(|names| names.contains(name));
    let has = |name, program| is_chosen(name) && !is_missing(program);
    let redis = has("Redis", "redis-server").then(|| RedisServer::start(&[]));
    let postgres = has("PostgreSQL", "postgres").then(|| PostgresServer::start(&[]));
    let nats = has("NATS", "nats-server").then(NatsServer::start);
    let sqlite = |log: &str| format!("sqlite://{}", folder.path().join(log).display());
    let memory = |_: &str| "memory://".to_owned();
    let mut engines: Vec<(&str, UrlOf<'_>)> = Vec::new();
    if is_chosen("SQLite") {
        engines.push(("SQLite", Box::new(sqlite)));
    }
    if let Some(server) = &redis {
        engines.push(("Redis", Box::new(|log| server.url(log))));
    }
    if let Some(server) = &postgres {
        engines.push(("PostgreSQL", Box::new(|log| server.url(log))));
    }
    if let Some(server) = &nats {
        engines.push(("NATS", Box::new(|log| server.url(log))));
    }

    println!("The disk does {:.0} syncs a second.\n", syncs(&folder, &clock));
    println!(
        "| Publications a second | 1 publisher | 64 | | 64 at 2 nodes | at 3 |\n|---|---|---|---|---|---|"
    );
    if is_chosen("memory") {
        rates("memory", &memory, &clock).await;
    }
    for (name, url) in &engines {
        rates(name, url, &clock).await;
    }
    println!(
        "\n| Microseconds, median | round trip | acknowledged | heard at another node |\n|---|---|---|---|"
    );
    for (name, url) in engines.iter().filter(|(name, _)| *name != "SQLite") {
        latencies(name, url, &clock).await;
    }
    println!(
        "\n| Resuming | events in the log | first events, from an id near the end, us | near the start, us | replay, events a second |\n|---|---|---|---|---|"
    );
    for (name, url) in &engines {
        resuming(name, url, &clock, &sizes).await;
    }
}
