//! Another program takes a hub's place while clients listen and publish: SIGUSR2. `MERCURE_DRILL=long` for
//! 5,000 streams.
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drill::client::{Stream, Wire, get, publish};
use drill::crowd::Crowd;
use drill::engine::Engine;
use drill::node::{Heir, Node, PATIENCE};
use drill::{is_long, publisher, reader};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use support::PATH;
use tempfile::TempDir;
use tokio::time::Instant;

fn streams() -> usize {
    if is_long() { 5000 } else { 300 }
}

/// Publishes until told to stop, again and again what is not acknowledged, each time as something else;
/// returns what was acknowledged.
async fn count(address: String, over: Arc<AtomicBool>) -> Vec<String> {
    let (token, mut sent, mut wire) = (publisher(), Vec::new(), None);
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        if wire.is_none() {
            wire = Wire::connect(&address).await.ok();
        }
        if let Some(kept) = &mut wire {
            match publish(kept, &token, &format!("topic=t&data={number}")).await {
                Ok(true) => sent.push(number.to_string()),
                Ok(false) => {}
                Err(_) => wire = None,
            }
        }
        tokio::time::sleep(Duration::from_millis(if is_long() { 100 } else { 10 })).await;
    }
    sent
}

/// Nobody has lost a stream, and everybody has seen what was acknowledged, once and in order.
fn check(crowd: &Crowd, acknowledged: &[String]) {
    let wanted: HashSet<_> = acknowledged.iter().collect();
    for seen in &crowd.seen {
        let seen = seen.lock().expect("seen");
        assert!(seen.returned.is_empty(), "a stream was dropped");
        let distinct: HashSet<_> = seen.data.iter().collect();
        assert_eq!(distinct.len(), seen.data.len(), "something came twice");
        let found: Vec<_> = seen.data.iter().filter(|data| wanted.contains(data)).collect();
        assert_eq!(found, acknowledged.iter().collect::<Vec<_>>());
    }
}

