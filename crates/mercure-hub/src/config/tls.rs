//! Where certificates come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Listen;
use super::listen::parse_listen;
use super::values::Reader;
use crate::tls::{Acme, CertificateFiles, Certificates, Challenge};

pub(super) fn certificates(read: &mut Reader<'_>) -> Option<Certificates> {
    let domains = read.list("acme_domains", parse_domain);
    let acme = acme(read, domains);
    let (certificate, key) = (read.text("tls_cert"), read.text("tls_key"));
    match (certificate, key) {
        (None, None) => acme.map(Certificates::Acme),
        (Some(_), Some(_)) if acme.is_some() => {
            read.error("acme_domains", "cannot be given together with tls_cert");
            None
        }
        (Some(certificate), Some(key)) => {
            let files = CertificateFiles::read(Path::new(&certificate), Path::new(&key));
            let files = files.map_err(|reason| read.error("tls_cert", &reason)).ok()?;
            Some(Certificates::Files(Arc::new(files)))
        }
        (Some(_), None) => {
            read.error("tls_cert", "needs tls_key as well");
            None
        }
        (None, Some(_)) => {
            read.error("tls_key", "needs tls_cert as well");
            None
        }
    }
}

/// What was said of the authority is checked even if no name was given.
fn acme(read: &mut Reader<'_>, domains: Vec<String>) -> Option<Acme> {
    let directory = read.one("acme_directory", |text| match text.starts_with("https://") {
        true => Ok(text.to_owned()),
        false => Err("needs a URL that begins with https://".to_owned()),
    });
    let challenge = match read.choice("acme_challenge", &["tls-alpn-01", "http-01"]).as_str() {
        "http-01" => Challenge::Http,
        _ => Challenge::TlsAlpn,
    };
    let email = read.list("acme_email", parse_email).pop();
    let ca = read.text("acme_ca").map(PathBuf::from);
    if let Some(path) = &ca
        && let Err(error) = std::fs::File::open(path)
    {
        read.error("acme_ca", &format!("{} cannot be read: {error}", path.display()));
    }
    let cache = read.text("acme_cache").map(PathBuf::from);
    if domains.is_empty() {
        return None;
    }
    let Some(cache) = cache else {
        read.problem(
            "acme_domains: needs acme_cache, a folder that keeps account and certificates over \
             restarts: authorities give out only few",
        );
        return None;
    };
    Some(Acme { domains, email, directory, cache, challenge, ca })
}

pub(super) fn redirect_listen(
    read: &mut Reader<'_>,
    certificates: Option<&Certificates>,
) -> Vec<Listen> {
    let listen = read.list("redirect_listen", parse_listen);
    let is_asked_there = |certificates: &Certificates| match certificates {
        Certificates::Acme(acme) => acme.challenge == Challenge::Http,
        Certificates::Files(_) => false,
    };
    if listen.is_empty() && certificates.is_some_and(is_asked_there) {
        read.error("acme_challenge", "http-01 needs redirect_listen, as in 0.0.0.0:80");
    }
    if !listen.is_empty() && certificates.is_none() && read.error_count() == 0 {
        read.error("redirect_listen", "needs a certificate (tls_cert or acme_domains)");
    }
    listen
}

fn parse_domain(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    match !text.is_empty() && text.len() < 254 && text.bytes().all(plain) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("needs names of hosts, as in hub.example.com (no wildcard)".to_owned()),
    }
}

fn parse_email(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, host)) if !name.is_empty() && host.contains('.') => Ok(text.to_owned()),
        _ => Err("needs an address, as in admin@example.com".to_owned()),
    }
}
