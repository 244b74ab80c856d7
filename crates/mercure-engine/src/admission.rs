//! Who may connect: a place for each subscriber, counted in total and per client.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mercure_protocol::ClientId;

use crate::hub::Hub;
use crate::shared::Shared;

/// Places that are taken.
#[derive(Debug, Default)]
pub(crate) struct Places {
    total: AtomicUsize,
    /// Of these, subscribers of generation 0.x.
    v0: AtomicUsize,
    /// Nobody is admitted any more.
    closed: AtomicBool,
    by_client: Mutex<HashMap<ClientId, usize>>,
}

/// Why a subscriber was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// As many subscribers as allowed are connected.
    #[error("the hub holds as many subscribers as it may")]
    Full,
    /// As many subscribers as one client may have are connected.
    #[error("this client holds as many connections as it may")]
    TooMany,
    /// Too many have come and gone for the log to keep up with telling it.
    #[error("the hub is busy telling who has subscribed")]
    Busy,
    /// The hub is stopping.
    #[error("the hub is stopping")]
    Stopping,
}

/// What goes with a place, and is given back with it.
pub trait Held: std::fmt::Debug + Send + Sync {
    /// What another process needs to know to hold the same.
    fn note(&self) -> Option<String>;
}

/// A place for one subscriber, held as long as it is connected.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    client: Option<ClientId>,
    /// What its holder takes in memory, in bytes.
    bytes: u32,
    /// Whether it is counted as one of generation 0.x.
    is_v0: bool,
    /// What goes with it.
    held: Option<Box<dyn Held>>,
}

impl Places {
    pub(crate) fn taken(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Of those that are taken, how many are of generation 0.x.
    pub(crate) fn taken_by_v0(&self) -> usize {
        self.v0.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientId, usize>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(
        &self,
        client: Option<ClientId>,
        max: usize,
        max_each: usize,
    ) -> Result<(), AttachError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(AttachError::Stopping);
        }
        let one_more = |count: usize| (count < max).then_some(count + 1);
        self.total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| AttachError::Full)?;
        let Some(client) = client else { return Ok(()) };
        let mut clients = self.clients();
        let count = clients.entry(client).or_default();
        if *count >= max_each {
            drop(clients);
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(AttachError::TooMany);
        }
        *count += 1;
        Ok(())
    }

    fn give_back(&self, client: Option<ClientId>) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = client else { return };
        let mut clients = self.clients();
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

impl Hub {
    /// Reserves a place for a subscriber; `client` is who holds it, if that is known.
    ///
    /// # Errors
    /// If all places are taken, or all that one client may have.
    pub fn admit(&self, client: Option<ClientId>) -> Result<Permit, AttachError> {
        let (shared, options) = (&self.shared, &self.shared.options);
        shared.places.take(client, options.max_subscribers, options.max_per_client)?;
        Ok(Permit { shared: Arc::clone(shared), client, bytes: 0, is_v0: false, held: None })
    }
}

impl Permit {
    /// Drops something only when the place is given back.
    pub fn hold(&mut self, what: Box<dyn Held>) {
        self.held = Some(what);
    }

    /// What another process needs to know to hold the same.
    pub(crate) fn note(&self) -> Option<String> {
        self.held.as_ref().and_then(|held| held.note())
    }

    pub(crate) fn client(&self) -> Option<ClientId> {
        self.client
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Counts its holder as a subscriber of generation 0.x, for as long as it is held.
    pub(crate) fn count_as_v0(&mut self) {
        if !std::mem::replace(&mut self.is_v0, true) {
            self.shared.places.v0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what its holder takes in memory, in bytes, for as long as it is held.
    pub(crate) fn count(&mut self, bytes: u32) {
        let counter = &self.shared.counters.subscriber_bytes;
        counter.fetch_add(u64::from(bytes), Ordering::Relaxed);
        counter.fetch_sub(u64::from(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Who sees the place given back sees the memory given back.
        self.count(0);
        if self.is_v0 {
            self.shared.places.v0.fetch_sub(1, Ordering::Relaxed);
        }
        self.shared.places.give_back(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_total_and_per_client() {
        let places = Places::default();
        let (one, other) = (Some(ClientId([1; 16])), Some(ClientId([2; 16])));
        assert_eq!(places.take(one, 3, 2), Ok(()));
        assert_eq!(places.take(one, 3, 2), Ok(()));
        assert_eq!(places.take(one, 3, 2), Err(AttachError::TooMany));
        assert_eq!(places.take(other, 3, 2), Ok(()));
        assert_eq!(places.take(None, 3, 2), Err(AttachError::Full));
        places.give_back(one);
        assert_eq!(places.taken(), 2);
        assert_eq!(places.take(None, 3, 2), Ok(()));
        places.give_back(one);
        places.give_back(other);
        assert!(places.clients().is_empty(), "nobody is remembered");
    }
}
