//! Giving a companion's place to another one, in two phases: until the other one has said that it
//! has everything, this one can go on; until this one has said that it does not, the other waits.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes};
use mercure_engine::{Attended, Departing, From, History, Outlet, Position, Record};
use mercure_protocol::{ClientId, EventId, HubUrl, Limits, Matcher, MatcherType, SubscriberId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::companion::hub_url;
use super::descriptors::{Messages, send};
use super::place::{HANDOFFS, Place, REQUESTS};
use super::{AlreadyRunning, CompanionOptions};
use crate::http::Bound;

/// How long either side waits for the other's next message.
const PATIENCE: Duration = Duration::from_secs(10);
/// The new companion has everything.
const TAKEN: &[u8] = b"taken";
/// The old companion does not go on.
const YOURS: &[u8] = b"yours";

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
    dropped_through: u64,
    newest: Option<String>,
    workers: usize,
    events: usize,
    streams: usize,
}

/// A stream; its connection comes along, what is unsent follows.
#[derive(Serialize, Deserialize)]
struct Stream {
    is_unix: bool,
    matchers: Vec<(Kind, String)>,
    may_read: Vec<(Kind, String)>,
    /// `None` for the oldest event.
    after: Option<u64>,
    milliseconds_left: Option<u64>,
    client: Option<[u8; 16]>,
    attended: Option<([u8; 16], Vec<Option<Value>>)>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Exact,
    UrlPattern,
    Selector,
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
        dropped_through: history.dropped_through.0,
        newest: history.head.as_ref().map(EventId::to_string),
        workers: estate.workers.len(),
        events: history.records.len(),
        streams: estate.streams.len(),
    };
    let with = [place.lock.as_fd(), place.requests.as_fd(), place.handoffs.as_fd()];
    send(to, &serde_json::to_vec(&inventory)?, &with)?;
    for worker in &estate.workers {
        send(to, b"worker", &[worker.as_fd()])?;
    }
    let mut message = Vec::new();
    for (record, age) in &history.records {
        message.clear();
        message.extend_from_slice(&milliseconds(*age).to_be_bytes());
        record.encode(&mut message);
        send(to, &message, &[])?;
    }
    for departing in &estate.streams {
        let Some((connection, is_unix)) = departing.outlet.descriptor() else {
            return Err(io::Error::other("a stream without a connection"));
        };
        let stream = serde_json::to_vec(&Stream::of(departing, is_unix))?;
        // Bounded by the limits on requests, far below.
        let length = (stream.len() as u32).to_be_bytes();
        send(to, &[&length[..], &stream, &departing.unsent].concat(), &[connection])?;
    }
    Ok(())
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

struct Receiver {
    from: BlockingUnixStream,
    messages: Messages,
}

impl Receiver {
    fn next(&mut self) -> anyhow::Result<Bytes> {
        self.messages.wait(&self.from)?.context("the running companion said no more")
    }

    fn descriptor(&mut self) -> anyhow::Result<OwnedFd> {
        self.messages.descriptor().context("a descriptor is missing")
    }

    fn estate(&mut self, options: &CompanionOptions) -> anyhow::Result<Estate> {
        let inventory: Inventory = serde_json::from_slice(&self.next()?)?;
        let lock = self.descriptor()?.into();
        let listener =
            |descriptor, name| Bound::inherited(descriptor, &options.directory.join(name));
        let requests = listener(self.descriptor()?, REQUESTS)?;
        let place = Place { lock, requests, handoffs: listener(self.descriptor()?, HANDOFFS)? };
        let (history, workers, streams) = self.rest(&inventory)?;
        Ok(Estate { place, history, streams, workers })
    }

