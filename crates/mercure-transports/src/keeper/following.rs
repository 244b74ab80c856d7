//! From the log to the node's tail: in order, each event once, and what is missing said.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mercure_engine::{Event, Position, ReadLimit, Record, Tail};
use mercure_protocol::EventId;

use super::health::Ask;
use super::{Inner, PATIENCE, no_answer, position};
use crate::store::{Newest, Outcome, Place, Store, Stretch, lock};

/// A little longer than a store may wait for news.
const FOLLOW_PATIENCE: std::time::Duration = PATIENCE.saturating_mul(2);

/// How far the tail was told.
#[derive(Debug, Default)]
pub(super) struct Following {
    told: Mutex<Told>,
    /// The place up to which it was told, for stores to read while they wait.
    cursor: AtomicU64,
}

#[derive(Debug, Default)]
struct Told {
    tail: Option<Arc<dyn Tail>>,
    epoch: u16,
    through: Newest,
}

impl Following {
    /// Tells the tail everything after this event.
    pub(super) fn begin(&self, tail: Arc<dyn Tail>, newest: Newest) -> Position {
        let mut told = lock(&self.told);
        self.cursor.store(newest.place, Ordering::Release);
        *told = Told { tail: Some(tail), epoch: 0, through: newest };
        position(told.epoch, told.through.place)
    }

    /// Tells nobody any more.
    pub(super) fn end(&self) {
        lock(&self.told).tail = None;
    }

    pub(super) fn epoch(&self) -> u16 {
        lock(&self.told).epoch
    }

    fn through(&self) -> (u16, Newest) {
        let told = lock(&self.told);
        (told.epoch, told.through.clone())
    }

    /// Tells events that this node has appended, up to the first one of another node.
    pub(super) fn offer(&self, epoch: u16, events: Vec<(Place, Record)>) {
        let mut told = lock(&self.told);
        if epoch != told.epoch {
            return;
        }
        for (place, record) in events {
            if place == told.through.place + 1 {
                told.tell(place, record);
            }
        }
        self.cursor.store(told.through.place, Ordering::Release);
    }

    /// Tells what was read on from the cursor; what was offered in the meantime is passed over, and so
    /// is what was read of a log that is not the one any more.
    fn accept(&self, epoch: u16, stretch: Stretch) {
        let mut told = lock(&self.told);
        if epoch != told.epoch {
            return;
        }
        let dropped = stretch.events.is_empty();
        for (place, record) in stretch.events {
            if place > told.through.place + 1 {
                told.miss(place - 1, None);
            }
            if place > told.through.place {
                told.tell(place, record);
            }
        }
        if let Some(head) = stretch.head
            && dropped
            && head > told.through.place
        {
            told.miss(head, None);
        }
        self.cursor.store(told.through.place, Ordering::Release);
    }

    /// The log is not the one that was followed: everything told before is gone. Nothing to do if
    /// somebody else has found that in the meantime.
    fn restart(&self, epoch: u16, newest: Newest) {
        let mut told = lock(&self.told);
        if told.epoch != epoch {
            return;
        }
        told.epoch += 1;
        told.miss(newest.place, newest.id);
        self.cursor.store(told.through.place, Ordering::Release);
    }
}

impl Told {
    fn tell(&mut self, place: Place, record: Record) {
        self.through = Newest { place, id: Some(record.id.clone()) };
        let event = Event { position: position(self.epoch, place), record };
        if let Some(tail) = &self.tail {
            tail.on_event(Arc::new(event));
        }
    }

    fn miss(&mut self, through: Place, id: Option<EventId>) {
        self.through = Newest { place: through, id };
        if let Some(tail) = &self.tail {
            tail.on_gap(position(self.epoch, through));
        }
    }
}

impl<S: Store> Inner<S> {
    /// Follows the log for as long as the transport lives.
    pub(super) async fn keep_following(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.health.patience(Ask::Read).unwrap_or_default()).await;
            let followed = tokio::time::timeout(FOLLOW_PATIENCE, self.follow()).await;
            let followed = followed.unwrap_or_else(|_| Err(no_answer()));
            if let Ok((epoch, stretch)) = self.health.note(Ask::Read, followed) {
                self.following.accept(epoch, stretch);
            }
        }
    }

    async fn follow(&self) -> Outcome<(u16, Stretch)> {
        self.make_sure().await?;
        let epoch = self.following.epoch();
        let stretch = self.store.follow(&self.following.cursor).await?;
        if stretch.head.is_some_and(|head| head < self.following.cursor.load(Ordering::Acquire)) {
            // It may have been read before what this node has just appended; found out next time.
            self.health.suspect();
            return Ok((epoch, Stretch::default()));
        }
        Ok((epoch, stretch))
    }

    /// After a failure, compares what the log holds with what the tail was told: another event at
    /// the place of the last one, or none at all any more, means that the engine has lost events.
    pub(super) async fn make_sure(&self) -> Outcome<()> {
        let Some(suspicion) = self.health.suspicion() else { return Ok(()) };
        let (epoch, through) = self.following.through();
        let newest = self.store.newest().await?;
        if newest.place < through.place || !self.holds(&through).await? {
            tracing::error!("the log is not the one that was read: the engine has lost events");
            self.following.restart(epoch, newest);
        }
        self.health.trust(suspicion);
        Ok(())
    }

    /// Whether the log holds the event, or has dropped it in the meantime.
    async fn holds(&self, event: &Newest) -> Outcome<bool> {
        let (Some(before), Some(id)) = (event.place.checked_sub(1), &event.id) else {
            return Ok(true);
        };
        let one = ReadLimit { events: 1, bytes: 1 };
        let stretch = self.store.read(Some(before), one).await?;
        let found = stretch.events.first().filter(|(place, _)| *place == event.place);
        Ok(found.is_none_or(|(_, record)| record.id == *id))
    }
}
