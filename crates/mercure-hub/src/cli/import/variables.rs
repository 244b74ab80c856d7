//! Variables: those of the container image, and those of the releases before Caddy.

use std::collections::BTreeMap;

use super::caddyfile::{self, Directive};
use super::{Draft, Usage, directives};

/// Variables that mean what a line of a mercure block means.
const AS_DIRECTIVES: [(&str, &str); 14] = [
    ("MERCURE_TRANSPORT_URL", "transport_url"),
    ("TRANSPORT_URL", "transport_url"),
    ("HEARTBEAT_INTERVAL", "heartbeat"),
    ("WRITE_TIMEOUT", "write_timeout"),
    ("DISPATCH_TIMEOUT", "dispatch_timeout"),
    ("CORS_ALLOWED_ORIGINS", "cors_origins"),
    ("PUBLISH_ALLOWED_ORIGINS", "publish_origins"),
    ("JWT_KEY", "publisher_jwt"),
    ("MERCURE_PUBLISHER_JWT_KEY", "publisher_jwt"),
    ("PUBLISHER_JWT_KEY", "publisher_jwt"),
    ("MERCURE_SUBSCRIBER_JWT_KEY", "subscriber_jwt"),
    ("SUBSCRIBER_JWT_KEY", "subscriber_jwt"),
    ("MERCURE_PUBLISHER_JWKS_URL", "publisher_jwks_url"),
    ("MERCURE_SUBSCRIBER_JWKS_URL", "subscriber_jwks_url"),
];

/// Variables that are a setting here, word for word.
const AS_SETTINGS: [(&str, &str); 9] = [
    ("CERT_FILE", "tls_cert"),
    ("KEY_FILE", "tls_key"),
    ("ACME_HOSTS", "acme_domains"),
    ("ACME_CERT_DIR", "acme_cache"),
    ("MERCURE_PUBLISHER_JWT_ALG", "publisher_jwt_alg"),
    ("PUBLISHER_JWT_ALGORITHM", "publisher_jwt_alg"),
    ("MERCURE_SUBSCRIBER_JWT_ALG", "subscriber_jwt_alg"),
    ("SUBSCRIBER_JWT_ALGORITHM", "subscriber_jwt_alg"),
    ("MERCURE_TRUSTED_ISSUERS", "trusted_issuers"),
];

/// Variables that are true or not.
const AS_FLAGS: [(&str, &str); 4] = [
    ("ALLOW_ANONYMOUS", "anonymous"),
    ("SUBSCRIPTIONS", "subscriptions"),
    ("DEMO", "demo"),
    ("DEBUG", "debugger"),
];

/// Reads lines of the form `NAME=value`.
pub(super) fn parse(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("export "));
    let pairs = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let bare = |value: &str| {
        let value = value.trim();
        let inner =
            ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        inner.unwrap_or(value).to_owned()
    };
    pairs.map(|(name, value)| (name.trim().to_owned(), bare(value))).collect()
}

pub(super) fn import(variables: &BTreeMap<String, String>, draft: &mut Draft) -> Result<(), Usage> {
    let get = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    draft.one("anonymous", "false");
    if let Some(names) = get("SERVER_NAME") {
        let site = Directive { name: names.clone(), ..Directive::default() };
        directives::site(Some(&site), draft);
    }
    if let Some(address) = get("ADDR") {
        let host = if address.starts_with(':') { "0.0.0.0" } else { "" };
        draft.one("listen", &format!("{host}{address}"));
    }
    for (name, directive) in AS_DIRECTIVES {
        let Some(value) = get(name) else { continue };
        let is_list = directive.ends_with("origins");
        let arguments = match is_list {
            true => {
                value.split([' ', ',']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
            }
            false => vec![value.clone()],
        };
        directives::one(
            &Directive { name: directive.to_owned(), arguments, block: Vec::new() },
            draft,
        );
    }
    if let Some(key) = get("JWT_KEY").filter(|_| !draft.values.contains_key("subscriber_jwt_key")) {
        draft.one("subscriber_jwt_key", key);
    }
    for (name, setting) in AS_SETTINGS {
        let parts = |value: &String| value.split([' ', ',']).map(str::to_owned).collect::<Vec<_>>();
        if let Some(value) = get(name) {
            draft.set(setting, parts(value));
        }
    }
    for (name, directive) in AS_FLAGS {
        if get(name).is_some_and(|value| matches!(value.as_str(), "1" | "true")) {
            directives::one(
                &Directive { name: directive.to_owned(), ..Directive::default() },
                draft,
            );
        }
    }
    if get("USE_FORWARDED_HEADERS").is_some() {
        draft.note("USE_FORWARDED_HEADERS: name the proxies that are believed (trusted_proxies)");
    }
    if let Some(text) = get("MERCURE_EXTRA_DIRECTIVES") {
        for directive in caddyfile::parse(text, variables)
            .map_err(|reason| Usage(format!("MERCURE_EXTRA_DIRECTIVES cannot be read: {reason}")))?
        {
            directives::one(&directive, draft);
        }
    }
    Ok(())
}
