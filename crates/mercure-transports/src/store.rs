//! What an engine has to be able to do: little, in its own words, with its own positions.
//!
//! Everything that engines have in common (batches, the tail, what happens while one is away) is in
//! [`keeper`](crate::keeper).

use std::fmt::{Debug, Display};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mercure_engine::{
    Change, Claimed, Measure, ReadLimit, Record, Retention, RosterEntry, Standing, TransportError,
};
use mercure_protocol::EventId;

/// A place in an engine's log: whole numbers without holes, from 1.
pub(crate) type Place = u64;

/// What asking an engine comes to.
pub(crate) type Outcome<T> = Result<T, TransportError>;

/// A stretch of the log, in order.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// Place of the newest event when the stretch was read, or before; `None` if that is not known.
    pub(crate) head: Option<Place>,
    /// The events.
    pub(crate) events: Vec<(Place, Record)>,
}

/// The newest event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Newest {
    /// Its place; 0 before the first.
    pub(crate) place: Place,
    /// Its id.
    pub(crate) id: Option<EventId>,
}

/// An engine that keeps a log.
///
/// Every method may be called again after an error: a store reconnects by itself. Dropping a future
/// halfway leaves it usable.
pub(crate) trait Store: Debug + Send + Sync + 'static {
    /// What it is called in messages.
    const NAME: &'static str;

    /// Connects, creates or migrates what it needs, and warns of settings that lose events.
    fn open(&self) -> impl Future<Output = Outcome<()>> + Send;

    /// Appends records in order, as few round trips and syncs as possible for all of them. An error
    /// of one record speaks of that record only; later ones may have a place. One that tells of a subscription,
    /// and whose id is there already, is not added again: its place is that of the first one.
    fn append(&self, batch: &[Record])
    -> impl Future<Output = Outcome<Vec<Outcome<Place>>>> + Send;

    /// Reads what follows a place; what follows the oldest event that was dropped if there is none.
    fn read(
        &self,
        after: Option<Place>,
        limit: ReadLimit,
    ) -> impl Future<Output = Outcome<Stretch>> + Send;

    /// Waits, for some seconds at most, until something follows the cursor, which may move in the
    /// meantime, and reads it.
    fn follow(&self, cursor: &AtomicU64) -> impl Future<Output = Outcome<Stretch>> + Send;

    /// The earliest place of an id.
    fn locate(&self, id: &str) -> impl Future<Output = Outcome<Option<Place>>> + Send;

    /// The newest event ever accepted.
    fn newest(&self) -> impl Future<Output = Outcome<Newest>> + Send;

    /// Drops what is past the retention, from the oldest on. Returns how many updates that count
    /// for [`Retention::events`] are left, and how much of the log.
    fn trim(&self, retention: &Retention) -> impl Future<Output = Outcome<(u64, Measure)>> + Send;

    /// What the log holds.
    fn measure(&self) -> impl Future<Output = Outcome<Measure>> + Send;

    /// Renews a node's lease or, if the name is new, begins one; `None` if another node has claimed
    /// it. See [`Roster`](mercure_engine::Roster) for this and the following.
    fn renew(
        &self,
        node: &str,
        lease: Duration,
    ) -> impl Future<Output = Outcome<Option<Standing>>> + Send;

    /// Notes changes at a node.
    fn note(
        &self,
        node: &str,
        changes: &[Change],
    ) -> impl Future<Output = Outcome<Standing>> + Send;

    /// What nodes other than this one have noted.
    fn others(&self, node: &str) -> impl Future<Output = Outcome<(u64, Vec<RosterEntry>)>> + Send;

    /// Claims a dead node.
    fn claim(
        &self,
        node: &str,
        lease: Duration,
    ) -> impl Future<Output = Outcome<Option<Claimed>>> + Send;

    /// Removes a node.
    fn bury(&self, node: &str) -> impl Future<Output = Outcome<()>> + Send;
}

/// A time since the epoch, or a duration, as engines count it.
pub(crate) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A number as engines take it that know no larger ones.
pub(crate) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// What a panic elsewhere has left is still whole: nothing here is changed in several steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log was written by a newer version of the hub than this one.
pub(crate) fn newer(what: &str, format: impl Display, known: impl Display) -> TransportError {
    TransportError::Refused(format!(
        "{what} was written by a newer version of the hub (format {format}, this one knows up to \
         {known}); update the hub, or choose another one"
    ))
}

/// What was read is nothing that a hub writes.
pub(crate) fn damaged() -> TransportError {
    TransportError::Refused("the log holds something that no hub has written".to_owned())
}
