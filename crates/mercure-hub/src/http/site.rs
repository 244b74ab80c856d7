use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;

use super::connection::{Connection, serve_library};
use super::direct::{Conversation, Rest};
use super::prefixed::Prefixed;
use crate::api::Service;
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
}

/// What requests are served by: replaced as a whole, so that each is judged by one configuration.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) service: Service,
    pub(crate) policy: Policy,
}

impl Site {
    pub(crate) fn new(
        terms: Terms,
        hub_path: String,
        write_timeout: Duration,
        tls: Option<Tls>,
    ) -> Self {
        Self { terms: RwLock::new(Arc::new(terms)), hub_path, write_timeout, tls }
    }

    /// The terms of this moment.
    pub(crate) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the next requests by other terms.
    pub(crate) fn change(&self, terms: Terms) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
    }

    /// Serves one connection of the public listeners until it ends.
    pub(crate) async fn serve(
        &self,
        connection: Connection,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) {
        connection.prepare(self.write_timeout);
        match Conversation::new(connection, self, shutdown.clone()).serve().await {
            Ok(Rest::Nothing) => {}
            Ok(Rest::Request(prefix, socket)) => {
                serve_library(Prefixed { prefix, socket }, router, shutdown).await;
            }
            Err(error) => tracing::debug!(%error, "a connection broke"),
        }
    }

    /// The same over TLS, if there are certificates.
    pub(crate) async fn serve_secure(
        &self,
        connection: Connection,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) {
        let Some(tls) = &self.tls else {
            return self.serve(connection, router, shutdown).await;
        };
        connection.prepare(self.write_timeout);
        match tls.accept(connection).await {
            Ok(None) => {}
            Ok(Some(stream)) => serve_library(stream, router, shutdown).await,
            Err(error) => tracing::debug!(%error, "a handshake failed"),
        }
    }
}
