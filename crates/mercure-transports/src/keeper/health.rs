//! Whether the engine answers, and how often to ask one that does not.
//!
//! Reading and writing are judged apart: a full disk lets the log be read, and readers must not
//! wait because writers do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mercure_engine::{Clock, State, TransportError};

use crate::store::{Outcome, lock};

/// Shortest and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What an engine is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Read,
    Write,
    /// Who is subscribed: nobody else waits for that, and it says little of the log.
    Roster,
}

#[derive(Debug)]
pub(super) struct Health {
    clock: Clock,
    reading: Mutex<Option<Trouble>>,
    writing: Mutex<Option<Trouble>>,
    roster: Mutex<Option<Trouble>>,
    /// How often something has failed, and how often it had when the log was last found to be the
    /// one that is followed.
    failures: AtomicU64,
    trusted_at: AtomicU64,
}

#[derive(Debug)]
struct Trouble {
    since: Duration,
    reason: String,
    attempts: u32,
    /// Nobody asks before.
    ask_again_at: Duration,
}

impl Health {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            reading: Mutex::default(),
            writing: Mutex::default(),
            roster: Mutex::default(),
            failures: AtomicU64::new(0),
            trusted_at: AtomicU64::new(0),
        }
    }

    fn trouble(&self, ask: Ask) -> &Mutex<Option<Trouble>> {
        match ask {
            Ask::Read => &self.reading,
            Ask::Write => &self.writing,
            Ask::Roster => &self.roster,
        }
    }

    pub(super) fn state(&self) -> State {
        let away = |ask| {
            let trouble = lock(self.trouble(ask));
            trouble.as_ref().map(|t| State::Away { since: t.since, reason: t.reason.clone() })
        };
        away(Ask::Read).or_else(|| away(Ask::Write)).unwrap_or_default()
    }

    /// An error if it is known that now is no time to ask.
    pub(super) fn check(&self, ask: Ask) -> Outcome<()> {
        let now = self.clock.now();
        match &*lock(self.trouble(ask)) {
            Some(trouble) if now < trouble.ask_again_at => {
                Err(TransportError::Unavailable(trouble.reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The same, and whoever is told to ask while the engine is away asks for all.
    pub(super) fn may_ask(&self, ask: Ask) -> Outcome<()> {
        self.check(ask)?;
        if let Some(trouble) = &mut *lock(self.trouble(ask)) {
            trouble.ask_again_at = self.clock.now() + Self::pause(trouble.attempts);
        }
        Ok(())
    }

    /// How long until it may be asked again; `None` if there is no trouble.
    pub(super) fn patience(&self, ask: Ask) -> Option<Duration> {
        let now = self.clock.now();
        lock(self.trouble(ask)).as_ref().map(|trouble| trouble.ask_again_at.saturating_sub(now))
    }

    /// Notes whether there was an answer.
    pub(super) fn note<T>(&self, ask: Ask, answer: Outcome<T>) -> Outcome<T> {
        let mut trouble = lock(self.trouble(ask));
        match &answer {
            // What one event is refused for says nothing of the others.
            Err(TransportError::TooLarge { .. }) => {}
            Ok(_) => {
                if let Some(trouble) = trouble.take() {
                    let seconds = self.clock.now().saturating_sub(trouble.since).as_secs_f32();
                    tracing::info!(seconds, "{} is possible again", ask.word());
                }
                drop(trouble);
                if ask == Ask::Write
                    && let Some(trouble) = &mut *lock(&self.reading)
                {
                    // An engine that takes events answers: whoever wants to read need not wait.
                    trouble.ask_again_at = self.clock.now();
                }
            }
            Err(error) => {
                self.suspect();
                if trouble.is_none() {
                    tracing::error!(%error, "{} fails; it is tried again and again", ask.word());
                }
                let now = self.clock.now();
                let attempts = trouble.as_ref().map_or(0, |trouble| trouble.attempts);
                *trouble = Some(Trouble {
                    since: trouble.as_ref().map_or(now, |trouble| trouble.since),
                    reason: match error {
                        TransportError::Unavailable(reason) => reason.clone(),
                        other => other.to_string(),
                    },
                    attempts: attempts.saturating_add(1),
                    ask_again_at: now + Self::pause(attempts),
                });
            }
        }
        answer
    }

    /// Something has failed: the log may be another one than the one that was followed.
    pub(super) fn suspect(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    /// What is suspected; `None` if nothing has failed since the log was last trusted.
    pub(super) fn suspicion(&self) -> Option<u64> {
        let failures = self.failures.load(Ordering::Acquire);
        (failures != self.trusted_at.load(Ordering::Acquire)).then_some(failures)
    }

    /// Nothing has come of what was suspected.
    pub(super) fn trust(&self, suspicion: u64) {
        self.trusted_at.fetch_max(suspicion, Ordering::AcqRel);
    }

    /// Grows with the attempts; jittered, so that nodes do not ask in step.
    pub(super) fn pause(attempts: u32) -> Duration {
        let (shortest, longest) = PAUSES;
        let grown = shortest.saturating_mul(1 << attempts.min(10)).min(longest);
        grown.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

impl Ask {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "reading the log",
            Self::Write => "writing to the log",
            Self::Roster => "keeping who is subscribed",
        }
    }
}
