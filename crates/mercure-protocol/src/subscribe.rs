use std::borrow::Cow;
use std::collections::HashSet;

use crate::limits::within;
use crate::matcher::Compiler;
use crate::{Error, HubUrl, LastEventId, Limits, Matcher, MatcherType, form};

/// Which generations of the protocol a hub speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// 0.x and 1.0, decided by what each request carries.
    #[default]
    Both,
    /// 1.0 only: nothing of 0.x is accepted.
    V1,
    /// 0.x only.
    V0,
}

impl Protocol {
    /// Whether requests of generation 0.x are served.
    #[must_use]
    pub fn speaks_v0(self) -> bool {
        self != Self::V1
    }

    /// Whether requests of generation 1.0 are served.
    #[must_use]
    pub fn speaks_v1(self) -> bool {
        self != Self::V0
    }
}

/// One of the two generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// 0.x: topic selectors, the `mercure` claim, JSON-LD.
    V0,
    /// 1.0: topic matchers, authorization details, JSON.
    V1,
}

/// What a subscription request asks for (section "Subscription").
#[derive(Debug, Clone)]
pub struct SubscribeQuery {
    /// What to listen to; never empty, no duplicates.
    pub matchers: Vec<Matcher>,
    /// The cursor carried by a parameter; the `Last-Event-ID` header goes before it.
    pub last_event_id: Option<LastEventId>,
    /// The token of the 0.x `authorization` parameter.
    pub authorization: Option<String>,
}

/// Parameters of a subscription that name no matcher: there is room for those of proxies and pages.
const OTHER_PARAMETERS: usize = 100;

impl SubscribeQuery {
    /// Parses a raw query component and, of a `QUERY` request, the form in its body. Both are one
    /// list of parameters; of those that may stand once, the query component's counts.
    ///
    /// # Errors
    /// For a request without matcher, a parameter in the reserved `match` namespace that names no
    /// matcher type, an invalid matcher, or a limit exceeded. All are answered with 400.
    pub fn parse(
        query: &[u8],
        body: &[u8],
        protocol: Protocol,
        hub: &HubUrl,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let mut parsed = Self { matchers: Vec::new(), last_event_id: None, authorization: None };
        let mut asked = Vec::new();
        // Counted before any of them is looked at: others than matchers are few.
        let count = query.iter().chain(body).filter(|byte| **byte == b'&').count();
        within("number of parameters", count, limits.matchers.saturating_add(OTHER_PARAMETERS))?;
        let pairs = form::parameters("query", query).chain(form::parameters("body", body));
        for (name, value) in pairs {
            asked.extend(parsed.take(&name, value, protocol)?);
            within("number of topic matchers", asked.len(), limits.matchers)?;
        }
        if asked.is_empty() {
            return Err(Error::invalid("query", missing_matcher(protocol)));
        }
        // Compiling costs, so what is asked for twice is compiled once, and patterns are counted.
        let mut seen = HashSet::new();
        asked.retain(|matcher| seen.insert(matcher.clone()));
        let patterns = asked.iter().filter(|(kind, text)| is_pattern(*kind, text)).count();
        within("number of patterns", patterns, limits.patterns)?;
        let mut compiler = Compiler::new(hub, limits);
        let compile = |(kind, text): &(MatcherType, String)| compiler.parse(*kind, text);
        parsed.matchers = asked.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(parsed)
    }

    /// Takes a parameter in; returns what it asks to listen to, if it does.
    fn take(
        &mut self,
        name: &str,
        value: Result<Cow<'_, str>, Error>,
        protocol: Protocol,
    ) -> Result<Option<(MatcherType, String)>, Error> {
        match name {
            "topic" if protocol.speaks_v0() => {
                return Ok(Some((MatcherType::Selector, value?.into_owned())));
            }
            "authorization" if protocol.speaks_v0() => {
                self.authorization.get_or_insert(value?.into_owned());
            }
            "lastEventID" | "Last-Event-ID" if protocol.speaks_v0() => self.cursor(&value?),
            "last_event_id" if protocol.speaks_v1() => self.cursor(&value?),
            _ if protocol.speaks_v1() && in_match_namespace(name) => {
                let kind = MatcherType::from_parameter(name).ok_or_else(|| {
                    Error::invalid(
                        "query",
                        "has a parameter in the reserved \"match\" namespace that is none of \
                         match, match_exact, match_urlpattern",
                    )
                })?;
                return Ok(Some((kind, value?.into_owned())));
            }
            _ => {}
        }
        Ok(None)
    }

    fn cursor(&mut self, value: &str) {
        if self.last_event_id.is_none() {
            self.last_event_id = LastEventId::parse(value);
        }
    }
}

fn is_pattern(kind: MatcherType, text: &str) -> bool {
    match kind {
        MatcherType::Exact => false,
        MatcherType::UrlPattern => text != "*",
        MatcherType::Selector => text.contains('{'),
    }
}

