//! A shard: a thread that owns sockets, their subscribers and an index of what they listen to.
//!
//! Everything that happens to a subscriber happens on its shard's thread, so "it reached the
//! head" and "it is live" are one step, and nothing here takes a lock per subscriber.

mod catch_up;
mod depart;
mod dispatch;
mod drain;
mod listening;
mod mailbox;
mod wheel;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mercure_protocol::{Grants, HEARTBEAT};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

pub(crate) use self::mailbox::{Drain, End, Mailbox, Notify};
use self::mailbox::{Incoming, ReadFor};
use self::wheel::{TICK, Wheel};
use crate::departure::Departing;
use crate::event::{Event, Position};
use crate::index::Slot;
use crate::shared::Shared;
use crate::subscriber::{CloseReason, Flow, NewSubscriber, Phase, Subscriber};

/// The poller's token of the mailbox; subscribers use their slot.
const MAILBOX: Token = Token(usize::MAX);
/// Readiness events taken from the poller at once.
const POLL_EVENTS: usize = 1024;

/// A subscriber that may be gone: its slot could have been given to another one since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRef {
    slot: Slot,
    generation: u32,
}

#[derive(Debug)]
pub(crate) struct Shard {
    shared: Arc<Shared>,
    mailbox: Notify,
    poll: Poll,
    subscribers: Slab<Subscriber>,
    /// Distinct grants, so that equal ones are held, and decided on, once.
    grants: HashSet<Arc<Grants>>,
    /// Live subscribers have everything up to here.
    cursor: Position,
    /// A read of the transport for the shard itself is under way.
    reading: bool,
    /// Subscribers that are behind and can make progress now.
    behind: VecDeque<SlotRef>,
    /// Reads of the transport under way for subscribers, and who waits for one to end.
    reads: usize,
    waiting_to_read: VecDeque<SlotRef>,
    wheel: Wheel,
    /// Streams are ending one by one.
    draining: Option<Drain>,
    next_generation: u32,
    batch: Vec<Arc<Event>>,
    deliveries: dispatch::Deliveries,
}

impl Shard {
    /// A shard that begins after a position, and the way to reach it.
    pub(crate) fn new(shared: Arc<Shared>, cursor: Position) -> io::Result<(Self, Notify)> {
        let poll = Poll::new()?;
        let mailbox = Notify::new(Mailbox::new(mio::Waker::new(poll.registry(), MAILBOX)?));
        let wheel = Wheel::new(shared.clock.now());
        let shard = Self {
            shared,
            mailbox: mailbox.clone(),
            poll,
            subscribers: Slab::new(),
            grants: HashSet::new(),
            cursor,
            reading: false,
            behind: VecDeque::new(),
            reads: 0,
            waiting_to_read: VecDeque::new(),
            wheel,
            draining: None,
            next_generation: 0,
            batch: Vec::new(),
            deliveries: dispatch::Deliveries::default(),
        };
        Ok((shard, mailbox))
    }

