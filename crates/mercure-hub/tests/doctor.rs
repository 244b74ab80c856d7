//! What `mercure-hub doctor` finds on the way to a hub, through a real proxy that is set up well or badly.

mod drill;
mod support;

use std::process::{Command, Output};

use drill::nginx::nginx;
use drill::node::{Node, without_settings};
use mercure_transports::testing::is_missing;
use serde_json::json;
use support::{PATH, PUBLISHER_KEY, v0};
use tempfile::TempDir;

fn doctor(url: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    without_settings(&mut command);
    command.arg("doctor").arg(url).args(more).output().expect("it runs")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A hub whose publishers and subscribers share a key, so that one token does both.
fn hub(more: &[&str]) -> (Node, String) {
    let key = format!("--subscriber-jwt-key={PUBLISHER_KEY}");
    let arguments: Vec<_> = [key.as_str()].into_iter().chain(more.iter().copied()).collect();
    let token = v0(PUBLISHER_KEY, &json!({"publish": ["*"], "subscribe": ["*"]}));
    (Node::start("memory://", &arguments), token)
}

#[test]
fn a_healthy_hub_is_found_healthy() {
    let (node, token) = hub(&["--cors-origins=https://app.example"]);
    let url = format!("http://{}{PATH}", node.address());
    let found = doctor(&url, &["--jwt", &token, "--idle=4s", "--origin=https://app.example"]);
    let said = words(&found);
    assert!(found.status.success(), "{said}");
    for fine in [
        "answered with an event stream",
        "not compressed",
        "the clocks agree",
        "CORS: pages of that origin may subscribe",
        "an event came back after",
        "missed is sent to it again",
        "counts as a cookie",
        "a heartbeat came after",
        "Everything is fine.",
    ] {
        assert!(said.contains(fine), "{fine}: {said}");
    }
    assert!(!said.contains(&token));
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let (node, token) = hub(&["--heartbeat=1h"]);
    let url = format!("http://{}{PATH}", node.address());
    let cases: [(&str, &[&str], &str); 6] = [
        (
            "http://127.0.0.1:1/.well-known/mercure",
            &[],
            "is the hub (or the proxy before it) running",
        ),
        ("ftp://127.0.0.1", &[], "the URL must be one"),
        (&format!("http://{}/elsewhere", node.address()), &[], "there is no hub at this path"),
        (&url, &["--jwt", "nonsense"], "it takes a token that the hub believes"),
        (&url, &["--origin=https://app.example", "--idle=0s"], "add it to cors_origins"),
        (&url, &["--idle=never"], "--idle: must be a duration"),
    ];
    for (url, more, remedy) in cases {
        let found = doctor(url, more);
        assert!(
            !found.status.success() && words(&found).contains(remedy),
            "{remedy}: {}",
            words(&found)
        );
    }
    let silent = words(&doctor(&url, &["--jwt", &token, "--idle=1s"]));
    assert!(silent.contains("no heartbeat came within 1 s"), "{silent}");
}

#[test]
fn a_proxy_that_collects_compresses_or_cuts_is_found() {
    if is_missing("nginx") {
        return;
    }
    let (node, token) = hub(&["--heartbeat=1h"]);
    let cases = [
        // nginx would heed the hub's X-Accel-Buffering; somebody has told it not to.
        ("proxy_ignore_headers X-Accel-Buffering; proxy_buffering on;", "switch buffering off"),
        ("gzip on; gzip_types text/event-stream; gzip_proxied any;", "leave text/event-stream out"),
        ("proxy_read_timeout 2s;", "the stream was cut after"),
    ];
    for (location, remedy) in cases {
        let folder = TempDir::new().expect("folder");
        let (_proxy, port) = nginx(folder.path(), &node, location);
        let found =
            doctor(&format!("http://127.0.0.1:{port}{PATH}"), &["--jwt", &token, "--idle=4s"]);
        assert!(
            !found.status.success() && words(&found).contains(remedy),
            "{location}: {}",
            words(&found)
        );
    }
}
