//! What monitors make of a hub: every figure that the shipped alerts and the dashboard ask for exists,
//! and Prometheus' own tool finds the alerts right.

mod drill;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use drill::client::Wire;
use drill::node::Node;
use mercure_transports::testing::{free_port, is_missing};
use serde_json::Value;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// Names of our figures in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(word).filter(|word| word.starts_with("mercure_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_that_is_asked_for_exists() {
    let ops = free_port();
    let _hub = Node::start("memory://", &[&format!("--ops-listen=127.0.0.1:{ops}")]);
    let mut wire = Wire::connect(&format!("127.0.0.1:{ops}")).await.expect("connect");
    wire.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let head = wire.until("\r\n\r\n").await.expect("a head");
    let text = wire.body(&head).await.expect("a body");
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let samples = samples.join("\n");
    let known = names(&samples);
    let dashboard = std::fs::read_to_string(shipped("grafana/mercure-hub.json")).expect("read");
    let _: Value = serde_json::from_str(&dashboard).expect("JSON");
    let alerts = std::fs::read_to_string(shipped("prometheus/alerts.yml")).expect("read");
    for asked in names(&dashboard).union(&names(&alerts)) {
        assert!(known.contains(asked), "{asked} is not among {known:?}");
    }
    for shown in &known {
        assert!(names(&dashboard).contains(shown), "the dashboard does not show {shown}");
    }
}

#[test]
fn prometheus_understands_the_alerts() {
    if is_missing("promtool") {
        return;
    }
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(shipped("prometheus/alerts.yml"))
        .output()
        .expect("promtool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("7 rules found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_json_for_programs() {
    let hub = Node::start("memory://", &["--log-format=json", "--log-level=debug"]);
    let mut wire = Wire::connect(&hub.address()).await.expect("connect");
    let secret = "authorization=very-secret-token";
    let path = support::PATH;
    wire.write(&format!("POST {path}?{secret} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
        .await
        .expect("write");
    wire.until("\r\n\r\n").await.expect("a head");
    let words = hub.words();
    let lines: Vec<Value> =
        words.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        for field in ["timestamp", "level", "fields", "target"] {
            assert!(!line[field].is_null(), "{field} in {line}");
        }
    }
    assert!(lines.iter().any(|line| line["fields"]["message"] == "a token was refused"), "{words}");
    assert!(!words.contains("very-secret"), "{words}");
}
