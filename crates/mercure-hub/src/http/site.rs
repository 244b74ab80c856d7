use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use mercure_protocol::Principal;
use tokio::sync::watch;

use super::connection::{Connection, Peer};
use super::direct::{Conversation, PATIENCE, Rest};
use super::gate::{Admission, Gate, OwnPlace};
use super::library::{Serving, serve, serve_fresh};
use super::pages::Pages;
use super::prefixed::Prefixed;
use super::proxy;
use super::refused::Refused;
use crate::accepting::stopped;
use crate::api::{self, Accepted, Answer, Quotas, Request, Service};
use crate::auth::Policy;
use crate::tls::Tls;

/// What a listener's connections are served with.
#[derive(Debug)]
pub(crate) struct Site {
    terms: RwLock<Arc<Terms>>,
    pub(crate) hub_path: String,
    /// A peer that accepts nothing for this long is gone.
    pub(crate) write_timeout: Duration,
    pub(crate) tls: Option<Tls>,
    /// Whether believed proxies say first whom they speak for.
    pub(crate) proxy_protocol: bool,
    /// What people look at, if anything.
    pub(crate) pages: Option<Pages>,
    pub(crate) gate: Gate,
    /// Clients' connections have lower descriptors than this.
    most_open: RawFd,
}

/// How many files may be open that are no clients' connections, if so many may be at all.
const OTHERS: u64 = 64;

/// Where clients' connections end.
fn most_open() -> RawFd {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.unwrap_or(u64::MAX);
    RawFd::try_from(most - OTHERS.min(most / 4)).unwrap_or(RawFd::MAX)
}

/// What requests are served by: replaced as a whole, so that each is judged by one configuration.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) service: Service,
    pub(crate) policy: Policy,
    pub(crate) quotas: Quotas,
}

impl Site {
    pub(crate) fn new(
        terms: Terms,
        hub_path: String,
        write_timeout: Duration,
        tls: Option<Tls>,
        proxy_protocol: bool,
        pages: Option<Pages>,
    ) -> Self {
        Self {
            terms: RwLock::new(Arc::new(terms)),
            hub_path,
            write_timeout,
            tls,
            proxy_protocol,
            pages,
            gate: Gate::new(),
            most_open: most_open(),
        }
    }

