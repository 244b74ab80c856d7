//! Taking connections over from workers, in two steps: the worker asks whether the client may
//! subscribe, and only then, knowing the answer, lets go of the socket.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::adopt::adopt;
use super::companion::{Companion, Count};
use super::descriptors::Messages;
use super::envelope::Envelope;
use crate::accepting::stopped;
use crate::api::{Accepted, Answer};

/// How long a granted subscription waits for its socket.
const PENDING_FOR: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Ask {
    /// May this client subscribe? `token` names the question.
    Authorize { token: String, envelope: Box<Envelope> },
    /// Here is the client's connection.
    Take { token: String },
    /// This connection is for lines of the log, from now on.
    Log,
    /// May another companion take this one's place?
    Succeed { settings: String, since: u64 },
}

#[derive(Debug)]
struct Pending {
    accepted: Accepted,
    since: Duration,
    under_way: Count,
}

/// Serves one connection of a worker until it closes, or the companion stops.
pub(super) async fn serve_worker(
    companion: &Arc<Companion>,
    socket: UnixStream,
    mut stopping: watch::Receiver<bool>,
) {
    let count = companion.count_worker();
    let mut messages = Messages::default();
    loop {
        let message = tokio::select! {
            message = messages.next(&socket) => message,
            () = stopped(&mut stopping) => {
                if companion.is_leaving() && messages.is_idle() {
                    companion.leave_worker(socket);
                }
                return;
            }
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a worker's connection broke");
                return;
            }
        };
        let (reply, then) = answer(companion, &message, &mut messages).await;
        if send(&socket, reply.to_string().as_bytes()).await.is_err() {
            if then == Then::GiveAway {
                companion.stay();
            }
            return;
        }
        match then {
            Then::NextMessage => {}
            Then::Log => return tell_lines(companion, &socket, stopping).await,
            Then::GiveAway => {
                // Not a worker's connection.
                drop(count);
                return companion.succeed(socket);
            }
        }
    }
}

/// Tells a worker the log's lines, once those that have asked before it are gone: one is enough.
async fn tell_lines(
    companion: &Companion,
    socket: &UnixStream,
    mut stopping: watch::Receiver<bool>,
) {
    let telling = async {
        let _turn = companion.line_reader.lock().await;
        let mut lines = companion.lines.subscribe();
        loop {
            match lines.recv().await {
                Ok(line) => send(socket, line.as_bytes()).await?,
                // They are in the companion's own file.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok::<_, std::io::Error>(()),
            }
        }
    };
    // A worker says nothing more on this connection: whatever can be read is its end.
    let mut messages = Messages::default();
    tokio::select! {
        // The last lines say why it stops.
        biased;
        _ = telling => {}
        _ = messages.next(socket) => {}
        () = stopped(&mut stopping) => {}
    }
}

/// What follows a reply.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    NextMessage,
    /// Lines of the log.
    Log,
    /// The companion's place, to whoever is at the other end.
    GiveAway,
}

/// Granted subscriptions that wait for their connection, by token.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<String, Pending>>);

impl Waiting {
    fn add(&self, token: String, accepted: Accepted, now: Duration, under_way: Count) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, pending| now.saturating_sub(pending.since) < PENDING_FOR);
        waiting.insert(token, Pending { accepted, since: now, under_way });
    }

    fn remove(&self, token: &str) -> Option<(Accepted, Count)> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(token).map(|pending| (pending.accepted, pending.under_way))
    }
}

async fn answer(
    companion: &Arc<Companion>,
    message: &[u8],
    messages: &mut Messages,
) -> (serde_json::Value, Then) {
    let reply = match serde_json::from_slice(message) {
        Ok(Ask::Authorize { .. }) if companion.is_leaving() => {
            reply(&Answer::text(410, "another companion takes this one's place"))
        }
        Ok(Ask::Authorize { token, envelope }) => authorize(companion, token, *envelope).await,
        Ok(Ask::Take { token }) => {
            let descriptors = std::iter::from_fn(|| messages.descriptor()).collect();
            take(companion, &token, descriptors)
        }
        Ok(Ask::Log) => return (reply(&Answer::empty(200)), Then::Log),
        Ok(Ask::Succeed { settings, since }) if companion.yields_to(&settings, since) => {
            return (reply(&Answer::empty(200)), Then::GiveAway);
        }
        Ok(Ask::Succeed { .. }) => reply(&Answer::text(409, "this companion is as wanted")),
        // The library's message would quote a value of the envelope, which may be a key.
        Err(error) => {
            reply(&Answer::text(400, format!("bad message at column {}", error.column())))
        }
    };
    (reply, Then::NextMessage)
}

async fn authorize(companion: &Companion, token: String, envelope: Envelope) -> serde_json::Value {
    let service = &companion.service;
    let result = match envelope.open(service) {
        Ok(relayed) => relayed.subscribe(service).await,
        Err(reason) => Err(Answer::text(400, reason)),
    };
    match result {
        Ok(accepted) => {
            let headers = accepted.headers.clone();
            let (now, under_way) = (service.hub.clock().now(), companion.count_under_way());
            companion.waiting.add(token, accepted, now, under_way);
            reply(&Answer { status: 200, headers, body: Vec::new() })
        }
        Err(answer) => reply(&answer),
    }
}

fn take(companion: &Arc<Companion>, token: &str, descriptors: Vec<OwnedFd>) -> serde_json::Value {
    let Some((accepted, under_way)) = companion.waiting.remove(token) else {
        return reply(&Answer::text(410, "no such subscription is under way"));
    };
    let Ok([live, far]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return reply(&Answer::text(400, "two descriptors are needed"));
    };
    let (service, token) = (Arc::clone(&companion.service), token.to_owned());
    tokio::spawn(async move {
        let _under_way = under_way;
        if let Err(error) = adopt(&service, accepted, live, far, &token).await {
            tracing::debug!(%error, "a connection could not be taken over");
        }
    });
    reply(&Answer::empty(200))
}

fn reply(answer: &Answer) -> serde_json::Value {
    json!({
        "status": answer.status,
        "headers": answer.headers,
        "body": String::from_utf8_lossy(&answer.body),
    })
}

async fn send(socket: &UnixStream, message: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    let mut left = &framed[..];
    while !left.is_empty() {
        socket.writable().await?;
        match socket.try_write(left) {
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
