use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::limits::within;
use crate::{Error, Limits, text};

/// The identifier of an updated resource, valid for publication (section "Terminology").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Parses a `topic` field of a publication.
    ///
    /// # Errors
    /// Refuses an empty topic, forbidden characters, the wildcard `*`, a topic in the namespace
    /// reserved for the hub (section "Publication") and one over the length limit.
    pub fn parse(value: &str, hub: &HubUrl, limits: &Limits) -> Result<Self, Error> {
        within("topic", value.len(), limits.topic_length)?;
        if value.is_empty() {
            return Err(Error::invalid("topic", "is empty"));
        }
        text::check("topic", value)?;
        if value == "*" {
            return Err(Error::invalid("topic", "\"*\" is the wildcard and names no single topic"));
        }
        if hub.reserves(value) {
            return Err(Error::invalid("topic", "is in the namespace reserved for the hub"));
        }
        Ok(Self(value.into()))
    }

    /// A topic in the hub's own namespace: a path that the hub has built itself.
    pub(crate) fn of_hub(path: &str) -> Self {
        Self(path.into())
    }

    /// A topic that a log has kept: it was checked when it was published.
    #[must_use]
    pub fn from_log(value: &str) -> Self {
        Self(value.into())
    }

    /// The topic as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The hub's own URL: the base for relative topics and patterns, and the root of the reserved
/// namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubUrl(Url);

impl HubUrl {
    /// Parses an absolute `http` or `https` URL without query and fragment.
    ///
    /// # Errors
    /// Says which of these the value is not.
    pub fn parse(value: &str) -> Result<Self, Error> {
        let url = Url::parse(value).map_err(|error| {
            Error::invalid("hub URL", format!("is not an absolute URL ({error})"))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::invalid("hub URL", "must start with http:// or https://"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::invalid("hub URL", "must have no query and no fragment"));
        }
        Ok(Self(url))
    }

    /// The URL in canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The path, under which everything that the hub makes itself has its place.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Resolves a topic against the hub's URL; `None` if it is no URL reference.
    pub(crate) fn resolve(&self, topic: &str) -> Option<Url> {
        Url::options().base_url(Some(&self.0)).parse(topic).ok()
    }

    /// Whether a topic addresses the hub's reserved namespace, whatever its scheme and host
    /// (section "Publication"): compared after resolution, removal of dot segments (done by the
    /// URL parser) and decoding of percent-encoded unreserved characters.
    fn reserves(&self, topic: &str) -> bool {
        // The URL library keeps drive letters from being removed by dot segments, which the
        // standard does for files only: the check looks at both readings.
        self.addresses(topic) || without_drives(topic).is_some_and(|topic| self.addresses(&topic))
    }

    fn addresses(&self, topic: &str) -> bool {
        let Some(url) = self.resolve(topic) else {
            return false;
        };
        let path = decode_unreserved(url.path());
        let root = decode_unreserved(self.0.path());
        path.strip_prefix(root.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The topic with something else in the place of segments like `C:`; `None` if there are none. A
/// scheme of one letter is none: it stands first.
fn without_drives(topic: &str) -> Option<String> {
    let is_drive = |at: usize, segment: &str| match segment.as_bytes() {
        [letter, b'|'] => letter.is_ascii_alphabetic(),
        [letter, b':'] => letter.is_ascii_alphabetic() && at > 0,
        [letter, b'%', b'7', b'c' | b'C'] => letter.is_ascii_alphabetic(),
        _ => false,
    };
    let segments: Vec<_> = topic.split(['/', '\\']).collect();
    let found = segments.iter().enumerate().any(|(at, segment)| is_drive(at, segment));
    let replaced = segments.iter().enumerate();
    let replaced = replaced.map(|(at, segment)| if is_drive(at, segment) { "x" } else { segment });
    found.then(|| replaced.collect::<Vec<_>>().join("/"))
}

/// Decodes the percent-encoded octets that stand for unreserved characters (RFC 3986, 6.2.2.2).
fn decode_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let octet = rest.get(at..at + 3).unwrap_or("%");
        let decoded = percent_decode_str(octet).next().unwrap_or(b'%');
        if octet.len() == 3 && (decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded)) {
            out.push(char::from(decoded));
        } else {
            out.push_str(octet);
        }
        rest = &rest[at + octet.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(topic: &str) -> Result<Topic, Error> {
        let hub = HubUrl::parse("https://hub.example.com/.well-known/mercure").expect("hub URL");
        Topic::parse(topic, &hub, &Limits::default())
    }

    #[test]
    fn the_reserved_namespace_is_refused_in_every_spelling() {
        for topic in [
            "/.well-known/mercure",
            "/.well-known/mercure/subscriptions/exact/a/b",
            "https://hub.example.com/.well-known/mercure/x",
            "https://other.example/.well-known/mercure/x",
            "/.well-known/%6Dercure/x",
            "/.well-known/%6dercure",
            "/.well-known/mercure/../mercure/x",
            "/a/../.well-known/mercure",
            "/a/%2e%2e/.well-known/mercure",
            "mercure/x",
            "\\.well-known\\mercure\\x",
            "/.well-known/mercure?x",
            "//other.example/.well-known/mercure#f",
            "/c:/../.well-known/mercure",
            "/c:/%2e%2e/.well-known/mercure",
            "/c|/../.well-known/mercure",
            "C|/../mercure",
            "/a/c:/../../.well-known/mercure",
            "https://h/c:/../.well-known/mercure/subscriptions/exact/a/b",
            "foo:/c:/../.well-known/mercure",
            "c:/../.well-known/mercure",
        ] {
            assert!(parse(topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn other_topics_are_accepted_as_they_are() {
        for topic in [
            "topic",
            "a b",
            "https://example.com/books/1",
            "urn:uuid:e1ee88e2-532a-4d6f-ba70-f0f8bd584022",
            "/.well-known/mercurex",
            "/.well-known/mercur",
            "https://example.com/%zz",
            "http://[",
            "%",
            "日本語",
        ] {
            assert_eq!(parse(topic).map(|t| t.to_string()), Ok(topic.to_owned()), "{topic}");
        }
    }

    #[test]
    fn the_wildcard_the_empty_and_the_overlong_are_refused() {
        assert!(parse("*").is_err());
        assert!(parse("").is_err());
        assert!(matches!(parse(&"a".repeat(4097)), Err(Error::TooLarge { .. })));
        assert!(parse("a\nb").is_err());
    }
}
