//! Who is subscribed to what, and the events that tell it (section "Active Subscriptions").
//!
//! A subscriber is present from the moment its shard serves it until it is dropped: whatever ends
//! a stream ends the subscription, so no road out can forget to tell. Shards only leave a note;
//! a task of its own (`teller`) turns notes into events of the log, in order, and tries again for as
//! long as the transport is away. The notes are bounded because newcomers are turned away first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mercure_protocol::{
    EventId, Generation, Grants, HubUrl, Matcher, MatcherName, SubscriberId, Subscription,
};
use serde_json::Value;
use tokio::sync::Notify;

use crate::event::Record;
use crate::roster::RosterEntry;

/// The active subscriptions of a node.
#[derive(Debug)]
pub(crate) struct Presence {
    generations: Vec<Generation>,
    max_notes: usize,
    attendances: Mutex<HashMap<SubscriberId, Arc<Attendance>>>,
    /// Grows with every change.
    version: AtomicU64,
    notes: Mutex<VecDeque<Note>>,
    written: Notify,
    closed: AtomicBool,
    /// Another process goes on in this node's place.
    succeeded: AtomicBool,
}

/// A subscriber and everything it listens to.
#[derive(Debug)]
pub struct Attendance {
    entry: RosterEntry,
    /// Whether its beginning was told, so that its end has to be.
    is_begun: AtomicBool,
}

/// A presence on its way from one hub to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attended {
    /// The subscriber's name.
    pub subscriber: SubscriberId,
    /// What the ids of the events that tell of it are made from, and whether it was told anew: as a roster
    /// has it (see [`RosterEntry`]).
    pub seed: [u8; 16],
    /// See `seed`.
    pub is_anew: bool,
    /// What is told of it, for each of its matchers.
    pub payloads: Vec<Option<Value>>,
}

/// What a shard leaves for the teller.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) attendance: Arc<Attendance>,
    pub(crate) active: bool,
}

/// A subscriber's presence, which ends when this is dropped.
#[derive(Debug)]
pub struct Present {
    presence: Arc<Presence>,
    payloads: Box<[Option<Arc<Value>>]>,
    announced: Option<SubscriberId>,
}

impl Attendance {
    fn new(
        subscriber: SubscriberId,
        matchers: &[Matcher],
        payloads: impl IntoIterator<Item = Option<Arc<Value>>>,
    ) -> Arc<Self> {
        Self::with(RosterEntry {
            subscriber,
            seed: *uuid::Uuid::new_v4().as_bytes(),
            is_anew: false,
            subscriptions: matchers.iter().map(Matcher::name).zip(payloads).collect(),
        })
    }

    fn with(entry: RosterEntry) -> Arc<Self> {
        Arc::new(Self { entry, is_begun: AtomicBool::new(false) })
    }

    /// The same subscriber, told by other events.
    fn anew(&self) -> Arc<Self> {
        let seed = *uuid::Uuid::new_v4().as_bytes();
        Self::with(RosterEntry { seed, is_anew: true, ..self.entry.clone() })
    }

    /// A subscriber of another node; its beginning may have been told.
    pub(crate) fn elsewhere(entry: RosterEntry) -> Arc<Self> {
        Arc::new(Self { entry, is_begun: AtomicBool::new(true) })
    }

    /// As a roster keeps it.
    pub(crate) fn entry(&self) -> &RosterEntry {
        &self.entry
    }

    /// Its beginning is being told.
    pub(crate) fn begin(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Relaxed)
    }

    /// Its subscriptions, as a generation tells them: each once, also if the subscriber has asked
    /// for it in several ways that mean the same.
    pub fn subscriptions(&self, generation: Generation) -> impl Iterator<Item = Subscription<'_>> {
        self.told(generation, true)
    }

    fn told(&self, generation: Generation, active: bool) -> impl Iterator<Item = Subscription<'_>> {
        let mut seen = HashSet::new();
        let name = move |matcher: &MatcherName| match generation {
            Generation::V1 => matcher.v1_name(),
            Generation::V0 => matcher.is_selector().then_some(""),
        };
        let all = self.entry.subscriptions.iter();
        let once = all.filter(move |(matcher, _)| {
            name(matcher).is_some_and(|name| seen.insert((name, matcher.as_str())))
        });
        once.map(move |(matcher, payload)| Subscription {
            matcher,
            subscriber: self.entry.subscriber,
            payload: payload.as_deref(),
            active,
        })
    }

    /// The events that tell of its beginning or of its end: the same ones each time.
    pub(crate) fn records(
        &self,
        active: bool,
        generations: &[Generation],
        hub: &HubUrl,
    ) -> Vec<Record> {
        let of = |generation: &Generation| {
            let generation = *generation;
            self.told(generation, active).filter_map(move |one| one.update(generation, hub))
        };
        let updates = generations.iter().flat_map(of);
        let seed = u128::from_be_bytes(self.entry.seed);
        let id = |place: usize| match active {
            true => seed.wrapping_sub(1 + place as u128).to_be_bytes(),
            false => seed.wrapping_add(place as u128).to_be_bytes(),
        };
        updates
            .enumerate()
            .map(|(place, update)| {
                Record::of_subscription(&update, EventId::from_random(id(place)))
            })
            .collect()
    }
}

impl Presence {
    pub(crate) fn new(generations: Vec<Generation>, max_notes: usize) -> Arc<Self> {
        Arc::new(Self {
            generations,
            max_notes,
            attendances: Mutex::default(),
            // Random, so that a version says nothing about a hub that ran before.
            version: AtomicU64::new(fastrand::u64(..)),
            notes: Mutex::default(),
            written: Notify::new(),
            closed: AtomicBool::new(false),
            succeeded: AtomicBool::new(false),
        })
    }

