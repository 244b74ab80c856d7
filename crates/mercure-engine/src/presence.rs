//! Who is subscribed to what, and the events that tell it (section "Active Subscriptions").
//!
//! A subscriber is present from the moment its shard serves it until it is dropped: whatever ends
//! a stream ends the subscription, so no road out can forget to tell. Shards only leave a note;
//! a task of its own turns notes into events of the log, in order, and tries again for as long as
//! the transport is away. The notes are bounded because newcomers are turned away first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mercure_protocol::{
    EventId, Generation, Grants, HubUrl, Matcher, SubscriberId, Subscription, Update,
};
use serde_json::Value;
use tokio::sync::Notify;

use crate::event::Record;
use crate::hub::Shared;

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
}

/// A subscriber and everything it listens to.
#[derive(Debug)]
pub struct Attendance {
    subscriber: SubscriberId,
    subscriptions: Box<[(Matcher, Option<Arc<Value>>)]>,
}

/// A presence on its way from one hub to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attended {
    /// The subscriber's name.
    pub subscriber: SubscriberId,
    /// What is told of it, for each of its matchers.
    pub payloads: Vec<Option<Value>>,
}

#[derive(Debug)]
struct Note {
    attendance: Arc<Attendance>,
    active: bool,
}

/// A subscriber's presence, which ends when this is dropped.
#[derive(Debug)]
pub struct Present {
    presence: Arc<Presence>,
    payloads: Box<[Option<Arc<Value>>]>,
    announced: Option<SubscriberId>,
}

impl Attendance {
    /// Its subscriptions, as a generation tells them: each once, also if the subscriber has asked
    /// for it in several ways that mean the same.
    pub fn subscriptions(&self, generation: Generation) -> impl Iterator<Item = Subscription<'_>> {
        self.told(generation, true)
    }

    fn told(&self, generation: Generation, active: bool) -> impl Iterator<Item = Subscription<'_>> {
        let mut seen = HashSet::new();
        let name = move |matcher: &Matcher| match generation {
            Generation::V1 => matcher.v1_name(),
            Generation::V0 => matcher.is_selector().then_some(""),
        };
        let all = self.subscriptions.iter();
        let once = all.filter(move |(matcher, _)| {
            name(matcher).is_some_and(|name| seen.insert((name, matcher.as_str())))
        });
        once.map(move |(matcher, payload)| Subscription {
            matcher,
            subscriber: self.subscriber,
            payload: payload.as_deref(),
            active,
        })
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
        let subscriptions = matchers.iter().cloned().zip(payloads).collect();
        let attendance = Arc::new(Attendance { subscriber, subscriptions });
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

    /// Lets [`Presence::tell`] end once nothing is left to tell.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.written.notify_one();
    }

    /// Turns notes into events until closed.
    pub(crate) async fn tell(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            // Closed before the look, so that what was noted before the close is still seen.
            let closed = self.closed.load(Ordering::Acquire);
            let notes = std::mem::take(&mut *lock(&self.notes));
            if notes.is_empty() {
                if closed {
                    return;
                }
                self.written.notified().await;
                continue;
            }
            for note in notes {
                for update in self.updates(&note, &shared.options.hub_url) {
                    self.append(&shared, &update).await;
                }
            }
        }
    }

    fn updates(&self, note: &Note, hub: &HubUrl) -> Vec<Update> {
        let of = |generation: &Generation| {
            let told = note.attendance.told(*generation, note.active);
            told.filter_map(|subscription| subscription.update(*generation, hub))
                .collect::<Vec<_>>()
        };
        self.generations.iter().flat_map(of).collect()
    }

    async fn append(&self, shared: &Shared, update: &Update) {
        let id = EventId::from_random(*uuid::Uuid::new_v4().as_bytes());
        let record = Record::of_subscription(update, id);
        while let Err(error) = shared.transport.append(record.clone()).await {
            tracing::warn!(%error, "a change of subscriptions could not be told yet");
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            tokio::time::sleep(shared.retry_delay()).await;
        }
        shared.counters.published.fetch_add(1, Ordering::Relaxed);
    }
}

impl Present {
    /// What another hub needs to go on with this presence; nobody is told that it has ended here.
    pub(crate) fn leave(mut self) -> Option<Attended> {
        let subscriber = self.announced.take()?;
        let attendance = lock(&self.presence.attendances).remove(&subscriber)?;
        let payload = |(_, payload): &(Matcher, Option<Arc<Value>>)| payload.as_deref().cloned();
        Some(Attended {
            subscriber,
            payloads: attendance.subscriptions.iter().map(payload).collect(),
        })
    }

    /// Makes the subscriber's matchers known, as its shard keeps them.
    pub(crate) fn announce(&mut self, matchers: &[Matcher]) {
        if self.announced.is_some() {
            return;
        }
        let subscriber = SubscriberId::from_random(*uuid::Uuid::new_v4().as_bytes());
        let payloads = std::mem::take(&mut self.payloads).into_iter();
        let attendance = Arc::new(Attendance {
            subscriber,
            subscriptions: matchers.iter().cloned().zip(payloads).collect(),
        });
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