    /// The terms of this moment.
    pub(crate) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the next requests by other terms.
    pub(crate) fn change(&self, terms: Terms) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
    }

    /// Serves a subscription request up to the point where the stream begins.
    pub(super) async fn subscribe(
        &self,
        request: &Request,
        place: Option<&OwnPlace>,
    ) -> Result<Accepted, Answer> {
        let terms = self.terms();
        let counted = self.gate.admit_stream(&terms.quotas, request, place)?;
        let mut accepted = api::subscribe(&terms.service, &terms.policy, request, None).await?;
        if let Some(counted) = counted {
            accepted.hold(counted);
        }
        Ok(accepted)
    }

    /// Who asks to publish: whether they may, and not too often, before their body is read.
    pub(super) async fn publisher(
        &self,
        terms: &Terms,
        request: &Request,
    ) -> Result<Principal, Answer> {
        let now = terms.service.hub.clock().now();
        self.gate.pace_address(&terms.quotas, request, now)?;
        let principal = api::publisher(&terms.service, &terms.policy, request).await?;
        self.gate.pace_subject(&terms.quotas, &principal, now)?;
        Ok(principal)
    }

    fn count(&self, refused: Option<Refused>) {
        if let Some(reason) = refused {
            self.gate.refusals.count(reason);
        }
    }

    /// Who is at the other end, as far as who is in between says; `None` if it does not, but should.
    async fn meet(
        &self,
        connection: &mut Connection,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<Option<IpAddr>> {
        let (peer, quotas) = (connection.peer(), &self.terms().quotas);
        if !self.proxy_protocol || peer.is_some_and(|peer| !quotas.trusted_proxies.contains(peer)) {
            return Some(peer);
        }
        // It counts while it says nothing, too.
        let _admission = self.gate.admit(quotas, None)?;
        let reading = tokio::time::timeout(PATIENCE, proxy::read(connection));
        let refused = match unless(shutdown, reading).await? {
            // Whom it does not name is nobody's word to believe, least of all the client's own.
            Ok(Ok(client)) => return Some(client),
            Ok(Err(_)) => Refused::Malformed,
            Err(_) => Refused::Late,
        };
        self.gate.refusals.count(refused);
        tracing::debug!(?peer, "a connection did not begin with a PROXY header");
        None
    }

    /// Lets a connection in, or turns it away at once.
    fn admit(&self, connection: &Connection, peer: Option<IpAddr>) -> Option<Admission> {
        let admission = self.admit_silently(connection, peer);
        if admission.is_none() {
            connection.turn_away();
        }
        admission
    }

    /// The same for one that plain words mean nothing to.
    fn admit_silently(&self, connection: &Connection, peer: Option<IpAddr>) -> Option<Admission> {
        match self.is_full(connection) {
            true => None,
            false => self.gate.admit(&self.terms().quotas, peer),
        }
    }

    /// Whether so many files are open that the log and the operator would get none. The kernel gives each
    /// the lowest number that is free.
    fn is_full(&self, connection: &Connection) -> bool {
        let is_full = connection.as_fd().as_raw_fd() >= self.most_open;
        if is_full {
            self.gate.refusals.count(Refused::Connections);
        }
        is_full
    }

    /// What the library serves a connection with.
    fn serving(
        &self,
        peer: Option<IpAddr>,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) -> Serving {
        Serving { peer: Peer(peer), router, shutdown, write_timeout: self.write_timeout }
    }

    /// Serves one connection of the public listeners until it ends.
    pub(crate) async fn serve(
        &self,
        mut connection: Connection,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) {
        let Some(peer) = self.meet(&mut connection, &shutdown).await else { return };
        let Some(admission) = self.admit(&connection, peer) else { return };
        connection.prepare(self.write_timeout);
        let conversation = Conversation::new(connection, peer, admission, self, shutdown.clone());
        // Apart, like what follows: a task is as large as the largest thing that it may come to, and
        // thousands of large ones leave holes in memory between the streams that stay.
        match Box::pin(conversation.serve()).await {
            Ok(Rest::Nothing) => {}
            Ok(Rest::Request(prefix, socket, _admission)) => {
                let socket = Prefixed { prefix, socket };
                self.count(Box::pin(serve(socket, self.serving(peer, router, shutdown))).await);
            }
            Err(error) => tracing::debug!(%error, "a connection broke"),
        }
    }

    /// Serves one connection of a listener that has routes of its own.
    pub(crate) async fn serve_library(
        &self,
        mut connection: Connection,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) {
        let Some(peer) = self.meet(&mut connection, &shutdown).await else { return };
        let Some(_admission) = self.admit(&connection, peer) else { return };
        connection.prepare(self.write_timeout);
        let serving = self.serving(peer, router, shutdown);
        self.count(Box::pin(serve_fresh(connection, serving)).await);
    }

    /// The same over TLS, if there are certificates.
    pub(crate) async fn serve_secure(
        &self,
        mut connection: Connection,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) {
        let Some(tls) = &self.tls else {
            return self.serve(connection, router, shutdown).await;
        };
        let Some(peer) = self.meet(&mut connection, &shutdown).await else { return };
        // Not in plain words: it waits for a handshake.
        let Some(_admission) = self.admit_silently(&connection, peer) else { return };
        connection.prepare(self.write_timeout);
        let Some(shaken) = unless(&shutdown, tls.accept(connection)).await else { return };
        match shaken {
            Ok(None) => {}
            Ok(Some(stream)) => {
                self.count(serve_fresh(stream, self.serving(peer, router, shutdown)).await);
            }
            Err(error) => {
                self.gate.refusals.count(Refused::Handshake);
                tracing::debug!(%error, "a handshake failed");
            }
        }
    }
}

/// What something comes to, unless the hub stops first: nobody has asked for anything yet.
async fn unless<T>(shutdown: &watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    let mut shutdown = shutdown.clone();
    tokio::select! {
        biased;
        done = work => Some(done),
        () = stopped(&mut shutdown) => None,
    }
}
