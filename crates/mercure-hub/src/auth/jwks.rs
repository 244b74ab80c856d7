//! Key sets that live elsewhere: fetched, kept, and fetched anew when a token names a key that is
//! not among them.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use mercure_engine::Clock;

use super::key::KeySet;

/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest document that is read.
const MAX_BYTES: u64 = 1024 * 1024;
/// How soon a set that could not be had is asked for again.
const RETRY: Duration = Duration::from_secs(10);

/// Where a key set comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An `https` URL (`http` on the machine itself only).
    Url(String),
    /// A file.
    File(PathBuf),
}

/// When sets are asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Age after which a set is asked for again, so that revoked keys disappear.
    pub refresh: Duration,
    /// Shortest time between two fetches, however many tokens name unknown keys.
    pub cooldown: Duration,
}

/// A key set that is fetched, and the last good version of it.
#[derive(Debug)]
pub struct FetchedKeys {
    source: Source,
    algorithms: Vec<Algorithm>,
    freshness: Freshness,
    current: RwLock<Arc<KeySet>>,
    /// When it was last asked for; locked while it is.
    asked_at: tokio::sync::Mutex<Option<Duration>>,
}

/// Why a set could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(String);

impl Source {
    /// Reads a `jwks_uri`.
    ///
    /// # Errors
    /// For anything but `https://`, `file:///` and, on this machine, `http://`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        let is_here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(Self::Url(text.to_owned())),
            "http" if is_here => Ok(Self::Url(text.to_owned())),
            "http" => Err("must be https: over http, anybody on the way could put in a key of \
                           their own"
                .to_owned()),
            "file" => {
                url.to_file_path().map(Self::File).map_err(|()| "is no local file".to_owned())
            }
            _ => Err("must start with https:// or file:///".to_owned()),
        }
    }

    fn read(&self) -> Result<Vec<u8>, FetchError> {
        let failed = |error: &dyn fmt::Display| FetchError(error.to_string());
        let mut document = Vec::new();
        let read = match self {
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
                file.take(MAX_BYTES + 1).read_to_end(&mut document)
            }
            Self::Url(url) => {
                let agent: ureq::Agent = ureq::Agent::config_builder()
                    .timeout_global(Some(TIMEOUT))
                    .max_redirects(0)
                    .build()
                    .into();
                let response = agent.get(url).header("Accept", "application/json").call();
                let response = response.map_err(|error| failed(&error))?;
                if response.status() != 200 {
                    return Err(FetchError(format!("the answer was {}", response.status())));
                }
                response.into_body().into_reader().take(MAX_BYTES + 1).read_to_end(&mut document)
            }
        };
        read.map_err(|error| failed(&error))?;
        if document.len() as u64 > MAX_BYTES {
            return Err(FetchError(format!("the document is over {MAX_BYTES} bytes")));
        }
        Ok(document)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Whatever may be a secret is left out.
            Self::Url(url) => match url::Url::parse(url) {
                Ok(url) => write!(f, "{}{}", url.origin().ascii_serialization(), url.path()),
                Err(_) => f.write_str("a URL"),
            },
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl FetchedKeys {
    /// A set that was not fetched yet, and so holds no key.
    #[must_use]
    pub fn new(source: Source, algorithms: Vec<Algorithm>, freshness: Freshness) -> Self {
        let (current, asked_at) = (RwLock::default(), tokio::sync::Mutex::default());
        Self { source, algorithms, freshness, current, asked_at }
    }

    /// Takes the last good version of the same set over, so that a new configuration does not begin without
    /// keys while their server is away.
    pub(super) fn inherit(&self, former: &Self) {
        if self.source == former.source && self.algorithms == former.algorithms {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = former.current();
        }
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The last good version.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches the set now, in the calling thread.
    ///
    /// # Errors
    /// If it cannot be had or read; the last good version stays.
    pub fn fetch(&self) -> Result<(), FetchError> {
        let document = self.source.read()?;
        let keys = KeySet::fetched(&document, &self.algorithms)
            .map_err(|error| FetchError(format!("the document {error}")))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// Fetches the set unless that was tried a moment ago: whoever makes up key names causes no
    /// more than one fetch per cooldown. Returns whether the set was fetched, by whomever, since
    /// the caller looked at `seen`.
    pub(super) async fn renew(self: &Arc<Self>, seen: &Arc<KeySet>, clock: &Clock) -> bool {
        let mut asked_at = self.asked_at.lock().await;
        let is_recent =
            asked_at.is_some_and(|at| clock.now().saturating_sub(at) < self.freshness.cooldown);
        if !is_recent {
            self.fetch_aside().await;
            *asked_at = Some(clock.now());
        }
        !Arc::ptr_eq(seen, &self.current())
    }

    async fn fetch_aside(self: &Arc<Self>) -> bool {
        let this = Arc::clone(self);
        let fetched = tokio::task::spawn_blocking(move || this.fetch()).await;
        let source = &self.source;
        match fetched {
            Ok(Ok(())) => {
                tracing::debug!(%source, "a key set was fetched");
                return true;
            }
            Ok(Err(error)) => {
                tracing::warn!(%source, %error, "a key set could not be fetched; the last one stays");
            }
            Err(error) => tracing::error!(%source, %error, "fetching a key set failed"),
        }
        false
    }

    /// Keeps the set fresh for as long as the hub runs.
    pub(super) async fn keep_fresh(self: Arc<Self>, clock: Clock) {
        loop {
            let mut asked_at = self.asked_at.lock().await;
            let fetched = self.fetch_aside().await;
            *asked_at = Some(clock.now());
            drop(asked_at);
            // Jittered, so that the nodes of a fleet do not ask in step.
            let pause = if fetched { self.freshness.refresh } else { RETRY };
            tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }
}
