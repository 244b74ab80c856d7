use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use mercure_engine::{Clock, Handover, Hub, Options};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::accepting::{Stopped, Watch, accept_all, end_of};
use crate::api::Service;
use crate::config::{Config, Listen};
use crate::http::{self, Bound, Pages, Routes, Site, Terms};
use crate::listeners::{Door, Listeners};
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
    server.stop(std::future::pending).await
}

/// A running hub.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: Config,
    pub(crate) site: Arc<Site>,
    pub(crate) hub: Arc<Hub>,
    ops: Arc<Ops>,
    pub(crate) traces: Option<Arc<Traces>>,
    /// Tells listeners to close, and connections to end after the request under way.
    pub(crate) close: watch::Sender<bool>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) accepting: JoinSet<Closed>,
    /// The operator's endpoints, which answer until everything else has ended.
    pub(crate) answering: JoinSet<Closed>,
    fresh_keys: JoinSet<()>,
}

/// A listener that does not accept any more.
pub(crate) type Closed = (Listen, Stopped);

impl Server {
    /// Begins to serve.
    ///
    /// # Errors
    /// If the transport, a shard or TLS cannot be set up.
    pub async fn start(config: Config, listeners: Listeners) -> anyhow::Result<Self> {
        let mut server = Self::prepare(config, Handover::default()).await?;
        server.open(listeners);
        Ok(server)
    }

    /// Everything but the listeners, going on where another process has ended.
    pub(crate) async fn prepare(config: Config, from: Handover) -> anyhow::Result<Self> {
        let tls = config.certificates.as_ref().map(Tls::start).transpose()?;
        let hub = start_hub(&config, from).await?;
        let traces = config.traces.as_ref().map(Traces::start).transpose()?.map(Arc::new);
        let terms = terms(&config, Arc::clone(&hub), traces.clone());
        let fresh_keys = terms.policy.trust.keep_fresh(hub.clock());
        let (path, patience) = (config.hub_path.clone(), config.write_timeout);
        let playground = config.playground.clone();
        let pages = config.debugger.then_some(Pages { playground });
        let site = Arc::new(Site::new(terms, path, patience, tls, config.proxy_protocol, pages));
        let ops = Arc::new(Ops::new(Arc::clone(&hub), Arc::clone(&site)));
        Ok(Self {
            accepting: JoinSet::new(),
            answering: JoinSet::new(),
            close: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            config,
            site,
            hub,
            ops,
            traces,
            fresh_keys,
        })
    }

    /// Lets clients in.
    pub(crate) fn open(&mut self, listeners: Listeners) {
        if let Some(door) = listeners.ops {
            let (router, until) = (http::ops(Arc::clone(&self.ops)), self.stop.subscribe());
            let serving = plain(door.bound, router, until.clone(), until);
            self.answering.spawn(async move { (door.listen, serving.await) });
        }
        let router = http::public(Arc::clone(&self.site));
        for door in listeners.public {
            self.accept(door, router.clone());
        }
        for door in listeners.redirect {
            let router = http::redirect(Arc::clone(&self.site));
            let (site, close) = (Arc::clone(&self.site), self.close.subscribe());
            let serve = move |connection| {
                let (site, router, close) = (Arc::clone(&site), router.clone(), close.clone());
                async move { site.serve_library(connection, router, close).await }
            };
            let accepting = accept_all(door.bound, Watch::No, self.close.subscribe(), serve);
            self.accepting.spawn(async move { (door.listen, accepting.await) });
        }
    }

    fn accept(&mut self, door: Door, router: Routes) {
        let is_secure = door.is_secure();
        let (site, stop) = (Arc::clone(&self.site), self.close.subscribe());
        let serve = move |connection| {
            let (site, router, stop) = (Arc::clone(&site), router.clone(), stop.clone());
            async move {
                match is_secure {
                    true => Box::pin(site.serve_secure(connection, router, stop)).await,
                    false => site.serve(connection, router, stop).await,
                }
            }
        };
        let accepting = accept_all(door.bound, Watch::No, self.close.subscribe(), serve);
        self.accepting.spawn(async move { (door.listen, accepting.await) });
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
        config.policy.trust.inherit(&self.config.policy.trust);
        let terms = terms(&config, Arc::clone(&self.hub), self.traces.clone());
        self.fresh_keys = terms.policy.trust.keep_fresh(self.hub.clock());
        self.site.change(terms);
        // What waits for a restart is still what the next change is measured against.
        config.keep(&self.config, &later);
        self.config = config;
        Ok(later)
    }

    /// Stops in the orderly way: says so at `/ready`, accepts no more connections, ends the streams
    /// one by one and then everything else. `hurry` is waited for twice: once it has completed, streams
    /// end at once; the second time, requests under way are broken off.
    ///
    /// # Errors
    /// If a stream could not be ended.
    pub async fn stop(self, mut hurry: impl AsyncFnMut()) -> anyhow::Result<()> {
        self.ops.stop();
        let connections = {
            let mut hurry = pin!(hurry().fuse());
            tokio::select! {
                () = tokio::time::sleep(self.config.drain_delay) => {}
                () = hurry.as_mut() => {}
            }
            // From here on who connects is refused, and goes elsewhere.
            self.close.send_replace(true);
            let connections = stop_accepting(self.accepting).await;
            let (drain, retry) = (self.config.drain, self.config.retry);
            if !drain.is_zero() && !hurry.is_terminated() {
                tracing::info!("stopping: streams end one by one within {drain:?}");
                tokio::select! {
                    () = self.hub.drain(drain, retry) => {}
                    () = hurry => {}
                }
            }
            connections
        };
        tracing::info!("stopping: streams end, requests under way are finished");
        self.stop.send_replace(true);
        let finished = tokio::select! {
            finished = finish(&self.hub, connections) => finished,
            () = hurry() => {
                tracing::warn!("stopping: requests under way are broken off");
                Ok(())
            }
        };
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

/// Closes every listener; returns the connections that are still open.
async fn stop_accepting(mut accepting: JoinSet<Closed>) -> Vec<JoinSet<()>> {
    let mut connections = Vec::new();
    while let Some(result) = accepting.join_next().await {
        connections.extend(result.ok().map(|(_, stopped)| stopped.connections));
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

async fn start_hub(config: &Config, from: Handover) -> anyhow::Result<Arc<Hub>> {
    let (clock, retention) = (Clock::system(), config.retention.clone());
    let transport = mercure_transports::go_on(from, &config.transport, retention, clock.clone())?;
    let options = Options {
        heartbeat: (!config.heartbeat.is_zero()).then_some(config.heartbeat),
        write_timeout: config.write_timeout,
        max_subscribers: config.max_connections,
        max_per_client: config.max_connections_per_subject,
        subscriptions: config.told_generations(),
        lease: config.lease,
        ..Options::new(config.hub_url.clone()).within(&config.retention)
    };
    let place = mercure_transports::place(&config.transport);
    let span = tracing::error_span!("transport", place);
    let starting = Hub::start(transport, options, clock).instrument(span);
    starting.await.with_context(|| format!("starting the hub on {place}"))
}
