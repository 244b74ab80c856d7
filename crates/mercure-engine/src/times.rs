//! How long things take, counted in buckets: a bound on memory, whatever the rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets, in microseconds; longer times have a bucket of their own.
const ENDS: [u64; 13] = [
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// How often something took how long, since the hub started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    counts: [u64; ENDS.len() + 1],
    total: Duration,
}

impl Times {
    /// Upper ends of buckets, and how often it took no longer; the last one, without an end, holds all.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let ends = ENDS.iter().map(|end| Some(Duration::from_micros(*end))).chain([None]);
        ends.zip(self.counts).scan(0, |sum, (end, count)| {
            *sum += count;
            Some((end, *sum))
        })
    }

    /// How long all took together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counts times as they are taken.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    counts: [AtomicU64; ENDS.len() + 1],
    microseconds: AtomicU64,
}

impl Stopwatch {
    pub(crate) fn took(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS.partition_point(|end| *end < microseconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Times {
        let mut times = Times::default();
        for (count, counter) in times.counts.iter_mut().zip(&self.counts) {
            *count = counter.load(Ordering::Relaxed);
        }
        times.total = Duration::from_micros(self.microseconds.load(Ordering::Relaxed));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_first_bucket_that_holds_it() {
        let stopwatch = Stopwatch::default();
        for microseconds in [0, 250, 251, 5_000_000, 5_000_001] {
            stopwatch.took(Duration::from_micros(microseconds));
        }
        let times = stopwatch.read();
        let found: Vec<_> = times.cumulative().map(|(_, count)| count).collect();
        assert_eq!(found, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5]);
        assert_eq!((times.count(), times.total()), (5, Duration::from_micros(10_000_502)));
    }
}
