use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use mercure_engine::{Clock, Hub, Options};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::api::Service;
use crate::config::Config;
use crate::http::{self, Bound, Connection, Pages, Routes, Site, Terms};
use crate::listeners::{Listeners, Public};
use crate::ops::{Ops, Traces};
use crate::tls::Tls;

/// How long requests under way may take once the hub is stopping.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs a hub until `shutdown` completes, then ends its streams and finishes its requests.
///
/// # Errors
/// If the transport or a shard cannot be set up.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let server = Server::start(config, listeners).await?;
    shutdown.await;
    server.stop(std::future::pending()).await
}

/// A running hub.
#[derive(Debug)]
pub struct Server {
    config: Config,
    site: Arc<Site>,
    hub: Arc<Hub>,
    ops: Arc<Ops>,
    traces: Option<Arc<Traces>>,
    /// Tells listeners to close, and connections to end after the request under way.
    close: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<Stopped>,
    /// Answers until everything else has ended.
    _ops: Option<AbortOnDrop<Stopped>>,
    fresh_keys: JoinSet<()>,
}

impl Server {
    /// Begins to serve.
    ///
    /// # Errors
    /// If the transport, a shard or TLS cannot be set up.
    pub async fn start(config: Config, listeners: Listeners) -> anyhow::Result<Self> {
        let tls = config.certificates.as_ref().map(Tls::start).transpose()?;
        let hub = start_hub(&config).await?;
        let traces = config.traces.as_ref().map(Traces::start).transpose()?.map(Arc::new);
        let terms = terms(&config, Arc::clone(&hub), traces.clone());
        let fresh_keys = terms.policy.trust.keep_fresh(hub.clock());
        let (path, patience) = (config.hub_path.clone(), config.write_timeout);
        let playground = config.playground.clone();
        let pages = config.debugger.then_some(Pages { playground });
        let site = Arc::new(Site::new(terms, path, patience, tls, pages));
        let ops = Arc::new(Ops::new(Arc::clone(&hub), Arc::clone(&site)));
        let (close, stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let router = http::ops(Arc::clone(&ops));
        let until = stop.subscribe();
        let serve_ops = listeners.ops.map(|bound| plain(bound, router, until.clone(), until));
        let mut server = Self {
            _ops: serve_ops.map(|serving| AbortOnDrop(tokio::spawn(serving))),
            accepting: JoinSet::new(),
            config,
            site,
            hub,
            ops,
            traces,
            close,
            stop,
            fresh_keys,
        };
        server.accept(listeners.public, listeners.redirect);
        Ok(server)
    }

    fn accept(&mut self, public: Vec<Public>, redirect: Vec<Bound>) {
        let router = http::public(Arc::clone(&self.site));
        for Public { bound, is_secure } in public {
            let (site, router, stop) =
                (Arc::clone(&self.site), router.clone(), self.close.subscribe());
            let serve = move |connection| {
                let (site, router, stop) = (Arc::clone(&site), router.clone(), stop.clone());
                async move {
                    match is_secure {
                        true => Box::pin(site.serve_secure(connection, router, stop)).await,
                        false => site.serve(connection, router, stop).await,
                    }
                }
            };
            self.accepting.spawn(accept_all(bound, Watch::No, self.close.subscribe(), serve));
        }
        for bound in redirect {
            let router = http::redirect(Arc::clone(&self.site));
            let (site, close) = (Arc::clone(&self.site), self.close.subscribe());
            let serve = move |connection| {
                let (site, router, close) = (Arc::clone(&site), router.clone(), close.clone());
                async move { site.serve_library(connection, router, close).await }
            };
            self.accepting.spawn(accept_all(bound, Watch::No, self.close.subscribe(), serve));
        }
    }

    /// Serves by another configuration from now on, as far as a running hub can; streams go on as
    /// they are. Returns the settings that take effect after a restart only.
    ///
    /// # Errors
    /// If the certificate files are no good; then nothing changes.
    pub fn reload(&mut self, mut config: Config) -> Result<Vec<&'static str>, String> {
        if let Some(tls) = &self.site.tls {
            tls.reload()?;
        }
        let (changed, later) = self.config.changes(&config);
        config.wait_for_restart(&self.config, &changed);
        let terms = terms(&config, Arc::clone(&self.hub), self.traces.clone());
        self.fresh_keys = terms.policy.trust.keep_fresh(self.hub.clock());
        self.site.change(terms);
        // What waits for a restart is still what the next change is measured against.
        config.keep(&self.config, &later);
        self.config = config;
        Ok(later)
    }

