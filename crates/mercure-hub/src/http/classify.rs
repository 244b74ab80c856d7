use crate::api::Request;

/// Longest request head, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Longest body that is read here, in bytes: what credentials are judged before, in longer ones.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Most header fields of a request.
const MAX_FIELDS: usize = 100;

/// What the first bytes of a connection, or those after a request, are.
pub(super) enum Class {
    /// A subscription.
    Subscription(Request),
    /// A publication that is there as a whole: the lengths of its head and its body.
    Publication { request: Request, head: usize, body: usize },
    /// Not enough to tell, or a publication whose body has yet to come: so many bytes are needed to
    /// say more.
    Unfinished { at_least: usize },
    /// Anything else, which the library reads.
    Other,
}

/// Whether it cannot be told yet if this is HTTP/2 or HTTP/1. The library waits for that without a
/// timeout, so it gets what it needs at once.
pub(super) fn is_open(bytes: &[u8]) -> bool {
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    bytes.len() < HTTP2.len() && HTTP2.starts_with(bytes)
}

pub(super) fn classify(bytes: &[u8], hub_path: &str) -> Class {
    if is_open(bytes) || !bytes.contains(&b'\n') {
        return unfinished(bytes);
    }
    if !bytes.starts_with(b"GET ") && !bytes.starts_with(b"POST ") {
        return Class::Other;
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return unfinished(bytes),
        Err(_) => return Class::Other,
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != hub_path {
        return Class::Other;
    }
    let mut request = Request { query: query.to_owned(), ..Request::default() };
    for field in &*parsed.headers {
        request.headers.push(field.name, field.value);
    }
    let special = ["transfer-encoding", "upgrade", "expect"];
    let is_special = special.iter().any(|name| request.headers.count(name) > 0);
    if is_special || request.headers.count("host") > 1 {
        return Class::Other;
    }
    let is_new = parsed.version == Some(1);
    if is_new && request.headers.get("host").is_none() {
        return Class::Other;
    }
    match parsed.method {
        Some("GET") => match length(&request) {
            Some(0) | None => Class::Subscription(request),
            Some(_) => Class::Other,
        },
        _ => publication(bytes, request, head, is_new),
    }
}

fn unfinished(head: &[u8]) -> Class {
    match head.len() < MAX_HEAD {
        true => Class::Unfinished { at_least: head.len() + 1 },
        false => Class::Other,
    }
}

/// What is served here keeps its connection, so it must be certain where the next request begins.
fn publication(bytes: &[u8], request: Request, head: usize, is_new: bool) -> Class {
    let fields = request.headers.all("connection");
    let keeps = fields.filter(|value| value.eq_ignore_ascii_case("keep-alive")).count();
    if !is_new || keeps < request.headers.count("connection") {
        return Class::Other;
    }
    match length(&request) {
        Some(body) if body > MAX_BODY => Class::Other,
        Some(body) if bytes.len() < head + body => Class::Unfinished { at_least: head + body },
        Some(body) => Class::Publication { request, head, body },
        None => Class::Other,
    }
}

/// The length of the body (RFC 9112, 6.2), if it is said once and plainly; a length that is not is
/// larger than any that is served.
fn length(request: &Request) -> Option<usize> {
    let value = match request.headers.count("content-length") {
        0 => return None,
        1 => request.headers.get("content-length").unwrap_or_default(),
        _ => return Some(usize::MAX),
    };
    let is_plain = !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit());
    Some(if is_plain { value.parse().unwrap_or(usize::MAX) } else { usize::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(bytes: &str) -> &'static str {
        match classify(bytes.as_bytes(), "/hub") {
            Class::Subscription(_) => "subscription",
            Class::Publication { .. } => "publication",
            Class::Unfinished { .. } => "unfinished",
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
        assert_eq!(class("PRI * HTTP/2.0\r\n\r\n"), "unfinished");
        assert_eq!(class("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "other");
        for fields in ["Content-Length: 3\r\n", "Upgrade: h2c\r\n", " bad\r\n", "Host: y\r\n"] {
            assert_eq!(class(&format!("GET /hub HTTP/1.1\r\nHost: x\r\n{fields}\r\n")), "other");
        }
        assert_eq!(class("GET /other HTTP/1.1\r\nHost: x\r\n\r\n"), "other");
        assert_eq!(class("GET /hub HTTP/1.1\r\n\r\n"), "other", "it names no host");
    }

    fn post(fields: &str, body: &str) -> &'static str {
        class(&format!("POST /hub HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}"))
    }

    #[test]
    fn a_publication_is_served_directly_if_it_is_certain_where_it_ends() {
        assert_eq!(post("Content-Length: 3\r\n", "a=b"), "publication");
        assert_eq!(
            post("Content-Length: 3\r\nConnection: keep-alive\r\n", "a=bPOST"),
            "publication"
        );
        assert_eq!(post("Content-Length: 0\r\n", ""), "publication");
        assert_eq!(post("Content-Length: 3\r\n", "a="), "unfinished");
        for fields in [
            "",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: \r\n",
            "Content-Length: 65537\r\n",
            "Content-Length: 18446744073709551617\r\n",
            "Content-Length: 3\r\nContent-Length: \u{e9}\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\nExpect: 100-continue\r\n",
            "Content-Length: 3\r\nConnection: close\r\n",
            "Content-Length: 3\r\nConnection: keep-alive, x\r\n",
        ] {
            assert_eq!(post(fields, "a=b"), "other", "{fields:?}");
        }
        assert_eq!(class("POST /hub HTTP/1.0\r\nContent-Length: 3\r\n\r\na=b"), "other");
        assert_eq!(
            class("POST /hub/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na=b"),
            "other"
        );
    }
}
