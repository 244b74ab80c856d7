//! Subscribers: thousands of connections that one thread reads, each of which checks that it gets
//! every event that is for it, once and in order.

mod reader;
mod reading;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow, bail};

use self::reading::Reading;
use crate::latency::Latency;
use crate::progress::reach;

/// Subscribers that are connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Ended>>,
}

#[derive(Debug, Default)]
struct Shared {
    ready: AtomicUsize,
    received: AtomicU64,
    /// Deliveries up to now are not to count as far as their time is concerned.
    forgets: AtomicBool,
    ends: AtomicBool,
    wrong: Mutex<Option<String>>,
}

/// What a crowd has seen.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// How long deliveries took, to those who read at once.
    pub(crate) latency: Latency,
    /// Id of the last event.
    pub(crate) last_id: Option<String>,
}

/// One subscriber to be.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Its request.
    pub(crate) request: String,
    /// How it reads once it is answered.
    pub(crate) manner: Manner,
    /// Number of the first event that it is to get.
    pub(crate) first: u64,
    /// Events whose number this divides are not for it; 0 if all are.
    pub(crate) all_but_each: u64,
}

/// How a subscriber reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    AtOnce,
    /// A little now and then; what it gets is checked, but nobody waits for it.
    Slowly,
    Never,
}

impl Crowd {
    /// Connects all, and returns when each has been answered.
    pub(crate) fn connect(address: SocketAddr, wanted: Vec<Wanted>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let count = wanted.len();
        let reader = Reading::new(address, wanted, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("crowd".to_owned());
        let thread = thread.spawn(move || reader.run())?;
        let crowd = Self { shared, thread: Some(thread) };
        crowd.wait(|shared| shared.ready.load(Ordering::Acquire) as u64, count as u64)?;
        Ok(crowd)
    }

    /// Waits until so many events have arrived since the beginning, at all together who read at
    /// once.
    pub(crate) fn received(&self, count: u64) -> anyhow::Result<()> {
        self.wait(|shared| shared.received.load(Ordering::Acquire), count)
    }

    /// How many have arrived.
    pub(crate) fn count(&self) -> u64 {
        self.shared.received.load(Ordering::Acquire)
    }

    /// Forgets how long the deliveries before the next one took.
    pub(crate) fn forget(&self) {
        self.shared.forgets.store(true, Ordering::Release);
    }

    fn wait(&self, progress: impl Fn(&Shared) -> u64, goal: u64) -> anyhow::Result<()> {
        reach(goal, || {
            let wrong = self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner);
            match &*wrong {
                Some(wrong) => bail!("{wrong}"),
                None => Ok(progress(&self.shared)),
            }
        })
    }

    /// Ends all, and tells what they have seen.
    pub(crate) fn end(mut self) -> anyhow::Result<Ended> {
        self.shared.ends.store(true, Ordering::Release);
        let thread = self.thread.take().context("ended once")?;
        thread.join().map_err(|_| anyhow!("the crowd panicked"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
    }
}
