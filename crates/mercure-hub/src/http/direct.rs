//! Plain HTTP/1.1 in its most frequent forms, without the library: subscriptions, whose streams are
//! written straight to their socket by a shard, and publications on a connection that is kept.
//!
//! A body through the library costs more time per event and nine times the memory of a direct
//! write, and a publication through it costs as much again as accepting it. Everything that is not
//! of these plain forms (other methods, large or chunked bodies, HTTP/2) takes the library's road,
//! with the same semantics, from where it begins.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::{Buf as _, Bytes, BytesMut};
use mercure_engine::Outlet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::classify::{Class, classify};
use super::connection::Connection;
use super::gate::Admission;
use super::site::Site;
use super::wait::Wait;
use crate::api::{self, Answer, Request, Service};

/// How long a client may take to send a request, and to begin another one.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Room for a request, in bytes. It grows with what has come: thousands of clients that have said a letter
/// take no more than one that has said much.
const FIRST_READ: usize = 2048;
const NEXT_READ: usize = 16 * 1024;
/// Answers that wait to leave together, in bytes.
const MAX_ANSWERS: usize = 16 * 1024;

/// A connection whose requests are served here, as long as they are plain.
pub(super) struct Conversation<'a> {
    connection: Connection,
    /// What the connection counts for.
    admission: Admission,
    peer: Option<IpAddr>,
    site: &'a Site,
    read: BytesMut,
    /// Answers that leave before the next wait.
    answers: Vec<u8>,
    wait: Wait,
}

/// What is left to others.
pub(super) enum Rest {
    /// Nothing: the connection is closed, or a shard's.
    Nothing,
    /// A request that the library has to read: its bytes, and the connection.
    Request(Bytes, Connection, Admission),
}