fn in_match_namespace(name: &str) -> bool {
    name.as_bytes().get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"match"))
}

fn missing_matcher(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Both => "names no topic; use match=, match_urlpattern= or (0.x) topic=",
        Protocol::V1 => {
            "names no topic; use match= or match_urlpattern= (this hub speaks 1.0 only)"
        }
        Protocol::V0 => "names no topic; use topic= (this hub speaks 0.x only)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str, protocol: Protocol) -> Result<SubscribeQuery, Error> {
        let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
        SubscribeQuery::parse(query.as_bytes(), b"", protocol, &hub, &Limits::default())
    }

    #[test]
    fn both_generations_in_one_request() {
        let query = parse(
            "topic=a&match=a&match_exact=a&match_urlpattern=%2Fb%2F%3Aid&last_event_id=x&authorization=t",
            Protocol::Both,
        )
        .expect("valid");
        assert_eq!(query.matchers.len(), 3, "match and match_exact are one subscription");
        assert_eq!(query.last_event_id, Some(LastEventId::After("x".into())));
        assert_eq!(query.authorization.as_deref(), Some("t"));
    }

    #[test]
    fn parameters_have_a_bound_and_others_have_room() {
        let most = Limits::default().matchers;
        let parameters = |count: usize| format!("topic=t{}", "&utm=x".repeat(count));
        assert!(parse(&parameters(OTHER_PARAMETERS), Protocol::Both).is_ok());
        let error =
            parse(&parameters(most + OTHER_PARAMETERS + 1), Protocol::Both).expect_err("too many");
        assert!(error.to_string().contains("number of parameters"), "{error}");
        let error = parse(&"&match=a".repeat(most + 1), Protocol::Both).expect_err("too many");
        assert!(error.to_string().contains("number of topic matchers"), "{error}");
    }

    #[test]
    fn the_match_namespace_is_reserved() {
        for query in ["match_foo=a", "MATCH=a", "matches=a", "Match_exact=a", "match[]=a"] {
            assert!(parse(&format!("match=x&{query}"), Protocol::Both).is_err(), "{query}");
        }
        assert!(parse("topic=x&match_foo=a", Protocol::V0).is_ok(), "0.x knows no such namespace");
    }

    #[test]
    fn one_generation_alone_ignores_the_other() {
        assert!(parse("topic=a", Protocol::V1).is_err());
        assert!(parse("match=a", Protocol::V0).is_err());
        let query = parse("match=a&authorization=t&lastEventID=x", Protocol::V1).expect("valid");
        assert_eq!((query.authorization, query.last_event_id), (None, None));
    }

    #[test]
    fn every_spelling_of_the_cursor() {
        for name in ["lastEventID", "last_event_id", "Last-Event-ID"] {
            let query = parse(&format!("topic=a&{name}=earliest"), Protocol::Both).expect("valid");
            assert_eq!(query.last_event_id, Some(LastEventId::Earliest), "{name}");
        }
    }

    #[test]
    fn query_component_and_body_are_one_list() {
        let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
        let parse = |query: &str, body: &str| {
            let (query, body) = (query.as_bytes(), body.as_bytes());
            SubscribeQuery::parse(query, body, Protocol::Both, &hub, &Limits::default())
        };
        let both = parse("match=a&last_event_id=q", "match=b&topic=a&last_event_id=b&x=y");
        let both = both.expect("valid");
        let texts: Vec<_> = both.matchers.iter().map(Matcher::as_str).collect();
        assert_eq!(texts, ["a", "b", "a"], "0.x and 1.0 are different subscriptions");
        assert_eq!(both.last_event_id, Some(LastEventId::After("q".into())));
        let body = parse("", "match=a&last_event_id=b").expect("valid");
        assert_eq!(body.last_event_id, Some(LastEventId::After("b".into())));
        assert!(parse("match=a", "match_x=b").is_err(), "reserved in the body as well");
        assert!(parse("match=a", "match=%FF").is_err());
    }

    #[test]
    fn limits_and_bad_input() {
        let many: String = (0..101).map(|n| format!("topic={{x}}{n}&")).collect();
        assert!(parse(&many, Protocol::Both).is_err(), "each pattern is compiled");
        assert!(parse(&"topic={x}&".repeat(900), Protocol::Both).is_ok(), "equal ones only once");
        assert!(parse("", Protocol::Both).is_err());
        assert!(parse("topic=%FF", Protocol::Both).is_err());
        assert!(parse("match=a&utm=caf%E9&%FF=x", Protocol::Both).is_ok(), "not ours to judge");
        assert!(parse("match=a&match%FF=x", Protocol::Both).is_err());
        assert!(parse("match=a%0Ab", Protocol::Both).is_err());
        assert!(parse("match=", Protocol::Both).is_err());
        assert!(parse(&"match=a&".repeat(1001), Protocol::Both).is_err());
    }
}
