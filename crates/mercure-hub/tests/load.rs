//! The load generator on real hubs: what it counts is true, and what is lost is an error.

mod drill;
mod support;

use std::process::{Command, Output};

use drill::nginx::nginx;
use drill::node::{Node, without_settings};
use drill::publisher;
use mercure_transports::testing::is_missing;
use serde_json::Value;
use support::PATH;
use tempfile::TempDir;

fn load(url: &str, token: &str, more: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    without_settings(&mut command);
    let output = command.args(["load", url, "--jwt", token]).args(more).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

#[test]
fn every_event_is_counted_and_the_report_says_so() {
    let (hub, folder) = (Node::start("memory://", &[]), TempDir::new().expect("folder"));
    let (json, html) = (folder.path().join("load.json"), folder.path().join("load.html"));
    let url = format!("http://{}{PATH}", hub.address());
    let (output, said) = load(
        &url,
        &publisher(),
        &[
            "--subscribers=200",
            "--rate=100",
            "--duration=3s",
            &format!("--json={}", json.display()),
            &format!("--html={}", html.display()),
            &format!("--pid={}", hub.process.id()),
        ],
    );
    assert!(output.status.success(), "{said}");
    assert!(said.contains("60000 of 60000 deliveries"), "{said}");
    assert!(said.contains("lost 0, repeated or out of order 0, streams ended 0"), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("read")).expect("JSON");
    assert_eq!(report["delivered"], 60_000);
    assert_eq!(report["published"], 300);
    let seconds = report["seconds"].as_array().expect("a list");
    let delivered: u64 = seconds.iter().filter_map(|second| second["delivered"].as_u64()).sum();
    assert_eq!(delivered, 60_000);
    assert!(report["latency_ms"]["p99"].as_f64().is_some_and(|time| time > 0.0), "{report}");
    assert!(report["hub_cpu_us_per_delivery"].as_f64().is_some_and(|cpu| cpu > 0.0), "{report}");
    let page = std::fs::read_to_string(html).expect("read");
    assert!(page.contains("<polyline") && page.contains("Memory of the hub"), "{page}");
    for text in [&page, &said] {
        assert!(!text.contains(&publisher()), "no token in what is written down");
    }
}

#[test]
fn what_does_not_arrive_is_an_error() {
    let hub = Node::start("memory://", &["--max-connection-age=1s"]);
    let url = format!("http://{}{PATH}", hub.address());
    let (output, said) =
        load(&url, &publisher(), &["--subscribers=20", "--rate=20", "--duration=3s"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("streams ended 20"), "{said}");
    assert!(said.contains("deliveries were lost"), "{said}");
    let (output, said) = load(&url, "nonsense", &["--subscribers=1", "--duration=1s"]);
    assert!(!output.status.success() && said.contains("a publication was refused"), "{said}");
    let (output, said) = load("http://127.0.0.1:1/hub", "x", &["--subscribers=1"]);
    assert!(!output.status.success() && said.contains("could not connect"), "{said}");
    let (output, said) = load(&url, "x", &["--subscribers=900000"]);
    assert!(output.status.code() == Some(2) && said.contains("ulimit -n"), "{said}");
    let (output, said) = load(&url, "x", &["--pid=4194305"]);
    assert!(output.status.code() == Some(2) && said.contains("no process 4194305"), "{said}");
}

#[test]
fn streams_that_a_proxy_cuts_into_chunks_are_read() {
    if is_missing("nginx") {
        return;
    }
    let (hub, folder) = (Node::start("memory://", &[]), TempDir::new().expect("folder"));
    let (_nginx, port) = nginx(folder.path(), &hub, "");
    let url = format!("http://127.0.0.1:{port}{PATH}");
    let (output, said) = load(
        &url,
        &publisher(),
        &["--subscribers=20", "--rate=50", "--duration=2s", "--size=5000"],
    );
    assert!(output.status.success() && said.contains("2000 of 2000 deliveries"), "{said}");
}
