use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mercure_protocol::EventId;

use crate::clock::Clock;
use crate::event::{Event, Position, Record};
use crate::roster::Roster;
use crate::transport::{
    Batch, From, Future, Handover, Head, Measure, ReadLimit, State, Tail, Transport, TransportError,
};

/// How much history is kept; whichever bound is reached first drops the oldest events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Number of updates that publishers sent. Events that tell of subscriptions come on top: who
    /// comes and goes must not push out what was published.
    pub events: usize,
    /// Age of the oldest; `None` for no bound.
    pub age: Option<Duration>,
    /// Size of all events in bytes (payload, topics and bookkeeping).
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { events: 100_000, age: None, bytes: 256 * 1024 * 1024 }
    }
}

/// What a log in memory holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Every event up to here was dropped; the records have the positions that follow.
    pub dropped_through: Position,
    /// Id of the newest event ever accepted.
    pub head: Option<EventId>,
    /// From the oldest to the newest, each with its age.
    pub records: Vec<(Record, Duration)>,
}

/// The log in this process's memory: ordered and fast; gone when the process ends.
#[derive(Debug)]
pub struct MemoryTransport {
    log: Mutex<Log>,
    retention: Retention,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Log {
    /// Positions are consecutive.
    events: VecDeque<Stored>,
    ids: HashMap<EventId, Places>,
    bytes: usize,
    /// How many of the events tell of subscriptions.
    of_subscriptions: usize,
    head: Head,
    /// Every event up to here was dropped.
    dropped_through: Position,
    tail: Option<Arc<dyn Tail>>,
}

#[derive(Debug)]
struct Stored {
    event: Arc<Event>,
    /// On this process's clock.
    accepted_at: Duration,
    /// How old it was then: a log that was restored brings older ones along.
    age: Duration,
}

/// Where an id occurs: nearly always once.
#[derive(Debug)]
enum Places {
    One(Position),
    Many(VecDeque<Position>),
}

impl MemoryTransport {
    /// An empty log.
    #[must_use]
    pub fn new(retention: Retention, clock: Clock) -> Self {
        Self { log: Mutex::default(), retention, clock }
    }

    /// A log that goes on where another one has ended.
    #[must_use]
    pub fn restore(retention: Retention, clock: Clock, history: History) -> Self {
        let mut log = Log { dropped_through: history.dropped_through, ..Log::default() };
        log.head = Head { position: history.dropped_through, id: history.head };
        let now = clock.now();
        for (record, age) in history.records {
            log.push(record, now, age);
        }
        Self { log: Mutex::new(log), retention, clock }
    }

    /// Ends the log: tells nobody any more, so that its hub can be dropped, and returns everything
    /// that it holds.
    #[must_use]
    pub fn end(&self) -> History {
        let now = self.clock.now();
        let mut log = self.log();
        log.tail = None;
        let age = |stored: &Stored| stored.age + now.saturating_sub(stored.accepted_at);
        History {
            dropped_through: log.dropped_through,
            head: log.head.id.clone(),
            records: log.events.iter().map(|s| (s.event.record.clone(), age(s))).collect(),
        }
    }

    /// The log, with everything that is past its age dropped.
    fn log(&self) -> MutexGuard<'_, Log> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.apply(&self.retention, self.clock.now());
        log
    }
}

