//! Peers that vanish without a word, as behind a cable that is cut or a firewall that drops: their network
//! namespace loses its link.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a drill tells what it does")]

mod drill;
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use drill::client::{Stream, Wire, get_figures, publish};
use drill::node::Node;
use drill::{publisher, reader};
use mercure_transports::testing::{free_port, is_missing};
use support::PATH;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(30);
/// Peers that vanish.
const PEERS: usize = 50;

/// A network of two: this machine, and a namespace that can be cut off.
struct Network {
    name: String,
    here: String,
    there: String,
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(words.split(' '))
        .output();
    let output = output.expect("ip runs");
    if !output.status.success() {
        eprintln!("ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

impl Network {
    /// `None`, loudly, where the kernel does not let this user make one: nothing that could be installed
    /// would help.
    fn new() -> Option<Self> {
        let number = std::process::id() % 10_000;
        let network = Self {
            name: format!("mercure-{number}"),
            here: format!("10.{}.{}.1", 200 + number / 250, number % 250),
            there: format!("10.{}.{}.2", 200 + number / 250, number % 250),
        };
        let Self { name, here, there } = &network;
        if !ip(&format!("netns add {name}")) {
            eprintln!("no network namespaces for this user: peers that vanish are not tested");
            return None;
        }
        let (ours, theirs) = (format!("mh{number}"), format!("mt{number}"));
        for words in [
            format!("link add {ours} type veth peer name {theirs} netns {name}"),
            format!("addr add {here}/30 dev {ours}"),
            format!("link set {ours} up"),
            format!("-n {name} addr add {there}/30 dev {theirs}"),
            format!("-n {name} link set {theirs} up"),
        ] {
            assert!(ip(&words));
        }
        Some(network)
    }

    /// Nothing gets through any more, and nobody is told.
    fn cut(&self) {
        let number = self.name.trim_start_matches("mercure-");
        assert!(ip(&format!("-n {} link set mt{number} down", self.name)));
    }

    /// Opens streams from the other side; they end with the result.
    fn subscribe(&self, port: u16) -> Guests {
        let script = "import socket, sys, time\n\
             held = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[4]))]\n\
             for one in held:\n    one.sendall(f'GET {sys.argv[3]}?topic=t HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())\n\
             time.sleep(600)\n";
        let child = Command::new("ip")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
            .args(["netns", "exec", &self.name, "python3", "-c", script, &self.here])
            .args([port.to_string(), PATH.to_owned(), PEERS.to_string()])
            .stdout(Stdio::null())
            .spawn();
        Guests(child.expect("python3 runs"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its end of the link goes along.
        ip(&format!("netns del {}", self.name));
    }
}

struct Guests(Child);

impl Drop for Guests {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn subscribers(ops: &str) -> usize {
    let figures = get_figures(ops).await.expect("figures");
    let line = figures.lines().find_map(|line| line.strip_prefix("mercure_subscribers "));
    line.and_then(|count| count.parse().ok()).expect("a figure")
}

async fn until(ops: &str, count: usize) -> Duration {
    let begin = Instant::now();
    while subscribers(ops).await != count {
        assert!(begin.elapsed() < PATIENCE, "{} subscribers, not {count}", subscribers(ops).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_vanish_are_found_out_and_hold_nobody_up() {
    if is_missing("ip") {
        return;
    }
    let Some(network) = Network::new() else { return };
    let (port, ops) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let (local, remote) =
        (format!("--listen=127.0.0.1:{port}"), format!("--listen={}:{port}", network.here));
    let settings = [&local, &remote, "--write-timeout=3s", &format!("--ops-listen={ops}")];
    let hub = Node::start_at(&[], "memory://", &settings, port);
    let guests = network.subscribe(port);
    until(&ops, PEERS).await;
    let opened = Stream::open(&hub.address(), "topic=t", &reader(&["*"]), "earliest").await;
    let mut healthy = opened.expect("connect").expect("no gap");
    network.cut();
    let (mut wire, mut longest) =
        (Wire::connect(&hub.address()).await.expect("connect"), Duration::ZERO);
    for number in 0..100 {
        let begin = Instant::now();
        let data = format!("{number}{}", "x".repeat(1000));
        assert!(
            publish(&mut wire, &publisher(), &format!("topic=t&data={data}"))
                .await
                .expect("answered")
        );
        assert_eq!(healthy.next().await.expect("an event").data, data);
        longest = longest.max(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = until(&ops, 1).await;
    println!(
        "{PEERS} were gone {took:?} after the last event; the longest of 100 events took {longest:?}"
    );
    drop(guests);
}
