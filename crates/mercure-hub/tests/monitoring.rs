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
use tempfile::TempDir;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// Names of figures in a text that begin like this.
fn names<'a>(prefix: &str, text: &'a str) -> BTreeSet<&'a str> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(word).filter(|word| word.starts_with(prefix)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_that_is_asked_for_exists() {
    let ops = free_port();
    let folder = TempDir::new().expect("folder");
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("valid");
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).expect("write");
        folder.path().join(name).display().to_string()
    };
    let settings = [
        format!("--ops-listen=127.0.0.1:{ops}"),
        format!("--tls-cert={}", write("cert.pem", certified.cert.pem())),
        format!("--tls-key={}", write("key.pem", certified.signing_key.serialize_pem())),
    ];
    let _hub = Node::start("memory://", &settings.each_ref().map(String::as_str));
    let mut wire = Wire::connect(&format!("127.0.0.1:{ops}")).await.expect("connect");
    wire.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let head = wire.until("\r\n\r\n").await.expect("a head");
    let text = wire.body(&head).await.expect("a body");
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let samples = samples.join("\n");
    let dashboard = std::fs::read_to_string(shipped("grafana/mercure-hub.json")).expect("read");
    let _: Value = serde_json::from_str(&dashboard).expect("JSON");
    let alerts = std::fs::read_to_string(shipped("prometheus/alerts.yml")).expect("read");
    for prefix in ["mercure_", "process_"] {
        let (known, shown) = (names(prefix, &samples), names(prefix, &dashboard));
        for asked in shown.union(&names(prefix, &alerts)) {
            assert!(known.contains(asked), "{asked} is not among {known:?}");
        }
        for known in known.iter().filter(|_| prefix == "mercure_") {
            assert!(shown.contains(known), "the dashboard does not show {known}");
        }
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
    assert!(String::from_utf8_lossy(&output.stdout).contains("9 rules found"));
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

#[test]
fn what_ends_the_hub_is_json_as_well() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let listen = format!("--listen={}", taken.local_addr().expect("address"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    let arguments = ["serve", &listen, "--ops-listen=none", "--log-format=json"];
    let command = drill::node::without_settings(&mut command).args(arguments);
    let output =
        command.env("MERCURE_PUBLISHER_JWT_KEY", "k".repeat(32)).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = lines.last().expect("a line")["fields"]["message"].as_str().expect("a message");
    assert!(last.contains("another program listens there"), "{said}");
}
