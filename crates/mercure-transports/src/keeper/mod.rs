//! A transport over an engine: what all engines have in common.
//!
//! - **Appending**: one task (`appending`) takes what publishers hand in, as much as has come up
//!   while the engine was busy with the batch before, so that they share a sync or a round trip.
//! - **Following**: one task (`following`) tells the tail what the log accepts, from whichever node,
//!   by reading on from its own cursor; no message that an engine may lose is ever relied upon.
//! - **Epochs**: an engine can lose what it had acknowledged (a replica that was behind took over, a
//!   cache without persistence was restarted) and give the same places to other events. When that is
//!   found, the node's positions go on in a new epoch, above all that were told before, so every
//!   older cursor is gone, which is never silent.

mod appending;
mod following;
mod health;
mod trimming;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mercure_engine::{
    Batch, Change, Claimed, Clock, Event, From, Future, Handover, Head, Measure, Position,
    ReadLimit, Record, Retention, Roster, RosterEntry, Standing, State, Tail, Transport,
    TransportError,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::appending::Append;
use self::following::Following;
use self::health::{Ask, Health};
use self::trimming::Trimming;
use crate::store::{Outcome, Place, Store, lock};

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a start waits for an engine that is not there yet.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// Publications that may wait for the engine.
const QUEUE: usize = 8192;
/// Bits of a position that hold the place; those above hold the epoch.
const PLACE_BITS: u32 = 48;

/// A transport over a store.
pub(crate) struct Keeper<S: Store> {
    inner: Arc<Inner<S>>,
    /// Ended when the keeper is dropped.
    tasks: Mutex<JoinSet<()>>,
    /// Taken by the start.
    queue: Mutex<Option<mpsc::Receiver<Append>>>,
}

struct Inner<S> {
    store: S,
    /// `None` if nothing is dropped but what somebody asks for.
    retention: Option<Retention>,
    clock: Clock,
    following: Following,
    health: Health,
    trimming: Trimming,
    appends: mpsc::Sender<Append>,
    /// This node's name in the roster.
    node: Mutex<String>,
}

impl<S: Store> Keeper<S> {
    /// `node` is the name in the roster of a node whose place this one takes.
    pub(crate) fn new(
        store: S,
        retention: Option<Retention>,
        clock: Clock,
        node: Option<String>,
    ) -> Self {
        let (appends, queue) = mpsc::channel(QUEUE);
        Self {
            inner: Arc::new(Inner {
                store,
                retention,
                health: Health::new(clock.clone()),
                clock,
                following: Following::default(),
                trimming: Trimming::default(),
                appends,
                node: Mutex::new(node.unwrap_or_else(new_name)),
            }),
            tasks: Mutex::default(),
            queue: Mutex::new(Some(queue)),
        }
    }
}

impl<S: Store> fmt::Debug for Keeper<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

impl<S: Store> Transport for Keeper<S> {
    fn start(&self, tail: Arc<dyn Tail>) -> Future<'_, Result<Position, TransportError>> {
        Box::pin(async move {
            let inner = &self.inner;
            inner.open().await?;
            let newest = inner.read_of(inner.store.newest()).await?;
            let head = inner.following.begin(tail, newest);
            let mut tasks = lock(&self.tasks);
            if let Some(queue) = lock(&self.queue).take() {
                tasks.spawn(Arc::clone(inner).keep_appending(queue));
                tasks.spawn(Arc::clone(inner).keep_following());
                tasks.spawn(Arc::clone(inner).keep_trimming());
            }
            Ok(head)
        })
    }

    fn append(&self, record: Record) -> Future<'_, Result<Position, TransportError>> {
        self.inner.hand_in(record)
    }

    fn read(&self, from: From, limit: ReadLimit) -> Future<'_, Result<Batch, TransportError>> {
        Box::pin(self.inner.read(from, limit))
    }

    fn locate<'a>(&'a self, id: &'a str) -> Future<'a, Result<Option<Position>, TransportError>> {
        Box::pin(async move {
            let locate = async {
                self.inner.make_sure().await?;
                let epoch = self.inner.following.epoch();
                Ok((epoch, self.inner.store.locate(id).await?))
            };
            let (epoch, found) = self.inner.read_of(locate).await?;
            Ok(found.map(|place| position(epoch, place)))
        })
    }

    fn head(&self) -> Future<'_, Result<Head, TransportError>> {
        Box::pin(async move {
            let newest = async {
                self.inner.make_sure().await?;
                let epoch = self.inner.following.epoch();
                Ok((epoch, self.inner.store.newest().await?))
            };
            let (epoch, newest) = self.inner.read_of(newest).await?;
            Ok(Head { position: position(epoch, newest.place), id: newest.id })
        })
    }

    fn measure(&self) -> Future<'_, Result<Measure, TransportError>> {
        Box::pin(self.inner.read_of(self.inner.store.measure()))
    }

    fn trim<'a>(&'a self, retention: &'a Retention) -> Future<'a, Result<Measure, TransportError>> {
        Box::pin(async move {
            let trimmed = self.inner.unjudged(self.inner.store.trim(retention)).await?;
            Ok(trimmed.1)
        })
    }

    fn state(&self) -> State {
        self.inner.health.state()
    }

    fn close(&self) -> Handover {
        // They hold the store, and the tail holds whoever holds this.
        lock(&self.tasks).abort_all();
        self.inner.following.end();
        Handover { history: None, node: Some(self.inner.node()) }
    }

    fn roster(&self) -> Option<&dyn Roster> {
        Some(self)
    }
}