    /// Stops in the orderly way: says so at `/ready`, accepts no more connections, ends the streams
    /// one by one and then everything else. `hurry` cuts waiting short when it completes.
    ///
    /// # Errors
    /// If a stream could not be ended.
    pub async fn stop(self, hurry: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.ops.stop();
        let (drain, retry) = (self.config.drain, self.config.retry);
        let mut hurry = pin!(hurry.fuse());
        tokio::select! {
            () = tokio::time::sleep(self.config.drain_delay) => {}
            () = hurry.as_mut() => {}
        }
        // From here on who connects is refused, and goes elsewhere.
        self.close.send_replace(true);
        let connections = stop_accepting(self.accepting).await;
        if !drain.is_zero() && !hurry.is_terminated() {
            tracing::info!("stopping: streams end one by one within {drain:?}");
            tokio::select! {
                () = self.hub.drain(drain, retry) => {}
                () = hurry => {}
            }
        }
        tracing::info!("stopping: streams end, requests under way are finished");
        self.stop.send_replace(true);
        let finished = finish(&self.hub, connections).await;
        if let Some(traces) = self.traces {
            tokio::task::spawn_blocking(move || traces.stop()).await?;
        }
        finished
    }
}

/// Accepts connections that the library serves alone.
fn plain(
    bound: Bound,
    router: Routes,
    close: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = Stopped> + Send {
    accept_all(bound, Watch::No, close, move |connection| {
        connection.serve_library(router.clone(), stop.clone())
    })
}

/// A task that ends with its owner.
#[derive(Debug)]
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

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
    let mut check = tokio::time::interval(CHECK);
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return Stopped { bound, connections },
            _ = check.tick(), if watch == Watch::Yes => if !bound.is_in_place() {
                tracing::error!("the file of a socket is gone");
                return Stopped { bound, connections };
            },
            Some(_) = connections.join_next() => {}
            accepted = bound.accept() => match accepted {
                Ok(connection) => {
                    connections.spawn(serve(connection));
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to come back.
                    tracing::warn!(%error, "a connection could not be accepted");
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

/// Closes every listener; returns the connections that are still open.
async fn stop_accepting(mut accepting: JoinSet<Stopped>) -> Vec<JoinSet<()>> {
    let mut connections = Vec::new();
    while let Some(result) = accepting.join_next().await {
        connections.extend(result.ok().map(|stopped| stopped.connections));
    }
    connections
}

/// Ends the streams first (they never end by themselves), then waits for the rest.
pub(crate) async fn finish(hub: &Arc<Hub>, connections: Vec<JoinSet<()>>) -> anyhow::Result<()> {
    hub.refuse_updates().await;
    let hub = Arc::clone(hub);
    let ending = Arc::clone(&hub);
    tokio::task::spawn_blocking(move || ending.shutdown()).await.context("ending the streams")?;
    hub.say_goodbye().await;
    end_of(connections, DRAIN).await;
    Ok(())
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

/// What requests are served by, as configured.
fn terms(config: &Config, hub: Arc<Hub>, traces: Option<Arc<Traces>>) -> Terms {
    let service = Service {
        hub,
        limits: config.limits.clone(),
        max_request_body: config.max_request_body,
        retry: config.retry,
        max_connection_age: config.max_connection_age,
        traces,
    };
    Terms { service, policy: config.policy.clone(), quotas: config.quotas.clone() }
}

async fn start_hub(config: &Config) -> anyhow::Result<Arc<Hub>> {
    let clock = Clock::system();
    let transport =
        mercure_transports::connect(&config.transport, config.retention.clone(), clock.clone())?;
    let options = Options {
        heartbeat: (!config.heartbeat.is_zero()).then_some(config.heartbeat),
        write_timeout: config.write_timeout,
        max_subscribers: config.max_connections,
        max_per_client: config.max_connections_per_subject,
        subscriptions: config.told_generations(),
        lease: config.lease,
        ..Options::new(config.hub_url.clone()).within(&config.retention)
    };
    Hub::start(transport, options, clock).await.context("starting the hub")
}
