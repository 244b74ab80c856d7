//! The live path: each event to its receivers, everything that waits for a socket in one write.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use mercure_protocol::{Grants, TopicView};
use slab::Slab;

use super::Shard;
use super::mailbox::ReadFor;
use crate::backlog::BACKLOG_BYTES;
use crate::event::{Event, Position};
use crate::index::{Index, Slot};
use crate::outlet::COALESCE;
use crate::subscriber::{CloseReason, Flow, Phase, Subscriber};
use crate::transport::{Batch, From, TransportError};
use crate::window::Covered;

/// Events dispatched in one go: what they bring to one socket leaves in few writes.
const BATCH: usize = 256;
/// Batches dispatched before the shard looks at its sockets again.
const ROUNDS: usize = 4;

/// Who gets which events of a batch: one list per subscriber, threaded through one vector, so
/// that no event allocates.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    items: Vec<Delivery>,
    /// Subscribers with deliveries, in order of first delivery.
    receivers: Vec<Slot>,
    /// Decisions on the current private event, by the address of the grants.
    allowed: HashMap<usize, bool>,
}

#[derive(Debug)]
struct Delivery {
    event: u32,
    next: Option<u32>,
}

impl Shard {
    /// Whether the shard has to look at the log.
    pub(super) fn has_news(&self) -> bool {
        !self.reading && self.mailbox.listening().has_news(self.cursor)
    }

    /// Leaves out what is nothing to the shard.
    pub(super) fn skip(&mut self) {
        // A read under way ends where the shard stood.
        if !self.reading {
            self.cursor = self.mailbox.listening().skip(self.cursor);
        }
    }

    /// Dispatches what is new in the log.
    pub(super) fn advance(&mut self) {
        for _ in 0..ROUNDS {
            self.skip();
            if self.reading || self.shared.window.head() <= self.cursor {
                return;
            }
            let mut batch = std::mem::take(&mut self.batch);
            let newest = Position(u64::MAX);
            let covered = self.shared.window.read(self.cursor, newest, BATCH, &mut batch);
            self.dispatch(&batch);
            batch.clear();
            self.batch = batch;
            if covered == Covered::No {
                self.reading = true;
                self.request(From::After(self.cursor), ReadFor::Shard);
                return;
            }
        }
    }

    /// The shard itself had fallen out of the window: the same dispatch, from the transport.
    pub(super) fn on_shard_read(&mut self, result: Result<Batch, TransportError>) {
        self.reading = false;
        match result {
            Ok(Batch::Events(events)) => self.dispatch(&events),
            Ok(Batch::Gone) => self.give_up_live(),
            // The reader has waited before it reported; the next turn asks again.
            Err(error) => tracing::warn!(%error, "reading the log failed; trying again"),
        }
    }

    fn dispatch(&mut self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        let (hub, mailbox) = (Arc::clone(&self.shared), self.mailbox.clone());
        let index = mailbox.listening().index();
        for (at, event) in events.iter().enumerate() {
            let topics = event.topics(&hub.options.hub_url);
            self.deliveries.select(at, event, &topics, &index, &mut self.subscribers);
        }
        drop(index);
        self.cursor = last.position;
        // Before anybody can know that it was dispatched.
        self.skip();
        self.deliver(events);
    }

    fn deliver(&mut self, events: &[Arc<Event>]) {
        let now = self.shared.clock.now();
        let mut delivered = 0;
        let receivers = std::mem::take(&mut self.deliveries.receivers);
        for slot in &receivers {
            let slot = *slot as usize;
            let Some(subscriber) = self.subscribers.get_mut(slot) else {
                continue;
            };
            let Some((first, _)) = subscriber.deliveries.take() else {
                continue;
            };
            let mine = self.deliveries.of(first).map(|at| &*events[at as usize]);
            match write_all(subscriber, mine, now) {
                Ok(count) => delivered += count,
                Err(_) => self.close(slot, CloseReason::Disconnected),
            }
        }
        self.shared.counters.delivered(delivered);
        self.note_dispatch(events, !receivers.is_empty());
        self.deliveries.items.clear();
        self.deliveries.receivers = receivers;
        self.deliveries.receivers.clear();
    }

    /// Notes how long the first of these events took, if there was somebody to dispatch them to.
    fn note_dispatch(&self, events: &[Arc<Event>], had_receivers: bool) {
        let first = events.first().filter(|_| had_receivers);
        if let Some(came) = first.and_then(|first| self.shared.window.came_at(first.position)) {
            let took = self.shared.clock.now().saturating_sub(came);
            self.shared.counters.dispatching.took(took);
        }
    }

