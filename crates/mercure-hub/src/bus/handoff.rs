//! Taking connections over from workers, in two steps: the worker asks whether the client may
//! subscribe, and only then, knowing the answer, lets go of the socket.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::Companion;
use super::adopt::adopt;
use super::descriptors::{Message, Messages};
use super::envelope::Envelope;
use crate::api::{Accepted, Answer};
use crate::server::stopped;

/// How long a granted subscription waits for its socket.
const PENDING_FOR: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Ask {
    /// May this client subscribe? `token` names the question.
    Authorize { token: String, envelope: Box<Envelope> },
    /// Here is the client's connection.
    Take { token: String },
}

#[derive(Debug)]
struct Pending {
    accepted: Accepted,
    since: Duration,
}

/// Serves one connection of a worker until it closes, or the companion stops.
pub(super) async fn serve_worker(
    companion: &Arc<Companion>,
    socket: &UnixStream,
    mut stopping: watch::Receiver<bool>,
) {
    let _count = companion.count_worker();
    let conversation = async {
        let mut messages = Messages::default();
        while let Some(message) = messages.next(socket).await? {
            let reply = answer(companion, message).await;
            send(socket, reply.to_string().as_bytes()).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        result = conversation => if let Err(error) = result {
            tracing::debug!(%error, "a worker's connection broke");
        },
        () = stopped(&mut stopping) => {}
    }
}

/// Granted subscriptions that wait for their connection, by token.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<String, Pending>>);

impl Waiting {
    fn add(&self, token: String, accepted: Accepted, now: Duration) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, pending| now.saturating_sub(pending.since) < PENDING_FOR);
        waiting.insert(token, Pending { accepted, since: now });
    }

    fn remove(&self, token: &str) -> Option<Accepted> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(token).map(|pending| pending.accepted)
    }
}

async fn answer(companion: &Arc<Companion>, message: Message) -> serde_json::Value {
    match serde_json::from_slice(&message.bytes) {
        Ok(Ask::Authorize { token, envelope }) => authorize(companion, token, *envelope).await,
        Ok(Ask::Take { token }) => take(companion, token, message.descriptors),
        // The library's message would quote a value of the envelope, which may be a key.
        Err(error) => {
            reply(&Answer::text(400, format!("bad message at column {}", error.column())))
        }
    }
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
            companion.waiting.add(token, accepted, service.hub.clock().now());
            reply(&Answer { status: 200, headers, body: Vec::new() })
        }
        Err(answer) => reply(&answer),
    }
}

fn take(companion: &Arc<Companion>, token: String, descriptors: Vec<OwnedFd>) -> serde_json::Value {
    let Some(accepted) = companion.waiting.remove(&token) else {
        return reply(&Answer::text(410, "no such subscription is under way"));
    };
    let Ok([live, far]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return reply(&Answer::text(400, "two descriptors are needed"));
    };
    let service = Arc::clone(&companion.service);
    tokio::spawn(async move {
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
