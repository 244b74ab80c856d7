//! Applying the retention, beside everything else: nobody waits for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mercure_engine::{Record, Retention};
use tokio::sync::Notify;

use super::Inner;
use crate::store::{Store, lock};

/// How much more than the retention names may be there, as a part of it, before it is applied: each
/// time drops many events, so that not every append has to.
const SLACK: u64 = 64;
/// Events grow old without anybody appending.
const LOOK: Duration = Duration::from_secs(2);
/// How long dropping events may take: a retention that was lowered finds many.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// What is there, as far as this node knows.
#[derive(Debug, Default)]
pub(super) struct Trimming {
    /// `None` before the first look.
    stock: Mutex<Option<Stock>>,
    due: Notify,
}

#[derive(Debug)]
struct Stock {
    events: u64,
    bytes: u64,
}

impl Trimming {
    /// Notes what this node has appended.
    pub(super) fn grown(&self, records: &[Record], retention: Option<&Retention>) {
        let (Some(stock), Some(retention)) = (&mut *lock(&self.stock), retention) else { return };
        let counted = records.iter().filter(|record| !record.of_subscription).count();
        stock.events += counted as u64;
        stock.bytes += records.iter().map(|record| record.size() as u64).sum::<u64>();
        if stock.exceeds(retention) {
            self.due.notify_one();
        }
    }
}

impl<S: Store> Inner<S> {
    /// Drops what is past the retention, for as long as the transport lives.
    pub(super) async fn keep_trimming(self: Arc<Self>) {
        let Some(retention) = self.retention.clone() else { return };
        loop {
            // Either is a reason to look.
            let _ = tokio::time::timeout(LOOK, self.trimming.due.notified()).await;
            let is_due =
                lock(&self.trimming.stock).as_ref().is_none_or(|stock| stock.exceeds(&retention));
            if !is_due && retention.age.is_none() {
                continue;
            }
            match self.unjudged(self.store.trim(&retention)).await {
                Ok((events, left)) => {
                    *lock(&self.trimming.stock) = Some(Stock { events, bytes: left.bytes });
                }
                // The next look comes soon; until then the log is larger than it need be.
                Err(error) => tracing::debug!(%error, "the oldest events could not be dropped yet"),
            }
        }
    }
}

impl Stock {
    fn exceeds(&self, retention: &Retention) -> bool {
        let over = |held: u64, bound: u64| held > bound.saturating_add(bound / SLACK);
        over(self.events, retention.events as u64) || over(self.bytes, retention.bytes as u64)
    }
}