    /// A place for a newcomer; `None` if too many changes wait to be told.
    pub(crate) fn enter(
        self: &Arc<Self>,
        matchers: &[Matcher],
        grants: Option<&Grants>,
        hub: &HubUrl,
    ) -> Option<Present> {
        let payload = |matcher| grants.and_then(|grants| grants.payload(matcher, hub));
        (lock(&self.notes).len() < self.max_notes).then(|| Present {
            presence: Arc::clone(self),
            payloads: matchers.iter().map(payload).collect(),
            announced: None,
        })
    }

    /// The presence of a subscriber that comes from another hub; everybody knows of it already.
    pub(crate) fn resume(self: &Arc<Self>, matchers: &[Matcher], attended: Attended) -> Present {
        let subscriber = attended.subscriber;
        let payloads = attended.payloads.into_iter().map(|payload| payload.map(Arc::new));
        let attendance = Attendance::with(RosterEntry {
            subscriber,
            seed: attended.seed,
            is_anew: attended.is_anew,
            subscriptions: matchers.iter().map(Matcher::name).zip(payloads).collect(),
        });
        attendance.begin();
        lock(&self.attendances).insert(subscriber, attendance);
        self.version.fetch_add(1, Ordering::Relaxed);
        Present {
            presence: Arc::clone(self),
            payloads: Box::default(),
            announced: Some(subscriber),
        }
    }

    /// A number that differs whenever the subscriptions do, and the subscriptions.
    pub(crate) fn snapshot(&self) -> (u64, Vec<Arc<Attendance>>) {
        let attendances = lock(&self.attendances);
        (self.version.load(Ordering::Relaxed), attendances.values().cloned().collect())
    }

    fn note(&self, attendance: Arc<Attendance>, active: bool) {
        lock(&self.notes).push_back(Note { attendance, active });
        self.written.notify_one();
    }

    /// Lets the teller end once nothing is left to tell.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.written.notify_one();
    }

    /// The same, when this node's place in the roster is another process's from then on.
    pub(crate) fn close_for_successor(&self) {
        self.succeeded.store(true, Ordering::Release);
        self.close();
    }

    pub(crate) fn is_succeeded(&self) -> bool {
        self.succeeded.load(Ordering::Acquire)
    }

    /// Whether nothing comes after what is noted already. To be asked before the look at the notes.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Completes when a note was left, or the presence was closed, since the last look.
    pub(crate) async fn written(&self) {
        self.written.notified().await;
    }

    /// The next notes, in order and of one subscriber at most one: their events may be told all at
    /// once.
    pub(crate) fn take_notes(&self, most: usize) -> Vec<Note> {
        let mut notes = lock(&self.notes);
        let mut seen = HashSet::new();
        let distinct = notes.iter().take(most);
        let count =
            distinct.take_while(|note| seen.insert(note.attendance.entry.subscriber)).count();
        notes.drain(..count).collect()
    }

    /// Generations in which subscriptions are told.
    pub(crate) fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// Another node has told, or is telling, that everybody here has gone: that is told here too, by
    /// the same events, and then that everybody is here, by new ones. So whoever tells it late tells
    /// nothing new.
    pub(crate) fn announce_all(&self) {
        let mut attendances = lock(&self.attendances);
        let mut notes = lock(&self.notes);
        // Those who wait to be told are among the ones that are here.
        notes.retain(|note| !note.active);
        for attendance in attendances.values_mut() {
            let former = std::mem::replace(attendance, attendance.anew());
            notes.push_back(Note { attendance: former, active: false });
        }
        let here = attendances.values().cloned();
        notes.extend(here.map(|attendance| Note { attendance, active: true }));
        drop(attendances);
        self.written.notify_one();
    }
}

impl Present {
    /// What another hub needs to go on with this presence; nobody is told that it has ended here.
    pub(crate) fn leave(mut self) -> Option<Attended> {
        let subscriber = self.announced.take()?;
        let attendance = lock(&self.presence.attendances).remove(&subscriber)?;
        let payloads = attendance.entry.subscriptions.iter();
        Some(Attended {
            subscriber,
            seed: attendance.entry.seed,
            is_anew: attendance.entry.is_anew,
            payloads: payloads.map(|(_, payload)| payload.as_deref().cloned()).collect(),
        })
    }

    /// Makes the subscriber's matchers known, as its shard keeps them.
    pub(crate) fn announce(&mut self, matchers: &[Matcher]) {
        if self.announced.is_some() {
            return;
        }
        let subscriber = SubscriberId::from_random(*uuid::Uuid::new_v4().as_bytes());
        let payloads = std::mem::take(&mut self.payloads);
        let attendance = Attendance::new(subscriber, matchers, payloads);
        let mut attendances = lock(&self.presence.attendances);
        attendances.insert(subscriber, Arc::clone(&attendance));
        self.presence.version.fetch_add(1, Ordering::Relaxed);
        drop(attendances);
        self.announced = Some(subscriber);
        self.presence.note(attendance, true);
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let Some(subscriber) = self.announced else { return };
        let mut attendances = lock(&self.presence.attendances);
        let attendance = attendances.remove(&subscriber);
        self.presence.version.fetch_add(1, Ordering::Relaxed);
        drop(attendances);
        if let Some(attendance) = attendance {
            self.presence.note(attendance, false);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
