//! Bad input: a correct status for the client, nothing lost, nothing told that should not be.

mod support;

use serde_json::{Value, json};
use support::*;

/// Publish requests, and what they are answered.
#[test]
fn publish_refusals() {
    let hub = TestHub::with("max_request_body = \"64KiB\"");
    let good = bearer(&v0(PUBLISHER_KEY, &json!({"publish": ["a", "https://x/{id}"]})));
    let long = format!("topic={}", "a".repeat(5000));
    let oversize = format!("topic=a&data={}", "x".repeat(70_000));
    let cases: [(&str, u16, &str); 17] = [
        ("topic=a", 200, ""),
        ("topic=a&topic=https://x/1", 200, ""),
        ("topic=b", 403, "does not allow"),
        ("topic=a&topic=b", 403, "does not allow"),
        ("data=x", 400, "topic: is missing"),
        ("", 400, "topic: is missing"),
        ("topic=", 400, "topic: is empty"),
        ("topic=*", 400, "wildcard"),
        ("topic=/.well-known/%256Dercure/x", 400, "reserved"),
        ("topic=a%00", 400, "U+0000"),
        ("topic=a&id=%23x", 400, "id: must not start"),
        ("topic=a&id=a%0Adata:%20x", 400, "id: contains U+000A"),
        ("topic=a&type=mercure", 400, "type: \"mercure\" is reserved"),
        ("topic=a&retry=soon", 400, "retry: must consist of ASCII digits"),
        ("topic=a&data=%FF", 400, "UTF-8"),
        (&long, 413, "topic: over the limit of 4096"),
        (&oversize, 413, "request body: over the limit of 65536 bytes"),
    ];
    for (body, status, text) in cases {
        let (found, answer, _) = hub.post(body, &[&good]);
        let shown = &body[..body.len().min(60)];
        assert_eq!(found, status, "{shown}: {answer}");
        assert!(answer.contains(text), "{shown}: {answer}");
    }
    let wrong_type =
        post("topic=a", &[&good]).replace("application/x-www-form-urlencoded", "application/json");
    assert_eq!(hub.send(&wrong_type).0.status, 415);
}

/// Tokens, and what they are worth.
#[test]
fn token_refusals() {
    let hub = TestHub::start();
    let claims = json!({"mercure": {"publish": ["*"]}});
    let forged = v0("another-key", &json!({"publish": ["*"]}));
    let unsigned = "eyJhbGciOiJub25lIn0.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.";
    let expired = sign(PUBLISHER_KEY, "JWT", &with(&claims, "exp", json!(1)));
    let early = sign(PUBLISHER_KEY, "JWT", &with(&claims, "nbf", json!(4_000_000_000_u64)));
    let role = v0(SUBSCRIBER_KEY, &json!({"publish": ["*"]}));
    let v1_with = |changes: Value| v1(PUBLISHER_KEY, "publish", "*", &changes);
    let invalid = [
        ("garbage", "garbage".to_owned()),
        ("another key", forged),
        ("no signature", unsigned.to_owned()),
        ("expired", expired),
        ("not yet valid", early),
        ("the subscribers' key", role),
        ("1.0, no exp", v1_with(json!({"exp": null}))),
        ("1.0, another issuer", v1_with(json!({"iss": "https://other.example"}))),
        ("1.0, another audience", v1_with(json!({"aud": "https://other.example"}))),
        ("1.0, a bad detail", v1_with(json!({"authorization_details": [1]}))),
        ("1.0 with the claim of 0.x only", sign(PUBLISHER_KEY, "at+jwt", &claims)),
    ];
    for (name, token) in invalid {
        let (status, body, response) = hub.post("topic=a", &[&bearer(&token)]);
        assert_eq!((status, body.as_str()), (401, "the access token is not valid"), "{name}");
        let challenge = response.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", resource_metadata="));
    }
    let forged = v0("another-key", &json!({"subscribe": ["*"]}));
    let (response, _) = hub.get("topic=a", &[&bearer(&forged)]);
    assert_eq!(response.status, 401, "no silent downgrade to anonymous");
    let good = v1_with(json!({"aud": ["https://other.example", AUDIENCE]}));
    assert_eq!(hub.post("topic=a", &[&bearer(&good)]).0, 200);

    let (status, _, response) = hub.post("topic=a", &[]);
    let metadata =
        "resource_metadata=\"http://x/.well-known/oauth-protected-resource/.well-known/mercure\"";
    let challenge = format!("Bearer {metadata}");
    assert_eq!((status, response.header("www-authenticate")), (401, Some(challenge.as_str())));
    let (status, _, response) = hub.post("topic=a", &["Authorization: Bearer"]);
    let challenge = format!("Bearer error=\"invalid_request\", {metadata}");
    assert_eq!((status, response.header("www-authenticate")), (400, Some(challenge.as_str())));
    let nothing = v0(PUBLISHER_KEY, &json!({}));
    let (status, _, response) = hub.post("topic=a", &[&bearer(&nothing)]);
    let challenge = format!("Bearer error=\"insufficient_scope\", {metadata}");
    assert_eq!((status, response.header("www-authenticate")), (403, Some(challenge.as_str())));
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    changed[name] = value;
    changed
}

