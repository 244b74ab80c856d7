//! Framing: an update becomes the bytes of one server-sent event, once.

use bytes::Bytes;

use crate::{EventId, Update};

/// A comment line: keeps idle connections open, invisible to `EventSource`.
pub const HEARTBEAT: &[u8] = b":\n";

/// The event as it goes on the wire, in `text/event-stream` format.
///
/// `data` is written one field per line, splitting on CR, LF and CRLF, so it cannot inject a
/// field ("Server-Sent Events Field Injection"); the other fields cannot hold a line break by
/// type. A `data` field is always present: without one, browsers would dispatch nothing.
#[must_use]
pub fn frame(update: &Update, id: &EventId) -> Bytes {
    let mut out = Vec::with_capacity(update.data().len() + id.as_str().len() + 32);
    if let Some(kind) = update.kind() {
        field(&mut out, "event", kind.as_str());
    }
    if let Some(retry) = update.retry() {
        field(&mut out, "retry", &retry.to_string());
    }
    field(&mut out, "id", id.as_str());
    for line in lines(update.data()) {
        field(&mut out, "data", line);
    }
    out.push(b'\n');
    out.into()
}

/// A frame that moves the client's cursor without dispatching an event.
#[must_use]
pub fn frame_cursor(id: &str) -> Bytes {
    let mut out = Vec::with_capacity(id.len() + 8);
    field(&mut out, "id", id);
    out.push(b'\n');
    out.into()
}

/// A frame that sets the client's reconnection time, in milliseconds.
#[must_use]
pub fn frame_retry(milliseconds: u64) -> Bytes {
    format!("retry: {milliseconds}\n\n").into()
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The lines of a text, split on CRLF, LF or CR; a trailing break begins one more (empty) line.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let Some(at) = current.find(['\r', '\n']) else {
            rest = None;
            return Some(current);
        };
        let after = &current[at..];
        rest = Some(after.strip_prefix("\r\n").unwrap_or(&after[1..]));
        Some(&current[..at])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HubUrl, Limits, Publication};

    fn framed(raw: &Publication<'_>) -> String {
        let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
        let update = Update::new(raw, &hub, &Limits::default()).expect("valid");
        let id = EventId::parse("i", &Limits::default()).expect("id");
        String::from_utf8(frame(&update, &id).to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_full_event() {
        let raw = Publication {
            topics: vec!["t"],
            data: "a\r\nb\rc\n\nd",
            kind: Some("k"),
            retry: Some("5"),
            ..Publication::default()
        };
        assert_eq!(
            framed(&raw),
            "event: k\nretry: 5\nid: i\ndata: a\ndata: b\ndata: c\ndata: \ndata: d\n\n"
        );
    }

    #[test]
    fn an_event_without_data_still_dispatches() {
        let raw = Publication { topics: vec!["t"], ..Publication::default() };
        assert_eq!(framed(&raw), "id: i\ndata: \n\n");
    }
}
