use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How often the files are looked at. Programs that renew certificates replace files in their own
/// ways (renames, links of links), which a look at both files meets in all of them.
const LOOK: Duration = Duration::from_secs(5);

/// A certificate and its key, in two PEM files that somebody else renews.
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<(Arc<CertifiedKey>, Stamp)>,
}

/// What differs when a file was replaced or written anew: device, inode, size, time of change.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertificateFiles").field(&self.certificate).field(&self.key).finish()
    }
}

impl CertificateFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// Says what is wrong with which of them.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let stamp = stamp(certificate, key);
        let current = RwLock::new((Arc::new(load(certificate, key)?), stamp));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads them again.
    pub(super) fn reload(&self) -> Result<(), String> {
        let stamp = stamp(&self.certificate, &self.key);
        let loaded = load(&self.certificate, &self.key);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Also of files that are no good: they are read again when they change.
        current.1 = stamp;
        current.0 = Arc::new(loaded?);
        Ok(())
    }

    /// Reads them again whenever they change. While one of them is new and the other is not yet, the
    /// old certificate is shown.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let seen = self.current.read().unwrap_or_else(PoisonError::into_inner).1;
            if stamp(&self.certificate, &self.key) == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!("the certificate was replaced by a new one"),
                Err(error) => tracing::warn!("the old certificate is kept: {error}"),
            }
        }
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.0))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let unreadable = |path: &Path, error: &dyn fmt::Display| {
        format!("{} cannot be read as PEM: {error}", path.display())
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(certificate, &error))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate", certificate.display()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    CertifiedKey::from_der(chain, secret, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{} is not the key of {}", key.display(), certificate.display())
        }
        other => format!("{}: {other}", certificate.display()),
    })
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let of = |found: Metadata| {
        (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec())
    };
    [certificate, key].map(|path| std::fs::metadata(path).ok().map(of))
}
