//! What a collector of traces gets: decoded from the bytes that come, as a collector would.

mod drill;
mod support;

use std::collections::HashMap;
use std::time::Duration;

use drill::client::{Wire, field};
use drill::node::Node;
use drill::publisher;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use support::PATH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A trace that the publisher has begun: its id, and the span within it.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const PATIENCE: Duration = Duration::from_secs(30);

const TAKEN: &str = "200 OK";

/// A collector that answers one batch, and tells its spans by name.
async fn collect(listener: &TcpListener, answer: &str) -> (HashMap<String, Span>, Vec<u8>) {
    let (mut socket, _) = listener.accept().await.expect("a batch");
    let mut read = Vec::new();
    let (head, begin) = loop {
        socket.read_buf(&mut read).await.expect("bytes");
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&read[..end]).into_owned(), end + 4);
        }
    };
    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
    assert_eq!(field(&head, "content-type"), Some("application/x-protobuf"));
    let length: usize =
        field(&head, "content-length").and_then(|n| n.parse().ok()).expect("length");
    while read.len() < begin + length {
        socket.read_buf(&mut read).await.expect("bytes");
    }
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    socket.write_all(answer.as_bytes()).await.expect("write");
    let body = &read[begin..begin + length];
    let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
    let resources = request.resource_spans.iter();
    let spans = resources.flat_map(|one| &one.scope_spans).flat_map(|scope| &scope.spans);
    (spans.map(|span| (span.name.clone(), span.clone())).collect(), body.to_vec())
}

async fn publish(node: &Node, fields: &str, token: &str) -> String {
    let mut wire = Wire::connect(&node.address()).await.expect("connect");
    let form = "topic=secret-topic&data=secret-data";
    wire.write(&format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{fields}Content-Length: {}\r\n\r\n{form}",
        form.len()
    ))
    .await
    .expect("write");
    wire.until("\r\n\r\n").await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_traced_from_its_publisher_to_the_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoint = format!("--otlp-endpoint=http://{}", listener.local_addr().expect("address"));
    let node = Node::start("memory://", &[&endpoint, "--trace-ratio=0"]);
    let token = publisher();
    let unsampled = publish(&node, "", &token).await;
    assert!(unsampled.contains(" 200 "), "{unsampled}");
    let sampled = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    let answer = publish(&node, &sampled, &token).await;
    assert!(answer.contains(" 200 "), "{answer}");
    let (spans, body) =
        tokio::time::timeout(PATIENCE, collect(&listener, TAKEN)).await.expect("in time");
    assert_eq!(spans.len(), 3, "only what its publisher traces: {:?}", spans.keys());
    let (root, append, dispatch) = (&spans["publish"], &spans["append"], &spans["dispatch"]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&root.parent_span_id), PARENT);
    for span in [root, append, dispatch] {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    for child in [append, dispatch] {
        assert_eq!(child.parent_span_id, root.span_id);
        assert!(child.start_time_unix_nano >= root.start_time_unix_nano);
    }
    assert!(dispatch.start_time_unix_nano >= append.start_time_unix_nano);
    let text = String::from_utf8_lossy(&body);
    for secret in ["secret-topic", "secret-data", token.as_str()] {
        assert!(!text.contains(secret), "{secret} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sent_yet_leaves_with_the_stop_and_a_collector_that_is_away_breaks_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoint = format!("--otlp-endpoint=http://{}", listener.local_addr().expect("address"));
    let node = Node::start("memory://", &[&endpoint]);
    let answer = publish(&node, "", &publisher()).await;
    assert!(answer.contains(" 200 "), "{answer}");
    let collecting = tokio::spawn(async move { collect(&listener, TAKEN).await });
    let refused = publish(&node, "", "no token").await;
    assert!(refused.contains(" 401 "), "{refused}");
    node.process.signal("TERM");
    let (spans, _) =
        tokio::time::timeout(PATIENCE, collecting).await.expect("in time").expect("spans");
    assert!(spans.contains_key("publish"), "{:?}", spans.keys());
    let away = Node::start("memory://", &["--otlp-endpoint=http://127.0.0.1:1"]);
    let answer = publish(&away, "", &publisher()).await;
    assert!(answer.contains(" 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_that_are_lost_are_told_once_and_that_they_arrive_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoint = format!("--otlp-endpoint=http://{}", listener.local_addr().expect("address"));
    let node = Node::start("memory://", &[&endpoint]);
    for (answer, word) in [
        ("500 Internal Server Error", "traces are lost until the collector"),
        ("503 Service Unavailable", "traces are lost until the collector"),
        (TAKEN, "the collector takes traces again"),
    ] {
        publish(&node, "", &publisher()).await;
        tokio::time::timeout(PATIENCE, collect(&listener, answer)).await.expect("in time");
        node.says(word).await;
    }
    assert_eq!(node.words().matches("traces are lost").count(), 1, "{}", node.words());
}
