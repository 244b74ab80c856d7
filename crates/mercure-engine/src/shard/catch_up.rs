//! Subscribers that are behind: the same log, read from their own cursor until they are live.

use std::sync::Arc;
use std::time::Duration;

use super::dispatch::write_all;
use super::mailbox::ReadFor;
use super::{Shard, SlotRef};
use crate::event::{Event, Position};
use crate::subscriber::{CloseReason, Flow, Phase};
use crate::transport::{Batch, From, TransportError};
use crate::window::Covered;

/// Events one subscriber reads before the next one's turn.
const STRIDE: usize = 256;
/// Subscribers served before the shard looks at its sockets and at the head of the log again.
const TURNS: usize = 64;
/// Time after which the head of the log has its turn again, whoever is still behind.
const BUDGET: Duration = Duration::from_millis(5);
/// Reads of the transport under way at once, per shard.
const READS: usize = 64;

impl Shard {
    /// Lets subscribers that are behind make some progress.
    pub(super) fn catch_up(&mut self) {
        let begin = self.shared.clock.now();
        for _ in 0..TURNS.min(self.behind.len()) {
            if self.shared.clock.now().saturating_sub(begin) > BUDGET {
                break;
            }
            let Some(who) = self.behind.pop_front() else {
                break;
            };
            let Some(slot) = self.resolve(who) else {
                continue;
            };
            let subscriber = &mut self.subscribers[slot];
            subscriber.is_queued = false;
            let Phase::CatchingUp(from) = subscriber.phase else {
                continue;
            };
            // A blocked one comes back when its socket has taken what waits.
            if !subscriber.is_blocked() {
                self.step(slot, from);
            }
        }
        // Whoever waited for a read may be gone, or may not need it any more: ask again.
        while self.reads < READS
            && let Some(who) = self.waiting_to_read.pop_front()
        {
            let Some(slot) = self.resolve(who) else {
                continue;
            };
            let subscriber = &mut self.subscribers[slot];
            subscriber.is_queued = false;
            if let Phase::CatchingUp(from) = subscriber.phase
                && !subscriber.is_blocked()
            {
                self.read_transport(slot, from);
            }
        }
    }

    fn step(&mut self, slot: usize, from: From) {
        let From::After(after) = from else {
            self.read_transport(slot, from);
            return;
        };
        if after >= self.cursor {
            self.go_live(slot, after);
            return;
        }
        // What the shard has read from the transport itself may not be in the window yet.
        let through = self.cursor.min(self.shared.window.head());
        if after >= through {
            self.read_transport(slot, from);
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        match self.shared.window.read(after, through, STRIDE, &mut batch) {
            Covered::Yes => self.deliver_behind(slot, after, &batch, through),
            Covered::No => self.read_transport(slot, from),
        }
        batch.clear();
        self.batch = batch;
    }

    fn read_transport(&mut self, slot: usize, from: From) {
        if !self.release(slot) {
            return;
        }
        let who = self.who(slot);
        if self.reads >= READS {
            let subscriber = &mut self.subscribers[slot];
            if !std::mem::replace(&mut subscriber.is_queued, true) {
                self.waiting_to_read.push_back(who);
            }
            return;
        }
        self.reads += 1;
        self.subscribers[slot].phase = Phase::Reading(from, self.cursor);
        self.request(from, ReadFor::Subscriber(who));
    }

    pub(super) fn on_read(&mut self, who: SlotRef, result: Result<Batch, TransportError>) {
        self.reads -= 1;
        let Some(slot) = self.resolve(who) else {
            return;
        };
        let Phase::Reading(from, asked_at) = self.subscribers[slot].phase else {
            return;
        };
        self.subscribers[slot].phase = Phase::CatchingUp(from);
        match result {
            // Nothing up to where the shard stood when it asked; since then it may have moved on.
            Ok(Batch::Events(events)) if events.is_empty() => {
                self.subscribers[slot].phase = Phase::CatchingUp(From::After(asked_at));
                self.queue(slot);
            }
            Ok(Batch::Events(events)) => {
                let after = match from {
                    From::After(position) => position,
                    From::Oldest => Position::START,
                };
                self.deliver_behind(slot, after, &events, self.cursor);
            }
            Ok(Batch::Gone) => self.close(slot, CloseReason::Gap),
            Err(error) => {
                tracing::warn!(%error, "reading the log failed; trying again");
                self.queue(slot);
            }
        }
    }

    /// Delivers a stretch of the log that follows `after`, as far as it is not after `through`; without
    /// events, there are none up to there.
    fn deliver_behind(
        &mut self,
        slot: usize,
        after: Position,
        events: &[Arc<Event>],
        through: Position,
    ) {
        let now = self.shared.clock.now();
        let due = events.partition_point(|event| event.position <= through);
        let reached = if due < events.len() {
            through
        } else {
            events.last().map_or(through, |event| event.position)
        };
        let subscriber = &mut self.subscribers[slot];
        let hub_url = &self.shared.options.hub_url;
        let mine: Vec<&Event> = events[..due]
            .iter()
            .map(|event| &**event)
            .filter(|event| subscriber.wants(event, &event.topics(hub_url)))
            .collect();
        // Where it stands if everything fits; a full backlog moves it back to what did not.
        subscriber.phase = Phase::CatchingUp(From::After(reached.max(after)));
        // Who misses nothing of a long log is answered before the rest of it is read.
        let written = match mine.is_empty() {
            true => subscriber.release(now).map(|_| 0),
            false => write_all(subscriber, mine.into_iter(), now),
        };
        match written {
            Ok(count) => self.shared.counters.delivered(count),
            Err(_) => {
                self.close(slot, CloseReason::Disconnected);
                return;
            }
        }
        if !subscriber.is_blocked() {
            self.queue(slot);
        }
    }

    /// Gives a subscriber that is behind its turn. Once is enough: whoever already has one would make
    /// the queue grow with each heartbeat.
    pub(super) fn queue(&mut self, slot: usize) {
        let who = self.who(slot);
        if !std::mem::replace(&mut self.subscribers[slot].is_queued, true) {
            self.behind.push_back(who);
        }
    }

    /// The one step in which a subscriber that was behind is live.
    fn go_live(&mut self, slot: usize, at: Position) {
        let now = self.shared.clock.now();
        let subscriber = &mut self.subscribers[slot];
        self.shared.counters.catching_up.took(subscriber.behind_for(now));
        subscriber.phase = Phase::Live;
        subscriber.marker = subscriber.marker.max(at);
        self.release(slot);
    }

    /// Lets go of what was held to leave with what is missed: that takes longer, or is nothing.
    /// Whether the subscriber can be served on.
    fn release(&mut self, slot: usize) -> bool {
        let now = self.shared.clock.now();
        match self.subscribers[slot].release(now) {
            Ok(flow) => flow == Flow::Open,
            Err(_) => {
                self.close(slot, CloseReason::Disconnected);
                false
            }
        }
    }
}
