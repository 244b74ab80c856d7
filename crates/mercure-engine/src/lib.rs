//! The heart of the hub: one ordered log, and every subscriber a cursor in it.
//!
//! An update becomes an [`Event`] when the [`Transport`] accepts it. Shards (threads that own
//! sockets) see events in the log's order and write them to the subscribers whose matchers and
//! grants select them. A subscriber that is behind, because it resumes, because its socket is
//! slow, reads the same log from its cursor; when it reaches the shard's place it is live again.
//! There is no queue of events per subscriber and no merge of replay and live.
//!
//! This crate knows no HTTP: it writes prepared bytes to sockets it is handed, or into a
//! [`BodyReader`] for connections that an HTTP library owns.

mod admission;
mod backlog;
mod clock;
mod departure;
mod ending;
mod event;
mod follower;
mod hub;
mod index;
mod memory;
mod outlet;
mod poll;
mod presence;
mod roster;
mod shard;
mod shared;
mod stats;
mod subscriber;
mod teller;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod times;
mod transport;
mod window;

pub use admission::{AttachError, Held, Permit};
pub use clock::Clock;
pub use departure::Departing;
pub use event::{Event, Position, Record};
pub use hub::{Hub, Options, PublishError, Published, Resume};
pub use memory::{History, MemoryTransport, Retention};
pub use outlet::{BodyEnd, BodyReader, Outlet, body};
pub use poll::Interest;
pub use presence::{Attendance, Attended, Present};
pub use roster::{Change, Claimed, Roster, RosterEntry, Standing};
pub use stats::{Memory, Stats};
pub use subscriber::{CloseReason, NewSubscriber};
pub use times::Times;
pub use transport::{
    Batch, From, Future, Handover, Head, Measure, ReadLimit, State, Tail, Transport, TransportError,
};
