//! Several hubs on one engine, while nodes die, stand still and are cut off, and the engine crashes:
//! every subscriber gets every acknowledged event of its topics, once and in order.
//!
//! `MERCURE_DRILL=long` for ten minutes on each engine.
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drill::checker::{Published, Record, Subscriber, ids};
use drill::client::{Stream, Wire, get, publish, replay};
use drill::engine::Engine;
use drill::node::Node;
use drill::proxy::Proxy;
use drill::{is_long, publisher, reader, seed};
use fastrand::Rng;
use serde_json::Value;
use support::PATH;
use tokio::task::JoinSet;

const NODES: usize = 3;
const SUBSCRIBERS: usize = 300;
const ROOMS: usize = 30;
const PUBLISHERS: usize = 10;
/// Time between two events of one publisher: a hundred a second for all.
const PACE: Duration = Duration::from_millis(100);
/// How long a node may be silent.
const LEASE: Duration = Duration::from_secs(4);
/// How long everything may take to settle after the last fault.
const SETTLE: Duration = Duration::from_secs(90);

/// What is put to the test, while it is.
struct Cluster {
    engine: Engine,
    proxies: Vec<Proxy>,
    nodes: Vec<Node>,
    addresses: Arc<Vec<String>>,
}

impl Cluster {
    /// Starts nodes with a short lease.
    async fn start(engine: Engine) -> Self {
        let (mut proxies, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..NODES {
            let proxy = Proxy::to(engine.port()).await;
            let url = engine.url_at(proxy.port, "cluster");
            let lease = format!("--lease={}s", LEASE.as_secs());
            nodes.push(Node::start(&url, &["--subscriptions=true", &lease]));
            proxies.push(proxy);
        }
        let addresses = Arc::new(nodes.iter().map(Node::address).collect());
        Self { engine, proxies, nodes, addresses }
    }

    /// Breaks something for a while.
    async fn suffer(&mut self, random: &mut Rng, what: usize) {
        let node = random.usize(..NODES);
        let long = if is_long() { 4 } else { 1 };
        let some = |random: &mut Rng, most: u64| Duration::from_millis(random.u64(500..most));
        match what % 4 {
            0 => {
                println!("node {node} is killed");
                self.nodes[node].process.kill();
                tokio::time::sleep(some(random, 2000 * long)).await;
                self.nodes[node].restart();
            }
            1 => {
                println!("the engine is killed");
                self.engine.kill();
                tokio::time::sleep(some(random, 2000 * long)).await;
                self.engine.restart();
            }
            2 => {
                let time = Duration::from_millis(random.u64(5000..7500 * long));
                println!("node {node} is cut off for {time:?}");
                self.proxies[node].cut();
                tokio::time::sleep(time).await;
                self.proxies[node].mend();
            }
            _ => {
                let time = some(random, 6000 * long);
                println!("node {node} stands still for {time:?}");
                self.nodes[node].process.signal("STOP");
                tokio::time::sleep(time).await;
                self.nodes[node].process.signal("CONT");
            }
        }
        tokio::time::sleep(some(random, 2500)).await;
    }

    fn words(&self) -> String {
        self.nodes.iter().map(Node::words).collect::<Vec<_>>().join("\n---\n")
    }
}

/// One drill has the machine for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn drill(engine: &str) {
    let _alone = ALONE.lock().await;
    let Some(engine) = Engine::start(engine) else { return };
    let mut random = Rng::with_seed(seed());
    let mut cluster = Cluster::start(engine).await;
    let mut readers = JoinSet::new();
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let subscriber = Arc::new(Mutex::new(new_subscriber(number)));
            readers.spawn(subscribe(Arc::clone(&cluster.addresses), Arc::clone(&subscriber)));
            subscriber
        })
        .collect();
    let ends = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            tokio::spawn(publish_all(Arc::clone(&cluster.addresses), number, Arc::clone(&ends)))
        })
        .collect();

    let rounds = if is_long() { 60 } else { 4 };
    let first = random.usize(..4);
    for round in 0..rounds {
        let what = if round < 4 { first + round } else { random.usize(..4) };
        cluster.suffer(&mut random, what).await;
    }
    ends.store(true, Ordering::Release);
    let mut record = Record::default();
    for writer in writers {
        let (acknowledged, doubtful) = writer.await.expect("no panic");
        record.acknowledged.push(acknowledged);
        record.doubtful.extend(doubtful);
    }
    settled(&cluster, &subscribers, &mut record).await;
    check_presence(&cluster).await;
    drop(readers);

    let accepted: usize = record.acknowledged.iter().map(Vec::len).sum();
    let seen: usize = record.subscribers.iter().map(|who| who.seen.len()).sum();
    println!("{accepted} acknowledged, {} doubtful, {seen} deliveries", record.doubtful.len());
    assert!(accepted > 100, "the cluster was of use: {}", cluster.words());
    assert!(!cluster.words().contains("panicked"), "{}", cluster.words());
}

