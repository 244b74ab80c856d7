use crate::limits::within;
use crate::{Error, EventId, EventType, HubUrl, Limits, Topic, form};

/// A new version of one or more topics, as a publisher sends it (section "Publication").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    topics: Box<[Topic]>,
    data: Box<str>,
    private: bool,
    id: Option<EventId>,
    kind: Option<EventType>,
    retry: Option<u64>,
}

/// The raw values of an update, before any rule was applied.
#[derive(Debug, Clone, Default)]
pub struct Publication<'a> {
    /// Canonical topic first, alternate topics after it.
    pub topics: Vec<&'a str>,
    /// The payload; opaque.
    pub data: &'a str,
    /// Whether only subscribers with a grant may receive it.
    pub private: bool,
    /// The event id; the hub makes one if absent.
    pub id: Option<&'a str>,
    /// The SSE event type.
    pub kind: Option<&'a str>,
    /// The SSE reconnection time: milliseconds, in ASCII digits.
    pub retry: Option<&'a str>,
}

impl Update {
    /// Applies every rule of the specification to the raw values.
    ///
    /// # Errors
    /// The first rule that is broken; [`Error::TooLarge`] for a limit.
    pub fn new(raw: &Publication<'_>, hub: &HubUrl, limits: &Limits) -> Result<Self, Error> {
        if raw.topics.is_empty() {
            return Err(Error::invalid(
                "topic",
                "is missing; at least one topic field is required",
            ));
        }
        within("number of topics", raw.topics.len(), limits.topics)?;
        let topics = raw
            .topics
            .iter()
            .map(|topic| Topic::parse(topic, hub, limits))
            .collect::<Result<Box<[_]>, _>>()?;
        Ok(Self {
            topics,
            data: raw.data.into(),
            private: raw.private,
            id: given(raw.id).map(|id| EventId::parse(id, limits)).transpose()?,
            kind: given(raw.kind).map(|kind| EventType::parse(kind, limits)).transpose()?,
            retry: raw.retry.map(parse_retry).transpose()?,
        })
    }

    /// An update that the hub makes itself: private, in the reserved namespace.
    pub(crate) fn of_hub(topic: Topic, data: String, kind: Option<EventType>) -> Self {
        Self {
            topics: Box::new([topic]),
            data: data.into(),
            private: true,
            id: None,
            kind,
            retry: None,
        }
    }

    /// Parses the form body of a publish request. Unknown fields are ignored; of a field that may
    /// stand once, the first occurrence counts.
    ///
    /// # Errors
    /// As [`Update::new`], and for a body that is not UTF-8 after decoding.
    pub fn from_form(body: &[u8], hub: &HubUrl, limits: &Limits) -> Result<Self, Error> {
        let pairs = form::pairs("form", body).collect::<Result<Vec<_>, _>>()?;
        let first = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_ref());
        let raw = Publication {
            topics: pairs.iter().filter(|(n, _)| n == "topic").map(|(_, v)| v.as_ref()).collect(),
            data: first("data").unwrap_or_default(),
            private: first("private").is_some(),
            id: first("id"),
            kind: first("type"),
            retry: first("retry"),
        };
        Self::new(&raw, hub, limits)
    }

    /// The canonical topic and the alternate ones; never empty.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The payload.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Whether only subscribers with a grant may receive it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// The id the publisher gave, if any.
    #[must_use]
    pub fn id(&self) -> Option<&EventId> {
        self.id.as_ref()
    }

    /// The SSE event type, if any.
    #[must_use]
    pub fn kind(&self) -> Option<&EventType> {
        self.kind.as_ref()
    }

    /// The SSE reconnection time in milliseconds, if any.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }
}

/// An empty optional field is one that was not given: HTML forms send those.
fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

fn parse_retry(value: &str) -> Result<u64, Error> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid("retry", "must consist of ASCII digits (milliseconds)"));
    }
    value.parse().map_err(|_| Error::invalid("retry", "is too large a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_form(body: &str) -> Result<Update, Error> {
        let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
        Update::from_form(body.as_bytes(), &hub, &Limits::default())
    }

    #[test]
    fn every_field_is_read() {
        let update = from_form(
            "topic=a&topic=https%3A%2F%2Fexample.com%2F%C3%A9&data=x+y%0Az&private=&id=i&type=t&retry=12&unknown=1",
        )
        .expect("valid");
        let topics: Vec<_> = update.topics().iter().map(Topic::as_str).collect();
        assert_eq!(topics, ["a", "https://example.com/é"]);
        assert_eq!(update.data(), "x y\nz");
        assert!(update.is_private());
        assert_eq!(update.id().map(EventId::as_str), Some("i"));
        assert_eq!(update.kind().map(EventType::as_str), Some("t"));
        assert_eq!(update.retry(), Some(12));
    }

    #[test]
    fn bad_fields_are_named() {
        for (body, field) in [
            ("data=x", "topic"),
            ("topic=", "topic"),
            ("topic=a%0Ab", "topic"),
            ("topic=a&id=%23x", "id"),
            ("topic=a&id=earliest", "id"),
            ("topic=a&id=x%0Adata:y", "id"),
            ("topic=a&type=mercure", "type"),
            ("topic=a&type=x%0D", "type"),
            ("topic=a&retry=1s", "retry"),
            ("topic=a&retry=", "retry"),
            ("topic=a&retry=%EF%BC%91", "retry"),
            ("topic=a&retry=99999999999999999999999", "retry"),
            ("topic=%FF", "form"),
            ("topic=a&data=%C3", "form"),
        ] {
            match from_form(body) {
                Err(Error::Invalid { what, .. }) => assert_eq!(what, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn limits_are_errors_of_their_own() {
        let many = "topic=a&".repeat(101);
        assert!(matches!(from_form(&many), Err(Error::TooLarge { limit: 100, .. })));
        let long = format!("topic=a&id={}", "i".repeat(1025));
        assert!(matches!(from_form(&long), Err(Error::TooLarge { what: "id", .. })));
    }
}
