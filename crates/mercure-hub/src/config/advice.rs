//! What is valid, and most likely not what is wanted.

use std::net::IpAddr;

use super::values::Reader;
use super::{Config, Listen};
use crate::tls::Certificates;

/// Shortest secret, in bytes, that HS256 may be used with (RFC 7518, section 3.2).
const SHORTEST: usize = 32;
/// Secrets that stand in documentation, ours and the reference hub's.
const SAMPLES: [&str; 5] = [
    "!ChangeThisMercureHubJWTSecretKey!",
    "!ChangeMe!",
    "a secret that only publishers share with the hub",
    "a secret for those who hand out subscribers' tokens",
    "the key of our own publishers",
];

/// What is to be said of a shared secret.
pub(super) fn of_secret(secret: &str) -> Option<String> {
    let remedy = "make one with `openssl rand -hex 32`";
    if SAMPLES.contains(&secret) {
        return Some(format!("is a sample that everybody can read in the documentation; {remedy}"));
    }
    (secret.len() < SHORTEST).then(|| {
        format!("has fewer than {SHORTEST} bytes, so that it can be guessed (RFC 7518, section 3.2); {remedy}")
    })
}

impl Config {
    /// What is to be said of a configuration as a whole.
    pub(super) fn advise(&self, read: &Reader<'_>) -> Vec<String> {
        let mut advice = read.advice().to_vec();
        advice.extend(self.listen.iter().filter_map(|listen| self.of_plain_http(listen)));
        advice.extend(self.of_audience(read));
        advice.extend(self.of_unix_quotas(read));
        if let Some(Certificates::Files(files)) = &self.certificates {
            let origins = self.policy.public_origins.iter();
            let urls: Vec<_> = origins.filter_map(|origin| url::Url::parse(origin).ok()).collect();
            let secure = urls.iter().filter(|url| url.scheme() == "https");
            let hosts: Vec<_> = secure.filter_map(url::Url::host_str).collect();
            advice.extend(files.advice(&hosts).into_iter().map(|text| format!("tls_cert: {text}")));
        }
        advice
    }

    /// Tokens must travel encrypted (section "Presenting the Access Token").
    fn of_plain_http(&self, listen: &Listen) -> Option<String> {
        let address = match listen {
            Listen::Plain(address) => address,
            Listen::Tcp(address) if self.certificates.is_none() => address,
            _ => return None,
        };
        let host = host_of(address);
        let is_local = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        (!is_local).then(|| {
            format!(
                "plain HTTP is served beyond this machine, at {address}: tokens must travel over HTTPS, so \
                 configure a certificate (tls_cert or acme_domains), or put a proxy that speaks TLS in front"
            )
        })
    }

    /// What no token names cannot be its audience.
    fn of_audience(&self, read: &Reader<'_>) -> Option<String> {
        let trust = &self.policy.trust;
        let speaks_v1 = self.policy.protocol.speaks_v1();
        let is_asked = speaks_v1 && !(trust.trusted.is_empty() && trust.issuers.is_empty());
        let is_told = read.is_given("public_url") || read.is_given("resource_identifier");
        let url = url::Url::parse(self.hub_url.as_str()).ok()?;
        let host = url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_nowhere = matches!(self.listen.first(), Some(Listen::Systemd | Listen::Unix(_)))
            || host.is_ok_and(|host| host.is_unspecified());
        (is_asked && !is_told && is_nowhere).then(|| {
            format!(
                "1.0 tokens must name {} as their audience, which is nobody's address: set public_url, as in \
                 https://hub.example.com",
                self.policy.resource_identifier
            )
        })
    }

    /// Whoever comes over a Unix socket has no address.
    fn of_unix_quotas(&self, read: &Reader<'_>) -> Option<String> {
        let is_local = self.listen.iter().any(|listen| matches!(listen, Listen::Unix(_)));
        let limits = ["max_connections_per_address", "publish_rate_per_address"];
        let given = limits.into_iter().find(|name| read.is_given(name))?;
        (is_local && !self.proxy_protocol).then(|| {
            format!(
                "{given}: does not apply to what comes over a Unix socket: let the proxy begin with a PROXY \
                 header (proxy_protocol), connect over TCP (trusted_proxies), or limit addresses itself"
            )
        })
    }
}

fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    host.trim_matches(['[', ']'])
}