    fn rest(
        &mut self,
        told: &Inventory,
    ) -> anyhow::Result<(History, Vec<UnixStream>, Vec<Departing>)> {
        let mut workers = Vec::new();
        for _ in 0..told.workers {
            self.next()?;
            let worker = BlockingUnixStream::from(self.descriptor()?);
            worker.set_nonblocking(true)?;
            workers.push(UnixStream::from_std(worker)?);
        }
        let mut records = Vec::new();
        for _ in 0..told.events {
            let mut message = self.next()?;
            let age = message.try_get_u64().map(Duration::from_millis)?;
            records.push((Record::decode(&message).context("an event is damaged")?, age));
        }
        let mut pool = Pool { url: hub_url()?, limits: Limits::default(), known: HashMap::new() };
        let mut streams = Vec::new();
        for _ in 0..told.streams {
            let mut message = self.next()?;
            let length = message.try_get_u32()? as usize;
            let stream: Stream =
                serde_json::from_slice(message.get(..length).context("a stream is damaged")?)?;
            streams.push(stream.depart(message.slice(length..), self.descriptor()?, &mut pool)?);
        }
        let history = History {
            dropped_through: Position(told.dropped_through),
            head: told.newest.as_deref().map(EventId::from_log),
            records,
        };
        Ok((history, workers, streams))
    }
}

impl Stream {
    fn of(departing: &Departing, is_unix: bool) -> Self {
        let texts = |matchers: &[Matcher]| {
            let text = |matcher: &Matcher| (Kind::of(matcher), matcher.as_str().to_owned());
            matchers.iter().map(text).collect()
        };
        let attended = departing.attended.as_ref();
        Self {
            is_unix,
            matchers: texts(&departing.matchers),
            may_read: texts(&departing.may_read),
            after: match departing.from {
                From::Oldest => None,
                From::After(position) => Some(position.0),
            },
            milliseconds_left: departing.time_left.map(milliseconds),
            client: departing.client.map(|client| client.0),
            attended: attended.map(|a| (*a.subscriber.as_bytes(), a.payloads.clone())),
        }
    }

    fn depart(
        self,
        unsent: Bytes,
        connection: OwnedFd,
        pool: &mut Pool,
    ) -> anyhow::Result<Departing> {
        let named = |(subscriber, payloads)| Attended {
            subscriber: SubscriberId::from_random(subscriber),
            payloads,
        };
        Ok(Departing {
            outlet: Outlet::from_descriptor(connection, self.is_unix)?,
            matchers: pool.matchers(self.matchers)?,
            may_read: pool.matchers(self.may_read)?,
            from: self.after.map_or(From::Oldest, |after| From::After(Position(after))),
            unsent,
            time_left: self.milliseconds_left.map(Duration::from_millis),
            client: self.client.map(ClientId),
            attended: self.attended.map(named),
        })
    }
}

/// Matchers that were compiled already: many streams have the same.
struct Pool {
    url: HubUrl,
    limits: Limits,
    known: HashMap<(Kind, String), Matcher>,
}

impl Pool {
    fn matchers(&mut self, texts: Vec<(Kind, String)>) -> anyhow::Result<Vec<Matcher>> {
        texts.into_iter().map(|text| self.matcher(text)).collect()
    }

    fn matcher(&mut self, text: (Kind, String)) -> anyhow::Result<Matcher> {
        if let Some(known) = self.known.get(&text) {
            return Ok(known.clone());
        }
        let kind = match text.0 {
            Kind::Exact => MatcherType::Exact,
            Kind::UrlPattern => MatcherType::UrlPattern,
            Kind::Selector => MatcherType::Selector,
        };
        let matcher = Matcher::parse(kind, &text.1, &self.url, &self.limits)?;
        self.known.insert(text, matcher.clone());
        Ok(matcher)
    }
}

impl Kind {
    fn of(matcher: &Matcher) -> Self {
        match matcher.kind() {
            MatcherType::Exact => Self::Exact,
            MatcherType::UrlPattern => Self::UrlPattern,
            MatcherType::Selector => Self::Selector,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn blocking(socket: UnixStream) -> io::Result<BlockingUnixStream> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