impl<S: Store> Roster for Keeper<S> {
    fn renew(&self, lease: Duration) -> Future<'_, Result<Standing, TransportError>> {
        Box::pin(async move {
            let inner = &self.inner;
            let node = inner.node();
            let renewed = inner.asked(Ask::Roster, inner.store.renew(&node, lease)).await?;
            if let Some(standing) = renewed {
                return Ok(standing);
            }
            // Whoever lost a lease starts again under a name that nobody has claimed.
            let node = new_name();
            inner.asked(Ask::Roster, inner.store.renew(&node, lease)).await?;
            *lock(&inner.node) = node;
            Ok(Standing::New)
        })
    }

    fn note(&self, changes: Vec<Change>) -> Future<'_, Result<Standing, TransportError>> {
        Box::pin(async move {
            let node = self.inner.node();
            self.inner.asked(Ask::Roster, self.inner.store.note(&node, &changes)).await
        })
    }

    fn others(&self) -> Future<'_, Result<(u64, Vec<RosterEntry>), TransportError>> {
        Box::pin(async move {
            let node = self.inner.node();
            self.inner.read_of(self.inner.store.others(&node)).await
        })
    }

    fn claim(&self, lease: Duration) -> Future<'_, Result<Option<Claimed>, TransportError>> {
        Box::pin(async move {
            let node = self.inner.node();
            self.inner.asked(Ask::Roster, self.inner.store.claim(&node, lease)).await
        })
    }

    fn bury<'a>(&'a self, node: &'a str) -> Future<'a, Result<(), TransportError>> {
        Box::pin(self.inner.asked(Ask::Roster, self.inner.store.bury(node)))
    }

    fn leave(&self) -> Future<'_, Result<(), TransportError>> {
        Box::pin(async move {
            let node = self.inner.node();
            self.inner.asked(Ask::Roster, self.inner.store.bury(&node)).await
        })
    }
}

impl<S: Store> Inner<S> {
    /// Opens the store; one that is not there yet is waited for, one that refuses is not.
    async fn open(&self) -> Outcome<()> {
        let begin = self.clock.now();
        let mut told = None;
        loop {
            let result = tokio::time::timeout(PATIENCE, self.store.open()).await;
            let error = match result.unwrap_or_else(|_| Err(no_answer())) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let waited = self.clock.now().saturating_sub(begin);
            if matches!(error, TransportError::Refused(_)) || waited > START_PATIENCE {
                return Err(error);
            }
            if told.is_none_or(|told| waited.saturating_sub(told) > Duration::from_secs(5)) {
                tracing::warn!(%error, "waiting for {}", S::NAME);
                told = Some(waited);
            }
            tokio::time::sleep(Health::pause(2)).await;
        }
    }

    /// Reads something: waits for the answer, but not for ever, and notes whether there was one.
    /// While the engine is away, the answer is an error at once, so that nobody waits who need not.
    async fn read_of<T>(
        &self,
        reading: impl std::future::Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        self.asked(Ask::Read, reading).await
    }

    /// Asks for something that may take long, and says nothing of the engine's health.
    async fn unjudged<T>(
        &self,
        asking: impl std::future::Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        let answer = tokio::time::timeout(trimming::LONG, asking).await;
        answer.unwrap_or_else(|_| Err(no_answer()))
    }

    async fn asked<T>(
        &self,
        ask: Ask,
        asking: impl std::future::Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        self.health.may_ask(ask)?;
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        self.health.note(ask, answer.unwrap_or_else(|_| Err(no_answer())))
    }

    async fn read(&self, from: From, limit: ReadLimit) -> Outcome<Batch> {
        let epoch = self.following.epoch();
        let after = match from {
            From::Oldest => None,
            From::After(position) => match split(position) {
                (at, place) if at == epoch => Some(place),
                _ => return Ok(Batch::Gone),
            },
        };
        let read = async {
            self.make_sure().await?;
            self.store.read(after, limit).await
        };
        let stretch = self.read_of(read).await?;
        // The log may have been found to be another one in the meantime.
        if self.following.epoch() != epoch {
            return match from {
                From::Oldest => Err(TransportError::Unavailable("the log was replaced".to_owned())),
                From::After(_) => Ok(Batch::Gone),
            };
        }
        let mut expected = after.map(|place| place + 1);
        let mut events = Vec::with_capacity(stretch.events.len());
        for (place, record) in stretch.events {
            if expected.is_some_and(|expected| place != expected) {
                return Ok(Batch::Gone);
            }
            expected = Some(place + 1);
            events.push(Arc::new(Event { position: position(epoch, place), record }));
        }
        // Nothing follows, but something did: all of it was dropped.
        let dropped = after.is_some_and(|after| stretch.head.is_some_and(|head| head > after));
        if events.is_empty() && dropped {
            return Ok(Batch::Gone);
        }
        Ok(Batch::Events(events))
    }

    fn node(&self) -> String {
        lock(&self.node).clone()
    }
}

/// A node's name in the roster; says nothing about the machine.
fn new_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn no_answer() -> TransportError {
    TransportError::Unavailable("it does not answer in time".to_owned())
}

fn position(epoch: u16, place: Place) -> Position {
    Position((u64::from(epoch) << PLACE_BITS) | (place & ((1 << PLACE_BITS) - 1)))
}

fn split(position: Position) -> (u16, Place) {
    ((position.0 >> PLACE_BITS) as u16, position.0 & ((1 << PLACE_BITS) - 1))
}
