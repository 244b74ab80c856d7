//! What happens to a connection once a worker has let go of it.
//!
//! The worker's server goes on as always and writes its response, but into one end of a socket
//! pair. We read it from the far end: if it is the response that the extension prepared (it bears
//! the token), its head goes to the client and the stream follows. Anything else, a middleware's
//! refusal or an error page, is passed on as it is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::api::{Accepted, Service};
use crate::http::{Connection, prepare_tcp, write_head};

/// The header by which the extension marks its response.
const MARK: &str = "x-mercure-handoff";
/// Fields that describe the worker's connection, not the client's.
const DROPPED: [&str; 5] =
    [MARK, "content-length", "transfer-encoding", "connection", "keep-alive"];
/// How long the worker's server may take to write its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest response head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// A peer that accepts nothing for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn adopt(
    service: &Service,
    accepted: Accepted,
    live: OwnedFd,
    far: OwnedFd,
    token: &str,
) -> io::Result<()> {
    let mut live = connection(live)?;
    let mut far = unix(Socket::from(far))?;
    let mut response = Vec::with_capacity(1024);
    let head = read_head(&mut far, &mut response, token);
    let head = tokio::time::timeout(RESPONSE_TIMEOUT, head).await??;
    match head {
        Some(head) => {
            let outlet = live.into_outlet()?;
            service.hub.attach(accepted.into_subscriber(outlet, &head));
            // The server may still write a body into the void; it must not be stopped by that.
            tokio::time::timeout(
                RESPONSE_TIMEOUT,
                tokio::io::copy(&mut far, &mut tokio::io::sink()),
            )
            .await??;
        }
        // The worker kept the connection after all; it must stay as it is.
        None if response.is_empty() => {}
        None => {
            remove_mark(&mut response);
            live.write_all(&response).await?;
            tokio::time::timeout(RESPONSE_TIMEOUT, tokio::io::copy(&mut far, &mut live)).await??;
            live.shutdown().await?;
        }
    }
    Ok(())
}

/// Reads until the response's head is complete. Returns the head for the client, without the
/// empty line's successor; `None` if this is not the response we wait for.
async fn read_head(
    far: &mut UnixStream,
    response: &mut Vec<u8>,
    token: &str,
) -> io::Result<Option<Vec<u8>>> {
    while response.len() < MAX_HEAD {
        if far.read_buf(response).await? == 0 {
            return Ok(None);
        }
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Response::new(&mut fields);
        match head.parse(response) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => return Ok(head_for_client(&head, token)),
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

fn head_for_client(head: &httparse::Response<'_, '_>, token: &str) -> Option<Vec<u8>> {
    let marked = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(MARK);
    let mark = head.headers.iter().find(marked)?;
    if head.code != Some(200) || mark.value != token.as_bytes() {
        return None;
    }
    let none: &[(&str, &str)] = &[];
    let mut out = Vec::new();
    write_head(&mut out, 200, none);
    let kept = |name: &str| !DROPPED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped));
    for field in head.headers.iter().filter(|field| kept(field.name)) {
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    // The body ends with the connection: no chunks to frame, and right for HTTP/1.0 as well.
    out.extend_from_slice(b"Connection: close\r\n\r\n");
    Some(out)
}

/// Takes the mark out of a response that is passed on as it is: it is between worker and hub.
fn remove_mark(response: &mut Vec<u8>) {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.map_or(response.len(), |at| at + 2);
    let mut at = 0;
    while let Some(length) = response[at..end].windows(2).position(|pair| pair == b"\r\n") {
        let name = response[at..at + length].split(|byte| *byte == b':').next();
        if name.is_some_and(|name| name.eq_ignore_ascii_case(MARK.as_bytes())) {
            response.drain(at..at + length + 2);
            return;
        }
        at += length + 2;
    }
}

/// The client's connection, whatever family it is of.
fn connection(descriptor: OwnedFd) -> io::Result<Connection> {
    let socket = Socket::from(descriptor);
    if socket.r#type()? != Type::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"));
    }
    if socket.domain()? == Domain::UNIX {
        return unix(socket).map(Connection::Unix);
    }
    prepare_tcp(&socket2::SockRef::from(&socket), WRITE_TIMEOUT);
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket.into()).map(Connection::Tcp)
}

fn unix(socket: Socket) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(OwnedFd::from(socket).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(response: &str) -> String {
        let mut bytes = response.as_bytes().to_vec();
        remove_mark(&mut bytes);
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn the_mark_stays_inside_and_everything_else_is_passed_on() {
        let head = "HTTP/1.1 403 FORBIDDEN\r\nA: 1\r\n";
        let body = "\r\nX-Mercure-Handoff: of the body\r\n\r\n";
        let marked = format!("{head}X-Mercure-HANDOFF: token\r\nB: 2\r\n{body}");
        assert_eq!(passed_on(&marked), format!("{head}B: 2\r\n{body}"));
        for unmarked in [&format!("{head}{body}"), "HTTP/1.1 500 X\r\nA", "", "\r\n"] {
            assert_eq!(passed_on(unmarked), *unmarked);
        }
    }
}