    /// Runs until told to end; returns the subscribers that go on elsewhere.
    pub(crate) fn run(mut self) -> Vec<Departing> {
        let mut events = Events::with_capacity(POLL_EVENTS);
        let end = loop {
            if let Err(error) = self.poll.poll(&mut events, self.patience())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a shard's poller failed; its streams end");
                break End::Close;
            }
            let mut incoming = self.mailbox.take();
            if let Some(end) = incoming.end {
                std::mem::take(&mut incoming.attach).into_iter().for_each(|new| self.attach(new));
                // What was accepted before the stop still leaves.
                self.advance();
                break end;
            }
            for event in events.iter().filter(|event| event.token() != MAILBOX) {
                self.on_socket(event.token().0, event.is_readable() || event.is_read_closed());
            }
            let pings = std::mem::take(&mut incoming.pings);
            self.receive(incoming);
            self.advance();
            self.catch_up();
            self.on_time();
            // Whoever asks may have gone.
            for ping in pings {
                let _ = ping.send(());
            }
        };
        self.mailbox.stop();
        let departing = if end == End::Depart { self.depart() } else { Vec::new() };
        for slot in self.subscribers.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.close(slot, CloseReason::Shutdown);
        }
        departing
    }

    /// How long the poller may sleep.
    fn patience(&self) -> Option<Duration> {
        if !self.behind.is_empty() || self.has_news() {
            return Some(Duration::ZERO);
        }
        (!self.subscribers.is_empty()).then_some(TICK)
    }

    fn receive(&mut self, incoming: Incoming) {
        for new in incoming.attach {
            self.attach(new);
        }
        for who in incoming.ready {
            if let Some(slot) = self.resolve(who) {
                self.on_socket(slot, true);
            }
        }
        for (read_for, result) in incoming.reads {
            match read_for {
                ReadFor::Shard => self.on_shard_read(result),
                ReadFor::Subscriber(who) => self.on_read(who, result),
            }
        }
        if let Some(drain) = incoming.drain {
            self.drain(drain);
        }
    }

    fn attach(&mut self, mut new: NewSubscriber) {
        let now = self.shared.clock.now();
        self.next_generation = self.next_generation.wrapping_add(1);
        let entry = self.subscribers.vacant_entry();
        let Ok(slot) = Slot::try_from(entry.key()) else {
            return;
        };
        let who = SlotRef { slot, generation: self.next_generation };
        new.outlet.bind(self.mailbox.clone(), who);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Some(socket) = new.outlet.source()
            && let Err(error) = self.poll.registry().register(socket, Token(entry.key()), interest)
        {
            tracing::warn!(%error, "a connection could not be watched and is closed");
            return;
        }
        let preamble = std::mem::take(&mut new.preamble);
        let mut index = self.mailbox.listening().index_mut();
        for matcher in &mut new.matchers {
            *matcher = index.insert(slot, matcher);
        }
        drop(index);
        // Only now: what comes from here on is known to be for it.
        self.skip();
        self.mailbox.listening().recall(self.cursor);
        let subscriber = Subscriber::new(new, self.next_generation, now, self.cursor);
        let subscriber = self.subscribers.vacant_entry().insert(subscriber);
        subscriber.grants = subscriber.grants.take().map(|grants| share(&mut self.grants, grants));
        if let Some(present) = &mut subscriber.present {
            present.announce(&subscriber.matchers);
        }
        self.wheel.insert(who, self.shared.next_check(subscriber));
        let result = match subscriber.phase {
            _ if preamble.is_empty() => Ok(Flow::Open),
            Phase::Live => subscriber.write(&[&preamble], now),
            // What it has missed follows at once.
            Phase::CatchingUp(_) | Phase::Reading(..) => {
                subscriber.hold(preamble);
                Ok(Flow::Open)
            }
        };
        self.settle(slot as usize, &result);
    }

    /// A socket or body became readable, writable or broken.
    fn on_socket(&mut self, slot: usize, readable: bool) {
        let now = self.shared.clock.now();
        let Some(subscriber) = self.subscribers.get_mut(slot) else {
            return;
        };
        if readable && !subscriber.outlet.drain() {
            self.close(slot, CloseReason::Disconnected);
            return;
        }
        if subscriber.is_blocked() {
            let result = subscriber.flush(now);
            self.settle(slot, &result);
        }
    }

    /// Draws the consequences of a write.
    fn settle(&mut self, slot: usize, result: &io::Result<Flow>) {
        match result {
            Err(_) => self.close(slot, CloseReason::Disconnected),
            Ok(Flow::Blocked) => {}
            Ok(Flow::Open) => {
                let Some(subscriber) = self.subscribers.get(slot) else {
                    return;
                };
                if matches!(subscriber.phase, Phase::CatchingUp(_)) {
                    self.queue(slot);
                }
            }
        }
    }

    fn on_time(&mut self) {
        let now = self.shared.clock.now();
        while let Some(who) = self.wheel.expired(now) {
            let Some(slot) = self.resolve(who) else {
                continue;
            };
            let subscriber = &mut self.subscribers[slot];
            match self.shared.overdue(subscriber, now) {
                Overdue::Close(reason) => {
                    self.say_when_to_return(slot);
                    self.close(slot, reason);
                    continue;
                }
                Overdue::Heartbeat => {
                    let result = subscriber.write(&[&Bytes::from_static(HEARTBEAT)], now);
                    self.settle(slot, &result);
                }
                Overdue::Nothing => {}
            }
            if let Some(subscriber) = self.subscribers.get(slot) {
                self.wheel.insert(who, self.shared.next_check(subscriber));
            }
        }
    }

    fn close(&mut self, slot: usize, reason: CloseReason) {
        let Some(mut subscriber) = self.subscribers.try_remove(slot) else {
            return;
        };
        let mut index = self.mailbox.listening().index_mut();
        subscriber.matchers.iter().for_each(|matcher| index.remove(slot as Slot, matcher));
        drop(index);
        if let Some(socket) = subscriber.outlet.source() {
            // Closing the descriptor deregisters as well; nothing to do if this fails.
            let _ = self.poll.registry().deregister(socket);
        }
        if let Some(grants) = subscriber.grants.take() {
            // The set's own and this one: nobody else has them.
            if Arc::strong_count(&grants) == 2 {
                self.grants.remove(&grants);
            }
        }
        if reason != CloseReason::Disconnected {
            // Whoever has just been accepted is answered; if that fails, there is nobody to answer.
            let _ = subscriber.release(self.shared.clock.now());
        }
        // Counted first: who sees the end of the stream finds it among the figures.
        self.shared.counters.closed(reason);
        subscriber.outlet.close();
        tracing::debug!(reason = reason.as_str(), "stream ended");
    }

    fn resolve(&self, who: SlotRef) -> Option<usize> {
        let slot = who.slot as usize;
        self.subscribers
            .get(slot)
            .is_some_and(|subscriber| subscriber.generation == who.generation)
            .then_some(slot)
    }

    fn who(&self, slot: usize) -> SlotRef {
        SlotRef { slot: slot as Slot, generation: self.subscribers[slot].generation }
    }
}

