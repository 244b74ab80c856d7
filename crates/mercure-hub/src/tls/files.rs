use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// How often the files are looked at. Programs that renew certificates replace files in their own
/// ways (renames, links of links), which a look at both files meets in all of them.
const LOOK: Duration = Duration::from_secs(5);

/// What is left of a certificate's life, in seconds, when its end is worth a word, unless a third of it is
/// less: it should have been renewed before.
const SOON: i64 = 14 * 24 * 3600;

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

    /// What is to be said of the certificate, if clients come by these names.
    pub(crate) fn advice(&self, hosts: &[&str]) -> Vec<String> {
        let certificate = self.leaf();
        let mut advice = Vec::new();
        if let Some(found) = x509(&certificate) {
            let (from, to) = (found.validity().not_before, found.validity().not_after);
            let soon = SOON.min((to.timestamp() - from.timestamp()) / 3);
            match to.timestamp() - ASN1Time::now().timestamp() {
                ..0 => advice.push(format!("the certificate has expired ({to})")),
                left if left < soon => advice.push(format!("the certificate expires soon ({to})")),
                _ => {}
            }
        }
        let is_for = |host: &&&str| {
            let parsed = ParsedCertificate::try_from(&certificate);
            let name = ServerName::try_from(host.trim_matches(['[', ']']));
            matches!((parsed, name), (Ok(parsed), Ok(name)) if verify_server_name(&parsed, &name).is_ok())
        };
        let others = hosts.iter().filter(|host| !is_for(host));
        advice.extend(others.map(|host| format!("the certificate is not for {host} (public_url)")));
        advice
    }

    /// When the certificate ends, to be read by people.
    #[must_use]
    pub fn expiry(&self) -> String {
        let ends = x509(&self.leaf()).map(|found| found.validity().not_after.to_string());
        ends.unwrap_or_else(|| "an unknown time".to_owned())
    }

    /// When the certificate ends, in seconds of Unix time.
    pub(super) fn not_after(&self) -> Option<i64> {
        not_after(&self.leaf())
    }

    fn leaf(&self) -> CertificateDer<'static> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        // There is one, or there would be no pair.
        current.0.cert.first().cloned().unwrap_or_else(|| Vec::new().into())
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

fn x509<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).map(|(_, found)| found).ok()
}

/// When a certificate ends, in seconds of Unix time.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    x509(certificate).map(|found| found.validity().not_after.timestamp())
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let unreadable = |path: &Path, error: &pem::Error| match error {
        pem::Error::MissingSectionEnd { .. } => format!("{} is cut off", path.display()),
        _ if is_encrypted(path) => format!(
            "{} is encrypted; give it without a passphrase (openssl pkey -in {0} -out …)",
            path.display()
        ),
        error => format!("{} cannot be read as PEM: {error}", path.display()),
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
        rustls::Error::General(_) => format!(
            "{} cannot be used: it takes RSA of 2048 to 4096 bits, ECDSA (P-256 or P-384), or Ed25519",
            key.display()
        ),
        other => format!("{}: {other}", certificate.display()),
    })
}

fn is_encrypted(key: &Path) -> bool {
    std::fs::read_to_string(key).is_ok_and(|text| text.contains("ENCRYPTED"))
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let of = |found: Metadata| {
        (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec())
    };
    [certificate, key].map(|path| std::fs::metadata(path).ok().map(of))
}
