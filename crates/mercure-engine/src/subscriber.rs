use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mercure_protocol::{Grants, Matcher, MatcherType, TopicView};

use crate::admission::Permit;
use crate::backlog::Backlog;
use crate::event::{Event, Position};
use crate::outlet::{COALESCE, Outlet};
use crate::presence::Present;
use crate::transport::From;

/// A subscriber to attach to a hub.
#[derive(Debug)]
pub struct NewSubscriber {
    /// Where its bytes go.
    pub outlet: Outlet,
    /// What it listens to.
    pub matchers: Vec<Matcher>,
    /// What private updates it may read; `None` for none.
    pub grants: Option<Arc<Grants>>,
    /// Where it begins; [`Hub::now`](crate::Hub::now) for "from now on".
    pub from: From,
    /// Bytes to write before the first event: a response head, a `retry` field.
    pub preamble: Bytes,
    /// Its place among the hub's subscribers; see [`Hub::admit`](crate::Hub::admit).
    pub permit: Permit,
    /// Its presence, told to others; `None` if nobody is told.
    pub present: Option<Present>,
    /// When its connection must end, on the hub's [`Clock`](crate::Clock); `None` for never.
    pub deadline: Option<Duration>,
}

/// Why a subscriber's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed its side, or the connection broke.
    Disconnected,
    /// Its token expired, or the connection reached its maximum age.
    Deadline,
    /// It did not read for longer than the write timeout.
    Stalled,
    /// Its cursor fell off the retained log; its reconnect is told so.
    Gap,
    /// The hub is stopping.
    Shutdown,
}

impl CloseReason {
    /// The reason as a word for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Deadline => "deadline",
            Self::Stalled => "stalled",
            Self::Gap => "gap",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How a subscriber follows the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// At the shard's place: the shard dispatches to it.
    Live,
    /// Behind: it reads the log from its cursor.
    CatchingUp(From),
    /// Behind, with a read of the transport under way that was asked for when the shard stood at
    /// this place: an empty answer speaks of the log up to there and no further.
    Reading(From, Position),
}

/// The life of one subscriber, without the sockets' readiness and the clock, which the shard
/// brings in.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) generation: u32,
    pub(crate) outlet: Outlet,
    pub(crate) matchers: Box<[Matcher]>,
    pub(crate) grants: Option<Arc<Grants>>,
    pub(crate) phase: Phase,
    /// Everything up to here was delivered, enqueued or is not for it.
    pub(crate) marker: Position,
    backlog: Option<Box<Backlog>>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) last_write: Duration,
    /// Whether it has a turn among those that are behind, or waits for a read.
    pub(crate) is_queued: bool,
    /// Since when it is behind, in milliseconds on the clock; kept small, as there are many.
    pub(crate) behind_since: u32,
    /// First and last of its deliveries in the current batch; see `shard::dispatch`.
    pub(crate) deliveries: Option<(u32, u32)>,
    /// These end when the subscriber is dropped.
    pub(crate) present: Option<Present>,
    pub(crate) permit: Permit,
}

/// Whether the outlet takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    Blocked,
}

impl Subscriber {
    pub(crate) fn new(new: NewSubscriber, generation: u32, now: Duration, at: Position) -> Self {
        // What the shard has yet to dispatch is not news to whoever begins later than it stands.
        let (phase, marker) = match new.from {
            From::After(after) if after >= at => (Phase::Live, after),
            from => (Phase::CatchingUp(from), Position::START),
        };
        let mut permit = new.permit;
        permit.count(footprint(&new.matchers));
        // Only 0.x has selectors, and a request has matchers of one generation.
        if new.matchers.iter().any(|matcher| matcher.kind() == MatcherType::Selector) {
            permit.count_as_v0();
        }
        Self {
            generation,
            outlet: new.outlet,
            matchers: new.matchers.into(),
            grants: new.grants,
            phase,
            marker,
            backlog: None,
            deadline: new.deadline,
            last_write: now,
            is_queued: false,
            behind_since: milliseconds(now),
            deliveries: None,
            present: new.present,
            permit,
        }
    }

    /// From here on it reads the log from a place before the shard's.
    pub(crate) fn fall_behind(&mut self, from: From, now: Duration) {
        if self.phase == Phase::Live {
            self.behind_since = milliseconds(now);
        }
        self.phase = Phase::CatchingUp(from);
    }

    /// How long it has been behind.
    pub(crate) fn behind_for(&self, now: Duration) -> Duration {
        // The counter begins anew every 50 days, and so does the difference.
        Duration::from_millis(milliseconds(now).wrapping_sub(self.behind_since).into())
    }

