use std::net::IpAddr;
use std::time::Duration;

use mercure_engine::{AttachError, TransportError};
use mercure_protocol::Error;

use crate::auth::Refusal;

/// The parts of a request that the hub looks at.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The raw query component, without the question mark.
    pub query: String,
    /// The header fields.
    pub headers: Headers,
    /// The form in the body of a `QUERY` request.
    pub form: Vec<u8>,
    /// Who is at the other end of the connection; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
}

impl Request {
    /// Whether the body is a form. A missing content type passes: the body then has to parse as
    /// one.
    #[must_use]
    pub fn is_form(&self) -> bool {
        self.headers.get("content-type").is_none_or(|value| {
            let essence = value.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
    }
}

/// Header fields with lower-case names, in order; all in one piece of memory.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where a field's name begins, where its value does, and where that ends.
type Field = (usize, usize, usize);

impl Headers {
    /// Adds a field.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let begin = self.bytes.len();
        self.bytes.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.fields.push((begin, middle, self.bytes.len()));
    }

    /// The first value of a field, if it is UTF-8. The name is given in lower case.
    #[must_use]
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The first value of a field as it is; what is not UTF-8 is replaced, and so matches nothing.
    #[must_use]
    pub fn lossy<'a>(&'a self, name: &'a str) -> Option<std::borrow::Cow<'a, str>> {
        self.values(name).next().map(String::from_utf8_lossy)
    }

    /// How many such fields there are, whatever their values. The name is given in lower case.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// All values of a field that are UTF-8.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a field as they are; what is not UTF-8 is replaced, and so matches nothing.
    pub fn all_lossy<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = std::borrow::Cow<'a, str>> {
        self.values(name).map(String::from_utf8_lossy)
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let is_it = move |field: &&Field| self.bytes[field.0..field.1] == *name.as_bytes();
        self.fields.iter().filter(is_it).map(|field| &self.bytes[field.1..field.2])
    }
}

/// A complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields, without framing ones.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// An answer with a line of text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "text/plain; charset=utf-8".to_owned())],
            body: body.into().into_bytes(),
        }
    }

    /// An update was accepted. The answer is for the publisher alone, whose token may stand in the
    /// URL (0.x, "URI Query Parameter").
    #[must_use]
    pub fn published(id: String) -> Self {
        let mut answer = Self::text(200, id);
        answer.headers.push(("Cache-Control", "private, no-store".to_owned()));
        answer
    }

    /// An answer with a JSON document.
    #[must_use]
    pub fn json(media_type: &str, document: &serde_json::Value) -> Self {
        Self {
            status: 200,
            headers: vec![("Content-Type", media_type.to_owned())],
            body: document.to_string().into_bytes(),
        }
    }

    /// The resource has no such method.
    #[must_use]
    pub fn method_not_allowed(allowed: &str) -> Self {
        let mut answer = Self::text(405, format!("use one of {allowed}"));
        answer.headers.push(("Allow", allowed.to_owned()));
        answer
    }

    /// The body is no form.
    #[must_use]
    pub fn not_a_form() -> Self {
        Self::text(415, "the body must be application/x-www-form-urlencoded")
    }

    /// The hub cannot do it now: try again, not all at the same moment.
    #[must_use]
    pub fn unavailable(reason: &str) -> Self {
        let mut answer = Self::text(503, reason);
        answer.headers.push(("Retry-After", fastrand::u32(1..=5).to_string()));
        answer
    }

    /// There is no place for another subscriber.
    #[must_use]
    pub fn not_admitted(error: AttachError) -> Self {
        let mut answer = Self::unavailable(&error.to_string());
        if error == AttachError::TooMany {
            answer.status = 429;
        }
        answer
    }

    /// An address has as many connections as it may.
    #[must_use]
    pub fn too_many_connections() -> Self {
        let mut answer = Self::unavailable("this address holds as many connections as it may");
        answer.status = 429;
        answer
    }

    /// Publications come faster than they may; the next one is accepted after `wait`.
    #[must_use]
    pub fn too_fast(wait: Duration) -> Self {
        let mut answer = Self::text(429, "publications come faster than they may");
        let seconds = wait.as_secs() + 1;
        answer.headers.push(("Retry-After", (seconds + fastrand::u64(..=seconds)).to_string()));
        answer
    }

    /// The body is over the limit.
    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        Self::text(413, format!("request body: over the limit of {limit} bytes"))
    }
}

/// The one place where a refusal of the hub becomes a status.
impl Answer {
    /// A publication that breaks a rule of the protocol.
    #[must_use]
    pub fn bad_publication(error: &Error) -> Self {
        let status = if matches!(error, Error::TooLarge { .. }) { 413 } else { 400 };
        Self::text(status, error.to_string())
    }

    /// A subscription that breaks a rule of the protocol.
    #[must_use]
    pub fn bad_subscription(error: &Error) -> Self {
        Self::text(400, error.to_string())
    }

    /// A refusal for lack of authorization, in the form of RFC 6750. The challenge says where to
    /// learn how to get a token, if the hub tells (RFC 9728, section 5.1): the URL of its metadata.
    #[must_use]
    pub fn refused(refusal: Refusal, metadata: Option<&str>) -> Self {
        let (status, error, text) = match refusal {
            Refusal::Missing => (401, None, "an access token is required"),
            Refusal::Malformed => {
                (400, Some("invalid_request"), "the Authorization header holds no bearer token")
            }
            Refusal::Invalid => (401, Some("invalid_token"), "the access token is not valid"),
            Refusal::Insufficient => {
                (403, Some("insufficient_scope"), "the access token does not allow this")
            }
            Refusal::CrossOrigin => {
                return Self::text(403, "publishing with a cookie is not allowed from this origin");
            }
        };
        let error = error.map(|error| format!("error=\"{error}\""));
        // The host is the client's or a proxy's word.
        let quoted = |url: &str| url.replace('\\', "\\\\").replace('"', "\\\"");
        let metadata = metadata.map(|url| format!("resource_metadata=\"{}\"", quoted(url)));
        let parameters: Vec<_> = error.into_iter().chain(metadata).collect();
        let challenge = match parameters.is_empty() {
            true => "Bearer".to_owned(),
            false => format!("Bearer {}", parameters.join(", ")),
        };
        let mut answer = Self::text(status, text);
        answer.headers.push(("WWW-Authenticate", challenge));
        answer
    }

    /// The transport does not answer.
    #[must_use]
    pub fn transport_failed(error: &TransportError) -> Self {
        // The transport has said so once; a line for each client would fill the disk.
        tracing::debug!(%error, "the transport failed");
        Self::unavailable("the hub cannot reach its log right now")
    }
}
