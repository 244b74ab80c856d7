use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use mercure_engine::{Clock, Hub, MemoryTransport, Options};
use mercure_protocol::{Generation, HubUrl, Limits};
use rustix::process::geteuid;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::head::HeadFile;
use super::place::Place;
use super::succession::Estate;
use super::{BUS_VERSION, CompanionOptions, handoff};
use crate::accepting::{Stopped, Watch, accept_all, end_of, stopped};
use crate::api::{Answer, Service};
use crate::http::{self, Connection};
use crate::logging::Lines;
use crate::server::finish;

/// How long the first worker may take to connect.
const FIRST_WORKER: Duration = Duration::from_secs(10);
/// How long connections that are just being taken over may delay another companion.
const SETTLE: Duration = Duration::from_secs(1);

/// A running companion, as its routes see it.
#[derive(Debug)]
pub(crate) struct Companion {
    pub(crate) service: Arc<Service>,
    pub(crate) poll_interval: Duration,
    pub(super) settings: String,
    pub(super) since: u64,
    log: Arc<MemoryTransport>,
    pub(super) lines: Lines,
    /// Held by the worker that repeats the log's lines.
    pub(super) line_reader: tokio::sync::Mutex<()>,
    /// Bounded by the hub's places: each one waiting holds a permit.
    pub(super) waiting: handoff::Waiting,
    /// Connections that workers hold.
    workers: watch::Sender<usize>,
    /// Clients' connections that are on their way from a worker.
    under_way: watch::Sender<usize>,
    retired: watch::Sender<bool>,
    /// Another companion has asked for this one's place.
    successor: mpsc::Sender<UnixStream>,
    /// Nothing new is begun any more: another companion will do it.
    leaving: AtomicBool,
    /// Workers' connections, once they are not served any more.
    left_workers: Mutex<Vec<UnixStream>>,
}

/// How a companion's time ended.
pub(super) enum End {
    /// For good.
    Over,
    /// Somebody else goes on with what is left.
    Succeeded { successor: UnixStream, left: Box<Estate> },
}

/// A companion and its listeners.
pub(super) struct Running {
    companion: Arc<Companion>,
    place: Held,
    accepting: JoinSet<Stopped>,
    stop: watch::Sender<bool>,
    stop_workers: watch::Sender<bool>,
    successors: mpsc::Receiver<UnixStream>,
}

/// The lock, while the listeners are in use.
struct Held(std::fs::File);

impl Companion {
    /// Goes on with an estate, which may be an empty one.
    pub(super) async fn start(
        options: &CompanionOptions,
        estate: Estate,
    ) -> anyhow::Result<Running> {
        let clock = Clock::system();
        let retention = options.retention.clone();
        let head = HeadFile::create(&options.directory, estate.history.head.as_ref());
        let head = head.context("noting the newest event")?;
        let log = Arc::new(MemoryTransport::restore(retention, clock.clone(), estate.history));
        let hub = start_hub(options, Arc::clone(&log), head, clock).await?;
        let service = Service {
            hub,
            limits: Limits::default(),
            max_request_body: 1 << 20,
            retry: options.retry,
            max_connection_age: Duration::ZERO,
            traces: None,
        };
        let (successor, successors) = mpsc::channel(1);
        let companion = Arc::new(Self {
            service: Arc::new(service),
            poll_interval: options.poll_interval,
            settings: options.settings.clone(),
            since: options.since,
            log,
            lines: options.log.clone(),
            line_reader: tokio::sync::Mutex::default(),
            waiting: handoff::Waiting::default(),
            workers: watch::channel(0).0,
            under_way: watch::channel(0).0,
            retired: watch::channel(false).0,
            successor,
            leaving: AtomicBool::new(false),
            left_workers: Mutex::default(),
        });
        for stream in estate.streams {
            if let Err(error) = companion.service.hub.welcome(stream, None) {
                tracing::warn!(%error, "a stream could not be kept");
            }
        }
        Ok(companion.listen(estate.place, estate.workers, successors))
    }

    fn listen(
        self: Arc<Self>,
        place: Place,
        workers: Vec<UnixStream>,
        successors: mpsc::Receiver<UnixStream>,
    ) -> Running {
        let (stop, stopping) = watch::channel(false);
        let (stop_workers, stopping_workers) = watch::channel(false);
        let mut accepting = JoinSet::new();
        let router = http::bus(Arc::clone(&self));
        let until = stopping.clone();
        accepting.spawn(accept_all(place.requests, Watch::Yes, stopping.clone(), move |client| {
            let (router, until) = (router.clone(), until.clone());
            async move {
                if is_same_user(&client) {
                    client.serve_library(router, until).await;
                }
            }
        }));
        let companion = Arc::clone(&self);
        let until = stopping_workers.clone();
        accepting.spawn(accept_all(place.handoffs, Watch::Yes, stopping, move |worker| {
            let (companion, until) = (Arc::clone(&companion), until.clone());
            async move {
                if is_same_user(&worker)
                    && let Connection::Unix(socket) = worker
                {
                    handoff::serve_worker(&companion, socket, until).await;
                }
            }
        }));
        for worker in workers {
            let (companion, until) = (Arc::clone(&self), stopping_workers.clone());
            tokio::spawn(async move { handoff::serve_worker(&companion, worker, until).await });
        }
        let place = Held(place.lock);
        Running { companion: self, place, accepting, stop, stop_workers, successors }
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
    pub(super) fn count_worker(&self) -> Count {
        Count::of(&self.workers)
    }

    /// Counts a connection that is being taken over for as long as the result lives.
    pub(super) fn count_under_way(&self) -> Count {
        Count::of(&self.under_way)
    }

    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Whether a companion with other settings is to take this one's place: the newer one does, and
    /// of several the first that asks. From then on this one begins nothing new.
    pub(super) fn yields_to(&self, settings: &str, since: u64) -> bool {
        self.settings != settings
            && self.since < since
            && self.leaving.compare_exchange(false, true, AcqRel, Acquire).is_ok()
    }

    /// The one that had asked is gone.
    pub(super) fn stay(&self) {
        self.leaving.store(false, Release);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Acquire)
    }

