//! Reading the log for clients that poll instead of streaming.

use std::sync::Arc;

use bytes::Bytes;
use mercure_protocol::{Grants, HubUrl, Matcher, frame_cursor};

use crate::event::Event;
use crate::hub::Hub;
use crate::subscriber::Subscriber;
use crate::transport::{Batch, From, TransportError};

/// What a polling client reads, without a connection to keep.
#[derive(Debug)]
pub struct Interest<'a> {
    /// What it listens to.
    pub matchers: &'a [Matcher],
    /// What private updates it may read.
    pub grants: Option<&'a Grants>,
}

impl Interest<'_> {
    fn wants(&self, event: &Event, hub_url: &HubUrl) -> bool {
        Subscriber::selects(self.matchers, self.grants, event, &event.topics(hub_url))
    }
}

/// What one answer to a polling client holds at most, in bytes; one batch may exceed it.
const POLL_BYTES: usize = 1024 * 1024;

impl Hub {
    /// Reads what a subscriber has missed, for clients that poll instead of streaming: frames
    /// that it wants, then a frame that moves its cursor to where the reading ended.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn poll(
        &self,
        subscriber: &Interest<'_>,
        from: From,
    ) -> Result<Vec<Bytes>, TransportError> {
        let mut from = from;
        let mut frames = Vec::new();
        let mut size = 0;
        let mut newest: Option<Arc<Event>> = None;
        while size < POLL_BYTES {
            let batch = self.shared.transport.read(from, self.shared.read_limit()).await?;
            // Dropped while we were reading: what is left is still in order.
            let Batch::Events(events) = batch else {
                from = From::Oldest;
                continue;
            };
            let Some(last) = events.last() else { break };
            from = From::After(last.position);
            for event in &events {
                if subscriber.wants(event, &self.shared.options.hub_url) {
                    size += event.record.frame.len();
                    frames.push(Bytes::clone(&event.record.frame));
                }
            }
            newest = Some(Arc::clone(last));
        }
        frames.extend(newest.map(|event| frame_cursor(event.record.id.as_str())));
        Ok(frames)
    }
}
