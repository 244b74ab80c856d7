//! A long log is read to its end on one connection, and resumed near its end and near its start, by
//! clients of a hub on each engine.
//!
//! `MERCURE_DRILL=long` for a million events.
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use drill::client::Stream;
use drill::engine::Engine;
use drill::node::{Node, without_settings};
use drill::{is_long, reader};
use tokio::time::Instant;

/// One drill has the machine for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn drill(engine: &str) {
    let _alone = ALONE.lock().await;
    let Some(engine) = Engine::start(engine) else { return };
    let url = engine.url("long");
    let count = if is_long() { 1_000_000 } else { 20_000 };
    fill(&url, count);
    let node = Node::start(&url, &["--history-bytes=4GiB"]);
    for (place, from) in [("near the end", count - 10), ("near the start", 10)] {
        let mut all = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            let mut stream = open(&node, &id(from)).await;
            assert_eq!(stream.next().await.expect("an event").id, id(from + 1));
            all.push(begin.elapsed());
        }
        all.sort();
        println!("first event after an id {place}: {:?}", all[all.len() / 2]);
    }
    let begin = Instant::now();
    let mut stream = open(&node, "earliest").await;
    for number in 1..=count {
        let seen = stream.next().await.expect("one connection is enough");
        assert_eq!(seen.id, id(number), "every event, in order");
    }
    let took = begin.elapsed();
    println!("{count} events took {took:?}; the hub took {}", peak(&node));
    assert!(!node.words().contains("panicked"), "{}", node.words());
}

fn id(number: usize) -> String {
    format!("n{number}")
}

/// Imports events whose ids tell their order.
fn fill(url: &str, count: usize) {
    let mut import = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    let mut import = without_settings(&mut import)
        .args(["history", "import", "--transport", url])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the hub's program");
    let mut lines = std::io::BufWriter::new(import.stdin.take().expect("piped"));
    let data = "x".repeat(100);
    for number in 1..=count {
        let id = id(number);
        let event = serde_json::json!({
            "position": number,
            "id": id,
            "topics": ["t"],
            "event": format!("id: {id}\ndata: {data}\n\n"),
        });
        writeln!(lines, "{event}").expect("it reads");
    }
    drop(lines);
    assert!(import.wait().expect("it ends").success(), "everything was imported");
}

async fn open(node: &Node, cursor: &str) -> Stream {
    let opened = Stream::open(&node.address(), "topic=t", &reader(&[]), cursor).await;
    opened.expect("answered").expect("nothing is missing")
}

/// The most memory that the hub ever had.
fn peak(node: &Node) -> String {
    let path = format!("/proc/{}/status", node.process.id());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("an unknown amount of memory").trim().to_owned()
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
