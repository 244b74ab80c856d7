//! The task that tells who has come and gone, and, where several nodes share a log, keeps this
//! node's lease and ends the subscriptions of nodes that have lost theirs.
//!
//! The order of steps is what makes an end be told once, whatever dies in between: a subscriber is
//! in the roster before its beginning is told, and leaves it after its end was told. The ids of the
//! events that tell its end are in the roster too, and a log takes such an event once only, however
//! many nodes tell it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::event::Record;
use crate::presence::{Attendance, Note, Presence};
use crate::roster::{Change, Claimed, Roster, Standing};
use crate::shared::Shared;
use crate::transport::TransportError;

/// Notes told at once.
const NOTES: usize = 256;
/// Events told at once.
const EVENTS: usize = 256;

pub(crate) struct Teller {
    presence: Arc<Presence>,
    shared: Arc<Shared>,
    /// When the lease was last found kept, on the clock.
    renewed_at: Option<Duration>,
    /// Since when it was kept without a break: whoever has just come back does not judge others.
    kept_since: Option<Duration>,
}

impl Teller {
    pub(crate) fn new(presence: Arc<Presence>, shared: Arc<Shared>) -> Self {
        Self { presence, shared, renewed_at: None, kept_since: None }
    }

    /// Turns notes into events until closed.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let roster = shared.transport.roster();
        loop {
            let closed = self.presence.is_closed();
            if let Some(roster) = roster {
                self.keep_lease(roster).await;
            }
            let notes = match roster.is_some() && self.renewed_at.is_none() {
                // Without a lease nobody would end what is begun now.
                true => Vec::new(),
                false => self.presence.take_notes(NOTES),
            };
            if !notes.is_empty() {
                self.tell(roster, &notes).await;
            } else if closed {
                break;
            } else {
                self.rest(roster.is_some()).await;
            }
        }
        if let Some(roster) = roster
            && !self.presence.is_succeeded()
            && let Err(error) = roster.leave().await
        {
            tracing::warn!(%error, "the node's place in the roster was not given up");
        }
    }

    /// Waits for something to do.
    async fn rest(&self, has_lease: bool) {
        let written = self.presence.written();
        if !has_lease {
            return written.await;
        }
        // Without a lease, ask again soon; the notes cannot be told before.
        let pause = match self.renewed_at {
            None => self.shared.retry_delay(),
            Some(_) => self.renewal().min(Duration::from_secs(5)),
        };
        match self.renewed_at {
            None => tokio::time::sleep(pause).await,
            // Either is a reason to look.
            Some(_) => drop(tokio::time::timeout(pause, written).await),
        }
    }

    /// How often the lease is renewed, and others are looked after.
    fn renewal(&self) -> Duration {
        self.shared.options.lease / 8
    }

    /// How long it is renewed for: so much shorter that a death is noticed, which may take a renewal
    /// more, and told within the lease.
    fn term(&self) -> Duration {
        self.shared.options.lease * 5 / 8
    }

    async fn keep_lease(&mut self, roster: &dyn Roster) {
        if self.renew_lease(roster).await {
            self.end_the_dead(roster).await;
        }
    }

    /// Whether this node has kept its lease for so long that who is silent is dead: after the engine
    /// was away, all are silent for a while.
    fn may_judge(&self) -> bool {
        let now = self.shared.clock.now();
        self.kept_since.is_some_and(|since| now.saturating_sub(since) >= self.shared.options.lease)
    }

    /// Renews the lease when it is due; whether it was renewed now.
    async fn renew_lease(&mut self, roster: &dyn Roster) -> bool {
        let now = self.shared.clock.now();
        let is_due = |at: Duration| now.saturating_sub(at) >= self.renewal();
        if !self.renewed_at.is_none_or(is_due) {
            return false;
        }
        match roster.renew(self.term()).await {
            Ok(Standing::Kept) => {
                self.kept_since.get_or_insert(now);
            }
            Ok(Standing::New) => {
                if self.kept_since.is_some() {
                    tracing::warn!("this node was taken for dead; its subscribers are told anew");
                }
                self.presence.announce_all();
                self.kept_since = Some(now);
            }
            Err(error) => {
                tracing::warn!(%error, "this node's lease could not be renewed yet");
                // Whoever cannot reach the engine cannot tell who else could not.
                self.kept_since = self.kept_since.map(|_| now);
                let lapsed = |at: Duration| now.saturating_sub(at) >= self.term();
                self.renewed_at = self.renewed_at.filter(|at| !lapsed(*at));
                return false;
            }
        }
        self.renewed_at = Some(now);
        true
    }

    /// Tells that the subscriptions of dead nodes have ended.
    async fn end_the_dead(&mut self, roster: &dyn Roster) {
        while self.may_judge() {
            let Claimed { node, entries } = match roster.claim(self.term()).await {
                Ok(Some(claimed)) => claimed,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "whether a node is dead could not be found out");
                    return;
                }
            };
            tracing::info!(node, subscribers = entries.len(), "a node is gone; its streams ended");
            for some in entries.chunks(NOTES) {
                let some = some.iter().cloned().map(Attendance::elsewhere);
                let some: Vec<_> = some.collect();
                let anew = some.iter().filter(|one| one.entry().is_anew);
                let begins = anew.flat_map(|one| self.records(one, true)).collect();
                let ends = some.iter().flat_map(|one| self.records(one, false)).collect();
                // Also if the claim expires meanwhile: who takes it then tells the same.
                self.append(Some(roster), begins).await;
                self.append(Some(roster), ends).await;
                if self.presence.is_closed() {
                    return;
                }
                self.renew_lease(roster).await;
            }
            if let Err(error) = roster.bury(&node).await {
                tracing::warn!(%error, node, "a dead node could not be removed yet");
                return;
            }
        }
    }

    fn records(&self, attendance: &Attendance, active: bool) -> Vec<Record> {
        attendance.records(active, self.presence.generations(), &self.shared.options.hub_url)
    }

    async fn tell(&mut self, roster: Option<&dyn Roster>, notes: &[Note]) {
        let (came, went): (Vec<_>, Vec<_>) = notes.iter().partition(|note| note.active);
        let came = came.iter().map(|note| Change::Came(note.attendance.entry().clone()));
        let went = went.iter().map(|note| Change::Went(note.attendance.entry().subscriber));
        // Without a lease, beginnings are told with the next one, and what was never begun has no end.
        let is_noted = self.note(roster, came.collect()).await;
        let is_told = |note: &&Note| match note.active {
            true => is_noted,
            false => note.attendance.is_begun(),
        };
        let told: Vec<_> = notes.iter().filter(is_told).collect();
        told.iter().filter(|note| note.active).for_each(|note| note.attendance.begin());
        let records = told.iter().flat_map(|note| self.records(&note.attendance, note.active));
        let records = records.collect();
        self.append(roster, records).await;
        self.note(roster, went.collect()).await;
    }

    /// Notes changes, tried again for as long as the hub runs; `false` if the lease is lost, so that
    /// everybody will be told anew.
    async fn note(&mut self, roster: Option<&dyn Roster>, changes: Vec<Change>) -> bool {
        let Some(roster) = roster.filter(|_| !changes.is_empty()) else { return true };
        loop {
            match roster.note(changes.clone()).await {
                Ok(Standing::Kept) => return true,
                Ok(Standing::New) => {
                    self.renewed_at = None;
                    return false;
                }
                Err(error @ TransportError::TooLarge { .. }) => {
                    // Tried again, it would keep everybody else from being told.
                    tracing::error!(%error, "some subscriptions are not known to other nodes");
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, "a change of subscriptions could not be noted yet");
                }
            }
            if self.presence.is_closed() {
                return false;
            }
            tokio::time::sleep(self.shared.retry_delay()).await;
            self.renew_lease(roster).await;
        }
    }

    /// Appends records; what fails is tried again for as long as the hub runs.
    async fn append(&mut self, roster: Option<&dyn Roster>, records: Vec<Record>) {
        for records in records.chunks(EVENTS) {
            let mut left = records.to_vec();
            while let (failed, Some(error)) = self.try_append(&left).await {
                tracing::warn!(%error, "a change of subscriptions could not be told yet");
                if self.presence.is_closed() {
                    return;
                }
                left = failed;
                tokio::time::sleep(self.shared.retry_delay()).await;
                if let Some(roster) = roster {
                    // The events are told whoever holds the lease: they are what they are.
                    self.renew_lease(roster).await;
                }
            }
        }
    }

    /// Appends records, all at once. Returns those that were not acknowledged, and why.
    async fn try_append(&self, records: &[Record]) -> (Vec<Record>, Option<TransportError>) {
        let transport = &self.shared.transport;
        // Each is on its way, in order, when `append` returns its future.
        let under_way: Vec<_> =
            records.iter().map(|record| transport.append(record.clone())).collect();
        let (mut failed, mut why) = (Vec::new(), None);
        for (record, result) in records.iter().zip(under_way) {
            match result.await {
                Ok(_) => self.count(),
                Err(error @ TransportError::TooLarge { .. }) => {
                    tracing::error!(%error, "a change of subscriptions cannot be told");
                }
                Err(error) => {
                    failed.push(record.clone());
                    why = Some(error);
                }
            }
        }
        (failed, why)
    }

    fn count(&self) {
        self.shared.counters.published.fetch_add(1, Ordering::Relaxed);
    }
}
