//! A companion: the hub of one application on one host, started by its workers.
//!
//! Two Unix sockets in a directory that only the application's user can enter. `http.sock` takes
//! requests: the application's own, and those it relays for its clients. `handoff.sock` takes
//! connections over from workers; a worker keeps one open for as long as it lives, and the
//! companion ends a grace period after the last one closed. It is told no secret when it starts:
//! the keys to judge a client by come with each request, from a peer that is the same user.
//!
//! A companion of another version, or with other settings, takes a running one's place: it is given
//! the lock, the listening sockets, the workers' connections, the log and every plain stream.

mod adopt;
mod companion;
mod descriptors;
mod envelope;
mod handoff;
mod head;
mod place;
mod succession;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use mercure_engine::Retention;

pub(crate) use self::companion::Companion;
use self::companion::End;
pub(crate) use self::descriptors::{Messages, send};
pub(crate) use self::envelope::Relayed;
use self::place::Place;
use self::succession::{Estate, Outcome};
use crate::logging::Lines;

/// Version of the bus; workers and companion must agree on it.
pub const BUS_VERSION: u32 = 2;

/// What a companion needs to know; everything else comes with each request.
#[derive(Debug, Clone)]
pub struct CompanionOptions {
    /// Where its sockets and its lock are.
    pub directory: PathBuf,
    /// How long it stays after the last worker has left.
    pub grace: Duration,
    /// Silence after which a comment is sent; zero for never.
    pub heartbeat: Duration,
    /// Reconnection time told to subscribers, before jitter.
    pub retry: Duration,
    /// How often a polling client comes back, before jitter.
    pub poll_interval: Duration,
    /// What its memory keeps.
    pub retention: Retention,
    /// Whether it tells who is subscribed.
    pub subscriptions: bool,
    /// Names its program and its settings: one with another name takes its place, if it is newer.
    pub settings: String,
    /// When the application that wants it so was started, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Whether to take the place of an older one.
    pub replace: bool,
    /// Lines of its log, which one of its workers repeats in the application's.
    pub log: Lines,
}

/// Another companion holds the lock: not an error of this application.
#[derive(Debug, thiserror::Error)]
#[error("a companion is running in this directory already")]
pub struct AlreadyRunning;

/// Runs a companion until its workers have left, another one has taken its place, or `shutdown`
/// completes. Writes `ready` to standard output once workers can connect.
///
/// # Errors
/// [`AlreadyRunning`], or what keeps it from starting.
pub async fn run(
    options: CompanionOptions,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut estate = begin(&options).await?;
    let mut shutdown = pin!(shutdown);
    let mut told = false;
    loop {
        let companion = Companion::start(&options, estate).await?;
        if !told {
            // Whoever has started it may be gone; others need it all the same.
            let _ = io::stdout().write_all(b"ready\n");
            told = true;
        }
        let (successor, left) = match companion.serve(options.grace, shutdown.as_mut()).await? {
            End::Over => return Ok(()),
            End::Succeeded { successor, left } => (successor, left),
        };
        estate = *match succession::hand_over(successor, left).await {
            Outcome::Done => {
                tracing::info!("another companion goes on with the streams of this one");
                return Ok(());
            }
            Outcome::Failed(left, error) => {
                tracing::warn!(%error, "the other companion failed; this one goes on");
                left
            }
        };
    }
}

/// The place is free, or its holder gives it away.
async fn begin(options: &CompanionOptions) -> anyhow::Result<Estate> {
    match Place::take(&options.directory) {
        Ok(place) => Ok(Estate::new(place)),
        Err(error) if options.replace && error.is::<AlreadyRunning>() => {
            let options = options.clone();
            tokio::task::spawn_blocking(move || succession::receive(&options)).await?
        }
        Err(error) => Err(error),
    }
}
