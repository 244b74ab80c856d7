//! Connections that the HTTP library serves, HTTP/1.1 or HTTP/2, and how long they may do nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::BytesMut;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use super::classify::{MAX_HEAD, is_open};
use super::connection::{Connection, Peer};
use super::direct::PATIENCE;
use super::gate::OwnPlace;
use super::owed::{Answered, Owed, Standing, Tasks};
use super::prefixed::Prefixed;
use super::refused::Refused;
use crate::accepting::stopped;

/// Streams of one HTTP/2 connection: enough for all tabs of a browser, and for a proxy to need few.
const STREAMS: u32 = 250;
/// How long an HTTP/2 connection is kept that carries nothing.
const IDLE: Duration = Duration::from_secs(75);
/// Longest time between two looks at a connection.
const LOOK: Duration = Duration::from_secs(15);

/// What a connection is served with.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) peer: Peer,
    pub(super) router: Router,
    pub(super) shutdown: watch::Receiver<bool>,
    /// How long a client may leave an answer where it is.
    pub(super) write_timeout: Duration,
}

fn builder(tasks: Tasks) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        // A peer that is gone, or never meant to speak, does not answer a ping.
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

/// Serves a connection until it ends; tells what was refused before any route has seen it.
pub(super) async fn serve<S>(socket: S, serving: Serving) -> Option<Refused>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { peer, router, mut shutdown, write_timeout } = serving;
    let (owed, place) = (Arc::new(Owed::default()), OwnPlace::default());
    let builder = builder(Tasks(Arc::clone(&owed)));
    let (service, asked) = (TowerToHyperService::new(router), Arc::clone(&owed));
    let service = hyper::service::service_fn(move |mut request: http::Request<_>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(place.clone());
        let (answering, ticket) = (service.call(request), asked.ask());
        async move { answering.await.map(|response| Answered::new(response, ticket)) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut looks = tokio::time::interval((write_timeout / 2).min(LOOK));
    let (mut is_leaving, mut idle_since) = (false, None);
    let result = loop {
        tokio::select! {
            // A request that has come is seen before a stop.
            biased;
            result = connection.as_mut() => break result,
            () = stopped(&mut shutdown), if !is_leaving => {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = looks.tick() => {
                let now = Instant::now();
                match owed.look(now, write_timeout) {
                    Standing::Stuck => return Some(Refused::Late),
                    Standing::Busy => idle_since = None,
                    Standing::Idle => {
                        let idle = now.duration_since(*idle_since.get_or_insert(now));
                        // What the library still has, nobody takes.
                        if is_leaving && idle >= IDLE + write_timeout {
                            return Some(Refused::Late);
                        }
                        if !is_leaving && idle >= IDLE {
                            is_leaving = true;
                            connection.as_mut().graceful_shutdown();
                        }
                    }
                }
            }
        }
    };
    refusal(&*result.err()?)
}

/// What the library answers itself.
fn refusal(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<Refused> {
    tracing::debug!(%error, "a connection broke");
    let error = error.downcast_ref::<hyper::Error>()?;
    match () {
        () if error.is_parse_too_large() => Some(Refused::TooLarge),
        () if error.is_timeout() => Some(Refused::Late),
        () if error.is_parse() => Some(Refused::Malformed),
        () => None,
    }
}

/// The same for one that has said nothing yet: the library waits for its first bytes for ever.
pub(super) async fn serve_fresh<S>(mut socket: S, serving: Serving) -> Option<Refused>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = BytesMut::with_capacity(1024);
    let mut shutdown = serving.shutdown.clone();
    let reading = async {
        while is_open(&first) {
            if socket.read_buf(&mut first).await? == 0 {
                return Ok(false);
            }
        }
        Ok::<_, std::io::Error>(true)
    };
    let read = tokio::select! {
        read = tokio::time::timeout(PATIENCE, reading) => read,
        () = stopped(&mut shutdown) => return None,
    };
    match read {
        Ok(Ok(true)) => serve(Prefixed { prefix: first.freeze(), socket }, serving).await,
        Ok(_) => None,
        Err(_) => Some(Refused::Late),
    }
}

impl Connection {
    /// Serves the connection through the library alone.
    pub(crate) async fn serve_library(self, router: Router, shutdown: watch::Receiver<bool>) {
        let peer = Peer(self.peer());
        let serving = Serving { peer, router, shutdown, write_timeout: PATIENCE };
        serve_fresh(self, serving).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex};

    use super::*;

    fn serving() -> (DuplexStream, impl Future<Output = Option<Refused>>, watch::Sender<bool>) {
        let (client, server) = duplex(1 << 20);
        let (stop, shutdown) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "hello" }));
        let write_timeout = Duration::from_secs(10);
        let serving = Serving { peer: Peer(None), router, shutdown, write_timeout };
        (client, serve_fresh(server, serving), stop)
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_not_waited_for() {
        for said in ["", "P", "PRI * HTTP/2.0\r\n\r\n", "GET / H"] {
            let (mut client, serving, _stop) = serving();
            client.write_all(said.as_bytes()).await.expect("write");
            let begin = Instant::now();
            assert!(tokio::time::timeout(PATIENCE * 2, serving).await.is_ok(), "{said}");
            assert!(begin.elapsed() >= PATIENCE, "{said}");
        }
    }

    /// Frames of HTTP/2: its preface, settings with an initial window, and GET / as a stream (RFC 9113).
    fn request(window: u8, stream: u8) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, window]);
        bytes.extend([0, 0, 6, 1, 5, 0, 0, 0, stream, 0x82, 0x84, 0x86, 0x41, 1, b'x']);
        bytes
    }

    /// Answers every ping, as a live client does; the types of the other frames, and when they came.
    async fn live(mut client: ReadHalf<DuplexStream>, answers: Answers) -> Vec<(u8, Duration)> {
        let (mut head, mut body, mut seen) = ([0; 9], Vec::new(), Vec::new());
        let begin = Instant::now();
        while client.read_exact(&mut head).await.is_ok() {
            body.resize(usize::from(head[1]) << 8 | usize::from(head[2]), 0);
            if client.read_exact(&mut body).await.is_err() {
                break;
            }
            if (head[3], head[4]) == (6, 0) {
                head[4] = 1;
                let answer = [&head[..], &body].concat();
                let _ = answers.lock().await.write_all(&answer).await;
            }
            seen.push((head[3], begin.elapsed()));
        }
        seen
    }

    type Answers = Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>;

    const RESET: u8 = 3;
    const GOAWAY: u8 = 7;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_no_window_opens_for_is_given_up_and_nothing_else() {
        for window in [0, 1] {
            let (mut client, serving, _stop) = serving();
            client.write_all(&request(window, 1)).await.expect("write");
            let (read, write) = tokio::io::split(client);
            let client = tokio::spawn(live(read, Arc::new(write.into())));
            assert_eq!(serving.await, None, "{window}");
            let seen = client.await.expect("it is told");
            let at =
                |kind| seen.iter().find(|(found, _)| *found == kind).map(|(_, at)| at.as_secs());
            assert!(at(RESET).is_some_and(|at| (10..20).contains(&at)), "{window}: {seen:?}");
            assert!(at(GOAWAY).is_some_and(|at| at >= IDLE.as_secs()), "{window}: {seen:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_carries_nothing_ends_and_no_other() {
        let (mut client, serving, _stop) = serving();
        client.write_all(&request(100, 1)).await.expect("write");
        let (read, write) = tokio::io::split(client);
        let write: Answers = Arc::new(write.into());
        let (begin, reading) = (Instant::now(), tokio::spawn(live(read, Arc::clone(&write))));
        tokio::spawn(async move {
            for stream in (3..=241).step_by(2) {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let bytes = request(100, stream);
                // Without the preface and the settings.
                let _ = write.lock().await.write_all(&bytes[39..]).await;
            }
        });
        assert_eq!(serving.await, None);
        let last = Duration::from_secs(120 * 5);
        assert!(
            (last + IDLE..last + IDLE + LOOK * 2).contains(&begin.elapsed()),
            "{:?}",
            begin.elapsed()
        );
        reading.await.expect("it is told");
    }
}