async fn no_stream_is_dropped(transport: &str) {
    let mut node = Node::start(transport, &["--max-connection-age=0s", "--subscriptions=true"]);
    let crowd = Crowd::gather(&node.address(), streams());
    let over = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(count(node.address(), Arc::clone(&over)));
    crowd.have(5).await;
    node.process.signal("USR2");
    let first = Heir::of(&node, 1).await;
    assert!(node.process.ends_within(PATIENCE), "{}", node.words());
    // And once more, by the one that has just come.
    crowd.have(20).await;
    first.signal(Signal::USR2);
    let second = Heir::of(&node, 2).await;
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    over.store(true, Ordering::Relaxed);
    let acknowledged = counting.await.expect("publishing");
    let last = acknowledged.last().expect("something").clone();
    while crowd.seen.iter().any(|seen| !seen.lock().expect("seen").data.contains(&last)) {
        assert!(begin.elapsed() < PATIENCE, "{}", node.words());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check(&crowd, &acknowledged);
    let present = get(&node.address(), &format!("{PATH}/subscriptions"), &reader(&["*"])).await;
    let present: serde_json::Value =
        serde_json::from_str(&present.expect("an answer")).expect("JSON");
    let active = present["subscriptions"].as_array().expect("a list").len();
    assert_eq!(active, streams(), "everybody is still known");
    println!("{transport}: {} events, {} streams, none dropped", acknowledged.len(), streams());
    second.signal(Signal::TERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_log_in_memory_no_stream_is_dropped() {
    no_stream_is_dropped("memory://").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_log_in_a_file_no_stream_is_dropped() {
    let folder = TempDir::new().expect("folder");
    no_stream_is_dropped(&format!("sqlite://{}/log.db", folder.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_engine_no_stream_is_dropped() {
    let Some(engine) = Engine::start("redis") else { return };
    no_stream_is_dropped(&engine.url("upgrade")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_before_or_halfway_changes_nothing() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("hub.toml");
    std::fs::write(&file, "").expect("write");
    let config = format!("--config={}", file.display());
    let node = Node::start("memory://", &[&config, "--max-connection-age=0s"]);
    let crowd = Crowd::gather(&node.address(), 50);
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=1").await.expect("an answer"));
    crowd.have(1).await;
    // It does not understand its configuration.
    std::fs::write(&file, "nonsense = 1").expect("write");
    node.process.signal("USR2");
    node.says("did not start").await;
    assert!(publish(&mut wire, &publisher(), "topic=t&data=2").await.expect("an answer"));
    // It cannot open what it is to serve, which it learns after it was given everything.
    std::fs::write(&file, "redirect_listen = [\"192.0.2.1:1\"]\nacme_domains = [\"hub.example\"]\nacme_cache = \"/nowhere/at/all\"")
        .expect("write");
    // Nor does this one open it, which has heard of it.
    node.process.signal("HUP");
    node.says("take effect after a restart only").await;
    node.process.signal("USR2");
    node.says("the new program failed").await;
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=3").await.expect("an answer"));
    crowd.have(3).await;
    check(&crowd, &["1".to_owned(), "2".to_owned(), "3".to_owned()]);
    let opened = Stream::open(&node.address(), "topic=t", &reader(&["*"]), "earliest").await;
    let mut stream = opened.expect("connect").expect("no gap");
    assert_eq!(stream.next().await.expect("an event").data, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_of_all_may_come_meanwhile() {
    let node = Node::start("memory://", &["--history-size=1", "--max-connection-age=0s"]);
    let opened = Stream::open(&node.address(), "topic=t", &reader(&["*"]), "earliest").await;
    let mut stream = opened.expect("connect").expect("no gap");
    node.process.signal("USR2");
    node.says("take this one's place").await;
    // Who comes at the moment of the change may have to come again.
    let accepted = async || {
        let mut wire = Wire::connect(&node.address()).await?;
        publish(&mut wire, &publisher(), "topic=t&data=1").await
    };
    let begin = Instant::now();
    while !accepted().await.unwrap_or(false) {
        assert!(begin.elapsed() < PATIENCE, "{}", node.words());
    }
    assert_eq!(stream.next().await.expect("an event").data, "1");
    let _heir = Heir::of(&node, 1).await;
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=2").await.expect("an answer"));
    assert_eq!(stream.next().await.expect("the same stream").data, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_dropped_everything_is_the_same_log() {
    let settings = ["--history-age=1s", "--max-connection-age=0s"];
    let node = Node::start("memory://", &settings);
    let opened = Stream::open(&node.address(), "topic=t", &reader(&["*"]), "earliest").await;
    let mut stream = opened.expect("connect").expect("no gap");
    // An id that is given twice has two places.
    for form in ["topic=t&id=same&data=1", "topic=t&id=same&data=2"] {
        let mut wire = Wire::connect(&node.address()).await.expect("connect");
        assert!(publish(&mut wire, &publisher(), form).await.expect("an answer"));
        stream.next().await.expect("an event");
    }
    node.process.signal("USR2");
    let heir = Heir::of(&node, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    heir.signal(Signal::USR2);
    let _last = Heir::of(&node, 2).await;
    assert!(!node.words().contains("the log is another one"), "{}", node.words());
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=3").await.expect("an answer"));
    assert_eq!(stream.next().await.expect("the same stream").data, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_goes_along_and_its_file_with_it() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("hub.sock");
    let port = mercure_transports::testing::free_port();
    let listen = format!("--listen=unix:{}", path.display());
    let tcp = format!("--listen=127.0.0.1:{port}");
    let mut node = Node::start_at(&[], "memory://", &[&listen, &tcp], port);
    node.process.signal("USR2");
    let heir = Heir::of(&node, 1).await;
    assert!(node.process.ends_within(PATIENCE), "{}", node.words());
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
    heir.signal(Signal::TERM);
    let begin = Instant::now();
    while path.exists() {
        assert!(begin.elapsed() < PATIENCE, "the file stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a process ends within the patience of the test.
async fn ends(process: Pid) -> bool {
    let begin = Instant::now();
    while test_kill_process(process).is_ok() {
        if begin.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_comes_during_an_upgrade_reaches_whoever_serves_then() {
    let mut node = Node::start("memory://", &[]);
    node.process.signal("USR2");
    node.says("take this one's place").await;
    node.process.signal("TERM");
    assert!(node.process.ends_within(PATIENCE), "{}", node.words());
    if node.words().contains(" process=") {
        let heir = Heir::of(&node, 1).await;
        assert!(ends(heir.0).await, "{}", node.words());
    }
    assert!(tokio::net::TcpStream::connect(node.address()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_get_ready_holds_up_no_stop() {
    no_stop_is_held_up("TERM").await;
    no_stop_is_held_up("INT").await;
}

async fn no_stop_is_held_up(signal: &str) {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("hub").display().to_string();
    let copy = format!("cp \"$1\" {path} && shift && exec {path} \"$@\"");
    let mut node = Node::start_under(&["sh", "-c", &copy, "sh"], "memory://", &[]);
    let other = folder.path().join("other");
    std::fs::write(&other, "#!/bin/sh\nexec sleep 60\n").expect("written");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).expect("mode");
    std::fs::rename(&other, &path).expect("in its place");
    node.process.signal("USR2");
    node.says("take this one's place").await;
    node.process.signal(signal);
    assert!(node.process.ends_within(PATIENCE), "{}", node.words());
    let words = node.words();
    assert!(words.contains("stopping:") && !words.contains("goes on"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_without_proc_is_enough_for_a_hub_and_for_its_successor() {
    let alone = ["unshare", "--mount", "sh", "-c", "umount -l /proc && exec \"$@\"", "sh"];
    let probe = std::process::Command::new(alone[0]).args(&alone[1..]).arg("true").status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("no mount namespaces for this user: a root without /proc is not tested");
        return;
    }
    let mut node = Node::start_under(&alone, "memory://", &[]);
    node.process.signal("USR2");
    let heir = Heir::of(&node, 1).await;
    assert!(node.process.ends_within(PATIENCE), "{}", node.words());
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=x").await.expect("an answer"));
    heir.signal(Signal::TERM);
    assert!(ends(heir.0).await, "{}", node.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_process_of_a_container_stays() {
    let alone = ["unshare", "--pid", "--fork", "--kill-child"];
    let probe = std::process::Command::new(alone[0]).args(&alone[1..]).arg("true").status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("no process namespaces for this user: the first process of one is not tested");
        return;
    }
    let node = Node::start_under(&alone, "memory://", &[]);
    let parent = node.process.id();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let first = children.expect("a list").trim().parse().ok().and_then(Pid::from_raw);
    kill_process(first.expect("the hub"), Signal::USR2).expect("it lives");
    node.says("start a new container").await;
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=x").await.expect("an answer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_no_more_streams_than_before() {
    let settings = ["--trusted-proxies=127.0.0.1", "--max-connections-per-address=2"];
    let node = Node::start("memory://", &settings);
    let subscribe = async || {
        let mut wire = Wire::connect(&node.address()).await.expect("connect");
        let from = "X-Forwarded-For: 192.0.2.1";
        let request = format!("GET {PATH}?topic=t HTTP/1.1\r\nHost: x\r\n{from}\r\n\r\n");
        wire.write(&request).await.expect("write");
        let head = wire.until("\r\n\r\n").await.expect("a head");
        (wire, head.contains(" 200 "))
    };
    let (held, third) = ([subscribe().await, subscribe().await], subscribe().await.1);
    assert!(held.iter().all(|(_, is_open)| *is_open) && !third);
    node.process.signal("USR2");
    let _heir = Heir::of(&node, 1).await;
    assert!(!subscribe().await.1, "it has two");
    drop(held);
    let begin = Instant::now();
    while !subscribe().await.1 {
        assert!(begin.elapsed() < PATIENCE, "a place was not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
