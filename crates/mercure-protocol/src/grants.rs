use std::sync::Arc;

use serde_json::Value;

use crate::limits::within;
use crate::matcher::Compiler;
use crate::{Error, HubUrl, Limits, Matcher, MatcherType, Protocol, Topic, TopicView};

/// The `type` of an authorization detail that speaks of Mercure (section "Authorization Details").
pub(crate) const DETAIL_TYPE: &str = "https://mercure.rocks/authorization-detail";
/// The 0.x claim, and its collision-resistant alias.
const V0_CLAIMS: [&str; 2] = ["mercure", "https://mercure.rocks/"];

/// What its bearer may do: which topics it may publish to, which private updates it may read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Grants {
    publish: Vec<Matcher>,
    subscribe: Vec<Matcher>,
    /// What subscriptions say about their subscriber; the first rule that applies counts.
    payloads: Vec<PayloadRule>,
}

/// The payload of an authorization detail, or of a whole 0.x token (section "Payloads").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PayloadRule {
    /// Subscriptions that it is for; `None` for all.
    topics: Option<Vec<Matcher>>,
    payload: Option<Arc<Value>>,
}

impl Grants {
    /// Grants given by the application itself, as topic selectors (0.x rules: equality, URI
    /// template, `*`).
    ///
    /// # Errors
    /// For a selector that is invalid or over a limit.
    pub fn from_selectors<S: AsRef<str>>(
        publish: &[S],
        subscribe: &[S],
        hub: &HubUrl,
        limits: &Limits,
    ) -> Result<Self, Error> {
        within("number of grants", publish.len() + subscribe.len(), limits.grants)?;
        let mut compiler = Compiler::new(hub, limits);
        let mut parse = |selectors: &[S]| {
            let parse = |s: &S| compiler.parse(MatcherType::Selector, s.as_ref());
            selectors.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { publish: parse(publish)?, subscribe: parse(subscribe)?, payloads: Vec::new() })
    }

    /// Grants to read private updates with one of these topics, and for nothing else.
    #[must_use]
    pub fn to_read(topics: Vec<Matcher>) -> Self {
        Self { subscribe: topics, ..Self::default() }
    }

    /// Reads the `mercure` claim of a 0.x token (0.x, "Publishers" and "Subscribers").
    ///
    /// # Errors
    /// For a claim that is malformed; no part of it counts then. A token without the claim is
    /// valid and grants nothing.
    pub fn from_v0_claims(claims: &Value, hub: &HubUrl, limits: &Limits) -> Result<Self, Error> {
        let Some(claim) = V0_CLAIMS.iter().find_map(|name| claims.get(name)) else {
            return Ok(Self::default());
        };
        if !claim.is_object() {
            return Err(Error::invalid("mercure claim", "must be an object"));
        }
        let selectors = |name: &str| match claim.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(text_of_selector).collect(),
            Some(_) => Err(Error::invalid("mercure claim", "publish and subscribe must be arrays")),
        };
        let (publish, subscribe) = (selectors("publish")?, selectors("subscribe")?);
        let grants = Self::from_selectors(&publish, &subscribe, hub, limits)?;
        Ok(grants.with_payload(claim.get("payload").cloned()))
    }

    /// The same grants, with what is told of the subscriber in every subscription; null for
    /// nothing.
    #[must_use]
    pub fn with_payload(mut self, payload: Option<Value>) -> Self {
        if let Some(payload) = payload.filter(|payload| !payload.is_null()) {
            self.payloads.push(PayloadRule { topics: None, payload: Some(Arc::new(payload)) });
        }
        self
    }

    /// Whether claims hold the `mercure` claim of 0.x.
    #[must_use]
    pub fn has_v0_claim(claims: &Value) -> bool {
        V0_CLAIMS.iter().any(|name| claims.get(name).is_some())
    }

    /// Reads the `authorization_details` claim of a 1.0 token: all or nothing.
    ///
    /// # Errors
    /// For any Mercure detail that is malformed. Details of other types, and actions the hub does
    /// not know, grant nothing.
    pub fn from_v1_claims(claims: &Value, hub: &HubUrl, limits: &Limits) -> Result<Self, Error> {
        let details = match claims.get("authorization_details") {
            None => return Ok(Self::default()),
            Some(Value::Array(details)) => details,
            Some(_) => return Err(malformed("must be an array")),
        };
        let mut grants = Self::default();
        let mut compiler = Compiler::new(hub, limits);
        for detail in details {
            let detail = detail.as_object().ok_or_else(|| malformed("must hold objects"))?;
            if detail.get("type").and_then(Value::as_str) != Some(DETAIL_TYPE) {
                continue;
            }
            let actions = strings(detail.get("actions"))?;
            let topics = topic_matchers(detail.get("topics"), limits, &mut compiler)?;
            let payload = detail.get("payload");
            if payload.is_some_and(|payload| !payload.is_object()) {
                return Err(malformed("payload must be an object"));
            }
            if actions.contains(&"publish") {
                grants.publish.extend(topics.iter().cloned());
            }
            if actions.contains(&"subscribe") {
                grants.subscribe.extend(topics.iter().cloned());
                let payload = payload.map(|payload| Arc::new(payload.clone()));
                grants.payloads.push(PayloadRule { topics: Some(topics), payload });
            }
            within(
                "number of grants",
                grants.publish.len() + grants.subscribe.len(),
                limits.grants,
            )?;
        }
        Ok(grants)
    }

    /// Whether an update with these topics may be published: every topic must be granted.
    #[must_use]
    pub fn allow_publish(&self, topics: &[Topic], hub: &HubUrl) -> bool {
        topics.iter().all(|topic| {
            let view = TopicView::new(topic.as_str(), hub);
            self.publish.iter().any(|matcher| matcher.matches(&view))
        })
    }

    /// Whether a private update with these topics may be read: one granted topic is enough.
    #[must_use]
    pub fn allow_read(&self, topics: &[TopicView<'_>]) -> bool {
        self.subscribe.iter().any(|matcher| topics.iter().any(|topic| matcher.matches(topic)))
    }

    /// What a subscription says about its subscriber: the payload of the first detail that grants
    /// `subscribe` on the subscription's own matcher, taken as if it were a topic.
    #[must_use]
    pub fn payload(&self, subscription: &Matcher, hub: &HubUrl) -> Option<Arc<Value>> {
        let view = TopicView::new(subscription.as_str(), hub);
        let applies = |rule: &&PayloadRule| match &rule.topics {
            None => true,
            Some(topics) => topics.iter().any(|matcher| matcher.matches(&view)),
        };
        self.payloads.iter().find(applies).and_then(|rule| rule.payload.clone())
    }

    /// What may be published to.
    #[must_use]
    pub fn publish(&self) -> &[Matcher] {
        &self.publish
    }

    /// What private updates may be read.
    #[must_use]
    pub fn subscribe(&self) -> &[Matcher] {
        &self.subscribe
    }

    /// What its patterns take compiled, in bytes; one that stands under both actions counts twice.
    #[must_use]
    pub fn compiled_size(&self) -> usize {
        self.publish.iter().chain(&self.subscribe).map(Matcher::size).sum()
    }

    /// Whether nothing private can ever be read with these grants.
    #[must_use]
    pub fn read_nothing(&self) -> bool {
        self.subscribe.is_empty()
    }
}

