//! What a hub leaves to another process: its log, where nobody else keeps it, and its plain streams, each
//! with its place in the log and what was written of it in part. Connections go along by descriptor.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf as _, Bytes};
use mercure_engine::{Attended, Departing, From, History, Outlet, Position, Record};
use mercure_protocol::{ClientId, EventId, HubUrl, Limits, Matcher, MatcherType, SubscriberId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bus::{Messages, send};

/// The new process has everything.
pub(crate) const TAKEN: &[u8] = b"taken";
/// The old process does not go on.
pub(crate) const YOURS: &[u8] = b"yours";

/// What follows of a log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    dropped_through: u64,
    newest: Option<String>,
    events: usize,
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
    /// Of the attendance: its seed, and whether it was told anew. Older programs leave it out.
    #[serde(default)]
    told_by: Option<([u8; 16], bool)>,
    /// Of what it holds beside its place. Older programs leave it out.
    #[serde(default)]
    note: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Exact,
    UrlPattern,
    Selector,
}

impl Told {
    pub(crate) fn of(history: &History) -> Self {
        Self {
            dropped_through: history.dropped_through.0,
            newest: history.head.as_ref().map(EventId::to_string),
            events: history.records.len(),
        }
    }
}

/// Sends the events of a log, each with its age.
pub(crate) fn send_events(to: &UnixStream, history: &History) -> io::Result<()> {
    let mut message = Vec::new();
    for (record, age) in &history.records {
        message.clear();
        message.extend_from_slice(&milliseconds(*age).to_be_bytes());
        record.encode(&mut message);
        send(to, &message, &[])?;
    }
    Ok(())
}

/// Sends streams.
pub(crate) fn send_streams(to: &UnixStream, streams: &[Departing]) -> io::Result<()> {
    for departing in streams {
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

/// Takes what another process sends.
pub(crate) struct Receiver {
    pub(crate) from: UnixStream,
    pub(crate) messages: Messages,
}

impl Receiver {
    pub(crate) fn next(&mut self) -> anyhow::Result<Bytes> {
        self.messages.wait(&self.from)?.context("the other process said no more")
    }

    pub(crate) fn descriptor(&mut self) -> anyhow::Result<OwnedFd> {
        self.messages.descriptor().context("a descriptor is missing")
    }

    pub(crate) fn history(&mut self, told: &Told) -> anyhow::Result<History> {
        let mut records = Vec::new();
        for _ in 0..told.events {
            let mut message = self.next()?;
            let age = message.try_get_u64().map(Duration::from_millis)?;
            records.push((Record::decode(&message).context("an event is damaged")?, age));
        }
        Ok(History {
            dropped_through: Position(told.dropped_through),
            head: told.newest.as_deref().map(EventId::from_log),
            records,
        })
    }

    /// So many streams of a hub with this URL.
    pub(crate) fn streams(&mut self, count: usize, url: HubUrl) -> anyhow::Result<Vec<Departing>> {
        // What one hub has accepted is not judged again by the limits of another.
        let limits =
            Limits { matcher_length: usize::MAX, compiled: usize::MAX, ..Limits::default() };
        let mut pool = Pool { url, limits, known: HashMap::new() };
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut message = self.next()?;
            let length = message.try_get_u32()? as usize;
            let stream: Stream =
                serde_json::from_slice(message.get(..length).context("a stream is damaged")?)?;
            streams.push(stream.depart(message.slice(length..), self.descriptor()?, &mut pool)?);
        }
        Ok(streams)
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
            told_by: attended.map(|a| (a.seed, a.is_anew)),
            note: departing.note.clone(),
        }
    }

    fn depart(
        self,
        unsent: Bytes,
        connection: OwnedFd,
        pool: &mut Pool,
    ) -> anyhow::Result<Departing> {
        let (seed, is_anew) =
            self.told_by.unwrap_or_else(|| (*uuid::Uuid::new_v4().as_bytes(), false));
        let named = |(subscriber, payloads)| Attended {
            subscriber: SubscriberId::from_random(subscriber),
            seed,
            is_anew,
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
            note: self.note,
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
