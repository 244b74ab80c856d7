//! Accepting connections until told to stop, and what remains then.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{Bound, Connection};

/// How often a listener makes sure that clients can still find it.
const CHECK: Duration = Duration::from_secs(2);

/// What to do when the file of a Unix socket disappears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Go on: an operator removed it, and connections may still be open.
    No,
    /// Stop accepting.
    Yes,
}

/// What remains of a listener that does not accept any more.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) bound: Bound,
    pub(crate) connections: JoinSet<()>,
}

/// Accepts connections until told to stop or, if watched, until the listener's file is gone: nobody
/// can reach it then, and whoever needs a hub makes another one. Returns the listener and the
/// connections that are still open.
pub(crate) async fn accept_all<F>(
    bound: Bound,
    watch: Watch,
    mut stopping: watch::Receiver<bool>,
    mut serve: impl FnMut(Connection) -> F,
) -> Stopped
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let (mut check, mut is_told) = (tokio::time::interval(CHECK), false);
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return Stopped { bound, connections },
            _ = check.tick() => {
                is_told = false;
                if watch == Watch::Yes && !bound.is_in_place() {
                    tracing::error!("the file of a socket is gone");
                    return Stopped { bound, connections };
                }
            }
            Some(_) = connections.join_next() => {}
            accepted = bound.accept() => match accepted {
                Ok(connection) => {
                    connections.spawn(serve(connection));
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to come back.
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "a connection could not be accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// Completes when the hub is stopping.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender nobody could tell any more: that is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Waits for connections to end by themselves, but not for ever.
pub(crate) async fn end_of(connections: Vec<JoinSet<()>>, patience: Duration) {
    let all = async {
        for mut set in connections {
            while set.join_next().await.is_some() {}
        }
    };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!("some requests did not finish in time and are cut");
    }
}
