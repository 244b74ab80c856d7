use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use mercure_protocol::EventId;

use crate::event::{Event, Position, Record};
use crate::memory::{History, Retention};
use crate::roster::Roster;

/// A boxed future, so that transports can be chosen at run time.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// The keeper of the log.
///
/// # Contract
/// - **Append** is atomic and ordered. When it returns `Ok`, the event is durable to the level the
///   transport states in its documentation, and has a position greater than that of every event
///   accepted before. An event that tells of a subscription is accepted once: if its id is there
///   already, so that another node has told the same, its position is that of the first one.
/// - **The tail** is told every accepted event, of all hubs that share the log, in the log's
///   order, exactly once per hub, across reconnects of the engine's client.
/// - **Read** returns events in order with no hole, not always as many as the limit allows, but none
///   only if nothing follows; what retention has dropped is reported as [`Batch::Gone`], never
///   passed over.
/// - **Locate** takes time independent of where the event stands; of several events with one id
///   it finds the earliest that is retained.
/// - **Head** is cheap: it is asked at each page load.
/// - **A gap is told**: if the engine lost what it had accepted, or dropped it before the tail was
///   told, the tail hears of a gap, positions go on above all that were told before, and every
///   older cursor is [`Batch::Gone`].
/// - **Retention** keeps at least what it names, and little more: an implementation may drop the
///   oldest events in batches, as long as they are a small part of what is retained.
pub trait Transport: Debug + Send + Sync {
    /// Begins to tell the tail what happens from now on; called once. Returns the position of the
    /// newest event: the tail is told everything after it.
    fn start(&self, tail: Arc<dyn Tail>) -> Future<'_, Result<Position, TransportError>>;

    /// Accepts an event.
    fn append(&self, record: Record) -> Future<'_, Result<Position, TransportError>>;

    /// Reads a stretch of the log.
    fn read(&self, from: From, limit: ReadLimit) -> Future<'_, Result<Batch, TransportError>>;

    /// Finds the earliest retained event with an id.
    fn locate<'a>(&'a self, id: &'a str) -> Future<'a, Result<Option<Position>, TransportError>>;

    /// The newest event.
    fn head(&self) -> Future<'_, Result<Head, TransportError>>;

    /// What the log holds.
    fn measure(&self) -> Future<'_, Result<Measure, TransportError>>;

    /// Drops what is past a retention, beside the transport's own. Returns what is left.
    fn trim<'a>(&'a self, retention: &'a Retention) -> Future<'a, Result<Measure, TransportError>>;

    /// Whether the engine answers, as far as is known without asking it.
    fn state(&self) -> State;

    /// Tells nobody any more and lets go of its engine, so that this transport can be dropped and another
    /// process can go on.
    fn close(&self) -> Handover;

    /// Where subscriptions of all nodes are known; `None` if this process is the only node and its
    /// log does not outlive it.
    fn roster(&self) -> Option<&dyn Roster>;
}

/// The receiver of a transport's tail.
pub trait Tail: Debug + Send + Sync {
    /// The log accepted an event. Called in the log's order; returns at once.
    fn on_event(&self, event: Arc<Event>);

    /// Events up to and including this position will never be told: the next one that is told
    /// comes after it. Called in the log's order; returns at once.
    fn on_gap(&self, through: Position);
}

/// What a transport of another process needs to go on where this one has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handover {
    /// What the log holds, if nobody else keeps it.
    pub history: Option<History>,
    /// The node's name in the roster, if there is one.
    pub node: Option<String>,
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the oldest event that is retained, whichever that is.
    Oldest,
    /// Right after this position.
    After(Position),
}

/// How much a read returns at most; at least one event if there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Number of events.
    pub events: usize,
    /// Size of their frames in bytes.
    pub bytes: usize,
}

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// The next events; none if the reader is at the head.
    Events(Vec<Arc<Event>>),
    /// An event after the asked position is no longer retained.
    Gone,
}

/// The newest end of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// Position of the newest event ever accepted.
    pub position: Position,
    /// Its id; `None` if nothing was accepted yet.
    pub id: Option<EventId>,
}

/// How much a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measure {
    /// Number of events.
    pub events: u64,
    /// Their size in bytes, about.
    pub bytes: u64,
}

/// Whether a transport's engine answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// It answered the last time.
    #[default]
    Available,
    /// It did not, and is asked again and again.
    Away {
        /// Since when, on the [`Clock`](crate::Clock).
        since: std::time::Duration,
        /// What it said, or that it said nothing.
        reason: String,
    },
}

/// Why a transport could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The engine cannot be reached or refuses for now; trying again later makes sense. For an
    /// append, the event may or may not have been accepted.
    #[error("the transport is unavailable: {0}")]
    Unavailable(String),
    /// The engine answers, and trying again will not help: the log is of a newer version, the
    /// credentials are wrong, somebody else holds the file.
    #[error("the transport cannot be used: {0}")]
    Refused(String),
    /// The engine takes no event of this size.
    #[error("the transport takes events of up to {most} bytes")]
    TooLarge {
        /// The largest size in bytes.
        most: usize,
    },
}