/// Subscription requests, and what they are answered.
#[test]
fn subscribe_refusals() {
    let hub = TestHub::start();
    let many = "match=a&".repeat(1001);
    let cases = [
        ("", 400),
        ("nothing=here", 400),
        ("match_regex=a", 400),
        ("MATCH=a", 400),
        ("match=", 400),
        ("match=a%0Ab", 400),
        ("topic=%FF", 400),
        ("match_urlpattern=https://x/(", 400),
        (&many, 400),
    ];
    for (query, status) in cases {
        let (response, mut client) = hub.get(query, &[]);
        assert_eq!(response.status, status, "{}", &query[..query.len().min(60)]);
        assert!(!client.body(&response).is_empty(), "the reason is told");
    }
    let closed = TestHub::with("anonymous = false");
    assert_eq!(closed.get("topic=a", &[]).0.status, 401);
    let token = v0(SUBSCRIBER_KEY, &json!({}));
    closed.subscribe("topic=a", &[&bearer(&token)]);
}

#[test]
fn other_paths_methods_and_noise() {
    let hub = TestHub::start();
    assert_eq!(hub.send("GET /other HTTP/1.1\r\nHost: x\r\n\r\n").0.status, 404);
    assert_eq!(hub.send(&format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n\r\n")).0.status, 405);
    assert_eq!(hub.send("NONSENSE\r\n\r\n").0.status, 400);
    let huge = format!("GET {PATH}?topic=a HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut client = hub.connect();
    // The hub may answer and close before everything is written.
    let _ = std::io::Write::write_all(&mut client.socket, huge.as_bytes());
    hub.publish("topic=a&data=still+here");
}

#[test]
fn publishing_by_cookie_needs_the_hubs_own_page() {
    let hub = TestHub::with("publish_origins = [\"https://app.example\"]");
    let token = v0(PUBLISHER_KEY, &json!({"publish": ["*"]}));
    let cookie = format!("Cookie: mercureAuthorization={token}");
    let cases = [
        (None, 403),
        (Some("Origin: https://evil.example"), 403),
        (Some("Origin: null"), 403),
        (Some("Origin: http://x.evil.example"), 403),
        (Some("Referer: https://evil.example/http://x/"), 403),
        (Some("Origin: https://app.example"), 200),
        (Some("Referer: https://app.example/page"), 200),
        (Some("Origin: http://x"), 200),
    ];
    for (header, status) in cases {
        let headers: Vec<_> = [Some(cookie.as_str()), header].into_iter().flatten().collect();
        assert_eq!(hub.post("topic=a", &headers).0, status, "{header:?}");
    }
}

#[test]
fn origins_are_listed_never_reflected() {
    let hub = TestHub::with("cors_origins = [\"https://app.example\"]");
    let (response, _) = hub.get("topic=a", &["Origin: https://app.example"]);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    assert!(
        response
            .header("access-control-expose-headers")
            .is_some_and(|h| h.contains("Mercure-Last-Event-ID"))
    );
    let (response, _) = hub.get("topic=a", &["Origin: https://evil.example"]);
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert_eq!(response.header("vary"), Some("Origin"));
    let (response, _) = hub.get("", &["Origin: https://app.example"]);
    assert_eq!(response.status, 400);
    assert!(response.header("access-control-allow-origin").is_some(), "errors can be read, too");
    let preflight = format!(
        "OPTIONS {PATH} HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n\
         Access-Control-Request-Method: POST\r\n\r\n"
    );
    let (response, _) = hub.send(&preflight);
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(
        response
            .header("access-control-allow-headers")
            .is_some_and(|h| h.contains("Authorization"))
    );

    let open = TestHub::with("cors_origins = [\"*\"]");
    let (response, _) = open.get("topic=a", &["Origin: https://any.example"]);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
}
