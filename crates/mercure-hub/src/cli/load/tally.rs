//! What was published and what has arrived, counted by many at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mercure_engine::Clock;

/// Buckets for each doubling of a time: an eighth exact.
const STEPS: u64 = 8;
/// Up to some hours, in microseconds.
const BUCKETS: usize = 36 * STEPS as usize;

/// Counts, since the beginning.
#[derive(Debug)]
pub(super) struct Tally {
    clock: Clock,
    subscribers: u64,
    published: AtomicU64,
    received: AtomicU64,
    /// Events that came again, or too late.
    repeated: AtomicU64,
    /// Streams that ended.
    ended: AtomicU64,
    is_over: AtomicBool,
    failure: Mutex<Option<String>>,
    times: Vec<AtomicU64>,
}

/// Counts of a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) received: u64,
    pub(super) repeated: u64,
    pub(super) ended: u64,
    times: Vec<u64>,
}

impl Tally {
    pub(super) fn new(subscribers: u64) -> Self {
        Self {
            clock: Clock::system(),
            subscribers,
            published: AtomicU64::new(0),
            received: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            failure: Mutex::default(),
            times: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn all_published(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Takes note of an event, published at `at`, where `next` was expected; returns what is expected then.
    pub(super) fn received(&self, number: u64, next: u64, at: Duration) -> u64 {
        if number < next {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return next;
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        let took = self.elapsed().saturating_sub(at).as_micros();
        let bucket = bucket(u64::try_from(took).unwrap_or(u64::MAX)).min(BUCKETS - 1);
        self.times[bucket].fetch_add(1, Ordering::Relaxed);
        number + 1
    }

    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the publications; the first reason is told.
    pub(super) fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// Whether everything that was published has arrived everywhere.
    pub(super) fn is_complete(&self) -> bool {
        let expected = self.published.load(Ordering::Acquire) * self.subscribers;
        self.is_over.load(Ordering::Acquire) && self.received.load(Ordering::Acquire) >= expected
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            published: read(&self.published),
            received: read(&self.received),
            repeated: read(&self.repeated),
            ended: read(&self.ended),
            times: self.times.iter().map(read).collect(),
        }
    }
}

impl Counts {
    /// The time that a part of the deliveries since an earlier moment stayed below, in milliseconds; 0 if
    /// there were none.
    pub(super) fn percentile(&self, since: &Self, part: f64) -> f64 {
        let earlier = since.times.iter().copied().chain(std::iter::repeat(0));
        let fresh: Vec<u64> =
            self.times.iter().zip(earlier).map(|(now, then)| now - then).collect();
        let wanted = fresh.iter().sum::<u64>() as f64 * part;
        let mut seen = 0;
        for (bucket, count) in fresh.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return end(bucket) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Where a time in microseconds belongs.
fn bucket(microseconds: u64) -> usize {
    let value = microseconds.max(STEPS);
    let doubling = u64::from(value.ilog2()) - 3;
    (doubling * STEPS + (value >> doubling) - STEPS) as usize
}

/// The longest time of a bucket, in microseconds.
fn end(bucket: usize) -> u64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    ((STEPS + step + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_counted_apart() {
        let tally = Tally::new(1);
        let mut next = 1;
        for number in [1, 2, 5, 4, 6, 6] {
            next = tally.received(number, next, Duration::ZERO);
        }
        let counts = tally.counts();
        assert_eq!((counts.received, counts.repeated), (4, 2));
    }

    #[test]
    fn every_time_has_a_bucket_that_holds_it() {
        for time in [0, 7, 8, 9, 1000, 123_456, 60_000_000, 3_600_000_000] {
            let bucket = bucket(time);
            assert!(end(bucket) >= time && (bucket == 0 || end(bucket - 1) < time), "{time}");
            assert!(end(bucket) <= time.max(8) * 9 / 8, "{time}");
        }
    }
}
