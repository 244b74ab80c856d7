//! From a URL to the keeper of the log.
//!
//! What all engines have in common is in `keeper`; each engine is a `Store` below it.
//! A driver's types never leave this crate: what comes out is a [`Transport`].

mod address;
mod keeper;
mod nats;
mod postgres;
mod redis;
mod sqlite;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;

use std::sync::Arc;

use mercure_engine::{Clock, Handover, MemoryTransport, Retention, Transport};

pub use self::address::ConnectError;
use self::address::{Address, Engine};
use self::keeper::Keeper;
use self::nats::Nats;
use self::postgres::Postgres;
use self::redis::Redis;
use self::sqlite::Sqlite;
use self::store::Store;

/// What a transport is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve: the engine is set to this node's retention, which is applied.
    Serve,
    /// To append what another log held.
    Import,
    /// To look, also while hubs are at work; nothing is set or dropped that nobody asks for.
    Inspect,
}

/// Makes the transport that a URL names. It connects when it is started.
///
/// # Errors
/// If no transport can be made of it.
pub fn connect(
    url: &str,
    retention: Retention,
    clock: Clock,
) -> Result<Arc<dyn Transport>, ConnectError> {
    go_on(Handover::default(), url, retention, clock)
}

/// The same, going on where another process has ended.
///
/// # Errors
/// If no transport can be made of the URL.
pub fn go_on(
    from: Handover,
    url: &str,
    retention: Retention,
    clock: Clock,
) -> Result<Arc<dyn Transport>, ConnectError> {
    connect_with(Bare, Purpose::Serve, url, Some(retention), clock, from)
}

/// The same for a tool, which has no retention of its own.
///
/// # Errors
/// If no transport can be made of it.
pub fn connect_for(
    purpose: Purpose,
    url: &str,
    clock: Clock,
) -> Result<Arc<dyn Transport>, ConnectError> {
    connect_with(Bare, purpose, url, None, clock, Handover::default())
}

/// What stands between the keeper and an engine's store.
trait Wrap {
    type Wrapped<S: Store>: Store;

    fn wrap<S: Store>(self, store: S) -> Self::Wrapped<S>;
}

/// Nothing.
struct Bare;

impl Wrap for Bare {
    type Wrapped<S: Store> = S;

    fn wrap<S: Store>(self, store: S) -> S {
        store
    }
}

fn connect_with(
    wrap: impl Wrap,
    purpose: Purpose,
    url: &str,
    retention: Option<Retention>,
    clock: Clock,
    from: Handover,
) -> Result<Arc<dyn Transport>, ConnectError> {
    let (address, node) = (Address::parse(url)?, from.node);
    Ok(match address.engine {
        Engine::Memory => {
            let (retention, history) = (retention.unwrap_or_default(), from.history);
            Arc::new(MemoryTransport::restore(retention, clock, history.unwrap_or_default()))
        }
        Engine::Sqlite => {
            let store = Sqlite::new(address.rest.into(), purpose, clock.clone());
            Arc::new(Keeper::new(wrap.wrap(store), retention, clock, node))
        }
        Engine::Redis | Engine::Sentinel => {
            Arc::new(Keeper::new(wrap.wrap(Redis::new(&address)?), retention, clock, node))
        }
        Engine::Postgres => {
            Arc::new(Keeper::new(wrap.wrap(Postgres::new(&address)?), retention, clock, node))
        }
        Engine::Nats => {
            let store = Nats::new(&address, purpose, retention.as_ref(), clock.clone())?;
            Arc::new(Keeper::new(wrap.wrap(store), retention, clock, node))
        }
    })
}

/// Checks a transport's URL without connecting.
///
/// # Errors
/// If no transport can be made of it.
pub fn check(url: &str) -> Result<(), ConnectError> {
    connect(url, Retention::default(), Clock::system()).map(drop)
}

/// Where a transport's URL leads to, without a name or a password: for messages.
#[must_use]
pub fn place(url: &str) -> String {
    Address::parse(url).map_or_else(|_| String::new(), |address| address.place())
}
