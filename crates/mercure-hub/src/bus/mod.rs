//! A companion: the hub of one application on one host, started by its workers.
//!
//! Two Unix sockets in a directory that only the application's user can enter. `http.sock` takes
//! requests: the application's own, and those it relays for its clients. `handoff.sock` takes
//! connections over from workers; a worker keeps one open for as long as it lives, and the
//! companion ends a grace period after the last one closed. It is told no secret when it starts:
//! the keys to judge a client by come with each request, from a peer that is the same user.

mod adopt;
mod descriptors;
mod envelope;
mod handoff;
mod head;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use mercure_engine::{Clock, Hub, MemoryTransport, Options, Retention};
use mercure_protocol::{Generation, HubUrl, Limits};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::envelope::Relayed;
use self::head::HeadFile;
use crate::api::{Answer, Service};
use crate::http::{self, Bound, Connection};
use crate::server::{Watch, accept_all, finish, stop_accepting, stopped};

/// Version of the bus; workers and companion must agree on it.
pub const BUS_VERSION: u32 = 1;

/// How long the first worker may take to connect.
const FIRST_WORKER: Duration = Duration::from_secs(10);

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
}

/// Another companion holds the lock: not an error of this application.
#[derive(Debug, thiserror::Error)]
#[error("a companion is running in this directory already")]
pub struct AlreadyRunning;

/// A running companion, as its routes see it.
#[derive(Debug)]
pub(crate) struct Companion {
    pub(crate) service: Arc<Service>,
    pub(crate) poll_interval: Duration,
    /// Bounded by the hub's places: each one waiting holds a permit.
    waiting: handoff::Waiting,
    /// Connections that workers hold.
    workers: watch::Sender<usize>,
    retired: watch::Sender<bool>,
}

/// Runs a companion until its workers have left, a newer one asks it to retire, or `shutdown`
/// completes. Writes `ready` to standard output once workers can connect.
///
/// # Errors
/// [`AlreadyRunning`], or what keeps it from starting.
pub async fn run(
    options: CompanionOptions,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    prepare_directory(&options.directory)?;
    let lock = take_lock(&options.directory)?;
    let companion = Arc::new(Companion::start(&options).await?);
    let (stop, stopping) = watch::channel(false);
    let mut accepting = companion.listen(&options.directory, &stopping)?;
    let mut connections = Vec::new();
    io::stdout().write_all(b"ready\n").context("telling the starter")?;
    let mut retired = companion.retired.subscribe();
    let reason = tokio::select! {
        () = shutdown => "stopped",
        () = companion.abandoned(options.grace) => "no worker is left",
        () = stopped(&mut retired) => "retired",
        // A cleaner of temporary files, say. Workers will start another companion; streams that
        // stayed here would miss its events in silence, so they end and come back to it.
        gone = accepting.join_next() => {
            connections.extend(gone.and_then(Result::ok));
            "its sockets are gone"
        }
    };
    tracing::info!(reason, "the companion ends");
    stop.send_replace(true);
    connections.extend(stop_accepting(accepting).await);
    // From here on another companion may take this one's place.
    drop(lock);
    finish(&companion.service.hub, connections).await
}

impl Companion {
    async fn start(options: &CompanionOptions) -> anyhow::Result<Self> {
        let clock = Clock::system();
        // The base for relative topics only: a companion has no address of its own, so this must be
        // no origin that a page can have (it would count as the hub's own page).
        let hub_url = HubUrl::parse("http://companion.invalid/.well-known/mercure")?;
        let transport = MemoryTransport::new(options.retention.clone(), clock.clone());
        let head = HeadFile::create(&options.directory).context("noting the newest event")?;
        let told =
            if options.subscriptions { vec![Generation::V1, Generation::V0] } else { vec![] };
        let engine = Options {
            subscriptions: told,
            observer: Some(Arc::new(head)),
            heartbeat: (!options.heartbeat.is_zero()).then_some(options.heartbeat),
            ..Options::new(hub_url).within(&options.retention)
        };
        let hub = Hub::start(Arc::new(transport), engine, clock).await.context("starting")?;
        let service = Service {
            hub,
            limits: Limits::default(),
            max_request_body: 1 << 20,
            retry: options.retry,
            max_connection_age: Duration::ZERO,
        };
        Ok(Self {
            service: Arc::new(service),
            poll_interval: options.poll_interval,
            waiting: handoff::Waiting::default(),
            workers: watch::channel(0).0,
            retired: watch::channel(false).0,
        })
    }

