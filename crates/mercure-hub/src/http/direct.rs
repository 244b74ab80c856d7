//! Streams over plain HTTP/1.1, written straight to their socket by a shard.
//!
//! A connection whose first request is a subscription leaves the HTTP library's hands before it
//! ever got there: a body through the library costs more time per event and nine times the memory
//! of a direct write. Everything else (another request first, HTTP/2) takes the library's road,
//! with the same semantics.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use mercure_engine::Outlet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{Connection, Site};
use crate::api::{self, Answer, Request, Service};

/// Longest request head, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Most header fields of a request.
const MAX_FIELDS: usize = 100;
/// How long a client may take to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What the first bytes of a connection are.
pub(super) enum First {
    /// A subscription that can be served directly.
    Subscription(Request),
    /// Anything else: the bytes read so far, for the library.
    Other(Bytes),
    /// Nothing, until the client closed or its time was up.
    Nothing,
}

/// Reads the first request head, as far as needed to know what it is.
pub(super) async fn first_request(connection: &mut Connection, hub_path: &str) -> First {
    let mut read = BytesMut::with_capacity(2048);
    let look = async {
        loop {
            match connection.read_buf(&mut read).await {
                Ok(0) | Err(_) => return First::Nothing,
                Ok(_) => {}
            }
            match classify(&read, hub_path) {
                Class::Subscription(request) => return First::Subscription(request),
                Class::Unfinished if read.len() < MAX_HEAD => {}
                Class::Unfinished | Class::Other => return First::Other(read.split().freeze()),
            }
        }
    };
    tokio::time::timeout(HEAD_TIMEOUT, look).await.unwrap_or(First::Nothing)
}

enum Class {
    Subscription(Request),
    Unfinished,
    Other,
}

fn classify(bytes: &[u8], hub_path: &str) -> Class {
    // The library tells HTTP/2 from HTTP/1 without a timeout; it gets what it needs at once.
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if bytes.len() < HTTP2.len() && HTTP2.starts_with(bytes) || !bytes.contains(&b'\n') {
        return Class::Unfinished;
    }
    if !bytes.starts_with(b"GET ") {
        return Class::Other;
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Class::Unfinished,
        Err(_) => return Class::Other,
    }
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != hub_path {
        return Class::Other;
    }
    let mut request = Request { query: query.to_owned(), ..Request::default() };
    for field in head.headers {
        request.headers.push(field.name, field.value);
    }
    let has_body = request.headers.get("content-length").is_some_and(|length| length.trim() != "0");
    let special = ["transfer-encoding", "upgrade", "expect"];
    if has_body || special.iter().any(|name| request.headers.get(name).is_some()) {
        return Class::Other;
    }
    Class::Subscription(request)
}

/// Serves a subscription on its own connection.
pub(super) async fn serve(
    mut connection: Connection,
    request: Request,
    site: &Site,
) -> io::Result<()> {
    match api::subscribe(&site.service, &site.policy, &request, None).await {
        Ok(accepted) => {
            let mut head = write_head(200, &accepted.headers);
            head.extend_from_slice(date(&site.service).as_bytes());
            head.extend_from_slice(b"Connection: close\r\n\r\n");
            let outlet = connection.into_outlet()?;
            site.service.hub.attach(accepted.into_subscriber(outlet, &head));
            Ok(())
        }
        Err(answer) => {
            let date = date(&site.service);
            connection.write_all(&whole_answer(&answer, &date)).await?;
            connection.shutdown().await
        }
    }
}

impl Connection {
    /// Gives the connection away, to be written by a shard.
    pub(crate) fn into_outlet(self) -> io::Result<Outlet> {
        match self {
            Self::Tcp(socket) => Outlet::tcp(socket.into_std()?),
            Self::Unix(socket) => Outlet::unix(socket.into_std()?),
        }
    }
}

/// The field that says when an answer was made (RFC 9110, 6.6.1).
fn date(service: &Service) -> String {
    let now = SystemTime::UNIX_EPOCH + service.hub.clock().unix_time();
    format!("Date: {}\r\n", httpdate::fmt_http_date(now))
}

fn whole_answer(answer: &Answer, date: &str) -> Vec<u8> {
    let mut out = write_head(answer.status, &answer.headers);
    out.extend_from_slice(date.as_bytes());
    let length = answer.body.len();
    out.extend_from_slice(
        format!("Content-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    out.extend_from_slice(&answer.body);
    out
}

/// The status line and header fields of a response, without the empty line that ends a head.
pub(crate) fn write_head<N: AsRef<str>, V: AsRef<str>>(status: u16, headers: &[(N, V)]) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let mut out = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
    for (name, value) in headers {
        // Values cannot hold line breaks: ids and origins are checked where they enter. Writing to
        // a String cannot fail.
        let _ = write!(out, "{}: {}\r\n", name.as_ref(), value.as_ref());
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(bytes: &str) -> &'static str {
        match classify(bytes.as_bytes(), "/hub") {
            Class::Subscription(_) => "subscription",
            Class::Unfinished => "unfinished",
            Class::Other => "other",
        }
    }

    #[test]
    fn only_a_plain_subscription_is_served_directly() {
        assert_eq!(class("GET /hub?topic=a HTTP/1.1\r\nHost: x\r\n\r\n"), "subscription");
        assert_eq!(class("GET /hub HTTP/1.0\r\n\r\n"), "subscription");
        assert_eq!(class("GE"), "unfinished");
        assert_eq!(class("GET /hub?topic=a HTTP/1.1\r\nHost"), "unfinished");
        assert_eq!(class("P"), "unfinished");
        assert_eq!(class("POST /hub HTTP/1.1\r\n\r\n"), "other");
        assert_eq!(class("PRI * HTTP/2.0\r\n\r\n"), "unfinished");
        assert_eq!(class("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "other");
        assert_eq!(class("GET /other HTTP/1.1\r\n\r\n"), "other");
        assert_eq!(class("GET /hub HTTP/1.1\r\nContent-Length: 3\r\n\r\n"), "other");
        assert_eq!(class("GET /hub HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"), "other");
        assert_eq!(class("GET /hub HTTP/1.1\r\n bad\r\n\r\n"), "other");
    }
}
