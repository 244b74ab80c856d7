//! The hub over real sockets: publishing, subscribing, both generations, resuming.

mod support;

use serde_json::json;
use support::*;

#[test]
fn an_update_reaches_subscribers_of_both_generations() {
    let hub = TestHub::start();
    let mut old = hub.subscribe("topic=https://example.com/books/%7Bid%7D", &[]);
    let mut new = hub.subscribe("match_urlpattern=https://example.com/books/:id", &[]);
    let mut exact = hub.subscribe("match=https://example.com/books/1", &[]);
    let id = hub.publish("topic=https://example.com/books/1&data=a%0Ab&type=k&retry=7");
    assert!(id.starts_with("urn:uuid:"), "{id}");
    for client in [&mut old, &mut new, &mut exact] {
        let expected = [("event", "k"), ("retry", "7"), ("id", &id), ("data", "a"), ("data", "b")];
        let event = client.event().expect("an event");
        let event: Vec<_> = event.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(event, expected);
    }
}

#[test]
fn a_stream_has_the_headers_that_proxies_need() {
    let hub = TestHub::start();
    let (response, _client) = hub.get("topic=a", &[]);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    assert_eq!(response.header("cache-control"), Some("no-store, private, no-transform"));
    assert_eq!(response.header("last-event-id"), None, "nobody asked");
    let (refusal, _client) = hub.get("", &[]);
    for response in [response, refusal] {
        let date = response.header("date").expect("a date");
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    }
}

#[test]
fn a_keep_alive_connection_may_publish_and_then_subscribe() {
    let hub = TestHub::start();
    let token = v0(PUBLISHER_KEY, &json!({"publish": ["a"]}));
    let mut client = hub.connect();
    // What is not plain is left to the library, and so is everything after it.
    client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = client.head();
    assert!(client.body(&response).contains("Mercure hub"));
    client.write(&post("topic=a&data=1&id=first", &[&bearer(&token)]));
    let response = client.head();
    assert_eq!((response.status, client.body(&response)), (200, "first".to_owned()));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    client.write(&format!("GET {PATH}?topic=a&last_event_id=earliest HTTP/1.1\r\nHost: x\r\n\r\n"));
    let response = client.head();
    assert_eq!(response.header("transfer-encoding"), Some("chunked"), "the library's body");
    assert_eq!(client.data().as_deref(), Some("1"));
}

#[test]
fn private_updates_by_header_cookie_and_parameter() {
    let hub = TestHub::start();
    let old = v0(SUBSCRIBER_KEY, &json!({"subscribe": ["a"]}));
    let new = v1(SUBSCRIBER_KEY, "subscribe", "a", &json!({}));
    let mut granted = vec![
        hub.subscribe(&format!("topic=*&authorization={old}"), &[]),
        hub.subscribe("topic=*", &[&format!("Cookie: x=y; mercureAuthorization={old}")]),
    ];
    let both = json!({"mercure": {"subscribe": ["a"]}});
    let both = v1(SUBSCRIBER_KEY, "subscribe", "a", &both);
    granted.push(hub.subscribe(&format!("topic=*&authorization={both}"), &[]));
    let in_url = hub.get(&format!("topic=*&authorization={new}"), &[]).0;
    assert_eq!(in_url.status, 401, "1.0 knows no tokens in URLs");
    for token in [&old, &new] {
        granted.push(hub.subscribe("topic=*", &[&bearer(token)]));
        let cookie = format!("Cookie: __Secure-mercure_access_token={token}");
        granted.push(hub.subscribe("topic=*", &[&cookie]));
    }
    let other = v0(SUBSCRIBER_KEY, &json!({"subscribe": ["b"]}));
    let mut strangers =
        [hub.subscribe("topic=*", &[]), hub.subscribe("topic=*", &[&bearer(&other)])];
    hub.publish("topic=a&data=secret&private=on");
    hub.publish("topic=x&topic=a&data=alternate&private");
    hub.publish("topic=a&data=public");
    for client in &mut granted {
        for expected in ["secret", "alternate", "public"] {
            assert_eq!(client.data().as_deref(), Some(expected));
        }
    }
    for client in &mut strangers {
        assert_eq!(client.data().as_deref(), Some("public"));
    }
}