/// The grants to keep: equal ones that others have already, or these.
fn share(known: &mut HashSet<Arc<Grants>>, grants: Arc<Grants>) -> Arc<Grants> {
    if let Some(known) = known.get(&grants) {
        return Arc::clone(known);
    }
    known.insert(Arc::clone(&grants));
    grants
}

/// What time has brought for a subscriber.
#[derive(Debug, PartialEq, Eq)]
enum Overdue {
    Close(CloseReason),
    Heartbeat,
    Nothing,
}

impl Shared {
    fn overdue(&self, subscriber: &Subscriber, now: Duration) -> Overdue {
        let quiet_for = now.saturating_sub(subscriber.last_write);
        // A deadline is never passed: the wheel's tick is the margin.
        if subscriber.deadline.is_some_and(|deadline| deadline <= now + TICK) {
            Overdue::Close(CloseReason::Deadline)
        } else if subscriber.is_blocked() {
            let stalled = quiet_for >= self.options.write_timeout;
            if stalled { Overdue::Close(CloseReason::Stalled) } else { Overdue::Nothing }
        } else if self.options.heartbeat.is_some_and(|period| quiet_for >= period) {
            Overdue::Heartbeat
        } else {
            Overdue::Nothing
        }
    }

    /// When to look at a subscriber again.
    fn next_check(&self, subscriber: &Subscriber) -> Duration {
        let period = match self.options.heartbeat {
            Some(heartbeat) if !subscriber.is_blocked() => heartbeat,
            _ => self.options.write_timeout,
        };
        let due = subscriber.last_write + period;
        subscriber.deadline.map_or(due, |deadline| due.min(deadline.saturating_sub(TICK)))
    }
}
