//! A connection that is kept: requests of every form on it, each answered in its turn.

mod support;

use serde_json::json;
use support::*;

fn authorized(body: &str) -> String {
    post(body, &[&bearer(&v0(PUBLISHER_KEY, &json!({"publish": ["*"]})))])
}

/// Reads the next answer.
fn answer(client: &mut Client) -> (u16, String) {
    let head = client.head();
    let body = client.body(&head);
    (head.status, body)
}

fn published(client: &mut Client, id: &str) {
    assert_eq!(answer(client), (200, id.to_owned()));
}

#[test]
fn pipelined_publications_are_answered_and_delivered_in_order() {
    let hub = TestHub::start();
    let mut reader = hub.subscribe("match=t", &[]);
    let mut publisher = hub.connect();
    let requests: String =
        (0..500).map(|n| authorized(&format!("topic=t&id=n{n}&data={n}"))).collect();
    publisher.write(&requests);
    for n in 0..500 {
        published(&mut publisher, &format!("n{n}"));
        assert_eq!(reader.data(), Some(n.to_string()));
    }
}

#[test]
fn an_answer_does_not_wait_for_what_comes_after_its_request() {
    let hub = TestHub::start();
    let mut publisher = hub.connect();
    let second = authorized("topic=t&id=two&data=2");
    for end in [1, 20, second.len() - 1] {
        publisher.write(&(authorized("topic=t&id=one&data=1") + &second[..end]));
        published(&mut publisher, "one");
        publisher.write(&second[end..]);
        published(&mut publisher, "two");
    }
    // Some clients send an empty line after a body.
    publisher.write(&(authorized("topic=t&id=three&data=3") + "\r\n"));
    published(&mut publisher, "three");
    publisher.write(&second);
    published(&mut publisher, "two");
}

#[test]
fn every_form_of_request_follows_every_other() {
    let hub = TestHub::start();
    let token = bearer(&v0(PUBLISHER_KEY, &json!({"publish": ["*"]})));
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\n{token}\r\nTransfer-Encoding: chunked\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n\
         17\r\ntopic=t&id=long&data=12\r\n0\r\n\r\n"
    );
    let large = authorized(&format!("topic=t&id=large&data={}", "x".repeat(100_000)));
    let mut publisher = hub.connect();
    publisher.write(&authorized("topic=t&id=one&data=1"));
    published(&mut publisher, "one");
    publisher.write(&large);
    published(&mut publisher, "large");
    publisher.write(&(authorized("topic=t&id=two&data=2") + &chunked));
    published(&mut publisher, "two");
    published(&mut publisher, "long");
    publisher.write("GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer(&mut publisher).0, 404);

    let mut publisher = hub.connect();
    publisher.write(
        &(authorized("topic=t&id=three&data=3")
            + "DELETE "
            + PATH
            + " HTTP/1.1\r\nHost: x\r\n\r\n"),
    );
    published(&mut publisher, "three");
    assert_eq!(answer(&mut publisher).0, 405);

    let mut both = hub.connect();
    both.write(&authorized("topic=t&id=four&data=4"));
    published(&mut both, "four");
    both.write(&format!("GET {PATH}?match=t HTTP/1.1\r\nHost: x\r\nLast-Event-ID: three\r\n\r\n"));
    assert_eq!(both.head().status, 200);
    assert_eq!(both.data().as_deref(), Some("4"), "a publisher may become a subscriber");
}

#[test]
fn a_refusal_leaves_the_connection_usable() {
    let hub = TestHub::start();
    let mut publisher = hub.connect();
    publisher.write(&post("topic=t&data=1", &[]));
    assert_eq!(answer(&mut publisher).0, 401);
    publisher.write(&post("topic=t&data=1", &[&bearer("no.such.token")]));
    assert_eq!(answer(&mut publisher).0, 401);
    publisher.write(&authorized("data=no-topic"));
    assert_eq!(answer(&mut publisher).0, 400);
    publisher.write(&authorized("topic=t&id=one&data=1"));
    published(&mut publisher, "one");
}

#[test]
fn who_asks_for_it_is_disconnected_after_the_answer() {
    let hub = TestHub::start();
    let token = bearer(&v0(PUBLISHER_KEY, &json!({"publish": ["*"]})));
    let mut publisher = hub.connect();
    publisher.write(&post("topic=t&id=one&data=1", &[&token, "Connection: close"]));
    published(&mut publisher, "one");
    assert_eq!(publisher.data(), None, "closed");
}

#[test]
fn a_hub_that_stops_ends_idle_connections() {
    let mut hub = TestHub::start();
    let mut publisher = hub.connect();
    publisher.write(&authorized("topic=t&id=one&data=1"));
    published(&mut publisher, "one");
    hub.stop();
    assert_eq!(publisher.data(), None, "closed");
}
