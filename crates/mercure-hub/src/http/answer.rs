use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::Frame;
use mercure_engine::BodyReader;

use super::connection::Peer;
use crate::api::{Answer, Headers, Request};

/// An answer in the library's form.
pub(super) fn response_of(answer: Answer) -> Response {
    with_headers(answer.status, answer.headers, Body::from(answer.body))
}

/// A stream in the library's form.
pub(super) fn stream_of(headers: Vec<(&'static str, String)>, reader: BodyReader) -> Response {
    let end = reader.end();
    let mut response = with_headers(200, headers, Body::new(StreamBody(reader)));
    response.extensions_mut().insert(end);
    response
}

fn with_headers(status: u16, headers: Vec<(&'static str, String)>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    for (name, value) in headers {
        // An id may hold any letter; what a header cannot carry is left out rather than garbled.
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The parts of a library request that the hub looks at.
pub(super) fn request_of(head: &http::request::Parts) -> Request {
    let mut headers = Headers::default();
    for (name, value) in &head.headers {
        headers.push(name.as_str(), value.as_bytes());
    }
    // HTTP/2 names the host in the target.
    if let (Some(authority), None) = (head.uri.authority(), head.headers.get("host")) {
        headers.push("host", authority.as_str().as_bytes());
    }
    let query = head.uri.query().unwrap_or_default().to_owned();
    let peer = head.extensions.get::<Peer>().and_then(|peer| peer.0);
    Request { query, headers, form: Vec::new(), peer }
}

/// A subscriber's stream as a response body.
#[derive(Debug)]
struct StreamBody(BodyReader);

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_next(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
