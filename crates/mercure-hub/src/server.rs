use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mercure_engine::{Clock, Hub, Options};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Service;
use crate::config::{Config, Listen};
use crate::http::{self, Bound, Connection, Site};
use crate::ops::Ops;

/// How long requests under way may take once the hub is stopping.
const DRAIN: Duration = Duration::from_secs(10);

/// Bound listeners: from here on, clients can connect.
#[derive(Debug)]
pub struct Listeners {
    public: Vec<Bound>,
    ops: Option<Bound>,
}

impl Listeners {
    /// Binds everything that the configuration names.
    ///
    /// # Errors
    /// If one address cannot be bound, naming it and what can be done.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut public = Vec::new();
        for listen in &config.listen {
            public.push(bind(listen, "--listen").await?);
            warn_of_plain_http(listen);
        }
        let ops = match &config.ops_listen {
            None => None,
            Some(listen) => match bind(listen, "--ops-listen").await {
                Ok(bound) => Some(bound),
                Err(error) if config.ops_is_chosen => return Err(error),
                // Another hub on this machine has it, most likely.
                Err(error) => {
                    tracing::warn!("/live, /ready and /metrics are not served: {error}");
                    None
                }
            },
        };
        Ok(Self { public, ops })
    }

    /// The addresses, as a client would write them; of a Unix socket, its path.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let name = |bound: &Bound| match bound {
            Bound::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            Bound::Unix(_, file) => format!("unix:{}", file.path().display()),
        };
        self.public.iter().map(name).collect()
    }
}

async fn bind(listen: &Listen, flag: &str) -> anyhow::Result<Bound> {
    let result = match listen {
        Listen::Tcp(address) => TcpListener::bind(address).await.map(Bound::Tcp),
        Listen::Unix(path) => Bound::unix(path, 0o660),
    };
    result.map_err(|error| explain(listen, &error, flag))
}

/// Tokens must travel encrypted (section "Presenting the Access Token").
fn warn_of_plain_http(listen: &Listen) {
    let Listen::Tcp(address) = listen else { return };
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let is_local = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_local {
        tracing::warn!(
            address,
            "plain HTTP is served beyond this machine: tokens must travel over HTTPS, so put a \
             proxy that speaks TLS in front"
        );
    }
}

fn explain(listen: &Listen, error: &io::Error, flag: &str) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program listens there; stop it or choose another address with {flag}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("this user may not listen there; choose another {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; check {flag}")
        }
        io::ErrorKind::NotFound => {
            "its directory does not exist; create it or choose another path".to_owned()
        }
        _ => format!("check {flag}"),
    };
    anyhow::anyhow!("cannot listen on {listen}: {error}: {advice}")
}

/// Runs a hub until `shutdown` completes, then ends its streams and finishes its requests.
///
/// # Errors
/// If the transport or a shard cannot be set up.
pub async fn serve(
    config: &Config,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let service = Arc::new(service(config).await?);
    let site = Arc::new(Site {
        service: Arc::clone(&service),
        policy: config.policy.clone(),
        hub_path: config.hub_path.clone(),
        write_timeout: config.write_timeout,
    });
    let router = http::public(Arc::clone(&site));
    // Held until the end: they stop when dropped.
    let _fresh_keys = site.policy.trust.keep_fresh(service.hub.clock());
    let (stop, stopping) = watch::channel(false);
    let mut accepting = JoinSet::new();
    let ops = listeners.ops.map(|bound| {
        let router = http::ops(Arc::new(Ops::new(Arc::clone(&service.hub))));
        let stopping = stopping.clone();
        accept_all(bound, Watch::No, stopping.clone(), move |connection| {
            connection.serve_library(router.clone(), stopping.clone())
        })
    });
    // Answers until everything else has ended.
    let _ops = ops.map(|ops| AbortOnDrop(tokio::spawn(ops)));
    for bound in listeners.public {
        let (site, router, stopping) = (Arc::clone(&site), router.clone(), stopping.clone());
        accepting.spawn(accept_all(bound, Watch::No, stopping.clone(), move |connection| {
            let (site, router, stopping) = (Arc::clone(&site), router.clone(), stopping.clone());
            async move { site.serve(connection, router, stopping).await }
        }));
    }
    shutdown.await;
    tracing::info!("stopping: streams end, requests under way are finished");
    stop.send_replace(true);
    let connections = stop_accepting(accepting).await;
    finish(&service.hub, connections).await
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

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

async fn service(config: &Config) -> anyhow::Result<Service> {
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
    Ok(Service {
        hub: Hub::start(transport, options, clock).await.context("starting the hub")?,
        limits: config.limits.clone(),
        max_request_body: config.max_request_body,
        retry: config.retry,
        max_connection_age: config.max_connection_age,
    })
}
