//! What one client may take, and what becomes of the others meanwhile. `MERCURE_DRILL=long` for a run
//! of abuse at full size.
#![allow(clippy::print_stdout, reason = "a drill tells what it has measured")]

mod drill;
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drill::client::{Wire, field, publish};
use drill::node::Node;
use drill::{is_long, publisher};
use mercure_transports::testing::{free_port, is_missing};
use serde_json::json;
use support::{PATH, PUBLISHER_KEY, v0};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Sends a request; the head of its answer, and the connection.
async fn ask(address: &str, request: &str) -> (String, Wire) {
    let mut wire = Wire::connect(address).await.expect("connect");
    wire.write(request).await.expect("write");
    let head = wire.until("\r\n\r\n").await.expect("a head");
    (head, wire)
}

fn subscription(from: &str) -> String {
    format!("GET {PATH}?topic=t HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {from}\r\n\r\n")
}

fn publication(from: &str, token: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {from}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 14\r\n\r\ntopic=t&data=x"
    )
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_streams_and_others_are_not_touched() {
    let settings = ["--trusted-proxies=127.0.0.0/8", "--max-connections-per-address=3"];
    let hub = Node::start("memory://", &settings);
    let address = hub.address();
    let mut held = Vec::new();
    for _ in 0..3 {
        let (head, wire) = ask(&address, &subscription("192.0.2.1")).await;
        assert_eq!(status(&head), "200");
        held.push(wire);
    }
    let (head, _) = ask(&address, &subscription("10.9.9.9, 192.0.2.1")).await;
    assert_eq!(status(&head), "429", "what a client claims before the proxy's word is nothing");
    assert!(field(&head, "retry-after").is_some(), "{head}");
    // By way of the library as well.
    let head = ask(&address, &subscription("192.0.2.1").replace("GET /", "HEAD /")).await.0;
    assert_eq!(status(&head), "405");
    assert_eq!(status(&ask(&address, &subscription("192.0.2.2")).await.0), "200");
    // Without the proxy's word it is the proxy itself, which is not counted.
    assert_eq!(status(&ask(&address, &subscription("")).await.0), "200");
    held.pop();
    let begin = Instant::now();
    while status(&ask(&address, &subscription("192.0.2.1")).await.0) != "200" {
        assert!(begin.elapsed() < Duration::from_secs(20), "a place was not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_that_are_too_fast_are_told_when_to_come_back() {
    let settings = ["--trusted-proxies=127.0.0.1", "--publish-rate-per-address=5"];
    let hub = Node::start("memory://", &settings);
    let refused = async |from: &str| {
        let (mut wire, mut refused) = (Wire::connect(&hub.address()).await.expect("connect"), None);
        for _ in 0..20 {
            wire.write(&publication(from, &publisher())).await.expect("write");
            let head = wire.until("\r\n\r\n").await.expect("a head");
            wire.body(&head).await.expect("a body");
            if status(&head) == "429" {
                refused = Some(head);
            }
        }
        refused
    };
    let head = refused("192.0.2.1").await.expect("twenty at once are too many");
    assert!(field(&head, "retry-after").is_some_and(|after| after.parse::<u8>().is_ok()), "{head}");
    assert_eq!(
        status(&ask(&hub.address(), &publication("192.0.2.2", &publisher())).await.0),
        "200"
    );

    let hub = Node::start("memory://", &["--publish-rate-per-subject=1"]);
    let of = |subject: &str| {
        let claims = json!({"sub": subject, "mercure": {"publish": ["*"]}});
        support::sign(PUBLISHER_KEY, "JWT", &claims)
    };
    let publish = async |subject: &str| {
        let (head, _) = ask(&hub.address(), &publication("", &of(subject))).await;
        status(&head).to_owned()
    };
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(publish("one").await);
    }
    assert!(statuses[0] == "200" && statuses.contains(&"429".to_owned()), "{statuses:?}");
    assert_eq!(publish("another").await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_have_a_bound_and_streams_are_not_among_them() {
    let hub = Node::start("memory://", &["--max-http-connections=3"]);
    let address = hub.address();
    let mut streams = Vec::new();
    for _ in 0..10 {
        let (head, wire) = ask(&address, &subscription("")).await;
        assert_eq!(status(&head), "200");
        streams.push(wire);
    }
    let mut silent = Vec::new();
    let refused = loop {
        // A stream's place is free a little later than it is answered, so the first may be refused.
        assert!(silent.len() < 10, "everybody is let in");
        let mut wire = Wire::connect(&address).await.expect("connect");
        let head = wire.until("\r\n\r\n");
        if let Ok(head) = tokio::time::timeout(Duration::from_millis(500), head).await {
            break head.expect("a head");
        }
        silent.push(wire);
    };
    assert_eq!(status(&refused), "429");
    drop(silent);
    let begin = Instant::now();
    let mut wire = loop {
        let (head, mut wire) = ask(&address, &publication("", &publisher())).await;
        wire.body(&head).await.expect("a body");
        if status(&head) == "200" {
            break wire;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "places are not given back");
    };
    assert!(publish(&mut wire, &publisher(), "topic=t&data=z").await.expect("an answer"));
    for stream in &mut streams {
        while !stream.until("\n").await.expect("it goes on").contains("data: z") {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_said_to_be_too_long_is_not_waited_for() {
    let hub = Node::start("memory://", &[]);
    let address = hub.address();
    for extra in ["", "Expect: 100-continue\r\n"] {
        let length = format!("{extra}Content-Length: 99999999");
        let request = publication("", &publisher()).replace("Content-Length: 14", &length);
        let head = tokio::time::timeout(Duration::from_secs(20), ask(&address, &request));
        assert_eq!(status(&head.await.expect("at once").0), "413");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_and_the_log_have_descriptors_left() {
    let ops = free_port();
    let few = ["sh", "-c", "ulimit -n 128 && exec \"$@\"", "sh"];
    let hub = Node::start_under(&few, "memory://", &[&format!("--ops-listen=127.0.0.1:{ops}")]);
    assert!(hub.words().contains("may open 128 files"), "{}", hub.words());
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..128 {
        match ask(&hub.address(), &subscription("")).await {
            (head, wire) if status(&head) == "200" => streams.push(wire),
            (head, _) => {
                assert_eq!(status(&head), "429");
                refused += 1;
            }
        }
    }
    assert!(streams.len() > 50 && refused > 10, "{} and {refused}", streams.len());
    let text = figures(ops).await;
    assert_eq!(figure(&text, "mercure_refused_total{reason=\"connections\"}"), refused);
    assert_eq!(figure(&text, "process_max_fds"), 128);
    assert!(figure(&text, "process_open_fds") < 128);
    drop(streams);
    let begin = Instant::now();
    while status(&ask(&hub.address(), &subscription("")).await.0) != "200" {
        assert!(begin.elapsed() < Duration::from_secs(20), "places are not given back");
    }
}

/// What `/metrics` says, which Prometheus' own tool must find right.
async fn figures(ops: u16) -> String {
    let (head, mut wire) =
        ask(&format!("127.0.0.1:{ops}"), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let text = wire.body(&head).await.expect("a body");
    if !is_missing("promtool") {
        let mut tool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("promtool runs");
        tool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("write");
        let output = tool.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    text
}

fn figure(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// How long events take to a healthy subscriber, in microseconds, in order of size.
async fn latencies(address: &str, events: usize) -> Vec<u128> {
    let (_, mut stream) = ask(address, &subscription("")).await;
    let mut wire = Wire::connect(address).await.expect("connect");
    let mut taken = Vec::new();
    for number in 0..events {
        let begin = Instant::now();
        let form = format!("topic=t&data=event-{number}");
        assert!(publish(&mut wire, &publisher(), &form).await.expect("an answer"));
        while stream.until("\n").await.expect("it goes on") != format!("data: event-{number}") {}
        taken.push(begin.elapsed().as_micros());
        // Slower than a publisher may be.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    taken.sort_unstable();
    taken
}

fn p99(sorted: &[u128]) -> u128 {
    sorted[sorted.len() * 99 / 100]
}

/// Machines of others: what they do takes no time from those that are measured.
struct Elsewhere {
    runtime: Option<Runtime>,
    /// Connections that were made there, but for those that say nothing.
    attempts: Arc<AtomicUsize>,
}

impl Elsewhere {
    fn new() -> Self {
        // One of the lowest priority but this would keep the core until the end of its time slice.
        let idle = || {
            let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
            let status = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
            assert!(status.is_ok_and(|status| status.success()), "chrt of util-linux");
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().on_thread_start(idle).build();
        Self { runtime: Some(runtime.expect("a runtime")), attempts: Arc::default() }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.as_ref().expect("until the end").spawn(task));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// For what abusers are refused.
const REFUSED: [&str; 5] =
    ["connections_per_address", "publish_rate", "unauthorized", "too_large", "too_many"];

fn refused(text: &str, reason: &str) -> u64 {
    figure(text, &format!("mercure_refused_total{{reason=\"{reason}\"}}"))
}

/// Keeps everything busy that somebody without a token can keep busy.
fn abuse(address: &str, times: usize) -> Elsewhere {
    let abuse = Elsewhere::new();
    for number in 0..times {
        let address = address.to_owned();
        let later = Duration::from_secs(1) * u32::try_from(number).expect("few") / 2000;
        abuse.spawn(async move {
            // So many clients have no common beat.
            tokio::time::sleep(later).await;
            // A head that never ends, byte by byte.
            let Ok(mut slow) = Wire::connect(&address).await else { return };
            while slow.write("G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    // Every second one opens streams for an address that has its number.
    for number in 0..32 {
        let (address, attempts) = (address.to_owned(), Arc::clone(&abuse.attempts));
        abuse.spawn(async move {
            let forged = v0("another-key", &json!({"publish": ["*"]}));
            let large_url = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
            let length = "Content-Length: 99999999";
            let large_body =
                publication("192.0.2.10", &publisher()).replace("Content-Length: 14", length);
            let many = format!("?{}topic=t", "topic=t&".repeat(5000));
            let many_topics = subscription("192.0.2.11").replace("?topic=t", &many);
            loop {
                let request = match (number % 2) * (1 + number / 2 % 5) {
                    0 => subscription("192.0.2.7"),
                    // A flood, without waiting for answers.
                    1 => publication("192.0.2.8", &publisher()).repeat(10),
                    2 => publication("192.0.2.9", &forged),
                    3 => large_body.clone(),
                    4 => many_topics.clone(),
                    _ => large_url.clone(),
                };
                if let Ok(mut wire) = Wire::connect(&address).await {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    let _ = wire.write(&request).await;
                    let _ = wire.until("\r\n\r\n").await;
                    // Kept for a moment, so that several are there at once, without a common beat.
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(20..=60))).await;
                }
            }
        });
    }
    abuse
}

#[tokio::test(flavor = "multi_thread")]
async fn who_abuses_the_hub_harms_nobody_and_figures_say_what_was_refused() {
    let ops = free_port();
    let ops_listen = format!("--ops-listen=127.0.0.1:{ops}");
    let settings = [
        "--trusted-proxies=127.0.0.1",
        "--max-connections-per-address=2",
        "--publish-rate-per-address=120",
        &ops_listen,
    ];
    let hub = Node::start("memory://", &settings);
    let address = hub.address();
    // In turns, since the machine is not as fast at all times.
    let (slow, rounds) = if is_long() { (2000, 5) } else { (200, 1) };
    let (mut quiet, mut busy, mut attempts) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        // The healthy ones have addresses of their own.
        quiet.push(p99(&latencies(&address, 400).await));
        let abuse = abuse(&address, slow);
        tokio::time::sleep(Duration::from_secs(2)).await;
        busy.push(p99(&latencies(&address, 400).await));
        // Where others have much to do, abusers come late to what is refused.
        let begin = Instant::now();
        loop {
            let text = figures(ops).await;
            if REFUSED.iter().all(|reason| refused(&text, reason) > 0) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{text}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        attempts += abuse.attempts.load(Ordering::Relaxed);
        drop(abuse);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{attempts} attempts; p99 in us: {quiet:?}, with abuse {busy:?}");
    let median = |mut values: Vec<u128>| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (quiet, busy) = (median(quiet), median(busy));
    println!("medians of p99: {quiet} and {busy} us, {:.2} times", busy as f64 / quiet as f64);
    let text = figures(ops).await;
    for reason in REFUSED {
        println!("{} refused: {reason}", refused(&text, reason));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.process.id()));
    let memory = status.expect("it lives");
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    println!("{peak} KiB of memory at most");
    // A head may take 64 KiB, and 2,020 connections are in use at once.
    assert!(peak < 64 * 2020, "{peak} KiB");
    assert!(!hub.words().contains("panicked"), "{}", hub.words());
    assert!(TcpStream::connect(&address).await.is_ok());
}