    /// Whether it is to be sent the event.
    pub(crate) fn wants(&self, event: &Event, topics: &[TopicView<'_>]) -> bool {
        Self::selects(&self.matchers, self.grants.as_deref(), event, topics)
    }

    /// Whether a matcher selects the event and, if it is private, the grants allow it.
    pub(crate) fn selects(
        matchers: &[Matcher],
        grants: Option<&Grants>,
        event: &Event,
        topics: &[TopicView<'_>],
    ) -> bool {
        let any = |matcher: &Matcher| topics.iter().any(|topic| matcher.matches(topic));
        let may_read =
            || !event.record.private || grants.is_some_and(|grants| grants.allow_read(topics));
        matchers.iter().any(any) && may_read()
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| !backlog.held)
    }

    /// Keeps bytes until the next write, or [`Subscriber::release`], to leave together with it.
    pub(crate) fn hold(&mut self, frame: Bytes) {
        debug_assert!(self.backlog.is_none());
        let mut backlog = Box::new(Backlog::new(self.permit.shared()));
        backlog.held = true;
        backlog.push(frame);
        self.backlog = Some(backlog);
    }

    /// Writes what was held, if nothing came to leave with it.
    pub(crate) fn release(&mut self, now: Duration) -> io::Result<Flow> {
        match &mut self.backlog {
            Some(backlog) if backlog.held => {
                backlog.held = false;
                self.flush(now)
            }
            Some(_) => Ok(Flow::Blocked),
            None => Ok(Flow::Open),
        }
    }

    /// Writes frames, at most [`COALESCE`] of them; keeps what does not leave at once.
    pub(crate) fn write(&mut self, frames: &[&Bytes], now: Duration) -> io::Result<Flow> {
        debug_assert!(frames.len() <= COALESCE && !self.is_blocked());
        if let Some(held) = &mut self.backlog {
            frames.iter().for_each(|frame| held.push(Bytes::clone(frame)));
            return self.release(now);
        }
        let mut taken = self.outlet.write(frames, 0)?;
        if taken > 0 {
            self.last_write = now;
        }
        let mut rest = frames.iter();
        let first = loop {
            match rest.next() {
                None => return Ok(Flow::Open),
                Some(frame) if taken >= frame.len() => taken -= frame.len(),
                Some(frame) => break Bytes::clone(frame),
            }
        };
        let mut backlog = Box::new(Backlog::new(self.permit.shared()));
        backlog.push(first);
        rest.for_each(|frame| backlog.push(Bytes::clone(frame)));
        backlog.advance(taken);
        self.backlog = Some(backlog);
        // An edge-triggered poller speaks up only after a write was refused, so try once more.
        self.flush(now)
    }

    /// Adds a frame behind what waits already; `false` if there is no room.
    pub(crate) fn enqueue(&mut self, frame: &Bytes) -> bool {
        let shared = self.permit.shared();
        let backlog = self.backlog.get_or_insert_with(|| Box::new(Backlog::new(shared)));
        let room = backlog.has_room(frame.len());
        if room {
            backlog.push(Bytes::clone(frame));
        }
        room
    }

    /// What was begun or enqueued and has not left yet.
    pub(crate) fn unsent(&mut self) -> Bytes {
        self.backlog.take().map(|backlog| backlog.unsent()).unwrap_or_default()
    }

    /// Writes what waits, until done or the outlet takes no more.
    pub(crate) fn flush(&mut self, now: Duration) -> io::Result<Flow> {
        while let Some(backlog) = &mut self.backlog {
            if !backlog.write_to(&mut self.outlet)? {
                return Ok(Flow::Blocked);
            }
            self.last_write = now;
            if backlog.is_empty() {
                self.backlog = None;
            }
        }
        Ok(Flow::Open)
    }
}

/// What a subscriber takes in memory with its places in the index and the wheel, in bytes, about.
fn footprint(matchers: &[Matcher]) -> u32 {
    /// An entry of a map with its key, and a slot.
    const ENTRY: usize = 64;
    let each = |matcher: &Matcher| size_of::<Matcher>() + ENTRY + matcher.as_str().len();
    let all = size_of::<Subscriber>() + matchers.iter().map(each).sum::<usize>();
    u32::try_from(all).unwrap_or(u32::MAX)
}

/// A moment on the clock; it begins anew every 50 days.
fn milliseconds(moment: Duration) -> u32 {
    moment.as_millis() as u32
}
