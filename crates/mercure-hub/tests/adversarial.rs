//! What a hostile client sends: refused, and the hub goes on serving others.

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use mercure_hub::auth::SigningKey;
use serde_json::json;
use support::*;

/// The hub still does its work.
fn is_alive(hub: &TestHub) {
    let mut client = hub.subscribe("match=alive", &[]);
    hub.publish("topic=alive&data=yes");
    assert_eq!(client.data().as_deref(), Some("yes"));
}

fn query(hub: &TestHub, form: &str) -> (Response, Client) {
    hub.send(&format!(
        "QUERY {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    ))
}

#[test]
fn ten_thousand_matchers() {
    let hub = TestHub::start();
    for name in ["match", "topic", "match_urlpattern"] {
        let form: String = (0..10_000).map(|n| format!("{name}=%2F{n}%2F%7Bx%7D&")).collect();
        let (response, mut client) = query(&hub, &form);
        assert_eq!(response.status, 400, "{name}");
        assert!(client.body(&response).contains("over the limit of 1100"));
    }
    let allowed: String = (0..1000).map(|n| format!("match=m{n}&")).collect();
    let (response, mut client) = query(&hub, &allowed);
    assert_eq!(response.status, 200);
    hub.publish("topic=m999&data=last");
    assert_eq!(client.data().as_deref(), Some("last"));
    is_alive(&hub);
}

#[test]
fn a_mebibyte_of_headers_over_http_1() {
    let hub = TestHub::start();
    let one = format!("X-Long: {}", "x".repeat(1024 * 1024));
    let many: String = (0..20_000).fold(String::new(), |mut all, n| {
        let _ = write!(all, "X-{n}: {}\r\n", "x".repeat(50));
        all
    });
    for headers in [one.as_str(), many.trim_end(), &format!("Cookie: {}", "a=b; ".repeat(200_000))]
    {
        let mut client = hub.connect();
        let request = format!("GET {PATH}?match=a HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
        // The hub may answer, and close, before everything is sent.
        let _ = client.socket.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = client.socket.read_to_end(&mut answer);
        let status = String::from_utf8_lossy(&answer).chars().skip(9).take(3).collect::<String>();
        assert!(["431", "400", ""].contains(&status.as_str()), "{status}");
    }
    is_alive(&hub);
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn h2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn a_mebibyte_of_headers_over_http_2() {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const CONTINUATION: u8 = 9;
    let hub = TestHub::start();
    let mut client = hub.connect();
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend(h2_frame(SETTINGS, 0, 0, &[]));
    // One literal field whose value never ends.
    let mut start = vec![0x00, 0x01, b'x', 0x7f, 0xff, 0xff, 0xff, 0x00];
    start.extend([b'x'; 16_000]);
    request.extend(h2_frame(HEADERS, 0, 1, &start));
    for _ in 0..64 {
        request.extend(h2_frame(CONTINUATION, 0, 1, &[b'x'; 16_384]));
    }
    let _ = client.socket.write_all(&request);
    let mut answer = Vec::new();
    let _ = client.socket.read_to_end(&mut answer);
    let frames = String::from_utf8_lossy(&answer);
    assert!(
        !frames.contains("text/event-stream"),
        "the connection is ended, or the stream refused"
    );
    is_alive(&hub);
}

#[test]
fn nothing_sent_becomes_a_header_of_the_answer() {
    let hub = TestHub::with("cors_origins = [\"https://allowed.example\"]");
    for query in [
        "match=a&last_event_id=x%0D%0AX-Injected:%201",
        "match=a&last_event_id=x%0AX-Injected:%201",
        "match=a%0D%0AX-Injected:%201",
    ] {
        let (response, _) = hub.get(query, &["Origin: https://allowed.example\u{b}X-Injected: 1"]);
        assert_eq!(response.header("x-injected"), None, "{query}");
    }
    for host in ["x\" evil=\"1", "x/../y", "x@y", "x, y", "\\"] {
        let request = format!("POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        let (response, _) = hub.send(&request);
        if let Some(challenge) = response.header("www-authenticate") {
            assert_eq!(challenge.matches('"').count(), 2, "{challenge}");
            assert!(!challenge.contains("evil"), "{challenge}");
        }
    }
    is_alive(&hub);
}

#[test]
fn claims_that_are_made_to_hurt() {
    let hub = TestHub::start();
    let key = SigningKey::parse(PUBLISHER_KEY, "HS256").expect("key");
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let details = |topics: serde_json::Value| json!([{"type": "https://mercure.rocks/authorization-detail", "actions": ["publish"], "topics": topics}]);
    let pattern = "https://x/((?:a|aa)+(?:a|aa)+(?:a|aa)+)b";
    let patterns: Vec<_> = (0..300)
        .map(|n| json!({"match": format!("{pattern}{n}"), "match_type": "urlpattern"}))
        .collect();
    for (name, changes) in [
        ("deep", json!({"authorization_details": deep})),
        ("an exp beyond every number", json!({"exp": 1e308, "authorization_details": 1})),
        ("an exp of the past, as a fraction", json!({"exp": 0.5})),
        ("an audience of many", json!({"aud": vec!["x"; 5000]})),
    ] {
        let token = v1(PUBLISHER_KEY, "publish", "*", &changes);
        assert_eq!(hub.post("topic=a", &[&bearer(&token)]).0, 401, "{name}");
    }
    let token = v1(
        PUBLISHER_KEY,
        "publish",
        "*",
        &json!({"authorization_details": details(json!(patterns))}),
    );
    let (status, _, _) =
        hub.post(&format!("topic=https://x/{}", "a".repeat(4000)), &[&bearer(&token)]);
    assert!([401, 403].contains(&status), "hundreds of hostile patterns: {status}");
    // Nested deeper than the parser goes.
    let body = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let token = key.sign("at+jwt", &json!({"x": 1})).expect("token");
    let parts: Vec<_> = token.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], base64(body.as_bytes()), parts[2]);
    assert_eq!(hub.post("topic=a", &[&bearer(&forged)]).0, 401);
    is_alive(&hub);
}

/// The URL-safe alphabet of RFC 4648, without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    out
}

#[test]
fn hostile_patterns_do_not_delay_others() {
    let hub = TestHub::start();
    let hostile: String = (0..100)
        .map(|n| {
            format!("match_urlpattern=https%3A%2F%2Fx%2F((%3F:a|aa){{1,9}}{n}){}&", "*a".repeat(20))
        })
        .collect();
    let _streams: Vec<_> = (0..20).map(|_| query(&hub, &hostile)).collect();
    let mut client = hub.subscribe("match=https://x/last", &[]);
    for _ in 0..20 {
        hub.publish(&format!("topic=https://x/{}", "a".repeat(4000)));
    }
    hub.publish("topic=https://x/last&data=done");
    assert_eq!(client.data().as_deref(), Some("done"));
}