    /// Events that live subscribers had not seen are no longer retained.
    fn give_up_live(&mut self) {
        let live = |(slot, subscriber): (usize, &Subscriber)| {
            (subscriber.phase == Phase::Live).then_some(slot)
        };
        for slot in self.subscribers.iter().filter_map(live).collect::<Vec<_>>() {
            self.close(slot, CloseReason::Gap);
        }
        self.cursor = self.shared.window.head();
    }

    /// Asks the transport, on the runtime; the answer arrives in the mailbox.
    pub(super) fn request(&self, from: From, read_for: ReadFor) {
        let shared = Arc::clone(&self.shared);
        let mailbox = self.mailbox.clone();
        self.shared.runtime.spawn(async move {
            let result = shared.transport.read(from, shared.read_limit()).await;
            // A read that lags behind the tail finds nothing yet; asking at once would spin.
            let empty = matches!(&result, Ok(Batch::Events(events)) if events.is_empty());
            if result.is_err() || (empty && read_for == ReadFor::Shard) {
                tokio::time::sleep(shared.retry_delay()).await;
            }
            mailbox.read_done(read_for, result);
        });
    }
}

impl Deliveries {
    /// Notes which live subscribers get an event.
    fn select(
        &mut self,
        at: usize,
        event: &Event,
        topics: &[TopicView<'_>],
        index: &Index,
        subscribers: &mut Slab<Subscriber>,
    ) {
        self.allowed.clear();
        index.find(topics, |slot| {
            let Some(subscriber) = subscribers.get_mut(slot as usize) else {
                return;
            };
            if subscriber.phase != Phase::Live || subscriber.marker >= event.position {
                return;
            }
            subscriber.marker = event.position;
            if event.record.private && !self.may_read(subscriber.grants.as_ref(), topics) {
                return;
            }
            self.add(at as u32, slot, subscriber);
        });
    }

    /// Decided once per distinct grants and event.
    fn may_read(&mut self, grants: Option<&Arc<Grants>>, topics: &[TopicView<'_>]) -> bool {
        let Some(grants) = grants else { return false };
        let address = Arc::as_ptr(grants) as usize;
        *self.allowed.entry(address).or_insert_with(|| grants.allow_read(topics))
    }

    fn add(&mut self, event: u32, slot: Slot, subscriber: &mut Subscriber) {
        let this = self.items.len() as u32;
        self.items.push(Delivery { event, next: None });
        subscriber.deliveries = Some(match subscriber.deliveries {
            None => {
                self.receivers.push(slot);
                (this, this)
            }
            Some((first, last)) => {
                self.items[last as usize].next = Some(this);
                (first, this)
            }
        });
    }

    /// The events of one subscriber's list.
    fn of(&self, first: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(first), |at| self.items[*at as usize].next)
            .map(|at| self.items[at as usize].event)
    }
}

/// Writes events to a subscriber, coalesced. What a blocked socket leaves over waits in the
/// bounded backlog; if that is full, the subscriber is behind, at the first event left out.
/// Returns how many events were written or enqueued.
pub(super) fn write_all<'a>(
    subscriber: &mut Subscriber,
    events: impl Iterator<Item = &'a Event>,
    now: std::time::Duration,
) -> std::io::Result<u64> {
    let mut events = events.peekable();
    let mut count = 0;
    let mut flow = if subscriber.is_blocked() { Flow::Blocked } else { Flow::Open };
    static EMPTY: Bytes = Bytes::new();
    while flow == Flow::Open && events.peek().is_some() {
        let mut frames = [&EMPTY; COALESCE];
        let (mut used, mut bytes) = (0, 0);
        // What one write leaves over becomes the backlog, so its size is bounded here.
        while used < COALESCE
            && let Some(event) = events
                .next_if(|event| used == 0 || bytes + event.record.frame.len() <= BACKLOG_BYTES)
        {
            frames[used] = &event.record.frame;
            bytes += event.record.frame.len();
            used += 1;
        }
        flow = subscriber.write(&frames[..used], now)?;
        count += used as u64;
    }
    for event in events {
        if !subscriber.enqueue(&event.record.frame) {
            // Positions are whole numbers, so "after the one before" means "from this one".
            let before = Position(event.position.0 - 1);
            subscriber.fall_behind(From::After(before), now);
            break;
        }
        count += 1;
    }
    Ok(count)
}
