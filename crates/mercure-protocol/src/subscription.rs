//! Active subscriptions: their events, their documents and the paths of the API, in both forms
//! (section "Active Subscriptions").

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::{EventType, Generation, HubUrl, MatcherName, MatcherType, Topic, Update, text};

/// What RFC 6570 encodes in a simple expansion: everything but unreserved characters.
const EXPANSION: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The JSON-LD context of 0.x documents.
const CONTEXT: &str = "https://mercure.rocks/";

/// Who holds subscriptions: made by the hub for each connection, and random, so that nobody can
/// choose it and it says nothing about a person ("Subscriber Identifier Assignment").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriberId([u8; 16]);

impl SubscriberId {
    /// An identifier from 16 random bytes: a `urn:uuid:` of version 4.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes it was made from.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SubscriberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::urn_uuid(self.0))
    }
}

/// One matcher of one subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Subscription<'a> {
    /// What is listened to.
    pub matcher: &'a MatcherName,
    /// Who listens.
    pub subscriber: SubscriberId,
    /// What the subscriber's token attaches to it.
    pub payload: Option<&'a Value>,
    /// Whether it holds, or has ended.
    pub active: bool,
}

impl Subscription<'_> {
    /// The path of its resource, which is the topic of its events as well. `None` if that
    /// generation has no words for the matcher: 1.0 knows no URI templates, 0.x no URL patterns.
    #[must_use]
    pub fn path(&self, generation: Generation, hub: &HubUrl) -> Option<String> {
        let root = SubscriptionsPath::root(hub);
        let matcher = expand(self.matcher.as_str());
        let subscriber = expand(&self.subscriber.to_string());
        match generation {
            Generation::V1 => {
                let kind = self.matcher.v1_name()?;
                Some(format!("{root}/{kind}/{matcher}/{subscriber}"))
            }
            Generation::V0 => {
                self.matcher.is_selector().then(|| format!("{root}/{matcher}/{subscriber}"))
            }
        }
    }

    /// Its document, as the API shows it within a collection.
    #[must_use]
    pub fn document(&self, generation: Generation, hub: &HubUrl) -> Option<Value> {
        let id = self.path(generation, hub)?;
        let mut document = match generation {
            Generation::V1 => json!({
                "id": id,
                "type": "subscription",
                "match_type": self.matcher.v1_name()?,
                "match": self.matcher.as_str(),
            }),
            Generation::V0 => json!({
                "id": id,
                "type": "Subscription",
                "topic": self.matcher.as_str(),
            }),
        };
        document["subscriber"] = json!(self.subscriber.to_string());
        document["active"] = json!(self.active);
        if let Some(payload) = self.payload {
            document["payload"] = payload.clone();
        }
        Some(document)
    }

    /// Its document on its own: with the context that 0.x asks for.
    #[must_use]
    pub fn root_document(&self, generation: Generation, hub: &HubUrl) -> Option<Value> {
        let document = self.document(generation, hub)?;
        Some(with_context(generation, document))
    }

    /// The event that tells that the subscription was created or has ended.
    #[must_use]
    pub fn update(&self, generation: Generation, hub: &HubUrl) -> Option<Update> {
        let topic = Topic::of_hub(&self.path(generation, hub)?);
        let document = self.root_document(generation, hub)?;
        let kind = (generation == Generation::V1).then(EventType::of_hub);
        Some(Update::of_hub(topic, document.to_string(), kind))
    }
}

/// A collection of subscriptions as a document.
///
/// `cursor` is the id of the newest event, which 0.x carries in the document.
#[must_use]
pub fn collection(generation: Generation, id: &str, cursor: &str, members: Vec<Value>) -> Value {
    let (kind, v0) = match generation {
        Generation::V1 => ("subscriptions", false),
        Generation::V0 => ("Subscriptions", true),
    };
    let mut document = json!({"id": id, "type": kind});
    if v0 {
        document["lastEventID"] = json!(cursor);
    }
    document["subscriptions"] = Value::Array(members);
    with_context(generation, document)
}

fn with_context(generation: Generation, document: Value) -> Value {
    match (generation, document) {
        (Generation::V0, Value::Object(fields)) => {
            let mut all = Map::from_iter([("@context".to_owned(), json!(CONTEXT))]);
            all.extend(fields);
            Value::Object(all)
        }
        (_, document) => document,
    }
}

fn expand(value: &str) -> String {
    utf8_percent_encode(value, EXPANSION).to_string()
}

/// What a path of the subscription API addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionsPath {
    /// Every subscription.
    All,
    /// Those with a matcher.
    Of(AskedMatcher),
    /// One subscriber's subscription.
    One(AskedMatcher, String),
}

/// A matcher as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedMatcher {
    /// The 1.0 type's name; `None` in a path of 0.x.
    pub kind: Option<&'static str>,
    /// The matcher's text.
    pub text: String,
}

impl AskedMatcher {
    /// Whether the path means this matcher.
    #[must_use]
    pub fn is(&self, matcher: &MatcherName) -> bool {
        let speaks = match self.kind {
            Some(kind) => matcher.v1_name() == Some(kind),
            None => matcher.is_selector(),
        };
        speaks && matcher.as_str() == self.text
    }
}

impl SubscriptionsPath {
    /// The path of the collection of all.
    #[must_use]
    pub fn root(hub: &HubUrl) -> String {
        format!("{}/subscriptions", hub.path().trim_end_matches('/'))
    }

