use std::sync::atomic::{AtomicU64, Ordering};

use crate::admission::Places;
use crate::subscriber::CloseReason;
use crate::times::{Stopwatch, Times};

/// Figures since the hub started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers connected now.
    pub subscribers: usize,
    /// Of these, how many speak generation 0.x.
    pub subscribers_v0: usize,
    /// Updates accepted from publishers of this hub.
    pub published: u64,
    /// Events handed to subscribers' sockets.
    pub delivered: u64,
    /// Streams ended because the log no longer held what they needed.
    pub gaps: u64,
    /// Streams ended because their client did not read.
    pub stalled: u64,
    /// From an update's arrival to its acknowledgement.
    pub acknowledging: Times,
    /// From the moment in which this node knows an event until it is written to whoever is live; of
    /// events that are dispatched together, the first one's.
    pub dispatching: Times,
    /// From falling behind, or from coming back, until live.
    pub catching_up: Times,
    /// Memory by what it is for.
    pub memory: Memory,
}

/// Memory of a hub by what it is for, in bytes, about. What the transport keeps comes on top; see
/// [`Hub::measure`](crate::Hub::measure).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Memory {
    /// The newest events, at hand for the shards; a log in memory shares them.
    pub window: u64,
    /// Subscribers, and what they listen to. Compiled patterns and grants are shared and not counted.
    pub subscribers: u64,
    /// What waits for sockets that take no more, counted for each, though events are shared.
    pub backlogs: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    delivered: AtomicU64,
    gaps: AtomicU64,
    stalled: AtomicU64,
    pub(crate) acknowledging: Stopwatch,
    pub(crate) dispatching: Stopwatch,
    pub(crate) catching_up: Stopwatch,
    pub(crate) subscriber_bytes: AtomicU64,
    pub(crate) backlog_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn delivered(&self, count: u64) {
        self.delivered.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        let counter = match reason {
            CloseReason::Gap => &self.gaps,
            CloseReason::Stalled => &self.stalled,
            CloseReason::Disconnected | CloseReason::Deadline | CloseReason::Shutdown => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, places: &Places, window: usize) -> Stats {
        Stats {
            subscribers: places.taken(),
            subscribers_v0: places.taken_by_v0(),
            published: self.published.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            stalled: self.stalled.load(Ordering::Relaxed),
            acknowledging: self.acknowledging.read(),
            dispatching: self.dispatching.read(),
            catching_up: self.catching_up.read(),
            memory: Memory {
                window: window as u64,
                subscribers: self.subscriber_bytes.load(Ordering::Relaxed),
                backlogs: self.backlog_bytes.load(Ordering::Relaxed),
            },
        }
    }
}