impl Transport for MemoryTransport {
    fn start(&self, tail: Arc<dyn Tail>) -> Future<'_, Result<Position, TransportError>> {
        let mut log = self.log();
        log.tail = Some(tail);
        let head = log.head.position;
        drop(log);
        Box::pin(std::future::ready(Ok(head)))
    }

    fn append(&self, record: Record) -> Future<'_, Result<Position, TransportError>> {
        let now = self.clock.now();
        let mut log = self.log();
        if record.of_subscription
            && let Some(position) = log.locate(record.id.as_str())
        {
            return Box::pin(std::future::ready(Ok(position)));
        }
        let position = log.push(record, now, Duration::ZERO);
        log.apply(&self.retention, now);
        drop(log);
        Box::pin(std::future::ready(Ok(position)))
    }

    fn read(&self, from: From, limit: ReadLimit) -> Future<'_, Result<Batch, TransportError>> {
        let batch = self.log().read(from, limit);
        Box::pin(std::future::ready(Ok(batch)))
    }

    fn locate<'a>(&'a self, id: &'a str) -> Future<'a, Result<Option<Position>, TransportError>> {
        let found = self.log().locate(id);
        Box::pin(std::future::ready(Ok(found)))
    }

    fn head(&self) -> Future<'_, Result<Head, TransportError>> {
        let head = self.log().head.clone();
        Box::pin(std::future::ready(Ok(head)))
    }

    fn measure(&self) -> Future<'_, Result<Measure, TransportError>> {
        let log = self.log();
        let measure = Measure { events: log.events.len() as u64, bytes: log.bytes as u64 };
        drop(log);
        Box::pin(std::future::ready(Ok(measure)))
    }

    fn trim<'a>(&'a self, retention: &'a Retention) -> Future<'a, Result<Measure, TransportError>> {
        self.log().apply(retention, self.clock.now());
        self.measure()
    }

    fn state(&self) -> State {
        State::Available
    }

    fn close(&self) -> Handover {
        Handover { history: Some(self.end()), node: None }
    }

    fn roster(&self) -> Option<&dyn Roster> {
        None
    }
}

impl Log {
    fn push(&mut self, record: Record, now: Duration, age: Duration) -> Position {
        let position = Position(self.head.position.0 + 1);
        self.head = Head { position, id: Some(record.id.clone()) };
        self.bytes += record.size();
        self.of_subscriptions += usize::from(record.of_subscription);
        self.ids
            .entry(record.id.clone())
            .and_modify(|places| places.push(position))
            .or_insert(Places::One(position));
        let event = Arc::new(Event { position, record });
        self.events.push_back(Stored { event: Arc::clone(&event), accepted_at: now, age });
        // Told under the lock, so that the tail's order is the log's.
        if let Some(tail) = &self.tail {
            tail.on_event(event);
        }
        position
    }

    fn apply(&mut self, retention: &Retention, now: Duration) {
        while let Some(oldest) = self.events.front() {
            let age = oldest.age + now.saturating_sub(oldest.accepted_at);
            let expired = retention.age.is_some_and(|bound| age > bound);
            let published = self.events.len() - self.of_subscriptions;
            if !expired && published <= retention.events && self.bytes <= retention.bytes {
                break;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(Stored { event, .. }) = self.events.pop_front() else {
            return;
        };
        self.bytes -= event.record.size();
        self.of_subscriptions -= usize::from(event.record.of_subscription);
        self.dropped_through = event.position;
        if let Some(places) = self.ids.get_mut(&event.record.id)
            && places.forget_first()
        {
            self.ids.remove(&event.record.id);
        }
    }

    fn read(&self, from: From, limit: ReadLimit) -> Batch {
        let after = match from {
            From::Oldest => self.dropped_through,
            From::After(position) if position < self.dropped_through => return Batch::Gone,
            From::After(position) => position,
        };
        let skip = usize::try_from(after.0 - self.dropped_through.0).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let events = self.events.iter().skip(skip).map(|stored| &stored.event);
        let within = events.enumerate().take_while(|(count, event)| {
            bytes += event.record.frame.len();
            *count == 0 || (*count < limit.events && bytes <= limit.bytes)
        });
        Batch::Events(within.map(|(_, event)| Arc::clone(event)).collect())
    }

    fn locate(&self, id: &str) -> Option<Position> {
        // The map is keyed by whole ids; an unknown text that no id can be is simply not there.
        match self.ids.get(id)? {
            Places::One(position) => Some(*position),
            Places::Many(positions) => positions.front().copied(),
        }
    }
}

impl Places {
    fn push(&mut self, position: Position) {
        match self {
            Self::One(first) => *self = Self::Many(VecDeque::from([*first, position])),
            Self::Many(positions) => positions.push_back(position),
        }
    }

    /// Forgets the earliest place; true if none is left.
    fn forget_first(&mut self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Many(positions) => {
                positions.pop_front();
                positions.is_empty()
            }
        }
    }
}
