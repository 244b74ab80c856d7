//! What an operator does to a running hub: stop it behind a balancer, reload it, and run it under a
//! service manager. `MERCURE_DRILL=long` for 5,000 streams.
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drill::client::{Stream, Wire, publish};
use drill::crowd::{Crowd, count};
use drill::engine::Engine;
use drill::node::{Node, PATIENCE};
use drill::{is_long, publisher, reader};
use mercure_transports::testing::{Process, free_port, is_missing};
use serde_json::json;
use support::v0;
use tempfile::TempDir;
use tokio::time::Instant;

fn streams() -> usize {
    if is_long() { 5000 } else { 300 }
}

/// HAProxy in front of hubs, which looks at `/ready`.
fn balancer(folder: &TempDir, hubs: &[(&Node, u16)]) -> (Process, u16) {
    let port = free_port();
    let servers: String = hubs
        .iter()
        .map(|(hub, ops)| {
            format!(
                "  server s{0} 127.0.0.1:{0} check port {ops} inter 200ms fall 1 rise 1\n",
                hub.port
            )
        })
        .collect();
    let text = format!(
        "global\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 1s\n  timeout check 5s\n  timeout client 1h\n  \
         timeout server 1h\n  retries 3\n  option redispatch\nlisten hubs\n  bind 127.0.0.1:{port}\n  \
         balance roundrobin\n  option httpchk GET /ready\n{servers}"
    );
    let path = folder.path().join("haproxy.cfg");
    std::fs::write(&path, text).expect("write");
    let mut command = Command::new("haproxy");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-f").arg(&path);
    let mut process =
        Process::start(&mut command, &folder.path().join("haproxy.log"), "TERM").expect("haproxy");
    process.wait_for(port);
    (process, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_stopped_sends_its_streams_to_the_other_one_by_one() {
    let Some(engine) = Engine::start("redis") else { return };
    if is_missing("haproxy") {
        return;
    }
    let (window, url) = (Duration::from_secs(if is_long() { 20 } else { 5 }), engine.url("drain"));
    let ops = [free_port(), free_port()];
    let drain = format!("--drain={}s", window.as_secs());
    let node = |ops: u16| {
        let ops = format!("--ops-listen=127.0.0.1:{ops}");
        Node::start(&url, &[&drain, "--drain-delay=1s", &ops, "--max-connection-age=0s"])
    };
    let (mut first, second) = (node(ops[0]), node(ops[1]));
    let folder = TempDir::new().expect("folder");
    let (_balancer, port) = balancer(&folder, &[(&first, ops[0]), (&second, ops[1])]);
    let mut crowd = Crowd::gather(&format!("127.0.0.1:{port}"), streams());
    let over = Arc::new(AtomicBool::new(false));
    let pace = Duration::from_millis(if is_long() { 250 } else { 50 });
    let counting = tokio::spawn(count(second.address(), pace, Arc::clone(&over)));
    crowd.have(5).await;

    let begin = Instant::now();
    first.process.signal("TERM");
    let stopped = tokio::task::spawn_blocking(move || {
        assert!(first.process.ends_within(window + PATIENCE), "{}", first.words());
        first.words()
    });
    let words = stopped.await.expect("waiting");
    over.store(true, Ordering::Relaxed);
    let events = counting.await.expect("publishing");
    crowd.have(events.len()).await;
    let returned = crowd.check(&events);
    // One that was slow to become ready may have had its clients sent away before.
    let mut moments: Vec<_> =
        returned.iter().filter_map(|at| at.checked_duration_since(begin)).collect();
    moments.sort();
    assert!(moments.len() >= streams() / 3, "{} came back\n{words}", moments.len());
    assert!(!words.contains("cut"), "{words}");
    // Spread evenly, a tenth of the window sees a tenth of them.
    let slice = window / 10;
    let crowded = moments.iter().map(|from| {
        moments.iter().filter(|at| *at >= from && at.saturating_sub(*from) < slice).count()
    });
    let most = crowded.max().unwrap_or_default() as f64 / moments.len() as f64;
    println!(
        "{} streams came back; a tenth of the window saw {most:.2} of them at most",
        moments.len()
    );
    assert!(most < 0.35, "{moments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_drops_no_stream_and_a_broken_file_changes_nothing() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("hub.toml");
    let write = |text: &str| {
        let beside = file.with_extension("new");
        std::fs::write(&beside, text).expect("write");
        std::fs::rename(&beside, &file).expect("rename");
    };
    write("cors_origins = [\"https://one.example\"]\n");
    let config = file.display().to_string();
    let hub = Node::start("memory://", &["--config", &config]);
    let mut crowd = Crowd::gather(&hub.address(), streams());
    let over = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(count(hub.address(), Duration::from_millis(20), Arc::clone(&over)));
    crowd.have(3).await;

    write("cors_origins = [\"https://two.example\"]\nlog_level = \"debug\"\nmax_connections = 7\n");
    hub.process.signal("HUP");
    allows(&hub, "https://two.example").await;
    hub.says("take effect after a restart only: max_connections").await;
    // Something of little interest happens: a stream ends.
    let token = reader(&["*"]);
    drop(Stream::open(&hub.address(), "topic=t", &token, "earliest").await.expect("a stream"));
    hub.says("DEBUG").await;

    for (broken, word) in [
        ("cors_origins = [\"nonsense\"]\n", "needs an origin"),
        ("cors = [\"https://three.example\"]\n", "did you mean cors_origins"),
        ("cors_origins = [", "not valid TOML"),
    ] {
        write(broken);
        hub.process.signal("HUP");
        hub.says(word).await;
        assert!(hub.words().contains("the old configuration is kept"));
        allows(&hub, "https://two.example").await;
    }
    // What waited for a restart does so still, and going back to it is no change.
    write("cors_origins = [\"https://four.example\"]\n");
    hub.process.signal("HUP");
    allows(&hub, "https://four.example").await;
    hub.says("the configuration was reloaded\n").await;

    over.store(true, Ordering::Relaxed);
    let events = counting.await.expect("publishing");
    crowd.have(events.len()).await;
    assert!(crowd.check(&events).is_empty(), "no stream has ended");
}

/// Waits until pages of an origin may use the hub.
async fn allows(hub: &Node, origin: &str) {
    let begin = Instant::now();
    loop {
        let mut wire = Wire::connect(&hub.address()).await.expect("connect");
        let path = support::PATH;
        let request = format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n");
        wire.write(&request).await.expect("write");
        let head = wire.until("\r\n\r\n").await.expect("a head").to_ascii_lowercase();
        if head.contains(&format!("access-control-allow-origin: {origin}")) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{origin} is not allowed:\n{}", hub.words());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_by_a_reload() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("key");
    std::fs::write(&file, "the-old-key").expect("write");
    let key = format!("--publisher-jwt-key=file://{}", file.display());
    let hub = Node::start("memory://", &[&key]);
    let token = |key| v0(key, &json!({"publish": ["*"]}));
    let accepts = async |key| {
        let mut wire = Wire::connect(&hub.address()).await.expect("connect");
        let form = "topic=t&data=x";
        let path = support::PATH;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
            token(key),
            form.len()
        );
        wire.write(&request).await.expect("write");
        wire.until("\r\n\r\n").await.expect("a head").contains(" 200 ")
    };
    assert!(accepts("the-old-key").await && !accepts("the-new-key").await);
    std::fs::write(&file, "the-new-key").expect("write");
    assert!(accepts("the-old-key").await, "nothing changes unasked");
    hub.process.signal("HUP");
    hub.says("the configuration was reloaded").await;
    assert!(accepts("the-new-key").await && !accepts("the-old-key").await);
    assert!(!hub.words().contains("the-new-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_a_hurry_asks_twice() {
    let mut hub = Node::start("memory://", &["--drain=10m"]);
    let mut crowd = Crowd::gather(&hub.address(), 20);
    let over = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(count(hub.address(), Duration::from_millis(20), Arc::clone(&over)));
    crowd.have(1).await;
    over.store(true, Ordering::Relaxed);
    counting.await.expect("publishing");
    hub.process.signal("TERM");
    hub.says("streams end one by one within").await;
    hub.process.signal("TERM");
    let waited = tokio::task::spawn_blocking(move || hub.process.ends_within(PATIENCE));
    assert!(waited.await.expect("waiting"), "it ends at once");
    crowd.tasks.abort_all();
}

/// The head of a publication with 14 bytes, with which the hub has begun.
async fn begin_publishing(wire: &mut Wire) {
    let (path, token) = (support::PATH, publisher());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 14\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    wire.write(&head).await.expect("write");
    assert!(wire.until("\r\n\r\n").await.expect("a head").contains(" 100 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_broken_off_for_who_asks_once_more() {
    // At a terminal streams are not waited for in the first place.
    for signals in [&["TERM", "TERM"][..], &["INT"]] {
        let mut hub = Node::start("memory://", &["--drain=10m"]);
        let mut crowd = Crowd::gather(&hub.address(), 2);
        let mut publisher_wire = Wire::connect(&hub.address()).await.expect("connect");
        while !publish(&mut publisher_wire, &publisher(), "topic=t&data=0")
            .await
            .expect("an answer")
        {}
        crowd.have(1).await;
        let mut wire = Wire::connect(&hub.address()).await.expect("connect");
        begin_publishing(&mut wire).await;
        for signal in signals {
            hub.process.signal(signal);
            hub.says("stopping:").await;
        }
        hub.says("requests under way are finished").await;
        let is_drained = hub.words().contains("streams end one by one");
        assert_eq!(is_drained, signals.len() == 2, "{}", hub.words());
        assert!(!hub.words().contains("broken off"), "{}", hub.words());
        hub.process.signal("INT");
        hub.says("requests under way are broken off").await;
        assert!(hub.process.ends_within(PATIENCE), "{}", hub.words());
        crowd.tasks.abort_all();
    }
}

#[test]
fn a_service_manager_is_told() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("bind");
    manager.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let told = || {
        let mut text = [0; 1024];
        let count = manager.recv(&mut text).expect("it is told");
        String::from_utf8_lossy(&text[..count]).into_owned()
    };
    let socket = format!("NOTIFY_SOCKET={}", path.display());
    let mut hub = Node::start_under(&["env", &socket], "memory://", &[]);
    assert_eq!(told(), "READY=1\n");
    hub.process.signal("HUP");
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1\n");
    hub.process.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert!(hub.process.ends_within(PATIENCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_waits_for_its_log_can_be_stopped() {
    let away = format!("redis://127.0.0.1:{}", free_port());
    let mut hub = Node::start(&away, &[]);
    hub.says("waiting for Redis").await;
    hub.process.signal("TERM");
    hub.says("stopped before the log was there").await;
    assert!(hub.process.ends_within(PATIENCE), "{}", hub.words());
}

#[test]
fn signals_are_heard_that_who_starts_the_hub_has_blocked() {
    let block = "import os, signal, sys\n\
                 signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n\
                 os.execv(sys.argv[1], sys.argv[1:])";
    let mut hub = Node::start_under(&["python3", "-c", block], "memory://", &[]);
    hub.process.signal("TERM");
    assert!(hub.process.ends_within(PATIENCE), "{}", hub.words());
}

/// Binds sockets and becomes the hub, as systemd does (sd_listen_fds(3)).
const ACTIVATE: &str = "
import os, socket, sys
sockets = []
for at, place in enumerate(sys.argv[1].split(',')):
    family = socket.AF_UNIX if place.startswith('/') else socket.AF_INET
    listener = socket.socket(family)
    listener.bind(place if place.startswith('/') else ('127.0.0.1', int(place)))
    listener.listen()
    os.dup2(listener.fileno(), 3 + at)
    os.set_inheritable(3 + at, True)
    sockets.append(listener)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
os.execv(sys.argv[2], sys.argv[2:])
";

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_a_service_manager_are_taken() {
    let folder = TempDir::new().expect("folder");
    let (port, path) = (free_port(), folder.path().join("hub.sock").display().to_string());
    let places = format!("{port},{path}");
    let prefix = ["python3", "-c", ACTIVATE, &places];
    let hub = Node::start_at(&prefix, "memory://", &["--listen=systemd"], port);
    let mut wire = Wire::connect(&format!("127.0.0.1:{port}")).await.expect("connect");
    assert!(publish(&mut wire, &publisher(), "topic=t&data=x").await.expect("an answer"));
    let mut unix = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    std::io::Write::write_all(&mut unix, b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut unix, &mut text).expect("read");
    assert!(text.contains("This is a Mercure hub."));
    drop(hub);
    assert!(std::path::Path::new(&path).exists(), "the file is the manager's");

    let output = Command::new(env!("CARGO_BIN_EXE_mercure-hub"))
        .args(["--listen=systemd", "--publisher-jwt-key=k", "--ops-listen=none"])
        .env_clear()
        .output()
        .expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is there a .socket unit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_begun_is_answered_by_a_hub_that_stops() {
    let mut hub = Node::start("memory://", &[]);
    let mut wire = Wire::connect(&hub.address()).await.expect("connect");
    let silent = Wire::connect(&hub.address()).await.expect("connect");
    begin_publishing(&mut wire).await;
    wire.write("topic=t").await.expect("write");
    hub.process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(500)).await;
    wire.write("&data=x").await.expect("it is still read");
    let head = wire.until("\r\n\r\n").await.expect("an answer");
    let status = head.split(' ').nth(1).unwrap_or_default();
    assert!(status == "200" || (status == "503" && head.contains("etry-")), "{head}");
    let begin = Instant::now();
    assert!(hub.process.ends_within(PATIENCE), "{}", hub.words());
    assert!(begin.elapsed() < Duration::from_secs(5), "who says nothing is not waited for");
    drop(silent);
}
