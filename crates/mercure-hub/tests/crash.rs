//! A hub that dies at a random moment under load has lost nothing that it acknowledged.
//!
//! `MERCURE_DRILL=long` for a hundred rounds.
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::time::Duration;

use drill::checker::{Published, Record, ids};
use drill::client::{Wire, publish, replay};
use drill::engine::Engine;
use drill::node::Node;
use drill::{is_long, publisher, reader, seed};

const PUBLISHERS: usize = 64;

/// One drill has the machine for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn drill(engine: &str) {
    let _alone = ALONE.lock().await;
    let Some(engine) = Engine::start(engine) else { return };
    let mut random = fastrand::Rng::with_seed(seed());
    let rounds = if is_long() { 100 } else { 3 };
    let mut total = 0;
    for round in 0..rounds {
        let mut node = Node::start(&engine.url(&format!("round{round}")), &[]);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| tokio::spawn(publish_all(node.address(), number)))
            .collect();
        tokio::time::sleep(Duration::from_millis(random.u64(50..600))).await;
        node.process.kill();
        let mut record = Record::default();
        for publisher in publishers {
            let (acknowledged, doubtful) = publisher.await.expect("no panic");
            record.acknowledged.push(acknowledged);
            record.doubtful.extend(doubtful);
        }
        node.restart();
        let log = replay(&node.address(), &publisher(), &reader(&["*"])).await;
        record.log = ids(&log.unwrap_or_else(|error| panic!("{error}: {}", node.words())));
        let violations = record.violations();
        assert!(violations.is_empty(), "round {round}: {violations:#?}");
        let count: usize = record.acknowledged.iter().map(Vec::len).sum();
        total += count;
        assert!(!node.words().contains("panicked"), "{}", node.words());
    }
    println!("{rounds} rounds: {total} events acknowledged, none lost, none twice");
}

/// Publishes as fast as it is acknowledged, until the hub is gone.
async fn publish_all(address: String, number: usize) -> (Vec<Published>, Option<Published>) {
    let (token, mut acknowledged) = (publisher(), Vec::new());
    // It may be gone already.
    let Ok(mut wire) = Wire::connect(&address).await else { return (acknowledged, None) };
    for count in 0.. {
        let id = format!("p{number}-{count}");
        let published = Published { id, topic: "t".to_owned(), private: false };
        let form = format!("topic=t&id={}&data=x", published.id);
        match publish(&mut wire, &token, &form).await {
            Ok(true) => acknowledged.push(published),
            Ok(false) => panic!("refused, although the engine is there"),
            Err(_) => return (acknowledged, Some(published)),
        }
    }
    unreachable!("the hub is killed some time")
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    drill("sqlite").await;
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