/// Tells clients apart without saying who they are: made from a token's issuer and subject, or
/// from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId(pub [u8; 16]);

/// Who asks, as far as the hub is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody in particular: public updates only, no publishing.
    Anonymous,
    /// The bearer of a valid token, or of grants that a trusted worker vouches for.
    Granted {
        /// What it may do.
        grants: Arc<Grants>,
        /// When the permission ends, in seconds since the Unix epoch; `None` for never.
        expires_at: Option<u64>,
        /// Who it belongs to, if that can be told.
        client: Option<ClientId>,
        /// Whose rules the permission was judged by, and whether those of 0.x hold as well.
        spoken: Protocol,
    },
    /// The application itself, over its own socket: may publish anything.
    Application,
}

fn malformed(reason: &'static str) -> Error {
    Error::invalid("authorization_details", reason)
}

fn text_of_selector(item: &Value) -> Result<&str, Error> {
    item.as_str().ok_or_else(|| Error::invalid("mercure claim", "topic selectors must be strings"))
}

fn strings(value: Option<&Value>) -> Result<Vec<&str>, Error> {
    let items = value.and_then(Value::as_array).filter(|items| !items.is_empty());
    items
        .ok_or_else(|| malformed("actions must be a non-empty array"))?
        .iter()
        .map(|item| item.as_str().ok_or_else(|| malformed("actions must be strings")))
        .collect()
}

