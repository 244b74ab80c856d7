//! What a node does with what its transport tells.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, Position};
use crate::hub::Shared;
use crate::shard::Notify;
use crate::transport::Tail;

/// Puts what the transport tells into the window and wakes the shards.
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
        self.shared.window.push(event);
        self.wake_shards();
    }

    fn on_gap(&self, through: Position) {
        tracing::warn!("the log has lost events; open streams end, and their clients are told");
        if let Some(observer) = &self.shared.options.observer {
            observer.on_gap(through);
        }
        self.shared.window.restart_after(through);
        self.wake_shards();
    }
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, shards: Mutex::default() }
    }

    /// From now on, these shards are woken; at once as well, because of what they have missed.
    pub(crate) fn wakes(&self, shards: Vec<Notify>) {
        *self.shards.lock().unwrap_or_else(PoisonError::into_inner) = shards;
        self.wake_shards();
    }

    fn wake_shards(&self) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Notify::wake);
    }
}
