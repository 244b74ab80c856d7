use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mercure_protocol::{Grants, Matcher, TopicView};

use crate::admission::Permit;
use crate::event::{Event, Position};
use crate::outlet::{COALESCE, Outlet};
use crate::presence::Present;
use crate::transport::From;

/// Frames that may wait for a socket before their subscriber leaves live dispatch.
const BACKLOG_FRAMES: usize = 64;
/// Their size in bytes; one frame may exceed it.
pub(crate) const BACKLOG_BYTES: usize = 64 * 1024;

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
    /// First and last of its deliveries in the current batch; see `shard::dispatch`.
    pub(crate) deliveries: Option<(u32, u32)>,
    /// These end when the subscriber is dropped.
    pub(crate) present: Option<Present>,
    pub(crate) permit: Permit,
}

/// What could not be written yet.
#[derive(Debug, Default)]
struct Backlog {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes of the first frame that are written already.
    written: usize,
    /// Waits for company, not for the outlet.
    held: bool,
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
            deliveries: None,
            present: new.present,
            permit: new.permit,
        }
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
        let mut backlog = Backlog { held: true, ..Backlog::default() };
        backlog.push(frame);
        self.backlog = Some(Box::new(backlog));
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
        let mut backlog = Backlog { written: taken, bytes: first.len(), ..Backlog::default() };
        backlog.frames.push_back(first);
        for frame in rest {
            backlog.push(Bytes::clone(frame));
        }
        self.backlog = Some(Box::new(backlog));
        // An edge-triggered poller speaks up only after a write was refused, so try once more.
        self.flush(now)
    }

    /// Adds a frame behind what waits already; `false` if there is no room.
    pub(crate) fn enqueue(&mut self, frame: &Bytes) -> bool {
        let backlog = self.backlog.get_or_insert_default();
        let room = backlog.frames.len() < BACKLOG_FRAMES
            && (backlog.frames.is_empty() || backlog.bytes + frame.len() <= BACKLOG_BYTES);
        if room {
            backlog.push(Bytes::clone(frame));
        }
        room
    }

    /// What was begun or enqueued and has not left yet.
    pub(crate) fn unsent(&mut self) -> Bytes {
        let Some(backlog) = self.backlog.take() else { return Bytes::new() };
        let mut unsent = Vec::with_capacity(backlog.bytes);
        backlog.frames.iter().for_each(|frame| unsent.extend_from_slice(frame));
        Bytes::from(unsent).slice(backlog.written..)
    }

    /// Writes what waits, until done or the outlet takes no more.
    pub(crate) fn flush(&mut self, now: Duration) -> io::Result<Flow> {
        while let Some(backlog) = &mut self.backlog {
            let mut frames = [&EMPTY; COALESCE];
            let count = backlog.frames.len().min(COALESCE);
            for (slot, frame) in frames.iter_mut().zip(&backlog.frames) {
                *slot = frame;
            }
            let taken = self.outlet.write(&frames[..count], backlog.written)?;
            if taken == 0 {
                return Ok(Flow::Blocked);
            }
            self.last_write = now;
            backlog.advance(taken);
            if backlog.frames.is_empty() {
                self.backlog = None;
            }
        }
        Ok(Flow::Open)
    }
}

static EMPTY: Bytes = Bytes::new();

impl Backlog {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn advance(&mut self, taken: usize) {
        self.written += taken;
        while let Some(first) = self.frames.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.bytes -= first.len();
            self.frames.pop_front();
        }
    }
}
