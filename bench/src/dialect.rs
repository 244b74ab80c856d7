//! How to subscribe and publish at each kind of server.

use std::fmt::Write as _;

/// A kind of server.
#[derive(Debug, Clone)]
pub(crate) enum Dialect {
    /// Any Mercure hub, with a token that publishes and one that reads what is private.
    Mercure { path: String, publisher: String, reader: String },
    /// nginx with Nchan: `/pub/…` and `/sub/…`.
    Nchan,
    /// The loop in [`bare`](crate::bare): one topic.
    Bare,
}

impl Dialect {
    /// The request of a subscriber.
    pub(crate) fn subscribe(&self, query: &Query, cursor: Option<&str>) -> String {
        self.subscribe_with(query, cursor, "")
    }

    /// The request of a subscriber who may read what is private, where there is such a thing.
    pub(crate) fn subscribe_privately(&self, query: &Query) -> String {
        match self {
            Self::Mercure { reader, .. } => {
                let field = format!("Authorization: Bearer {reader}\r\n");
                self.subscribe_with(query, None, &field)
            }
            Self::Nchan | Self::Bare => self.subscribe(query, None),
        }
    }

    /// The target of a subscriber's request.
    pub(crate) fn target(&self, query: &Query) -> String {
        match (self, query) {
            (Self::Mercure { path, .. }, Query::Topics(topics)) => {
                let topics: Vec<_> = topics.iter().map(|topic| format!("topic={topic}")).collect();
                format!("{path}?{}", topics.join("&"))
            }
            (Self::Mercure { path, .. }, Query::Pattern(pattern)) => {
                format!("{path}?match_urlpattern={pattern}")
            }
            (_, Query::Topics(topics)) => format!("/sub/{}", topics.join(",")),
            (_, Query::Pattern(_)) => "/no-patterns-here".to_owned(),
        }
    }

    fn subscribe_with(&self, query: &Query, cursor: Option<&str>, fields: &str) -> String {
        let target = self.target(query);
        let mut request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n");
        if let Some(cursor) = cursor {
            let _ = write!(request, "Last-Event-ID: {cursor}\r\n");
        }
        request + fields + "\r\n"
    }

    /// The request of a publisher.
    pub(crate) fn publish(&self, publication: &Publication<'_>) -> String {
        let Publication { topic, data, is_private } = publication;
        let (target, fields, body) = match self {
            Self::Mercure { path, publisher, .. } => (
                path.clone(),
                format!(
                    "Authorization: Bearer {publisher}\r\n\
                     Content-Type: application/x-www-form-urlencoded\r\n"
                ),
                format!(
                    "topic={topic}&data={}{}",
                    data.replace(' ', "+"),
                    if *is_private { "&private=on" } else { "" }
                ),
            ),
            Self::Nchan | Self::Bare => (
                format!("/pub/{topic}"),
                "Content-Type: text/plain\r\n".to_owned(),
                (*data).to_owned(),
            ),
        };
        let length = body.len();
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        )
    }
}

/// What a subscriber wants.
#[derive(Debug, Clone)]
pub(crate) enum Query {
    /// Topics, named, or templates where a hub takes them for such.
    Topics(Vec<String>),
    /// A URL pattern, encoded for a query.
    Pattern(String),
}

/// What a publisher sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication<'a> {
    pub(crate) topic: &'a str,
    pub(crate) data: &'a str,
    pub(crate) is_private: bool,
}

impl<'a> Publication<'a> {
    /// For everybody.
    pub(crate) fn new(topic: &'a str, data: &'a str) -> Self {
        Self { topic, data, is_private: false }
    }
}