    /// Gives the place away to the one that it was promised to.
    pub(super) fn succeed(&self, successor: UnixStream) {
        if self.successor.try_send(successor).is_err() {
            tracing::debug!("this companion ends already");
        }
    }

    /// Keeps a worker's connection, between two messages, for another companion.
    pub(super) fn leave_worker(&self, worker: UnixStream) {
        self.left_workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
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
            "settings": self.settings,
            "since": self.since,
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

async fn start_hub(
    options: &CompanionOptions,
    log: Arc<MemoryTransport>,
    head: HeadFile,
    clock: Clock,
) -> anyhow::Result<Arc<Hub>> {
    // The base for relative topics only: a companion has no address of its own, so this must be
    // no origin that a page can have (it would count as the hub's own page).
    let hub_url = hub_url()?;
    let told = if options.subscriptions { vec![Generation::V1, Generation::V0] } else { vec![] };
    let engine = Options {
        subscriptions: told,
        observer: Some(Arc::new(head)),
        heartbeat: (!options.heartbeat.is_zero()).then_some(options.heartbeat),
        ..Options::new(hub_url).within(&options.retention)
    };
    Hub::start(log, engine, clock).await.context("starting")
}

/// The URL of every companion.
pub(super) fn hub_url() -> anyhow::Result<HubUrl> {
    Ok(HubUrl::parse("http://companion.invalid/.well-known/mercure")?)
}

impl Running {
    /// Serves until the end.
    pub(super) async fn serve(
        mut self,
        grace: Duration,
        shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<End> {
        let mut retired = self.companion.retired.subscribe();
        let mut stopped_by_itself = None;
        let reason = tokio::select! {
            () = shutdown => "stopped",
            () = self.companion.abandoned(grace) => "no worker is left",
            () = stopped(&mut retired) => "retired",
            Some(successor) = self.successors.recv() => return self.leave(successor).await,
            // A cleaner of temporary files, say. Workers will start another companion; streams that
            // stayed here would miss its events in silence, so they end and come back to it.
            gone = self.accepting.join_next() => {
                stopped_by_itself = gone.and_then(Result::ok);
                "its sockets are gone"
            }
        };
        tracing::info!(reason, "the companion ends");
        self.stop.send_replace(true);
        self.stop_workers.send_replace(true);
        let mut connections = Vec::new();
        connections.extend(stopped_by_itself.map(|stopped| stopped.connections));
        while let Some(stopped) = self.accepting.join_next().await {
            connections.extend(stopped.ok().map(|stopped| stopped.connections));
        }
        // From here on another companion may take this one's place.
        drop(self.place);
        finish(&self.companion.service.hub, connections).await?;
        Ok(End::Over)
    }

    /// Ends, keeping everything that another companion can go on with. Clients that connect in the
    /// meantime wait at the listeners.
    async fn leave(mut self, successor: UnixStream) -> anyhow::Result<End> {
        let companion = &self.companion;
        self.stop.send_replace(true);
        let mut bounds = Vec::new();
        let mut connections = Vec::new();
        while let Some(stopped) = self.accepting.join_next().await {
            let stopped = stopped.context("closing a listener")?;
            bounds.push(stopped.bound);
            connections.push(stopped.connections);
        }
        let mut under_way = companion.under_way.subscribe();
        let settled = under_way.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(SETTLE, settled).await;
        self.stop_workers.send_replace(true);
        let mut workers = companion.workers.subscribe();
        let _ = tokio::time::timeout(SETTLE, workers.wait_for(|count| *count == 0)).await;
        let hub = &companion.service.hub;
        hub.refuse_updates().await;
        let departing = Arc::clone(hub);
        let streams = tokio::task::spawn_blocking(move || departing.depart()).await?;
        hub.fall_silent().await;
        end_of(connections, SETTLE).await;
        let workers = std::mem::take(
            &mut *companion.left_workers.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let place = Place::of(self.place.0, bounds)?;
        let left = Estate { place, history: companion.log.end(), streams, workers };
        Ok(End::Succeeded { successor, left: Box::new(left) })
    }
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub(super) struct Count(watch::Sender<usize>);

impl Count {
    fn of(counter: &watch::Sender<usize>) -> Self {
        counter.send_modify(|count| *count += 1);
        Self(counter.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
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
