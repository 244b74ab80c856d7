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
    let mut out = write_head(200, none);
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
