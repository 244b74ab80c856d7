//! Settings that bound what clients send, or what is kept: one step within is served, one step beyond is not.

mod support;

use serde_json::{Value, json};
use support::*;

fn token(grants: &[&str]) -> String {
    v0(PUBLISHER_KEY, &json!({"publish": grants}))
}

/// The status of a publication, and what is said of it.
fn publish(hub: &TestHub, form: &str) -> (u16, String) {
    let (status, body, _) = hub.post(form, &[&bearer(&token(&["*"]))]);
    (status, body)
}

#[test]
fn each_bound_on_publications_holds() {
    for (setting, within, beyond) in [
        ("max_topics = 2", "topic=a&topic=b", "topic=a&topic=b&topic=c"),
        ("max_topic_length = \"4B\"", "topic=1234", "topic=12345"),
        ("max_id_length = \"4B\"", "topic=a&id=1234", "topic=a&id=12345"),
        ("max_type_length = \"4B\"", "topic=a&type=1234", "topic=a&type=12345"),
        ("max_request_body = \"16B\"", "topic=a&data=123", "topic=a&data=12345678"),
    ] {
        let hub = TestHub::with(setting);
        let (status, body) = publish(&hub, within);
        assert_eq!(status, 200, "{setting}: {body}");
        let (status, body) = publish(&hub, beyond);
        assert_eq!(status, 413, "{setting}: {body}");
        assert!(body.contains("limit"), "{setting}: {body}");
    }
}

#[test]
fn each_bound_on_subscriptions_holds() {
    // [a-z]{1,60}, for a query.
    let wide = "match_urlpattern=/:a(%5Ba-z%5D%7B1,60%7D)";
    for (setting, within, beyond) in [
        ("max_matchers = 2", "match=a&match=b", "match=a&match=b&match=c"),
        ("max_matcher_length = \"4B\"", "match=1234", "match=12345"),
        (
            "max_patterns = 1",
            "match=a&match_urlpattern=/b/:c",
            "match_urlpattern=/a/:b&match_urlpattern=/c/:d",
        ),
        ("max_patterns_size = \"1KiB\"", "match_urlpattern=/a", wide),
    ] {
        let hub = TestHub::with(setting);
        assert_eq!(hub.get(within, &[]).0.status, 200, "{setting}");
        let (response, mut client) = hub.get(beyond, &[]);
        let body = client.body(&response);
        assert_eq!(response.status, 400, "{setting}: {body}");
    }
}

#[test]
fn a_token_may_name_so_many_topics() {
    let hub = TestHub::with("max_grants = 2");
    let status = |grants: &[&str]| hub.post("topic=a", &[&bearer(&token(grants))]).0;
    assert_eq!(status(&["a", "b"]), 200);
    assert_eq!(status(&["a", "b", "c"]), 401);
}

#[test]
fn the_hub_is_where_its_path_says() {
    let hub = TestHub::with("hub_path = \"/push\"");
    let ask =
        |path: &str| hub.send(&format!("GET {path}?topic=a HTTP/1.1\r\nHost: x\r\n\r\n")).0.status;
    assert_eq!(ask("/push"), 200);
    assert_eq!(ask(PATH), 404);
}

/// What a newcomer gets of the log, up to an event that is published now.
fn kept(hub: &TestHub) -> Vec<String> {
    hub.publish("topic=t&data=last");
    let mut stream = hub.subscribe("topic=t&lastEventID=earliest", &[]);
    let mut all = Vec::new();
    while let Some(data) = stream.data().filter(|data| data != "last") {
        all.push(data);
    }
    all
}

#[test]
fn the_log_keeps_so_many_and_for_so_long() {
    let hub = TestHub::with("history_size = 3");
    (0..10).for_each(|n| drop(hub.publish(&format!("topic=t&data={n}"))));
    assert_eq!(kept(&hub), ["8", "9"]);
    let hub = TestHub::with("history_bytes = \"4KiB\"");
    (0..10).for_each(|n| drop(hub.publish(&format!("topic=t&data={n}{}", "x".repeat(1000)))));
    assert!((1..=3).contains(&kept(&hub).len()));
    let hub = TestHub::with("history_age = \"3s\"");
    hub.publish("topic=t&data=old");
    assert_eq!(kept(&hub), ["old"]);
    let (clock, patience) = (mercure_engine::Clock::system(), std::time::Duration::from_secs(60));
    let begin = clock.now();
    while kept(&hub) == ["old"] {
        assert!(clock.now().saturating_sub(begin) < patience, "it is kept for too long");
    }
    assert_eq!(kept(&hub), [""; 0]);
}

#[test]
fn subscribers_tokens_have_their_own_key_and_algorithm() {
    let hub = TestHub::with("subscriber_jwt_alg = \"HS384\"");
    let claims: Value = json!({"mercure": {"subscribe": ["*"]}});
    let signed = |algorithm: &str| {
        let key = mercure_hub::auth::SigningKey::parse(SUBSCRIBER_KEY, algorithm).expect("key");
        key.sign("JWT", &claims).expect("token")
    };
    let status = |token: &str| hub.get("topic=a", &[&bearer(token)]).0.status;
    assert_eq!(status(&signed("HS384")), 200);
    assert_eq!(status(&signed("HS256")), 401);
    assert_eq!(status(&v0(PUBLISHER_KEY, &json!({"subscribe": ["*"]}))), 401);
}
