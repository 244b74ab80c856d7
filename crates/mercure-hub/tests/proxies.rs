//! Proxies in front of a hub: who they speak for, and under which name they were reached.

mod drill;
mod support;

use std::process::Command;

use drill::client::{Wire, field, publish};
use drill::node::Node;
use drill::publisher;
use mercure_transports::testing::{Process, free_port, is_missing};
use support::PATH;
use tempfile::TempDir;

async fn ask(address: &str, before: &[u8], fields: &str) -> Option<String> {
    let mut wire = Wire::connect(address).await.expect("connect");
    wire.write_bytes(before).await.expect("write");
    let request = format!("GET {PATH}?topic=t HTTP/1.1\r\nHost: inside\r\n{fields}\r\n");
    // It may be closed before it has everything.
    let _ = wire.write(&request).await;
    wire.until("\r\n\r\n").await.ok()
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_header_says_whose_connection_it_is() {
    let settings =
        ["--proxy-protocol=true", "--trusted-proxies=127.0.0.1", "--max-connections-per-address=1"];
    let hub = Node::start("memory://", &settings);
    let address = hub.address();
    let mut held = Vec::new();
    for source in ["192.0.2.1", "192.0.2.2"] {
        let mut wire = Wire::connect(&address).await.expect("connect");
        wire.write(&format!(
            "PROXY TCP4 {source} 127.0.0.1 1 2\r\nGET {PATH}?topic=t HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await
        .expect("write");
        assert_eq!(status(&wire.until("\r\n\r\n").await.expect("a head")), "200");
        held.push(wire);
    }
    // Version 2 of the same client.
    let second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\0\x01\0\x02";
    let head = ask(&address, second, "").await.expect("an answer");
    assert_eq!(status(&head), "429", "{head}");
    // Of whom the proxy does not name, nothing is believed: this one is not the first.
    let claimed = "X-Forwarded-For: 192.0.2.1\r\n";
    let head = ask(&address, b"PROXY UNKNOWN\r\n", claimed).await.expect("an answer");
    assert_eq!(status(&head), "200", "{head}");
    assert_eq!(ask(&address, b"", "").await, None, "who says nothing is not served");
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_is_understood_in_both_versions() {
    if is_missing("haproxy") {
        return;
    }
    let settings = ["--proxy-protocol=true", "--trusted-proxies=127.0.0.1"];
    let hub = Node::start("memory://", &settings);
    for version in ["send-proxy", "send-proxy-v2"] {
        let (folder, port) = (TempDir::new().expect("folder"), free_port());
        let path = folder.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
             listen hub\n  bind 127.0.0.1:{port}\n  server s {} {version}\n",
            hub.address()
        );
        std::fs::write(&path, text).expect("write");
        let mut command = Command::new("haproxy");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-f").arg(&path);
        let log = folder.path().join("log");
        let mut process = Process::start(&mut command, &log, "TERM").expect("haproxy");
        process.wait_for(port);
        let address = format!("127.0.0.1:{port}");
        let mut wire = Wire::connect(&address).await.expect("connect");
        assert!(
            publish(&mut wire, &publisher(), "topic=t&data=x").await.expect("an answer"),
            "{version}"
        );
        let head = ask(&address, b"", "").await.expect("an answer");
        assert_eq!(status(&head), "200", "{version}: {head}");
    }
}

/// Where the hub says that it is, to who has shown a bad token.
async fn own_origin(hub: &Node, fields: &str) -> String {
    let fields = format!("Authorization: Bearer nonsense\r\n{fields}");
    let head = ask(&hub.address(), b"", &fields).await.expect("an answer");
    let challenge = field(&head, "www-authenticate").unwrap_or_default();
    let url = challenge.split("resource_metadata=\"").nth(1).unwrap_or(&head);
    url.split("/.well-known").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_that_a_client_used_is_believed_of_trusted_proxies_only() {
    let outside = "X-Forwarded-Host: evil.example, hub.example\r\nX-Forwarded-Proto: https\r\n";
    let trusting = Node::start("memory://", &["--trusted-proxies=127.0.0.1"]);
    assert_eq!(own_origin(&trusting, outside).await, "https://hub.example");
    assert_eq!(own_origin(&trusting, "").await, "http://inside");
    let odd = "X-Forwarded-Proto: gopher\r\n";
    assert_eq!(own_origin(&trusting, odd).await, "http://inside");
    let quoting = "X-Forwarded-Host: evil\"\r\n";
    assert_eq!(own_origin(&trusting, quoting).await, "http://evil\\\"");
    let careful = Node::start("memory://", &[]);
    assert_eq!(own_origin(&careful, outside).await, "http://inside");
}
