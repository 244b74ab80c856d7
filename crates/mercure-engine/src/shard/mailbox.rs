//! How other threads reach a shard. Bounded by construction: each subscriber holds a permit, is
//! attached once, has at most one read under way and is marked ready at most once at a time.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::SlotRef;
use super::listening::Listening;
use crate::subscriber::NewSubscriber;
use crate::transport::{Batch, TransportError};

/// A handle to a shard's mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Notify(Arc<Mailbox>);

#[derive(Debug)]
pub(crate) struct Mailbox {
    incoming: Mutex<Incoming>,
    /// The shard was woken and has not looked yet; a second system call would tell it nothing.
    woken: AtomicBool,
    listening: Listening,
    waker: mio::Waker,
}

#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) attach: Vec<NewSubscriber>,
    pub(super) ready: Vec<SlotRef>,
    pub(super) reads: Vec<(ReadFor, Result<Batch, TransportError>)>,
    pub(super) drain: Option<Drain>,
    /// Answered when the shard has dispatched what it had to.
    pub(super) pings: Vec<oneshot::Sender<()>>,
    pub(super) end: Option<End>,
    /// The shard has ended; what arrives now is dropped.
    stopped: bool,
}

/// How a shard ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Every stream ends.
    Close,
    /// What can leave the process is given away with its place in the log.
    Depart,
}

/// How streams end one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Over which time.
    pub(crate) window: Duration,
    /// When their clients are told to come back, before jitter; zero to tell them nothing.
    pub(crate) retry: Duration,
}

/// Who asked the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFor {
    /// The shard, for its live subscribers.
    Shard,
    /// One subscriber that is behind.
    Subscriber(SlotRef),
}

impl Mailbox {
    pub(super) fn new(waker: mio::Waker) -> Self {
        Self {
            incoming: Mutex::default(),
            woken: AtomicBool::new(false),
            listening: Listening::default(),
            waker,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notify {
    pub(super) fn new(mailbox: Mailbox) -> Self {
        Self(Arc::new(mailbox))
    }

    /// What the shard listens to.
    pub(crate) fn listening(&self) -> &Listening {
        &self.0.listening
    }

    /// Makes the shard look at the log and at its mailbox.
    pub(crate) fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.0.waker.wake()
        {
            tracing::error!(%error, "a shard could not be woken");
        }
    }

    pub(crate) fn attach(&self, new: NewSubscriber) {
        self.leave(|incoming| incoming.attach.push(new));
    }

    pub(crate) fn ready(&self, who: SlotRef) {
        self.leave(|incoming| incoming.ready.push(who));
    }

    pub(crate) fn drain(&self, drain: Drain) {
        self.leave(|incoming| incoming.drain = Some(drain));
    }

    /// Asks for an answer after the next dispatch; none comes from a shard that has ended. Bounded by who
    /// asks: each waits for its answer.
    pub(crate) fn ping(&self) -> oneshot::Receiver<()> {
        let (answer, asked) = oneshot::channel();
        self.leave(|incoming| incoming.pings.push(answer));
        asked
    }

    pub(crate) fn end(&self, end: End) {
        self.leave(|incoming| incoming.end = Some(end));
    }

    pub(super) fn read_done(&self, read_for: ReadFor, result: Result<Batch, TransportError>) {
        self.leave(|incoming| incoming.reads.push((read_for, result)));
    }

    /// Leaves a message, if the shard still takes any, and wakes it.
    fn leave(&self, message: impl FnOnce(&mut Incoming)) {
        let mut incoming = self.0.lock();
        if !incoming.stopped {
            message(&mut incoming);
        }
        drop(incoming);
        self.wake();
    }

    /// Everything that has arrived. The flag is lowered first, so that what arrives during the
    /// look causes another one.
    pub(super) fn take(&self) -> Incoming {
        self.0.woken.store(false, Ordering::Release);
        mem::take(&mut *self.0.lock())
    }

    /// Refuses, and drops, everything from now on.
    pub(super) fn stop(&self) {
        let stopped = Incoming { stopped: true, ..Incoming::default() };
        let left = mem::replace(&mut *self.0.lock(), stopped);
        drop(left);
    }
}