    fn listen(
        self: &Arc<Self>,
        directory: &Path,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<JoinSet<JoinSet<()>>> {
        let bind = |name: &str| {
            let path = directory.join(name);
            Bound::unix(&path, 0o600)
                .with_context(|| format!("cannot listen on {}", path.display()))
        };
        let (requests, handoffs) = (bind("http.sock")?, bind("handoff.sock")?);
        let mut accepting = JoinSet::new();
        let router = http::bus(Arc::clone(self));
        let stop = stopping.clone();
        accepting.spawn(accept_all(requests, Watch::Yes, stopping.clone(), move |connection| {
            let (router, stop) = (router.clone(), stop.clone());
            async move {
                if is_same_user(&connection) {
                    connection.serve_library(router, stop).await;
                }
            }
        }));
        let (companion, stop) = (Arc::clone(self), stopping.clone());
        accepting.spawn(accept_all(handoffs, Watch::Yes, stopping.clone(), move |connection| {
            let (companion, stop) = (Arc::clone(&companion), stop.clone());
            async move {
                if is_same_user(&connection)
                    && let Connection::Unix(socket) = connection
                {
                    handoff::serve_worker(&companion, &socket, stop).await;
                }
            }
        }));
        Ok(accepting)
    }

    /// Completes when no worker was connected for the whole grace period.
    async fn abandoned(&self, grace: Duration) {
        let mut workers = self.workers.subscribe();
        // Whoever started this companion needs a moment to connect, however short the grace.
        let first = workers.wait_for(|count| *count > 0);
        let _ = tokio::time::timeout(grace.max(FIRST_WORKER), first).await;
        loop {
            // The sender lives as long as this companion, so waiting cannot fail.
            let _ = workers.wait_for(|count| *count == 0).await;
            let returned = workers.wait_for(|count| *count > 0);
            if tokio::time::timeout(grace, returned).await.is_err() {
                return;
            }
        }
    }

    /// Counts a worker for as long as the result lives.
    fn count_worker(&self) -> WorkerCount<'_> {
        self.workers.send_modify(|count| *count += 1);
        WorkerCount(self)
    }

    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
    }

    pub(crate) async fn status(&self) -> Answer {
        let head = match self.service.hub.head().await {
            Ok(head) => head,
            Err(error) => return Answer::transport_failed(&error),
        };
        let stats = self.service.hub.stats();
        let body = json!({
            "bus": BUS_VERSION,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "worker_connections": *self.workers.borrow(),
            "subscribers": stats.subscribers,
            "published": stats.published,
            "delivered": stats.delivered,
            "last_event_id": head.id.map(|id| id.to_string()),
        });
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Answer { status: 200, headers, body: body.to_string().into_bytes() }
    }
}

struct WorkerCount<'a>(&'a Companion);

impl Drop for WorkerCount<'_> {
    fn drop(&mut self) {
        self.0.workers.send_modify(|count| *count -= 1);
    }
}

/// The directory's mode keeps other users out already; this holds even if somebody loosens it.
fn is_same_user(connection: &Connection) -> bool {
    let Connection::Unix(socket) = connection else {
        return false;
    };
    let same = socket.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw());
    if !same {
        tracing::warn!("a process of another user was turned away");
    }
    same
}

/// Makes sure that nobody else can enter the directory.
fn prepare_directory(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| {
                format!("cannot create {shown}; make it writable or choose another directory")
            });
        }
        _ => {}
    }
    let found =
        std::fs::symlink_metadata(directory).with_context(|| format!("cannot read {shown}"))?;
    if !found.is_dir() {
        bail!("{shown} is not a directory; remove it or choose another one");
    }
    if found.uid() != geteuid().as_raw() {
        bail!("{shown} belongs to another user; choose another directory");
    }
    if found.mode() & 0o077 != 0 {
        bail!("{shown} is open to other users; run: chmod 700 {shown}");
    }
    Ok(())
}

/// Takes the lock that makes this the only companion; the kernel gives it back however we end.
fn take_lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AlreadyRunning.into()),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
