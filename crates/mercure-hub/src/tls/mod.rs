//! TLS at our own listeners: which certificates are shown, how they stay fresh, and the handshake.

mod acme;
mod files;
mod kept;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{Acceptor, ResolvesServerCert};
use rustls_acme::{ResolvesServerCertAcme, is_tls_alpn_challenge};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::acme::{Acme, Challenge};
pub use self::files::CertificateFiles;
use self::kept::Expiry;

/// Where the certificates come from.
#[derive(Debug, Clone)]
pub enum Certificates {
    /// Files that somebody else writes.
    Files(Arc<CertificateFiles>),
    /// An authority that is asked for them (RFC 8555).
    Acme(Acme),
}

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What somebody is told who speaks plain HTTP here.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 34\r\nConnection: close\r\n\r\nthis port speaks HTTPS, not HTTP.\n";

/// The TLS of all listeners that speak it.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    /// Answers an authority that looks whether the name is ours (RFC 8737).
    challenge: Option<Arc<ServerConfig>>,
    acme: Option<Arc<ResolvesServerCertAcme>>,
    files: Option<Arc<CertificateFiles>>,
    /// Of a certificate from an authority.
    expiry: Expiry,
    _kept_fresh: tokio::task::JoinSet<()>,
}

impl Tls {
    /// Begins to keep the certificates fresh; must be called in a tokio runtime.
    ///
    /// # Errors
    /// If there is nowhere to keep what the authority gives, or its own certificate is unreadable.
    pub(crate) fn start(certificates: &Certificates) -> anyhow::Result<Self> {
        let mut kept_fresh = tokio::task::JoinSet::new();
        Ok(match certificates {
            Certificates::Files(files) => {
                kept_fresh.spawn(Arc::clone(files).keep_fresh());
                let config = config(Arc::<CertificateFiles>::clone(files))?;
                let files = Some(Arc::clone(files));
                let expiry = Expiry::default();
                Self { config, challenge: None, acme: None, files, expiry, _kept_fresh: kept_fresh }
            }
            Certificates::Acme(acme) => {
                let expiry = Expiry::default();
                let (resolver, challenge, renewing) = acme.start(Arc::clone(&expiry))?;
                kept_fresh.spawn(renewing);
                let config = config(Arc::<ResolvesServerCertAcme>::clone(&resolver))?;
                let acme = Some(resolver);
                Self {
                    config,
                    challenge: Some(challenge),
                    acme,
                    files: None,
                    expiry,
                    _kept_fresh: kept_fresh,
                }
            }
        })
    }

    /// Reads the certificate files again.
    ///
    /// # Errors
    /// If they do not hold a certificate and its key; the old ones stay.
    pub(crate) fn reload(&self) -> Result<(), String> {
        self.files.as_ref().map_or(Ok(()), |files| files.reload())
    }

    /// When the certificate ends that is shown, in seconds of Unix time, as far as it is known.
    pub(crate) fn not_after(&self) -> Option<i64> {
        match &self.files {
            Some(files) => files.not_after(),
            None => Some(self.expiry.load(Ordering::Relaxed)).filter(|at| *at > 0),
        }
    }

    /// What the authority expects to find under a token of an HTTP challenge (RFC 8555, 8.3).
    pub(crate) fn http_challenge(&self, token: &str) -> Option<String> {
        self.acme.as_ref()?.get_http_01_key_auth(token)
    }

    /// Shakes hands; `None` if it was the authority, which wanted nothing else.
    pub(crate) async fn accept<S>(&self, socket: S) -> io::Result<Option<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(HANDSHAKE, self.shake_hands(socket)).await.map_err(late)?
    }

    async fn shake_hands<S>(&self, socket: S) -> io::Result<Option<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let hello = match (&mut hello).await {
            Ok(hello) => hello,
            Err(error) => {
                if let Some(mut socket) = hello.take_io() {
                    // Whoever does not understand it is told by the end of the connection.
                    let _ = socket.write_all(NOT_TLS).await;
                    let _ = socket.shutdown().await;
                }
                return Err(error);
            }
        };
        if let Some(challenge) = &self.challenge
            && is_tls_alpn_challenge(&hello.client_hello())
        {
            let mut checked = hello.into_stream(Arc::clone(challenge)).await?;
            return checked.shutdown().await.map(|()| None);
        }
        hello.into_stream(Arc::clone(&self.config)).await.map(Some)
    }
}

/// TLS 1.2 and 1.3 with the library's choice of ciphers; HTTP/2 before HTTP/1.1; sessions are resumed
/// by tickets, which makes a crowd that reconnects cheap.
fn config(resolver: Arc<dyn ResolvesServerCert>) -> anyhow::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}