    /// Parses a path in the form of one generation; `None` if it addresses nothing.
    #[must_use]
    pub fn parse(path: &str, generation: Generation, hub: &HubUrl) -> Option<Self> {
        let rest = path.strip_prefix(&Self::root(hub))?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let decode = |segment: &str| {
            let text = percent_decode_str(segment).decode_utf8().ok()?;
            (!text.is_empty()).then(|| text.into_owned())
        };
        let segments = rest.strip_prefix('/')?.split('/').map(decode);
        let segments = segments.collect::<Option<Vec<String>>>()?;
        let named = |kind: &str, text: &str| {
            MatcherType::from_name(kind)?;
            let kind = MatcherType::NAMES.into_iter().find(|name| *name == kind)?;
            Some(AskedMatcher { kind: Some(kind), text: text.to_owned() })
        };
        let plain = |text: &str| AskedMatcher { kind: None, text: text.to_owned() };
        match (generation, segments.as_slice()) {
            (Generation::V1, [kind, text]) => Some(Self::Of(named(kind, text)?)),
            (Generation::V1, [kind, text, who]) => Some(Self::One(named(kind, text)?, who.clone())),
            (Generation::V0, [text]) => Some(Self::Of(plain(text))),
            (Generation::V0, [text, who]) => Some(Self::One(plain(text), who.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Matcher};

    const ROOT: &str = "/.well-known/mercure/subscriptions";

    const WHO: SubscriberId = SubscriberId([0x11; 16]);
    const URN: &str = "urn:uuid:11111111-1111-4111-9111-111111111111";
    const ENCODED: &str = "urn%3Auuid%3A11111111-1111-4111-9111-111111111111";

    fn hub() -> HubUrl {
        HubUrl::parse("https://hub.example/.well-known/mercure").expect("hub URL")
    }

    fn matcher(kind: MatcherType, text: &str) -> MatcherName {
        Matcher::parse(kind, text, &hub(), &Limits::default()).expect("matcher").name()
    }

    fn paths(kind: MatcherType, text: &str) -> [Option<String>; 2] {
        let matcher = matcher(kind, text);
        let subscription =
            Subscription { matcher: &matcher, subscriber: WHO, payload: None, active: true };
        [Generation::V1, Generation::V0].map(|generation| subscription.path(generation, &hub()))
    }

    #[test]
    fn variables_are_encoded_once_and_as_a_whole() {
        let path = paths(MatcherType::Exact, "https://x/ä%2F b").map(Option::unwrap_or_default);
        assert_eq!(path[0], format!("{ROOT}/exact/https%3A%2F%2Fx%2F%C3%A4%252F%20b/{ENCODED}"));
        assert_eq!(path[1], format!("{ROOT}/https%3A%2F%2Fx%2F%C3%A4%252F%20b/{ENCODED}"));
    }

    #[test]
    fn each_generation_tells_what_it_has_words_for() {
        let told = |kind, text| paths(kind, text).map(|path| path.is_some());
        assert_eq!(told(MatcherType::Exact, "a"), [true, true]);
        assert_eq!(told(MatcherType::Selector, "a"), [true, true]);
        assert_eq!(told(MatcherType::Selector, "https://x/{id}"), [false, true]);
        assert_eq!(told(MatcherType::UrlPattern, "/:id"), [true, false]);
        assert_eq!(told(MatcherType::Exact, "https://x/{id}"), [true, false]);
        assert_eq!(told(MatcherType::UrlPattern, "*"), [true, true]);
    }

    #[test]
    fn documents_have_the_members_of_their_generation() {
        let matcher = matcher(MatcherType::Exact, "a");
        let payload = json!({"foo": "bar"});
        let subscription = Subscription {
            matcher: &matcher,
            subscriber: WHO,
            payload: Some(&payload),
            active: true,
        };
        let document = |generation| subscription.root_document(generation, &hub());
        assert_eq!(
            document(Generation::V1),
            Some(json!({
                "id": format!("{ROOT}/exact/a/{ENCODED}"), "type": "subscription",
                "match_type": "exact", "match": "a", "subscriber": URN, "active": true,
                "payload": {"foo": "bar"},
            }))
        );
        assert_eq!(
            document(Generation::V0),
            Some(json!({
                "@context": "https://mercure.rocks/", "id": format!("{ROOT}/a/{ENCODED}"),
                "type": "Subscription", "topic": "a", "subscriber": URN, "active": true,
                "payload": {"foo": "bar"},
            }))
        );
        let update = subscription.update(Generation::V1, &hub()).expect("an event");
        assert!(update.is_private());
        assert_eq!(update.kind().map(EventType::as_str), Some("mercure"));
        let update = subscription.update(Generation::V0, &hub()).expect("an event");
        assert_eq!(update.kind(), None);
    }

    #[test]
    fn paths_are_read_back() {
        let parse = |rest: &str, generation| {
            SubscriptionsPath::parse(&format!("{ROOT}{rest}"), generation, &hub())
        };
        let asked = |kind, text: &str| AskedMatcher { kind, text: text.to_owned() };
        for generation in [Generation::V0, Generation::V1] {
            assert_eq!(parse("", generation), Some(SubscriptionsPath::All));
            assert_eq!(parse("/", generation), None);
            assert_eq!(parse("/exact//", generation), None);
            assert_eq!(parse("/%FF", generation), None);
            assert_eq!(parse("/a/b/c/d", generation), None);
            assert_eq!(parse("x", generation), None);
        }
        let of = |kind, text| Some(SubscriptionsPath::Of(asked(kind, text)));
        assert_eq!(parse("/exact/a%2Fb", Generation::V1), of(Some("exact"), "a/b"));
        assert_eq!(parse("/Exact/a", Generation::V1), None);
        assert_eq!(parse("/a%2Fb", Generation::V0), of(None, "a/b"));
        assert_eq!(
            parse("/exact/a", Generation::V0),
            Some(SubscriptionsPath::One(asked(None, "exact"), "a".to_owned()))
        );
    }
}
