//! What clients and operators see while the keeper of the log is in trouble, and afterwards.

mod drill;
mod support;

use std::process::Command;
use std::time::Duration;

use drill::client::{Stream, Wire, get, publish, replay};
use drill::engine::Engine;
use drill::node::Node;
use drill::{publisher, reader};
use mercure_transports::testing::{free_port, is_missing};
use tempfile::TempDir;

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn says(node: &Node, id: &str) -> bool {
    let Ok(mut wire) = Wire::connect(&node.address()).await else { return false };
    let form = format!("topic=t&id={id}&data=x");
    matches!(publish(&mut wire, &publisher(), &form).await, Ok(true))
}

/// A figure of `/metrics`.
async fn figure(ops: &str, name: &str) -> Option<f64> {
    let text = get(ops, "/metrics", "").await.ok()?;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn an_engine_goes_and_comes_back(name: &str) {
    let Some(mut engine) = Engine::start(name) else { return };
    let ops = format!("127.0.0.1:{}", free_port());
    let node = Node::start(&engine.url("away"), &[&format!("--ops-listen={ops}")]);
    let other = Node::start(&engine.url("away"), &[]);
    assert!(says(&node, "before").await, "{}", node.words());
    let opened = Stream::open(&node.address(), "topic=t", &reader(&[]), "earliest").await;
    let mut stream = opened.expect("a stream").expect("nothing is missing");
    assert_eq!(stream.next().await.expect("an event").id, "before");
    assert!(get(&ops, "/ready", "").await.is_ok());
    assert_eq!(figure(&ops, "mercure_transport_available").await, Some(1.0));
    assert_eq!(figure(&ops, "mercure_log_events").await, Some(1.0));
    assert_eq!(figure(&ops, "mercure_subscribers").await, Some(1.0));

    engine.kill();
    eventually("readiness ends", async || get(&ops, "/ready", "").await.is_err()).await;
    assert!(get(&ops, "/live", "").await.is_ok(), "the process is worth keeping");
    assert_eq!(figure(&ops, "mercure_transport_available").await, Some(0.0));
    // `publish` checks that the refusal says when to come back.
    assert!(!says(&node, "lost").await, "nothing is acknowledged that nobody keeps");
    // More heartbeats than one pass over an open stream in this time.
    let silence = tokio::time::timeout(Duration::from_secs(3), stream.next()).await;
    assert!(silence.is_err(), "the stream stays open: {silence:?}");

    engine.restart();
    let words = || format!("{}\n---\n{}", node.words(), other.words());
    let again = async || says(&other, "after").await;
    eventually(&format!("updates are accepted again: {}", words()), again).await;
    eventually(&format!("here as well: {}", words()), async || says(&node, "last").await).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|id| id != "last") {
        seen.push(stream.next().await.expect("the same stream").id);
    }
    // One whose acknowledgement came too late was published again.
    seen.dedup();
    assert_eq!(seen, ["after", "last"], "{}", node.words());
    eventually("readiness is back", async || get(&ops, "/ready", "").await.is_ok()).await;
    assert_eq!(figure(&ops, "mercure_log_lag_events").await, Some(0.0));
    let subscribers = figure(&ops, "mercure_memory_bytes{part=\"subscribers\"}").await;
    assert!(subscribers.is_some_and(|bytes| bytes > 0.0), "{subscribers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    an_engine_goes_and_comes_back("redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    an_engine_goes_and_comes_back("postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    an_engine_goes_and_comes_back("nats").await;
}

/// Publishes until it is refused; returns what was acknowledged.
async fn fill(node: &Node, most: usize) -> Vec<String> {
    let (token, mut accepted) = (publisher(), Vec::new());
    let mut wire = Wire::connect(&node.address()).await.expect("the hub is there");
    let data = "x".repeat(4000);
    for count in 0..most {
        let id = format!("e{count}");
        match publish(&mut wire, &token, &format!("topic=t&id={id}&data={data}")).await {
            Ok(true) => accepted.push(id),
            Ok(false) => return accepted,
            Err(error) => panic!("{error}: {}", node.words()),
        }
    }
    panic!("{most} events were accepted: {}", node.words());
}

/// What the log holds, of what `fill` has published.
async fn kept(node: &Node) -> Vec<String> {
    let mut log = Vec::new();
    eventually("the log can be read", async || {
        let read = replay(&node.address(), &publisher(), &reader(&[])).await;
        let is_read = read.is_ok();
        log = read.unwrap_or_default();
        is_read
    })
    .await;
    log.into_iter().map(|seen| seen.id).filter(|id| id.starts_with('e')).collect()
}

/// A file system that is unmounted at the end.
struct Small(TempDir);

impl Small {
    /// `None`, loudly, where this user may not make one.
    fn new(size: &str) -> Option<Self> {
        let folder = TempDir::new().expect("folder");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|done| done.status.success()) {
            return Some(Self(folder));
        }
        assert!(!std::env::vars_os().any(|(name, _)| name == "CI"), "mount needs root");
        eprintln!("SKIPPED: a small file system needs root");
        None
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "remount");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A lazy one: the hub may still be about to end.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers() {
    let Some(disk) = Small::new("3m") else { return };
    let node = Node::start(&format!("sqlite://{}/hub.db", disk.0.path().display()), &[]);
    let accepted = fill(&node, 2000).await;
    assert!(accepted.len() > 50, "{}", node.words());
    assert!(node.words().contains("the disk is full"), "the log says why: {}", node.words());
    assert!(!says(&node, "refused").await, "and goes on refusing");
    disk.resize("20m");
    eventually("there is room again", async || says(&node, "again").await).await;
    assert_eq!(kept(&node).await, accepted, "what was acknowledged is there, and nothing else");
}

/// Calls of the operating system fail, as on a disk that fails or a file system that has become
/// read-only, for some time.
async fn a_failing_disk_refuses_and_recovers(call: &str, error: &str, words: &str) {
    if is_missing("strace") {
        return;
    }
    let folder = TempDir::new().expect("folder");
    let inject = format!("inject={call}:error={error}:when=60..66");
    let strace =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
    let url = format!("sqlite://{}/hub.db", folder.path().display());
    let mut node = Node::start_under(&strace, &url, &[]);
    let accepted = fill(&node, 5000).await;
    assert!(node.words().contains(words), "the log says why: {}", node.words());
    eventually("the disk works again", async || says(&node, "again").await).await;
    let log = kept(&node).await;
    assert_eq!(log, accepted, "what was acknowledged is there, and nothing else");
    node.process.kill();
    let node = Node::start(&url, &[]);
    assert_eq!(kept(&node).await, accepted, "also for the next hub");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sync_refuses_and_recovers() {
    a_failing_disk_refuses_and_recovers("fsync,fdatasync", "EIO", "the disk fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_system_refuses_and_recovers() {
    a_failing_disk_refuses_and_recovers("pwrite64", "EROFS", "the disk fails").await;
}

/// What is written to a deleted file is lost with the process: it is not acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_deleted_takes_nothing_more() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log.db");
    let node = Node::start(&format!("sqlite://{}", path.display()), &[]);
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert_eq!(publish(&mut wire, &publisher(), "topic=t&data=1").await.ok(), Some(true));
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(publish(&mut wire, &publisher(), "topic=t&data=2").await.ok(), Some(false));
    node.says("not the file any more that was opened").await;
}