fn new_subscriber(number: usize) -> Subscriber {
    Subscriber {
        name: format!("subscriber {number}"),
        topics: (0..3).map(|step| format!("room{}", (number + step * 7) % ROOMS)).collect(),
        is_granted: number.is_multiple_of(2),
        seen: Vec::new(),
        gaps: Vec::new(),
    }
}

/// Follows its topics, at whichever node there is, from its own cursor.
async fn subscribe(addresses: Arc<Vec<String>>, who: Arc<Mutex<Subscriber>>) {
    let (query, token) = {
        let who = who.lock().expect("no panic");
        let topics: Vec<_> = who.topics.iter().map(|topic| format!("topic={topic}")).collect();
        let granted: Vec<_> = who.topics.iter().map(String::as_str).collect();
        (topics.join("&"), reader(if who.is_granted { &granted } else { &[] }))
    };
    loop {
        let address = fastrand::choice(&*addresses).expect("nodes");
        let cursor = who.lock().expect("no panic").seen.last().cloned();
        let cursor = cursor.unwrap_or_else(|| "earliest".to_owned());
        match Stream::open(address, &query, &token, &cursor).await {
            Ok(Ok(mut stream)) => {
                while let Ok(seen) = stream.next().await {
                    who.lock().expect("no panic").seen.push(seen.id);
                }
            }
            Ok(Err(gap)) => {
                who.lock().expect("no panic").gaps.push(gap);
                return;
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..300))).await;
    }
}

/// Publishes at its pace; what is not acknowledged is not tried again.
async fn publish_all(
    addresses: Arc<Vec<String>>,
    number: usize,
    ends: Arc<AtomicBool>,
) -> (Vec<Published>, Vec<Published>) {
    let (token, mut acknowledged, mut doubtful) = (publisher(), Vec::new(), Vec::new());
    let mut wire = None;
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0;
    while !ends.load(Ordering::Acquire) {
        pace.tick().await;
        count += 1;
        let published = Published {
            id: format!("p{number}-{count}"),
            topic: format!("room{}", fastrand::usize(..ROOMS)),
            private: fastrand::u8(..20) == 0,
        };
        let private = if published.private { "&private=on" } else { "" };
        let form = format!("topic={}&id={}&data=x{private}", published.topic, published.id);
        let accepted = match wire.take() {
            Some(wire) => Ok(wire),
            None => Wire::connect(fastrand::choice(&*addresses).expect("nodes")).await,
        };
        let Ok(mut used) = accepted else { continue };
        match publish(&mut used, &token, &form).await {
            Ok(true) => {
                acknowledged.push(published);
                wire = Some(used);
            }
            // Somebody else may be better off.
            Ok(false) | Err(_) => doubtful.push(published),
        }
    }
    (acknowledged, doubtful)
}

/// Waits until everybody has everything, or for too long; then says what is wrong.
async fn settled(cluster: &Cluster, subscribers: &[Arc<Mutex<Subscriber>>], record: &mut Record) {
    let wait = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // One node after the other: all hold the same log.
            let Ok(found) = replay(&cluster.addresses[0], &publisher(), &reader(&["*"])).await
            else {
                continue;
            };
            record.log = ids(&found);
            record.subscribers =
                subscribers.iter().map(|who| who.lock().expect("no panic").clone()).collect();
            if record.violations().is_empty() {
                return;
            }
        }
    };
    if tokio::time::timeout(SETTLE, wait).await.is_err() {
        let violations = record.violations();
        let first: Vec<_> = violations.iter().take(10).collect();
        panic!("{} violations: {first:#?}\n{}", violations.len(), cluster.words());
    }
}

