//! Sockets that clients connect to.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use listenfd::ListenFd;
use tokio::net::TcpListener;

use crate::config::{Config, Listen};
use crate::http::Bound;

/// Bound listeners: from here on, clients can connect.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) public: Vec<Door>,
    pub(crate) redirect: Vec<Door>,
    pub(crate) ops: Option<Door>,
}

/// A listener, and what the configuration calls it.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) bound: Bound,
    pub(crate) listen: Listen,
}

impl Door {
    /// Whether it speaks TLS, if there are certificates.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self.listen, Listen::Tcp(_) | Listen::Systemd) && self.bound.is_tcp()
    }
}

impl Listeners {
    /// Binds everything that the configuration names.
    ///
    /// # Errors
    /// If one address cannot be bound, naming it and what can be done.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        Self::bind_but(config, &mut Vec::new()).await
    }

    /// The same, but for what was bound already by the program that this one takes the place of; what has
    /// no use any more stays in `bound`.
    pub(crate) async fn bind_but(config: &Config, bound: &mut Vec<Door>) -> anyhow::Result<Self> {
        let (mut public, mut redirect) = (Vec::new(), Vec::new());
        for listen in &config.listen {
            public.extend(bind(listen, "--listen", bound).await?);
        }
        for listen in &config.redirect_listen {
            redirect.extend(bind(listen, "--redirect-listen", bound).await?);
        }
        Ok(Self { public, redirect, ops: bind_ops(config, bound).await? })
    }

    /// Makes the files of Unix sockets go with their listeners.
    pub(crate) fn own(&mut self, files: &[PathBuf]) {
        own(self.public.iter_mut().chain(&mut self.redirect).chain(&mut self.ops), files);
    }

    /// The addresses, as a client would write them; of a Unix socket, its path.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.public.iter().map(|door| door.bound.address()).collect()
    }

    /// The addresses that send clients on to HTTPS.
    #[must_use]
    pub fn redirect_addresses(&self) -> Vec<String> {
        self.redirect.iter().map(|door| door.bound.address()).collect()
    }
}

/// The same for some of them.
pub(crate) fn own<'a>(doors: impl Iterator<Item = &'a mut Door>, files: &[PathBuf]) {
    for door in doors {
        let is_it = |(path, _): (&Path, bool)| files.iter().any(|file| file == path);
        if door.bound.file().is_some_and(is_it) {
            door.bound.own(true);
        }
    }
}

async fn bind_ops(config: &Config, bound: &mut Vec<Door>) -> anyhow::Result<Option<Door>> {
    let Some(listen) = &config.ops_listen else { return Ok(None) };
    match bind(listen, "--ops-listen", bound).await {
        Ok(mut doors) => Ok(doors.pop()),
        Err(error) if config.ops_is_chosen => Err(error),
        // Another hub on this machine has it, most likely.
        Err(error) => {
            tracing::warn!("/live, /ready and /metrics are not served: {error}");
            Ok(None)
        }
    }
}

/// What is bound already under this name, else what is bound now.
async fn bind(listen: &Listen, flag: &str, bound: &mut Vec<Door>) -> anyhow::Result<Vec<Door>> {
    let (found, others): (Vec<_>, Vec<_>) =
        std::mem::take(bound).into_iter().partition(|door| door.listen == *listen);
    *bound = others;
    if !found.is_empty() {
        return Ok(found);
    }
    let door = |bound| Door { bound, listen: listen.clone() };
    Ok(bind_new(listen, flag).await?.into_iter().map(door).collect())
}

async fn bind_new(listen: &Listen, flag: &str) -> anyhow::Result<Vec<Bound>> {
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

fn explain(listen: &Listen, error: &io::Error, flag: &str) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program listens there; stop it or choose another address with {flag}")
        }
        io::ErrorKind::AlreadyExists => {
            format!("what is there is no socket; move it away, or choose another path with {flag}")
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