/// What a client wants next.
enum Next {
    Subscription(Request),
    /// A publication at the beginning of what was read: the lengths of its head and its body.
    Publication(Request, usize, usize),
    Other,
    /// It has closed, its time is up, or the hub is stopping.
    Nothing,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        connection: Connection,
        peer: Option<IpAddr>,
        admission: Admission,
        site: &'a Site,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (read, answers) = (BytesMut::with_capacity(FIRST_READ), Vec::new());
        let wait = Wait::new(stop);
        Self { connection, admission, peer, site, read, answers, wait }
    }

    /// Serves requests until the connection is closed, or another's.
    pub(super) async fn serve(mut self) -> io::Result<Rest> {
        loop {
            match self.next().await? {
                Next::Publication(request, head, body) => {
                    let body = head..head + body;
                    let answer = publication(self.site, &request, &self.read[body.clone()]).await;
                    if self.wait.is_over() {
                        return self.last_answer(&answer).await.map(|()| Rest::Nothing);
                    }
                    self.read.advance(body.end);
                    self.answer(&answer, "");
                    if self.answers.len() > MAX_ANSWERS {
                        self.flush().await?;
                    }
                }
                Next::Subscription(request) => {
                    return self.subscribe(request).await.map(|()| Rest::Nothing);
                }
                Next::Other => {
                    let read = self.read.split().freeze();
                    return Ok(Rest::Request(read, self.connection, self.admission));
                }
                Next::Nothing => return Ok(Rest::Nothing),
            }
        }
    }

    /// Reads as far as needed to know what comes next. Answers have left before it waits: a client
    /// may wait for them before it goes on.
    async fn next(&mut self) -> io::Result<Next> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let next = match classify(&self.read, &self.site.hub_path) {
                Class::Publication { mut request, head, body } => {
                    request.peer = self.peer;
                    return Ok(Next::Publication(request, head, body));
                }
                Class::Subscription(mut request) => {
                    request.peer = self.peer;
                    Next::Subscription(request)
                }
                Class::Unfinished { at_least } => {
                    self.flush().await?;
                    while self.read.len() < at_least {
                        if !self.read_more(deadline).await? {
                            return Ok(Next::Nothing);
                        }
                    }
                    continue;
                }
                Class::Other => Next::Other,
            };
            self.flush().await?;
            return Ok(next);
        }
    }

    /// Reads something; `false` if there will be nothing.
    async fn read_more(&mut self, deadline: Instant) -> io::Result<bool> {
        let is_idle = self.read.is_empty();
        let room = self.read.capacity() - self.read.len();
        if is_idle || room < FIRST_READ / 8 {
            self.read.reserve((self.read.len() * 2).clamp(FIRST_READ, NEXT_READ));
        }
        let (read, wait) = (self.connection.read_buf(&mut self.read), &mut self.wait);
        let mut read = pin!(read);
        let result = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            // A request that has begun is finished, also by a hub that stops.
            Poll::Pending => wait.poll(cx, deadline, !is_idle).map(|()| None),
        });
        match result.await {
            Some(count) => Ok(count? > 0),
            // What has not arrived as a whole would be refused now.
            None if is_idle => Ok(false),
            None => {
                let late = Answer::text(408, "the request did not arrive in time");
                self.last_answer(&late).await.map(|()| false)
            }
        }
    }

    /// Writes the answers; a client that takes none of them in time, or while the hub is stopping, is
    /// not waited for.
    async fn flush(&mut self) -> io::Result<()> {
        if self.answers.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.site.write_timeout;
        let (write, wait) = (self.connection.write_all(&self.answers), &mut self.wait);
        let mut write = pin!(write);
        poll_fn(|cx| match write.as_mut().poll(cx) {
            Poll::Pending => {
                wait.poll(cx, deadline, false).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            ready @ Poll::Ready(_) => ready,
        })
        .await?;
        self.answers.clear();
        Ok(())
    }

    /// Gives the connection to a shard, or refuses.
    async fn subscribe(mut self, request: Request) -> io::Result<()> {
        let terms = self.site.terms();
        let service = &terms.service;
        match self.site.subscribe(&request, None).await {
            Ok(mut accepted) => {
                if let Some(address) = self.admission.address.take() {
                    accepted.hold(Box::new(address));
                }
                let mut head = Vec::new();
                write_head(&mut head, 200, &accepted.headers);
                write_date(&mut head, service);
                head.extend_from_slice(b"Connection: close\r\n\r\n");
                let outlet = self.connection.into_outlet()?;
                service.hub.attach(accepted.into_subscriber(outlet, &head));
                Ok(())
            }
            Err(answer) => self.last_answer(&answer).await,
        }
    }

    async fn last_answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.answer(answer, "Connection: close\r\n");
        self.flush().await?;
        self.connection.shutdown().await
    }

    fn answer(&mut self, answer: &Answer, framing: &str) {
        self.site.gate.refusals.count_answer(answer.status);
        let out = &mut self.answers;
        write_head(out, answer.status, &answer.headers);
        write_date(out, &self.site.terms().service);
        // Writing to memory cannot fail, here and below.
        let _ = write!(out, "Content-Length: {}\r\n{framing}\r\n", answer.body.len());
        out.extend_from_slice(&answer.body);
    }
}

async fn publication(site: &Site, request: &Request, body: &[u8]) -> Answer {
    let terms = site.terms();
    let (service, policy) = (&terms.service, &terms.policy);
    match site.publisher(&terms, request).await {
        Ok(principal) => api::publish(service, policy, request, body, &principal).await,
        Err(refusal) => refusal,
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
fn write_date(out: &mut Vec<u8>, service: &Service) {
    let now = SystemTime::UNIX_EPOCH + service.hub.clock().unix_time();
    let _ = write!(out, "Date: {}\r\n", httpdate::HttpDate::from(now));
}

/// The status line and header fields of a response, without the empty line that ends a head.
pub(crate) fn write_head<N: AsRef<str>, V: AsRef<str>>(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(N, V)],
) {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
    for (name, value) in headers {
        // Values cannot hold line breaks: ids and origins are checked where they enter.
        for part in [name.as_ref(), ": ", value.as_ref(), "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}