/// Every node knows the same subscriptions, those that there are; and what the log tells of them
/// fits: none ends twice, and those that are left have not ended.
async fn check_presence(cluster: &Cluster) {
    let mut why = String::new();
    let agree = async {
        loop {
            match presence(cluster).await {
                Ok(words) => return println!("presence agrees: {words}"),
                Err(reason) => why = reason,
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    if tokio::time::timeout(SETTLE, agree).await.is_err() {
        panic!("{why}\n{}", cluster.words());
    }
}

async fn presence(cluster: &Cluster) -> Result<String, String> {
    let path = format!("{PATH}/subscriptions");
    let token = reader(&[&path, "*"]);
    let mut known = Vec::new();
    for address in cluster.addresses.iter() {
        let document = get(address, &path, &token).await.map_err(|error| error.to_string())?;
        known.push(active(&document));
    }
    let counts: Vec<_> = known.iter().map(BTreeSet::len).collect();
    if counts.iter().any(|count| *count != SUBSCRIBERS * 3) || known.iter().any(|k| *k != known[0])
    {
        return Err(format!("{} subscriptions, the nodes know {counts:?}", SUBSCRIBERS * 3));
    }
    let log = replay(&cluster.addresses[1], &publisher(), &token).await;
    let log = log.map_err(|error| error.to_string())?;
    let told = log.iter().filter_map(|seen| serde_json::from_str::<Value>(&seen.data).ok());
    let mut state: HashMap<String, bool> = HashMap::new();
    let mut ends = 0;
    for document in told.filter(|document| document["type"] == "Subscription") {
        let id = document["id"].as_str().expect("an id").to_owned();
        let is_active = document["active"].as_bool().expect("a flag");
        let before = state.insert(id.clone(), is_active);
        assert!(is_active || before != Some(false), "{id} has ended twice\n{}", cluster.words());
        ends += usize::from(!is_active);
    }
    let open = state.into_iter().filter(|(_, is_active)| *is_active).map(|(id, _)| id);
    let open: BTreeSet<String> = open.collect();
    if open != known[0] {
        let (ghosts, missing) = (open.difference(&known[0]), known[0].difference(&open));
        let (ghosts, missing) = (ghosts.count(), missing.count());
        return Err(format!("told but not known: {ghosts}; known but not told: {missing}"));
    }
    Ok(format!("{} subscriptions, {ends} ends told", open.len()))
}

fn active(document: &str) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    let all = document["subscriptions"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect()
}

/// Thousands of subscriptions at three nodes, of which one dies: all nodes know all of them, and soon
/// no node knows those of the dead one.
async fn crowd(engine: &str) {
    let _alone = ALONE.lock().await;
    let Some(engine) = Engine::start(engine) else { return };
    let mut cluster = Cluster::start(engine).await;
    let streams = if is_long() { 1002 } else { 102 };
    let query: Vec<_> = (0..10).map(|number| format!("topic=crowd{number}")).collect();
    let (query, token) = (query.join("&"), reader(&[]));
    let mut open = Vec::new();
    for number in 0..streams {
        let address = &cluster.addresses[number % NODES];
        let stream = Stream::open(address, &query, &token, "earliest").await.expect("a stream");
        open.push(stream.expect("nothing is missing"));
    }
    known(&cluster, &[0, 1, 2], streams * 10).await;
    cluster.nodes[2].process.kill();
    let took = known(&cluster, &[0, 1], streams * 10 * 2 / 3).await;
    println!("{} subscriptions; those of a dead node end after {took:?}", streams * 10);
    if took > LEASE {
        println!("which is longer than the lease: {}", cluster.words());
    }
}

/// Waits until some nodes know so many subscriptions; how long that took.
async fn known(cluster: &Cluster, nodes: &[usize], count: usize) -> Duration {
    let path = format!("{PATH}/subscriptions");
    let (token, begin) = (reader(&[&path]), tokio::time::Instant::now());
    let mut found = Vec::new();
    let agree = async {
        loop {
            found.clear();
            for node in nodes {
                let document = get(&cluster.addresses[*node], &path, &token).await;
                found.push(document.map_or(0, |document| active(&document).len()));
            }
            if found.iter().all(|found| *found == count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(SETTLE, agree).await.is_err() {
        panic!("{count} subscriptions, the nodes know {found:?}\n{}", cluster.words());
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_redis() {
    crowd("redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_postgres() {
    crowd("postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_nats() {
    crowd("nats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    drill("redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    drill("postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    drill("nats").await;
}
