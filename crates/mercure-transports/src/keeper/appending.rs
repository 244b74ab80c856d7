//! From publishers to the log: what comes up while one batch is under way is the next one.

use std::sync::Arc;

use mercure_engine::{Future, Position, Record, TransportError};
use tokio::sync::{mpsc, oneshot};

use super::health::Ask;
use super::{Inner, PATIENCE};
use crate::store::{Outcome, Place, Store};

/// Records of one batch.
const BATCH: usize = 1024;
/// Their size in bytes; one record may exceed it.
const BATCH_BYTES: usize = 4 << 20;

/// How often those who have just been answered have their turn before a batch is closed: what they
/// publish next shares its sync, and nobody waits if there is nobody.
const TURNS: usize = 2;

/// A record on its way, and who waits for its place.
pub(super) struct Append {
    record: Record,
    reply: oneshot::Sender<Outcome<Position>>,
}

impl<S: Store> Inner<S> {
    /// Queues a record; it has its place in the order when this returns.
    pub(super) fn hand_in(&self, record: Record) -> Future<'_, Outcome<Position>> {
        if let Err(error) = self.health.check(Ask::Write) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (reply, replied) = oneshot::channel();
        let full = match self.appends.try_send(Append { record, reply }) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(append)) => Some(append),
            // Its reply says so.
            Err(mpsc::error::TrySendError::Closed(_)) => None,
        };
        Box::pin(async move {
            if let Some(append) = full
                && self.appends.send_timeout(append, PATIENCE).await.is_err()
            {
                let reason = "too many publications wait for it".to_owned();
                return Err(TransportError::Unavailable(reason));
            }
            let stopped = |_| Err(TransportError::Unavailable("the hub is stopping".to_owned()));
            replied.await.unwrap_or_else(stopped)
        })
    }

    /// Appends what is handed in, for as long as anybody can.
    pub(super) async fn keep_appending(self: Arc<Self>, mut queue: mpsc::Receiver<Append>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                first = queue.recv() => match first {
                    Some(first) => batch.push(first),
                    None => return,
                },
                () = self.write_trouble() => {
                    // Whether it is over is found out by trying, also if nobody publishes.
                    drop(self.asked(Ask::Write, self.append_to_store(&[])).await);
                    continue;
                }
            }
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            let mut bytes = batch[0].record.size();
            while batch.len() < BATCH
                && bytes < BATCH_BYTES
                && let Ok(next) = queue.try_recv()
            {
                bytes += next.record.size();
                batch.push(next);
            }
            self.append_batch(&mut batch).await;
        }
    }

    async fn append_batch(&self, batch: &mut Vec<Append>) {
        let (records, replies): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|append| (append.record, append.reply)).unzip();
        let epoch = self.following.epoch();
        let places = match self.asked(Ask::Write, self.append_to_store(&records)).await {
            Ok(places) => places,
            Err(error) => {
                // Nobody may be waiting any more, here and below.
                replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
                return;
            }
        };
        self.trimming.grown(&records, self.retention.as_ref());
        // Told before it is acknowledged, as far as nothing of other nodes comes before it.
        let told = records.into_iter().zip(&places);
        let told = told.filter_map(|(record, place)| Some((*place.as_ref().ok()?, record)));
        self.following.offer(epoch, told.collect());
        for (reply, place) in replies.into_iter().zip(places) {
            drop(reply.send(place.map(|place| super::position(epoch, place))));
        }
    }

    /// Completes when writing has failed and may be tried again.
    async fn write_trouble(&self) {
        match self.health.patience(Ask::Write) {
            Some(patience) => tokio::time::sleep(patience).await,
            None => std::future::pending().await,
        }
    }

    /// Appends to a log that is known to be the one that is followed: else an event could take the
    /// place of one that the engine has lost, and hide the loss.
    async fn append_to_store(&self, records: &[Record]) -> Outcome<Vec<Outcome<Place>>> {
        self.make_sure().await?;
        self.store.append(records).await
    }
}
