use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_acme::caches::DirCache;
use rustls_acme::{AccountCache, CertCache};

use super::files::not_after;

/// When a certificate ends, in seconds of Unix time; 0 while there is none.
pub(super) type Expiry = Arc<AtomicI64>;

/// The folder of account and certificates. The library says nowhere how long what it shows lasts, so it is
/// looked at on its way.
pub(super) struct Kept {
    folder: DirCache<PathBuf>,
    expiry: Expiry,
}

impl Kept {
    pub(super) fn new(folder: PathBuf, expiry: Expiry) -> Self {
        Self { folder: DirCache::new(folder), expiry }
    }

    fn look_at(&self, pem: &[u8]) {
        let first = CertificateDer::pem_slice_iter(pem).next().and_then(Result::ok);
        if let Some(at) = first.and_then(|certificate| not_after(&certificate)) {
            self.expiry.store(at, Ordering::Relaxed);
        }
    }
}

#[async_trait::async_trait]
impl CertCache for Kept {
    type EC = io::Error;

    async fn load_cert(&self, domains: &[String], directory: &str) -> io::Result<Option<Vec<u8>>> {
        let found = self.folder.load_cert(domains, directory).await?;
        found.iter().for_each(|pem| self.look_at(pem));
        Ok(found)
    }

    async fn store_cert(&self, domains: &[String], directory: &str, pem: &[u8]) -> io::Result<()> {
        self.look_at(pem);
        self.folder.store_cert(domains, directory, pem).await
    }
}

#[async_trait::async_trait]
impl AccountCache for Kept {
    type EA = io::Error;

    async fn load_account(
        &self,
        contact: &[String],
        directory: &str,
    ) -> io::Result<Option<Vec<u8>>> {
        self.folder.load_account(contact, directory).await
    }

    async fn store_account(
        &self,
        contact: &[String],
        directory: &str,
        account: &[u8],
    ) -> io::Result<()> {
        self.folder.store_account(contact, directory, account).await
    }
}