#[test]
fn resuming_in_every_spelling() {
    let hub = TestHub::start();
    for number in 1..=3 {
        hub.publish(&format!("topic=a&data={number}&id=id-{number}"));
    }
    let cases: [(&str, &[&str], &str, &str); 7] = [
        ("topic=a", &["Last-Event-ID: id-2"], "id-2", "3"),
        ("topic=a&lastEventID=id-1", &[], "id-1", "2"),
        ("match=a&last_event_id=id-1", &[], "id-1", "2"),
        ("topic=a&Last-Event-ID=id-1", &[], "id-1", "2"),
        ("topic=a&lastEventID=id-1", &["Last-Event-ID: id-2"], "id-2", "3"),
        ("topic=a&lastEventID=earliest", &[], "earliest", "1"),
        ("topic=a&lastEventID=gone", &[], "earliest", "1"),
    ];
    for (query, headers, preceding, first) in cases {
        let (response, mut client) = hub.get(query, headers);
        assert_eq!(response.header("last-event-id"), Some(preceding), "{query}");
        assert_eq!(response.header("mercure-last-event-id"), Some(preceding), "{query}");
        assert_eq!(client.data().as_deref(), Some(first), "{query}");
    }
}

#[test]
fn replay_is_judged_by_the_token_of_the_moment() {
    let hub = TestHub::start();
    hub.publish("topic=a&data=secret&private=on");
    hub.publish("topic=a&data=public");
    let mut anonymous = hub.subscribe("topic=a&lastEventID=earliest", &[]);
    assert_eq!(anonymous.data().as_deref(), Some("public"));
}

#[test]
fn one_generation_alone() {
    let hub = TestHub::with("protocol = \"1.0\"");
    let old = v0(PUBLISHER_KEY, &json!({"publish": ["*"]}));
    assert_eq!(hub.post("topic=a", &[&bearer(&old)]).0, 401, "a 0.x token");
    assert_eq!(hub.get("topic=a", &[]).0.status, 400, "a 0.x parameter");
    let new = v1(PUBLISHER_KEY, "publish", "a", &json!({}));
    assert_eq!(hub.post("topic=a", &[&bearer(&new)]).0, 200);
    let parameter = v1(SUBSCRIBER_KEY, "subscribe", "a", &json!({}));
    let mut unauthorized = hub.subscribe(&format!("match=a&authorization={parameter}"), &[]);
    hub.post("topic=a&private&data=secret", &[&bearer(&new)]);
    hub.post("topic=a&data=public", &[&bearer(&new)]);
    assert_eq!(unauthorized.data().as_deref(), Some("public"), "no token in the URL");

    let hub = TestHub::with("protocol = \"0.x\"");
    assert_eq!(hub.post("topic=a", &[&bearer(&new)]).0, 401, "a 1.0 token");
    assert_eq!(hub.get("match=a", &[]).0.status, 400, "a 1.0 parameter");
}

#[test]
fn a_token_ends_its_stream_in_time() {
    let hub = TestHub::start();
    let now = std::process::Command::new("date").arg("+%s").output().expect("date").stdout;
    let now: u64 = String::from_utf8_lossy(&now).trim().parse().expect("seconds");
    let claims = json!({"mercure": {"subscribe": ["*"]}, "exp": now + 5});
    let token = sign(SUBSCRIBER_KEY, "JWT", &claims);
    let mut client = hub.subscribe("topic=a", &[&bearer(&token)]);
    assert_eq!(client.data(), None, "closed by the hub");
}

#[test]
fn stopping_ends_streams_cleanly() {
    let mut hub = TestHub::start();
    let mut client = hub.subscribe("topic=a", &[]);
    hub.publish("topic=a&data=last");
    hub.stop();
    assert_eq!(client.data().as_deref(), Some("last"));
    assert_eq!(client.data(), None, "the end of the body, not a reset");
}

