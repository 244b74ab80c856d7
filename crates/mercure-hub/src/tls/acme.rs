use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_acme::{AcmeConfig, ResolvesServerCertAcme, UseChallenge};

use super::kept::{Expiry, Kept};

/// How certificates are had from an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Names that the certificate is for.
    pub domains: Vec<String>,
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// Folder that keeps account and certificates.
    pub cache: PathBuf,
    /// How it is shown that the names are ours.
    pub challenge: Challenge,
    /// Whom to trust as the authority's own server; else the system's certificates.
    pub ca: Option<PathBuf>,
}

/// How it is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Challenge {
    /// At port 443, within TLS (RFC 8737).
    #[default]
    TlsAlpn,
    /// At port 80, over HTTP (RFC 8555, 8.3).
    Http,
}

type Started<F> = (Arc<ResolvesServerCertAcme>, Arc<ServerConfig>, F);

impl Acme {
    /// What answers handshakes and challenges, and the work of renewing in time.
    pub(super) fn start(
        &self,
        expiry: Expiry,
    ) -> anyhow::Result<Started<impl Future<Output = ()> + use<>>> {
        private_folder(&self.cache)
            .with_context(|| format!("acme_cache: preparing {}", self.cache.display()))?;
        let contact = self.email.iter().map(|email| format!("mailto:{email}"));
        let mut state = AcmeConfig::new_with_client_config(&self.domains, self.client()?)
            .directory(&self.directory)
            .contact(contact)
            .challenge_type(match self.challenge {
                Challenge::TlsAlpn => UseChallenge::TlsAlpn01,
                Challenge::Http => UseChallenge::Http01,
            })
            .cache(Kept::new(self.cache.clone(), expiry))
            .state();
        let challenge = state.challenge_rustls_config();
        let (resolver, domains) = (state.resolver(), self.domains.join(" "));
        let authority = self.directory.clone();
        let renewing = async move {
            while let Some(event) = state.next().await {
                match event {
                    Ok(event) => tracing::info!(domains, ?event, "certificate"),
                    // It is tried again, less and less often.
                    Err(error) => {
                        tracing::warn!(domains, authority, %error, "no certificate could be had");
                    }
                }
            }
        };
        Ok((resolver, challenge, renewing))
    }

    /// How the authority's server is spoken to.
    fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                let of = || format!("acme_ca: reading {}", path.display());
                for certificate in CertificateDer::pem_file_iter(path).with_context(of)? {
                    roots.add(certificate.with_context(of)?).with_context(of)?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// The library writes keys that anybody may read, so nobody else gets as far as to them.
fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
