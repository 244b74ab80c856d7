//! Whom to trust when an engine is reached over TLS.

use std::path::Path;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::address::{ConnectError, invalid};

/// The certificates in a file, or the system's.
pub(crate) fn client(ca: Option<&Path>) -> Result<ClientConfig, ConnectError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                invalid(&format!("names a tls_ca that cannot be read: {error}"))
            };
            let found = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it holds no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| invalid(&format!("needs TLS, which fails: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
