//! Giving a companion's place to another one, in two phases: until the other one has said that it
//! has everything, this one can go on; until this one has said that it does not, the other waits.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use mercure_engine::{Departing, History};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::companion::hub_url;
use super::descriptors::{Messages, send};
use super::place::{HANDOFFS, Place, REQUESTS};
use super::{AlreadyRunning, CompanionOptions};
use crate::estate::{Receiver, TAKEN, Told, YOURS, send_events, send_streams};
use crate::http::Bound;

/// How long either side waits for the other's next message.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a companion leaves to another one.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) place: Place,
    pub(super) history: History,
    pub(super) streams: Vec<Departing>,
    pub(super) workers: Vec<UnixStream>,
}

/// How giving the place away went.
pub(super) enum Outcome {
    Done,
    /// Nothing has changed: whoever holds the estate goes on.
    Failed(Box<Estate>, io::Error),
}

impl Estate {
    /// A place, and nothing else yet.
    pub(super) fn new(place: Place) -> Self {
        Self { place, history: History::default(), streams: Vec::new(), workers: Vec::new() }
    }
}

/// What follows; the lock and the listening sockets come along.
#[derive(Serialize, Deserialize)]
struct Inventory {
    history: Told,
    workers: usize,
    streams: usize,
}

/// Gives everything to another companion.
pub(super) async fn hand_over(successor: UnixStream, estate: Box<Estate>) -> Outcome {
    let given = tokio::task::spawn_blocking(move || give(successor, estate)).await;
    given.unwrap_or_else(|error| {
        tracing::error!(%error, "giving the place away ended by a panic");
        Outcome::Done
    })
}

fn give(successor: UnixStream, mut estate: Box<Estate>) -> Outcome {
    let told = blocking(successor).and_then(|to| {
        tell(&to, &estate)?;
        match Messages::default().wait(&to)? {
            Some(word) if word == TAKEN => send(&to, YOURS, &[]),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    });
    match told {
        Ok(()) => {
            estate.place.own(false);
            Outcome::Done
        }
        Err(error) => Outcome::Failed(estate, error),
    }
}

fn tell(to: &BlockingUnixStream, estate: &Estate) -> io::Result<()> {
    let (place, history) = (&estate.place, &estate.history);
    let inventory = Inventory {
        history: Told::of(history),
        workers: estate.workers.len(),
        streams: estate.streams.len(),
    };
    let with = [place.lock.as_fd(), place.requests.as_fd(), place.handoffs.as_fd()];
    send(to, &serde_json::to_vec(&inventory)?, &with)?;
    for worker in &estate.workers {
        send(to, b"worker", &[worker.as_fd()])?;
    }
    send_events(to, history)?;
    send_streams(to, &estate.streams)
}

/// Asks the running companion for its place.
///
/// # Errors
/// [`AlreadyRunning`] if it keeps it, or why it could not be taken over.
pub(super) fn receive(options: &CompanionOptions) -> anyhow::Result<Estate> {
    let from = BlockingUnixStream::connect(options.directory.join(HANDOFFS));
    let from = from.context("reaching the running companion")?;
    from.set_read_timeout(Some(PATIENCE))?;
    from.set_write_timeout(Some(PATIENCE))?;
    let ask = json!({ "kind": "succeed", "settings": options.settings, "since": options.since });
    send(&from, ask.to_string().as_bytes(), &[])?;
    let mut receiver = Receiver { from, messages: Messages::default() };
    let reply = receiver.next().ok().and_then(|reply| serde_json::from_slice::<Value>(&reply).ok());
    // It keeps its place, or is just giving it to somebody else.
    if reply.is_none_or(|reply| reply["status"] != 200) {
        return Err(AlreadyRunning.into());
    }
    let mut estate = receiver.estate(options).context("taking the running companion's place")?;
    send(&receiver.from, TAKEN, &[])?;
    match receiver.messages.wait(&receiver.from) {
        Ok(Some(word)) if word == YOURS => {}
        // It is gone: nobody else has the streams now.
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => bail!("the running companion did not let go"),
    }
    estate.place.own(true);
    Ok(estate)
}

impl Receiver {
    fn estate(&mut self, options: &CompanionOptions) -> anyhow::Result<Estate> {
        let inventory: Inventory = serde_json::from_slice(&self.next()?)?;
        let lock = self.descriptor()?.into();
        let listener =
            |descriptor, name| Bound::inherited(descriptor, &options.directory.join(name));
        let requests = listener(self.descriptor()?, REQUESTS)?;
        let place = Place { lock, requests, handoffs: listener(self.descriptor()?, HANDOFFS)? };
        let workers = self.workers(inventory.workers)?;
        let history = self.history(&inventory.history)?;
        let streams = self.streams(inventory.streams, hub_url()?)?;
        Ok(Estate { place, history, streams, workers })
    }

    fn workers(&mut self, count: usize) -> anyhow::Result<Vec<UnixStream>> {
        let mut workers = Vec::new();
        for _ in 0..count {
            self.next()?;
            let worker = BlockingUnixStream::from(self.descriptor()?);
            worker.set_nonblocking(true)?;
            workers.push(UnixStream::from_std(worker)?);
        }
        Ok(workers)
    }
}

/// Waits from now on, but not for ever.
fn blocking(socket: UnixStream) -> io::Result<BlockingUnixStream> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
