//! What a node does with what its transport tells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{Event, Position};
use crate::shard::Notify;
use crate::shared::Shared;
use crate::transport::Tail;

/// Puts what the transport tells into the window and wakes the shards that it concerns.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    shards: Mutex<Vec<Notify>>,
}

impl Tail for Follower {
    fn on_event(&self, event: Arc<Event>) {
        if let Some(observer) = &self.shared.options.observer {
            observer.on_event(Arc::clone(&event));
        }
        self.shared.window.push(Arc::clone(&event), self.shared.clock.now());
        let topics = event.topics(&self.shared.options.hub_url);
        for shard in &*self.shards() {
            if shard.listening().note(event.position, &topics) {
                shard.wake();
            }
        }
    }

    fn on_gap(&self, through: Position) {
        tracing::warn!("the log has lost events; open streams end, and their clients are told");
        if let Some(observer) = &self.shared.options.observer {
            observer.on_gap(through);
        }
        self.shared.window.restart_after(through);
        for shard in &*self.shards() {
            shard.listening().note_all(through);
            shard.wake();
        }
    }
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, shards: Mutex::default() }
    }

    /// From now on, these shards are told; at once as well, because of what they have missed.
    pub(crate) fn tells(&self, shards: Vec<Notify>) {
        let mut mine = self.shards();
        *mine = shards;
        for shard in &*mine {
            shard.listening().note_all(self.shared.window.head());
            shard.wake();
        }
    }

    fn shards(&self) -> MutexGuard<'_, Vec<Notify>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
