//! What the shards and the hub have in common.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::Places;
use crate::clock::Clock;
use crate::event::Position;
use crate::hub::Options;
use crate::stats::Counters;
use crate::transport::{Batch, From, ReadLimit, Transport};
use crate::window::Window;

/// Events of an older log that a hub has at hand from the start.
const PRELOADED: usize = 16_384;

/// One of these for each hub.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) window: Window,
    pub(crate) counters: Counters,
    pub(crate) places: Places,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Shared {
    /// Brings the newest events of a log that was there before into the window: after a restart everybody
    /// comes back at once, a little behind, and would read the same from the transport.
    pub(crate) async fn preload(&self, head: Position) {
        let most = self.options.window_events.min(PRELOADED) as u64;
        let mut floor = Position(head.0.saturating_sub(most));
        let (mut after, mut bytes, mut events) = (floor, 0, VecDeque::new());
        while after < head {
            let Ok(Batch::Events(batch)) =
                self.transport.read(From::After(after), self.read_limit()).await
            else {
                // Shorter than that, or away: then it is read by who needs it.
                return;
            };
            let Some(last) = batch.last() else { return };
            after = last.position;
            for event in batch.into_iter().filter(|event| event.position <= head) {
                bytes += event.record.size();
                events.push_back(event);
            }
            while bytes > self.options.window_bytes / 2
                && let Some(oldest) = events.pop_front()
            {
                bytes -= oldest.record.size();
                floor = oldest.position;
            }
        }
        self.window.extend_back(floor, events, self.clock.now());
    }

    /// What is read from the transport at once.
    pub(crate) fn read_limit(&self) -> ReadLimit {
        ReadLimit { events: 1024, bytes: 1024 * 1024 }
    }

    /// How long to wait before a failed read is tried again; jittered, so that the subscribers of
    /// a node do not ask in step.
    pub(crate) fn retry_delay(&self) -> Duration {
        Duration::from_millis(fastrand::u64(250..750))
    }
}
