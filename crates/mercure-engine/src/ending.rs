//! How a hub ends: it takes nothing new, its streams end, and the log learns that they have.

use std::sync::PoisonError;
use std::time::Duration;

use crate::departure::Departing;
use crate::hub::Hub;
use crate::presence::Presence;
use crate::shard::{Drain, End};

/// How long the log may take to learn that subscriptions have ended.
const GOODBYE: Duration = Duration::from_secs(5);

impl Hub {
    /// Ends the streams one by one over a window and admits no new ones; returns when the last one has
    /// ended. Each client is told when to come back: about `retry` later, with jitter; zero to leave
    /// it to the client. What is published meanwhile is delivered to those who are still there.
    pub async fn drain(&self, window: Duration, retry: Duration) {
        const LOOK: Duration = Duration::from_millis(20);
        self.shared.places.close();
        self.shards.iter().for_each(|shard| shard.drain(Drain { window, retry }));
        // Those who were just being admitted are not told; shutting down ends them.
        let end = self.shared.clock.now() + window + Duration::from_secs(1);
        while self.shared.places.taken() > 0 && self.shared.clock.now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Accepts no more updates. What was acknowledged before this returns is in the log, and leaves
    /// for the subscribers before [`Hub::shutdown`] ends their streams.
    pub async fn refuse_updates(&self) {
        *self.open.write().await = false;
    }

    /// Tells the log that the subscriptions have ended, after [`Hub::shutdown`]; gives up after a
    /// while.
    pub async fn say_goodbye(&self) {
        self.end_telling(Presence::close).await;
    }

    /// Tells the log what is still to be told, after [`Hub::depart`]: those who departed are still there.
    pub async fn fall_silent(&self) {
        self.end_telling(Presence::close_for_successor).await;
    }

    async fn end_telling(&self, close: fn(&Presence)) {
        let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(presence), Some(teller)) = (&self.presence, teller) else { return };
        close(presence);
        if tokio::time::timeout(GOODBYE, teller).await.is_err() {
            tracing::warn!("not every end of a subscription could be told");
        }
    }

    /// Ends every stream in the orderly way and stops the shards. Returns when they have ended.
    pub fn shutdown(&self) {
        self.end(End::Close);
    }

    pub(crate) fn end(&self, end: End) -> Vec<Departing> {
        self.shards.iter().for_each(|shard| shard.end(end));
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut departing = Vec::new();
        for thread in threads.drain(..) {
            match thread.join() {
                Ok(subscribers) => departing.extend(subscribers),
                Err(_) => tracing::error!("a shard ended by a panic"),
            }
        }
        departing
    }
}
