//! How to subscribe and publish at each kind of server.

use std::fmt::Write as _;

/// A kind of server.
#[derive(Debug, Clone)]
pub(crate) enum Dialect {
    /// Any Mercure hub, with a token that publishes.
    Mercure { path: String, token: String },
    /// nginx with Nchan: `/pub/…` and `/sub/…`.
    Nchan,
    /// The loop in [`bare`](crate::bare): one topic.
    Bare,
}

impl Dialect {
    /// The request of a subscriber.
    pub(crate) fn subscribe(&self, query: &Query, cursor: Option<&str>) -> String {
        let target = match (self, query) {
            (Self::Mercure { path, .. }, Query::Topics(topics)) => {
                let topics: Vec<_> = topics.iter().map(|topic| format!("topic={topic}")).collect();
                format!("{path}?{}", topics.join("&"))
            }
            (Self::Mercure { path, .. }, Query::Pattern(pattern)) => {
                format!("{path}?match_urlpattern={pattern}")
            }
            (_, Query::Topics(topics)) => format!("/sub/{}", topics.join(",")),
            (_, Query::Pattern(_)) => "/no-patterns-here".to_owned(),
        };
        let mut request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n");
        if let Some(cursor) = cursor {
            let _ = write!(request, "Last-Event-ID: {cursor}\r\n");
        }
        request + "\r\n"
    }

    /// The request of a publisher.
    pub(crate) fn publish(&self, topic: &str, data: &str) -> String {
        let (target, fields, body) = match self {
            Self::Mercure { path, token } => (
                path.clone(),
                format!(
                    "Authorization: Bearer {token}\r\n\
                     Content-Type: application/x-www-form-urlencoded\r\n"
                ),
                format!("topic={topic}&data={}", data.replace(' ', "+")),
            ),
            Self::Nchan | Self::Bare => (
                format!("/pub/{topic}"),
                "Content-Type: text/plain\r\n".to_owned(),
                data.to_owned(),
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