fn topic_matchers(
    value: Option<&Value>,
    limits: &Limits,
    compiler: &mut Compiler<'_>,
) -> Result<Vec<Matcher>, Error> {
    let items = value.and_then(Value::as_array).filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| malformed("topics must be a non-empty array"))?;
    within("number of grants", items.len(), limits.grants)?;
    items
        .iter()
        .map(|item| {
            let text = item.get("match").and_then(Value::as_str);
            let text = text.ok_or_else(|| malformed("each topic needs a \"match\" string"))?;
            let kind = match item.get("match_type") {
                None => Some(MatcherType::Exact),
                Some(kind) => kind.as_str().and_then(MatcherType::from_name),
            };
            let kind = kind.ok_or_else(|| malformed("match_type is not supported"))?;
            compiler.parse(kind, text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hub() -> HubUrl {
        HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL")
    }

    fn reads(grants: &Grants, topics: &[&str]) -> bool {
        let hub = hub();
        let views: Vec<_> = topics.iter().map(|topic| TopicView::new(topic, &hub)).collect();
        grants.allow_read(&views)
    }

    fn publishes(grants: &Grants, topics: &[&str]) -> bool {
        let limits = Limits::default();
        let topics: Vec<_> =
            topics.iter().map(|t| Topic::parse(t, &hub(), &limits).expect("topic")).collect();
        grants.allow_publish(&topics, &hub())
    }

    #[test]
    fn v0_publishing_needs_every_topic_and_reading_needs_one() {
        let claims =
            json!({"mercure": {"publish": ["a", "https://x/{id}"], "subscribe": ["a", "b"]}});
        let grants = Grants::from_v0_claims(&claims, &hub(), &Limits::default()).expect("valid");
        assert!(publishes(&grants, &["a", "https://x/1"]));
        assert!(!publishes(&grants, &["a", "c"]));
        assert!(reads(&grants, &["c", "b"]));
        assert!(!reads(&grants, &["c"]));
    }

    #[test]
    fn v0_absent_null_and_empty_grant_nothing() {
        for claims in [
            json!({}),
            json!({"mercure": {}}),
            json!({"mercure": {"publish": null, "subscribe": []}}),
        ] {
            let grants =
                Grants::from_v0_claims(&claims, &hub(), &Limits::default()).expect("valid");
            assert!(!publishes(&grants, &["a"]) && !reads(&grants, &["a"]), "{claims}");
        }
        for claims in [
            json!({"mercure": 1}),
            json!({"mercure": {"publish": "*"}}),
            json!({"mercure": {"subscribe": [1]}}),
        ] {
            assert!(
                Grants::from_v0_claims(&claims, &hub(), &Limits::default()).is_err(),
                "{claims}"
            );
        }
    }

    #[test]
    fn v1_is_all_or_nothing() {
        let good = json!({"type": DETAIL_TYPE, "actions": ["subscribe", "later"], "topics": [{"match": "a"}]});
        let parse = |details: Value| {
            Grants::from_v1_claims(
                &json!({"authorization_details": details}),
                &hub(),
                &Limits::default(),
            )
        };
        let grants = parse(json!([&good, {"type": "other", "anything": 1}])).expect("valid");
        assert!(reads(&grants, &["a"]) && !publishes(&grants, &["a"]));
        for bad in [
            json!({"type": DETAIL_TYPE, "actions": [], "topics": [{"match": "a"}]}),
            json!({"type": DETAIL_TYPE, "actions": [1], "topics": [{"match": "a"}]}),
            json!({"type": DETAIL_TYPE, "actions": ["publish"]}),
            json!({"type": DETAIL_TYPE, "actions": ["publish"], "topics": []}),
            json!({"type": DETAIL_TYPE, "actions": ["publish"], "topics": ["a"]}),
            json!({"type": DETAIL_TYPE, "actions": ["publish"], "topics": [{"match": "a", "match_type": "Exact"}]}),
            json!({"type": DETAIL_TYPE, "actions": ["publish"], "topics": [{"match": "/(", "match_type": "urlpattern"}]}),
            json!({"type": DETAIL_TYPE, "actions": ["publish"], "topics": [{"match": "a"}], "payload": 1}),
            json!(1),
        ] {
            assert!(parse(json!([&good, &bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_detail_that_covers_a_subscription_gives_its_payload() {
        let detail = |matcher: Value, payload: Value| {
            let mut detail =
                json!({"type": DETAIL_TYPE, "actions": ["subscribe"], "topics": [matcher]});
            if !payload.is_null() {
                detail["payload"] = payload;
            }
            detail
        };
        let claims = json!({"authorization_details": [
            detail(json!({"match": "https://x/a"}), json!({"n": 1})),
            detail(json!({"match": "https://x/silent"}), Value::Null),
            detail(json!({"match": "https://x/:id", "match_type": "urlpattern"}), json!({"n": 2})),
            detail(json!({"match": "*"}), json!({"n": 3})),
        ]});
        let grants = Grants::from_v1_claims(&claims, &hub(), &Limits::default()).expect("valid");
        let payload = |kind, text: &str| {
            let matcher = Matcher::parse(kind, text, &hub(), &Limits::default()).expect("matcher");
            grants.payload(&matcher, &hub()).map(|payload| payload["n"].clone())
        };
        assert_eq!(payload(MatcherType::Exact, "https://x/a"), Some(json!(1)));
        assert_eq!(payload(MatcherType::Exact, "https://x/silent"), None, "the first one wins");
        assert_eq!(payload(MatcherType::UrlPattern, "https://x/:id"), Some(json!(2)));
        assert_eq!(payload(MatcherType::Exact, "other"), Some(json!(3)));

        let claims = json!({"mercure": {"subscribe": [], "payload": ["any", "JSON"]}});
        let grants = Grants::from_v0_claims(&claims, &hub(), &Limits::default()).expect("valid");
        let matcher = Matcher::parse(MatcherType::Selector, "a", &hub(), &Limits::default());
        let payload = grants.payload(&matcher.expect("matcher"), &hub());
        assert_eq!(payload.as_deref(), Some(&json!(["any", "JSON"])));
    }

    #[test]
    fn v1_knows_no_templates() {
        let claims = json!({"authorization_details": [
            {"type": DETAIL_TYPE, "actions": ["publish"], "topics": [{"match": "https://x/{id}"}]}
        ]});
        let grants = Grants::from_v1_claims(&claims, &hub(), &Limits::default()).expect("valid");
        assert!(!publishes(&grants, &["https://x/1"]));
    }
}
