use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::event::{Position, Record};
use crate::memory::Retention;
use crate::roster::Roster;
use crate::transport::{
    Batch, From, Future, Handover, Head, Measure, ReadLimit, State, Tail, Transport, TransportError,
};

/// What goes wrong, switched while the transport is in use.
#[derive(Debug, Default)]
pub struct Faults {
    /// Appends fail without effect.
    pub refuse_appends: AtomicBool,
    /// This many reads fail.
    pub fail_reads: AtomicUsize,
    /// Every read yields to other tasks this often before it answers.
    pub delay: AtomicUsize,
    /// Reads have their answer, and keep it back until this is lowered.
    pub hold_answers: AtomicBool,
    /// Answers that were ready so far, kept back or not.
    pub answers: AtomicUsize,
    /// A read returns this many events at most; 0 for no bound.
    pub short_reads: AtomicUsize,
    /// Reads asked for so far.
    pub reads: AtomicUsize,
}

/// A transport with faults in front of it.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Transport>,
    faults: Arc<Faults>,
}

impl Faulty {
    /// Decorates a transport.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>) -> (Self, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (Self { inner, faults: Arc::clone(&faults) }, faults)
    }
}

fn injected() -> TransportError {
    TransportError::Unavailable("injected".to_owned())
}

impl Transport for Faulty {
    fn start(&self, tail: Arc<dyn Tail>) -> Future<'_, Result<Position, TransportError>> {
        self.inner.start(tail)
    }

    fn append(&self, record: Record) -> Future<'_, Result<Position, TransportError>> {
        if self.faults.refuse_appends.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(injected())));
        }
        self.inner.append(record)
    }

    fn read(&self, from: From, mut limit: ReadLimit) -> Future<'_, Result<Batch, TransportError>> {
        Box::pin(async move {
            self.faults.reads.fetch_add(1, Ordering::SeqCst);
            for _ in 0..self.faults.delay.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            let fail = |left: usize| left.checked_sub(1);
            let failing = &self.faults.fail_reads;
            if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail).is_ok() {
                return Err(injected());
            }
            let short = self.faults.short_reads.load(Ordering::SeqCst);
            if short > 0 {
                limit.events = limit.events.min(short);
            }
            let answer = self.inner.read(from, limit).await;
            self.faults.answers.fetch_add(1, Ordering::SeqCst);
            while self.faults.hold_answers.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            answer
        })
    }

    fn locate<'a>(&'a self, id: &'a str) -> Future<'a, Result<Option<Position>, TransportError>> {
        self.inner.locate(id)
    }

    fn head(&self) -> Future<'_, Result<Head, TransportError>> {
        self.inner.head()
    }

    fn measure(&self) -> Future<'_, Result<Measure, TransportError>> {
        self.inner.measure()
    }

    fn trim<'a>(&'a self, retention: &'a Retention) -> Future<'a, Result<Measure, TransportError>> {
        self.inner.trim(retention)
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn close(&self) -> Handover {
        self.inner.close()
    }

    fn roster(&self) -> Option<&dyn Roster> {
        self.inner.roster()
    }
}
