//! Sockets that clients connect to.

use std::io;

use anyhow::Context as _;
use listenfd::ListenFd;
use tokio::net::TcpListener;

use crate::config::{Config, Listen};
use crate::http::Bound;

/// Bound listeners: from here on, clients can connect.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) public: Vec<Public>,
    pub(crate) redirect: Vec<Bound>,
    pub(crate) ops: Option<Bound>,
}

/// A listener for everybody.
#[derive(Debug)]
pub(crate) struct Public {
    pub(crate) bound: Bound,
    /// Whether it speaks TLS, if there are certificates.
    pub(crate) is_secure: bool,
}

impl Listeners {
    /// Binds everything that the configuration names.
    ///
    /// # Errors
    /// If one address cannot be bound, naming it and what can be done.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (mut public, mut redirect) = (Vec::new(), Vec::new());
        for listen in &config.listen {
            let is_secure = matches!(listen, Listen::Tcp(_) | Listen::Systemd);
            for bound in bind(listen, "--listen").await? {
                public.push(Public { is_secure: is_secure && bound.is_tcp(), bound });
            }
            if !(is_secure && config.certificates.is_some()) {
                warn_of_plain_http(listen);
            }
        }
        for listen in &config.redirect_listen {
            redirect.extend(bind(listen, "--redirect-listen").await?);
        }
        Ok(Self { public, redirect, ops: bind_ops(config).await? })
    }

    /// The addresses, as a client would write them; of a Unix socket, its path.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.public.iter().map(|public| public.bound.address()).collect()
    }

    /// The addresses that send clients on to HTTPS.
    #[must_use]
    pub fn redirect_addresses(&self) -> Vec<String> {
        self.redirect.iter().map(Bound::address).collect()
    }
}

async fn bind_ops(config: &Config) -> anyhow::Result<Option<Bound>> {
    let Some(listen) = &config.ops_listen else { return Ok(None) };
    match bind(listen, "--ops-listen").await {
        Ok(mut bound) => Ok(bound.pop()),
        Err(error) if config.ops_is_chosen => Err(error),
        // Another hub on this machine has it, most likely.
        Err(error) => {
            tracing::warn!("/live, /ready and /metrics are not served: {error}");
            Ok(None)
        }
    }
}

async fn bind(listen: &Listen, flag: &str) -> anyhow::Result<Vec<Bound>> {
    let result = match listen {
        Listen::Tcp(address) | Listen::Plain(address) => {
            TcpListener::bind(address).await.map(Bound::Tcp)
        }
        Listen::Unix(path) => Bound::unix(path, 0o660),
        Listen::Systemd => return passed(),
    };
    result.map(|bound| vec![bound]).map_err(|error| explain(listen, &error, flag))
}

/// The sockets that systemd passes (sd_listen_fds(3)).
fn passed() -> anyhow::Result<Vec<Bound>> {
    let mut passed = ListenFd::from_env();
    let mut bound = Vec::new();
    for at in 0..passed.len() {
        let of = || format!("socket {at} that systemd passes is neither TCP nor Unix");
        // Asked for the wrong kind, it says so and keeps the socket.
        bound.push(match passed.take_tcp_listener(at) {
            Ok(Some(listener)) => Bound::passed_tcp(listener)?,
            _ => {
                let listener = passed.take_unix_listener(at).with_context(of)?;
                Bound::passed_unix(listener.with_context(of)?)?
            }
        });
    }
    anyhow::ensure!(
        !bound.is_empty(),
        "--listen=systemd, but systemd passes no sockets: is there a .socket unit of the same name, \
         and was the service started by it?"
    );
    Ok(bound)
}

/// Tokens must travel encrypted (section "Presenting the Access Token").
fn warn_of_plain_http(listen: &Listen) {
    let (Listen::Tcp(address) | Listen::Plain(address)) = listen else { return };
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let is_local = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_local {
        tracing::warn!(
            address,
            "plain HTTP is served beyond this machine: tokens must travel over HTTPS, so \
             configure a certificate (tls_cert or acme_domains), or put a proxy that speaks TLS in front"
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
