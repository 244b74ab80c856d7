use std::sync::atomic::{AtomicU64, Ordering};

use crate::subscriber::CloseReason;

/// Figures since the hub started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers connected now.
    pub subscribers: usize,
    /// Updates accepted from publishers of this hub.
    pub published: u64,
    /// Events handed to subscribers' sockets.
    pub delivered: u64,
    /// Streams ended because the log no longer held what they needed.
    pub gaps: u64,
    /// Streams ended because their client did not read.
    pub stalled: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    delivered: AtomicU64,
    gaps: AtomicU64,
    stalled: AtomicU64,
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

    pub(crate) fn snapshot(&self, subscribers: usize) -> Stats {
        Stats {
            subscribers,
            published: self.published.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            stalled: self.stalled.load(Ordering::Relaxed),
        }
    }
}
