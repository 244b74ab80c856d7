//! An engine that misbehaves, below everything that is there to cope with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mercure_engine::{
    Change, Claimed, Clock, Handover, Measure, ReadLimit, Record, Retention, RosterEntry, Standing,
    Transport, TransportError,
};

use crate::address::ConnectError;
use crate::store::{Newest, Outcome, Place, Store, Stretch};
use crate::{Purpose, Wrap, connect_with};

/// What goes wrong, each as "one time in so many"; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// An answer takes some milliseconds more.
    pub delay: u64,
    /// A request gets lost: an error, without effect.
    pub refuse: u64,
    /// An answer gets lost: an error, with effect.
    pub lose_answer: u64,
    /// Of a batch, only the first half is accepted.
    pub halve: u64,
    /// News are told a second time.
    pub repeat_news: u64,
    /// News are not told, and have to be found.
    pub drop_news: u64,
}

/// Makes the transport that a URL names, with faults in its engine.
///
/// # Errors
/// If no transport can be made of the URL.
pub fn connect_through(
    faults: Faults,
    url: &str,
    retention: Retention,
    clock: Clock,
) -> Result<Arc<dyn Transport>, ConnectError> {
    connect_with(
        Misbehave(faults),
        Purpose::Serve,
        url,
        Some(retention),
        clock,
        Handover::default(),
    )
}

struct Misbehave(Faults);

impl Wrap for Misbehave {
    type Wrapped<S: Store> = Misbehaving<S>;

    fn wrap<S: Store>(self, store: S) -> Misbehaving<S> {
        Misbehaving { store, faults: self.0, calls: AtomicU64::new(0) }
    }
}

#[derive(Debug)]
struct Misbehaving<S> {
    store: S,
    faults: Faults,
    calls: AtomicU64,
}

impl<S: Store> Misbehaving<S> {
    /// Whether it is this fault's turn. Different faults have different turns.
    fn strikes(&self, one_in: u64) -> bool {
        one_in > 0 && self.calls.fetch_add(1, Ordering::Relaxed) % one_in == one_in - 1
    }

    async fn before(&self) -> Outcome<()> {
        if self.strikes(self.faults.delay) {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await;
        }
        if self.strikes(self.faults.refuse) { Err(injected()) } else { Ok(()) }
    }

    async fn through<T>(&self, asked: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.before().await?;
        let answer = asked.await?;
        if self.strikes(self.faults.lose_answer) { Err(injected()) } else { Ok(answer) }
    }
}

fn injected() -> TransportError {
    TransportError::Unavailable("injected".to_owned())
}

impl<S: Store> Store for Misbehaving<S> {
    const NAME: &'static str = S::NAME;

    async fn open(&self) -> Outcome<()> {
        self.store.open().await
    }

    async fn append(&self, batch: &[Record]) -> Outcome<Vec<Outcome<Place>>> {
        self.before().await?;
        let accepted = match batch.len() > 1 && self.strikes(self.faults.halve) {
            true => &batch[..batch.len() / 2],
            false => batch,
        };
        let mut places = self.store.append(accepted).await?;
        places.resize_with(batch.len(), || Err(injected()));
        if self.strikes(self.faults.lose_answer) { Err(injected()) } else { Ok(places) }
    }

    async fn read(&self, after: Option<Place>, limit: ReadLimit) -> Outcome<Stretch> {
        self.through(self.store.read(after, limit)).await
    }

    async fn follow(&self, cursor: &AtomicU64) -> Outcome<Stretch> {
        if self.strikes(self.faults.repeat_news) {
            let earlier = AtomicU64::new(cursor.load(Ordering::Acquire).saturating_sub(3));
            return self.through(self.store.follow(&earlier)).await;
        }
        let news = self.through(self.store.follow(cursor)).await?;
        Ok(if self.strikes(self.faults.drop_news) { Stretch::default() } else { news })
    }

    async fn locate(&self, id: &str) -> Outcome<Option<Place>> {
        self.through(self.store.locate(id)).await
    }

    async fn newest(&self) -> Outcome<Newest> {
        self.store.newest().await
    }

    async fn trim(&self, retention: &Retention) -> Outcome<(u64, Measure)> {
        self.through(self.store.trim(retention)).await
    }

    async fn measure(&self) -> Outcome<Measure> {
        self.through(self.store.measure()).await
    }

    async fn renew(&self, node: &str, lease: Duration) -> Outcome<Option<Standing>> {
        self.before().await?;
        self.store.renew(node, lease).await
    }

    async fn note(&self, node: &str, changes: &[Change]) -> Outcome<Standing> {
        self.through(self.store.note(node, changes)).await
    }

    async fn others(&self, node: &str) -> Outcome<(u64, Vec<RosterEntry>)> {
        self.through(self.store.others(node)).await
    }

    async fn claim(&self, node: &str, lease: Duration) -> Outcome<Option<Claimed>> {
        self.before().await?;
        self.store.claim(node, lease).await
    }

    async fn bury(&self, node: &str) -> Outcome<()> {
        self.through(self.store.bury(node)).await
    }
}
