//! Subscribers that go on in another process: nothing of a stream is lost or repeated, because it
//! takes its place in the log along, and what was written of it in part.

use mercure_protocol::Grants;

use super::Shard;
use crate::departure::Departing;
use crate::subscriber::{Phase, Subscriber};
use crate::transport::From;

impl Shard {
    /// Takes every subscriber out whose connection can leave the process.
    pub(super) fn depart(&mut self) -> Vec<Departing> {
        let slots: Vec<_> = self.subscribers.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().filter_map(|slot| self.take_out(slot)).collect()
    }

    fn take_out(&mut self, slot: usize) -> Option<Departing> {
        // Not closed: the other process writes to the same connection.
        let socket = self.subscribers.get_mut(slot)?.outlet.source()?;
        if let Err(error) = self.poll.registry().deregister(socket) {
            tracing::warn!(%error, "a connection stays behind and is closed");
            return None;
        }
        let subscriber = self.subscribers.try_remove(slot)?;
        let from = match subscriber.phase {
            Phase::Live => From::After(self.cursor.max(subscriber.marker)),
            Phase::CatchingUp(from) | Phase::Reading(from, _) => from,
        };
        Some(departing(subscriber, from, self.shared.clock.now()))
    }
}

fn departing(mut subscriber: Subscriber, from: From, now: std::time::Duration) -> Departing {
    Departing {
        unsent: subscriber.unsent(),
        from,
        may_read: subscriber.grants.as_deref().map(Grants::subscribe).unwrap_or_default().to_vec(),
        time_left: subscriber.deadline.map(|deadline| deadline.saturating_sub(now)),
        client: subscriber.permit.client(),
        note: subscriber.permit.note(),
        attended: subscriber.present.take().and_then(|present| present.leave()),
        matchers: subscriber.matchers.into_vec(),
        outlet: subscriber.outlet,
    }
}
