//! The one source of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Monotonic time since the clock was made, and the wall clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { start: Instant },
    Manual { milliseconds: Arc<AtomicU64> },
}

impl Clock {
    /// The operating system's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the injected source of time")]
    pub fn system() -> Self {
        Self(Source::System { start: Instant::now() })
    }

    /// A clock that only [`Clock::advance`] moves, for tests. Its wall clock starts at the epoch.
    #[must_use]
    pub fn manual() -> Self {
        Self(Source::Manual { milliseconds: Arc::default() })
    }

    /// Time since the clock was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual { milliseconds } => {
                Duration::from_millis(milliseconds.load(Ordering::SeqCst))
            }
        }
    }

    /// Time since the Unix epoch.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the injected source of time")]
    pub fn unix_time(&self) -> Duration {
        match &self.0 {
            Source::System { .. } => {
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
            }
            Source::Manual { .. } => self.now(),
        }
    }

    /// Moves a manual clock forward; a system clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { milliseconds } = &self.0 {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            milliseconds.fetch_add(by, Ordering::SeqCst);
        }
    }
}
