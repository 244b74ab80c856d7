//! What clients send, parsed by the hub's own code: each function is the body of a fuzz target,
//! panics when a property does not hold, and runs in the ordinary tests as well, on seeds and on
//! random input.

use std::str::from_utf8;

use eventsource_stream::{Event, Eventsource};
use futures_executor::block_on;
use futures_util::{StreamExt, stream};
use mercure_protocol::{
    EventId, Generation, Grants, HubUrl, LastEventId, Limits, Matcher, MatcherType, Protocol,
    Publication, Route, SubscribeQuery, SubscriptionsPath, Topic, TopicView, Update, frame,
    subscriptions_link,
};
use serde_json::Value;

/// A target: it panics when a property does not hold.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("claims", claims),
    ("cursor", cursor),
    ("form", form),
    ("framing", framing),
    ("query", query),
    ("template", template),
    ("urlpattern", urlpattern),
];

fn hub() -> HubUrl {
    #[expect(clippy::expect_used, reason = "a constant")]
    HubUrl::parse("https://hub.example/.well-known/mercure").expect("valid")
}

/// The body of a publish request: refused, or one event that says what was sent and no more.
pub fn form(body: &[u8]) {
    let Ok(update) = Update::from_form(body, &hub(), &Limits::default()) else { return };
    assert!(!update.topics().is_empty());
    for topic in update.topics() {
        let again = Topic::parse(topic.as_str(), &hub(), &Limits::default());
        assert_eq!(again.as_ref(), Ok(topic), "what was accepted is acceptable");
    }
    one_event(&update);
}

/// The fields of an update, in any order of bytes: id, type, retry, data, separated by NUL.
pub fn framing(input: &[u8]) {
    let mut fields = input.splitn(4, |byte| *byte == 0).map(|field| from_utf8(field).ok());
    let mut next = || fields.next().flatten();
    let raw = Publication {
        topics: vec!["t"],
        id: next(),
        kind: next(),
        retry: next().filter(|retry| !retry.is_empty()),
        data: next().unwrap_or_default(),
        private: false,
    };
    if let Ok(update) = Update::new(&raw, &hub(), &Limits::default()) {
        one_event(&update);
    }
}

/// Framed, an update is exactly one event to a parser that is not ours.
fn one_event(update: &Update) {
    // That parser takes a byte-order mark in front of a value for the stream's own.
    if update.data().contains('\u{feff}') {
        return;
    }
    let id = update.id().cloned().unwrap_or_else(|| EventId::from_random([7; 16]));
    let framed = frame(update, &id);
    let events = parse(&[&framed[..], &framed[..]].concat());
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(event.data, update.data().replace("\r\n", "\n").replace('\r', "\n"));
        assert_eq!(event.id, id.as_str());
        let kind = update.kind().map_or("message", |kind| kind.as_str());
        assert_eq!(event.event, kind);
    }
}

fn parse(bytes: &[u8]) -> Vec<Event> {
    let chunks = stream::iter([Ok::<_, std::convert::Infallible>(bytes.to_vec())]);
    let events = block_on(chunks.eventsource().collect::<Vec<_>>());
    events.into_iter().map_while(Result::ok).collect()
}

/// The query of a subscription and, after a NUL, its body.
pub fn query(input: &[u8]) {
    let (query, body) = input.split_at(input.iter().position(|b| *b == 0).unwrap_or(input.len()));
    let limits = Limits::default();
    for protocol in [Protocol::Both, Protocol::V1, Protocol::V0] {
        let parsed = SubscribeQuery::parse(query, body, protocol, &hub(), &limits);
        let Ok(parsed) = parsed else { continue };
        assert!((1..=limits.matchers).contains(&parsed.matchers.len()));
        for matcher in &parsed.matchers {
            assert!(!matcher.as_str().chars().any(char::is_control));
            evaluate(matcher, "https://hub.example/a/b?c=d#e");
        }
    }
}

/// A URI template and, on the next line, a topic.
pub fn template(input: &[u8]) {
    matcher(MatcherType::Selector, input);
}

/// A URL pattern and, on the next line, a topic.
pub fn urlpattern(input: &[u8]) {
    matcher(MatcherType::UrlPattern, input);
}

fn matcher(kind: MatcherType, input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    let (pattern, topic) = text.split_once('\n').unwrap_or((text, "https://hub.example/a/b"));
    let Ok(matcher) = Matcher::parse(kind, pattern, &hub(), &Limits::default()) else { return };
    evaluate(&matcher, topic);
    if kind == MatcherType::Selector {
        let view_of = hub();
        assert!(matcher.matches(&TopicView::new(pattern, &view_of)), "equal text is selected");
    }
}

/// What a matcher selects, its route leads to: an index that follows routes misses nothing.
fn evaluate(matcher: &Matcher, topic: &str) {
    let hub = hub();
    let view = TopicView::new(topic, &hub);
    if !matcher.matches(&view) || topic == matcher.as_str() {
        return;
    }
    match matcher.route() {
        Route::Any => {}
        Route::Exact(text) => assert_eq!(text, topic),
        Route::TopicPrefix(prefix) => assert!(topic.starts_with(prefix)),
        Route::UrlPrefix(prefix) => {
            assert!(view.url_key().is_some_and(|key| key.starts_with(prefix)));
        }
    }
}

/// The claims of a token, in both generations.
pub fn claims(input: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Value>(input) else { return };
    let (hub, limits) = (hub(), Limits::default());
    let all = [
        Grants::from_v0_claims(&claims, &hub, &limits),
        Grants::from_v1_claims(&claims, &hub, &limits),
    ];
    let topic = Topic::parse("https://example.com/1", &hub, &limits);
    for grants in all.into_iter().flatten() {
        assert!(grants.publish().len() + grants.subscribe().len() <= limits.grants);
        if let Ok(topic) = &topic {
            let allowed = grants.allow_publish(std::slice::from_ref(topic), &hub);
            assert!(!allowed || !grants.publish().is_empty());
        }
        for matcher in grants.subscribe() {
            let _ = grants.payload(matcher, &hub);
        }
    }
}

/// A cursor, and a path of the subscription API.
pub fn cursor(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    match LastEventId::parse(text) {
        None => assert!(text.is_empty()),
        Some(LastEventId::Earliest) => assert_eq!(text, "earliest"),
        Some(LastEventId::After(id)) => assert_eq!(&*id, text),
    }
    let link = subscriptions_link("https://hub.example/x", text);
    let attributes = link.replace("\\\\", "").replace("\\\"", "");
    assert_eq!(attributes.matches('"').count(), 8, "no attribute can be added");
    let path = format!("{}/{text}", SubscriptionsPath::root(&hub()));
    for generation in [Generation::V0, Generation::V1] {
        let _ = SubscriptionsPath::parse(&path, generation, &hub());
    }
}