/// An acknowledged event is delivered, or it is not acknowledged: also at the very end.
#[test]
fn an_update_that_arrives_while_stopping_is_not_acknowledged() {
    let mut hub = TestHub::start();
    let mut subscriber = hub.subscribe("topic=a", &[]);
    let token = v0(PUBLISHER_KEY, &json!({"publish": ["*"]}));
    let request = post("topic=a&data=late", &[&bearer(&token), "Expect: 100-continue"]);
    let (head, body) = request.split_at(request.len() - 4);
    let mut publisher = hub.connect();
    let _idle = hub.connect();
    publisher.write(head);
    assert_eq!(publisher.head().status, 100, "the hub has begun with the request");
    let stopping = std::thread::spawn(move || {
        let clock = mercure_engine::Clock::system();
        hub.stop();
        clock.now()
    });
    assert_eq!(subscriber.data(), None, "the streams have ended");
    publisher.write(body);
    assert_eq!(publisher.head().status, 503);
    let took = stopping.join().expect("stops");
    assert!(took.as_secs() < 9, "an idle connection does not hold it up: {took:?}");
}

#[test]
fn a_full_hub_says_when_to_come_back() {
    let hub = TestHub::with("max_connections = 1");
    let _first = hub.subscribe("topic=a", &[]);
    let (response, _) = hub.get("topic=a", &[]);
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
}

#[test]
fn many_publishers_and_subscribers_agree_on_one_order() {
    let hub = TestHub::start();
    let mut clients: Vec<_> = (0..10).map(|_| hub.subscribe("topic=a", &[])).collect();
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let hub = &hub;
            scope.spawn(move || {
                (0..50).for_each(|n| drop(hub.publish(&format!("topic=a&data={publisher}-{n}"))));
            });
        }
    });
    let orders: Vec<Vec<_>> = clients
        .iter_mut()
        .map(|client| (0..200).map(|_| client.data().expect("an event")).collect())
        .collect();
    assert!(orders.iter().all(|order| *order == orders[0]), "the log's order, for everybody");
    let mut sorted = orders[0].clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 200, "every event once");
}

#[test]
fn the_cursor_of_an_empty_log_is_earliest() {
    let hub = TestHub::with("subscriptions = true");
    let path = format!("{PATH}/subscriptions");
    let token = bearer(&v0(SUBSCRIBER_KEY, &json!({"subscribe": [path]})));
    let (response, mut client) =
        hub.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{token}\r\n\r\n"));
    let document: serde_json::Value = serde_json::from_str(&client.body(&response)).expect("JSON");
    assert_eq!(document["lastEventID"], "earliest");
    assert!(response.header("link").expect("a link").contains("last-event-id=\"earliest\""));
}

/// An id that is not UTF-8 is one that the log does not hold, not one that was not sent.
#[test]
fn a_garbled_cursor_is_an_unknown_one() {
    use std::io::Write as _;
    let hub = TestHub::start();
    hub.publish("topic=a&data=kept");
    let mut client = hub.connect();
    let request = [
        format!("GET {PATH}?match=a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: caf").as_bytes(),
        b"\xe9\r\n\r\n",
    ]
    .concat();
    client.socket.write_all(&request).expect("write");
    assert_eq!(client.head().header("mercure-last-event-id"), Some("earliest"));
    assert_eq!(client.data().as_deref(), Some("kept"));
}

#[test]
fn what_does_not_exist_has_no_version() {
    let hub = TestHub::with("subscriptions = true");
    let token = bearer(&v0(SUBSCRIBER_KEY, &json!({"subscribe": ["*"]})));
    let ask = |path: &str, tag: &str| {
        let head = format!("GET {PATH}/subscriptions{path} HTTP/1.1\r\nHost: x\r\n{token}\r\n");
        hub.send(&format!("{head}If-None-Match: {tag}\r\n\r\n")).0
    };
    assert_eq!(ask("/a/nobody", "*").status, 404);
    let first = ask("", "\"x\"");
    let tag = first.header("etag").expect("a version").to_owned();
    assert_eq!((first.status, ask("", &tag).status), (200, 304));
    let _stream = hub.subscribe("topic=a", &[]);
    assert_eq!(ask("", &tag).status, 200);
    let other = TestHub::with("subscriptions = true");
    let head = format!("GET {PATH}/subscriptions HTTP/1.1\r\nHost: x\r\n{token}\r\n");
    let (answer, _) = other.send(&format!("{head}If-None-Match: {tag}\r\n\r\n"));
    assert_eq!(answer.status, 200, "another hub's version, or that of one before a restart");
}
