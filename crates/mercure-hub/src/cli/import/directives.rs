//! What a mercure block, and the site around it, mean here.

use std::collections::BTreeSet;

use super::Draft;
use super::caddyfile::{Directive, UNSET};

/// Names and listeners of the site.
pub(super) fn site(site: Option<&Directive>, draft: &mut Draft) {
    let Some(site) = site else { return };
    if site.name.starts_with('(') {
        let name = &site.name;
        return draft.note(format!("{name} is imported by sites: choose where to listen (listen)"));
    }
    let words = std::iter::once(&site.name).chain(&site.arguments);
    let names = words.flat_map(|word| word.split(',')).filter(|word| !word.is_empty());
    let is_plain = |name: &&str| {
        name.starts_with(':') || name.starts_with("http://") || name.contains("localhost")
    };
    let (plain, secure): (Vec<&str>, Vec<&str>) = names.partition(is_plain);
    for name in plain {
        let address = name.trim_start_matches("http://");
        match address.rsplit_once(':') {
            Some((host, port)) if host.is_empty() || host.contains("localhost") => {
                let host = if host.is_empty() { "0.0.0.0" } else { "127.0.0.1" };
                draft.one("listen", &format!("{host}:{port}"));
            }
            _ => draft.note(format!("the site {name}: choose where to listen (listen)")),
        }
    }
    let mut files = site.block.iter().filter(|one| one.name == "tls");
    if !secure.is_empty() {
        encrypted(&secure, files.next(), draft);
    }
    for other in &site.block {
        // A variable that is not set is no line.
        let is_known =
            ["mercure", "encode", "log", "log_skip", "header", "respond", "route", "tls"]
                .contains(&other.name.as_str());
        if !is_known && !other.name.starts_with(UNSET) {
            draft.note(format!("{} of the site is the web server's, not the hub's", other.name));
        }
    }
}

/// Where names are served that are reached over HTTPS, and whose certificates are shown.
fn encrypted(names: &[&str], tls: Option<&Directive>, draft: &mut Draft) {
    let parts = names.iter().map(|name| {
        let name = name.trim_start_matches("https://").trim_end_matches('/');
        name.rsplit_once(':').unwrap_or((name, "443"))
    });
    let (mut hosts, mut listen): (Vec<_>, Vec<_>) =
        parts.map(|(host, port)| (host.to_owned(), format!("0.0.0.0:{port}"))).unzip();
    for names in [&mut hosts, &mut listen] {
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
    }
    draft.set("listen", listen);
    draft.one("redirect_listen", "0.0.0.0:80");
    if tls.is_some_and(|tls| !tls.block.is_empty()) {
        draft.note(
            "the options of tls: not imported; see acme_directory, acme_challenge and acme_ca",
        );
    }
    match tls.map_or(&[][..], |tls| &tls.arguments) {
        [certificate, key] => {
            draft.one("tls_cert", certificate);
            draft.one("tls_key", key);
            return draft.set("public_url", names_of(names));
        }
        [email] if email.contains('@') => draft.one("acme_email", email),
        [] => {}
        [other, ..] => draft.note(format!("tls {other}: not imported; see tls_cert and acme_ca")),
    }
    draft.set("acme_domains", hosts);
    draft.one("acme_cache", "/var/lib/mercure-hub/acme");
    draft.note("certificates come from an authority; acme_cache is where they are kept");
}

fn names_of(names: &[&str]) -> Vec<String> {
    let url =
        |name: &&str| url::Url::parse(&format!("https://{}", name.trim_start_matches("https://")));
    let urls = names.iter().filter_map(|name| url(name).ok());
    urls.map(|url| url.origin().ascii_serialization()).collect()
}

/// The mercure block itself.
pub(super) fn hub(block: &Directive, draft: &mut Draft) {
    // The other hub wants it said, this one does not.
    draft.one("anonymous", "false");
    for directive in &block.block {
        one(directive, draft);
    }
}

/// One line of it.
pub(super) fn one(directive: &Directive, draft: &mut Draft) {
    let Directive { name, arguments, block } = directive;
    // More lines could have stood in a variable that is not set.
    if name.starts_with(UNSET) {
        return;
    }
    // Whatever needs the first value cannot do without; an algorithm, say, has a default.
    if let Some(variable) = arguments.first().and_then(|word| word.strip_prefix(UNSET)) {
        return draft.note(format!("{name}: {variable} is not set; give it with --env-file"));
    }
    let set = |word: &&String| !word.starts_with(UNSET);
    let arguments = &arguments.iter().take_while(set).cloned().collect::<Vec<_>>();
    let first = arguments.first().map_or("", String::as_str);
    match name.as_str() {
        "anonymous" => draft.one("anonymous", "true"),
        "subscriptions" => draft.one("subscriptions", "true"),
        "debugger" | "ui" => draft.one("debugger", "true"),
        "playground" | "demo" => {
            draft.one("debugger", "true");
            draft.note(format!(
                "{name}: here the debugger has no rights of its own; see playground"
            ));
        }
        "heartbeat" => duration("heartbeat", first, draft),
        // There it bounds the whole life of a stream.
        "write_timeout" => duration("max_connection_age", first, draft),
        "dispatch_timeout" if first == "0s" => {
            draft.note("dispatch_timeout 0s: there is always a bound here")
        }
        "dispatch_timeout" => duration("write_timeout", first, draft),
        "max_request_body_size" => size("max_request_body", first, draft),
        "publisher_jwt" => key("publisher_jwt_key", "publisher_jwt_alg", arguments, draft),
        "subscriber_jwt" => key("subscriber_jwt_key", "subscriber_jwt_alg", arguments, draft),
        "publisher_jwks_url" => draft.one("publisher_jwks_uri", first),
        "subscriber_jwks_url" => draft.one("subscriber_jwks_uri", first),
        "publish_origins" => origins("publish_origins", arguments, draft),
        "cors_origins" => origins("cors_origins", arguments, draft),
        "cookie_name" => draft.one("cookie_name", first),
        "public_urls" => origins("public_url", arguments, draft),
        "resource_identifier" => draft.one("resource_identifier", first),
        "issuer" => issuer(first, block, draft),
        "protocol_version_compatibility" => {
            draft.note(format!("{name} {first}: both generations are spoken anyway (protocol)"));
        }
        "transport" => transport(first, block, draft),
        "transport_url" => transport_url(first, draft),
        "topic_matcher_cache" | "subscriber_list_cache_size" | "cache" | "lru_cache" => {
            draft.note(format!("{name}: not needed here"));
        }
        other => draft.note(format!("{other}: not known, so not imported")),
    }
}

/// The other hub writes durations as Go does (`1m30s`).
fn duration(setting: &'static str, text: &str, draft: &mut Draft) {
    let mut milliseconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let factor = match &unit[..end] {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => f64::NAN,
        };
        milliseconds += number.parse::<f64>().unwrap_or(f64::NAN) * factor;
        rest = &unit[end..];
    }
    match milliseconds {
        time if time.is_finite() && time >= 0.0 && !text.is_empty() => {
            let whole = time.round();
            let in_seconds = whole % 1000.0 == 0.0;
            let value =
                if in_seconds { format!("{}s", whole / 1000.0) } else { format!("{whole}ms") };
            draft.one(setting, &value);
        }
        _ => draft.note(format!("{setting}: {text} is no duration")),
    }
}

/// It writes sizes in powers of ten (`1MB`) or of two (`1MiB`).
fn size(setting: &'static str, text: &str, draft: &mut Draft) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1_u64),
        "kb" => Some(1000),
        "mb" => Some(1_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
    match bytes {
        Some(bytes) if bytes > 0 => draft.one(setting, &format!("{bytes}B")),
        _ => draft
            .note(format!("{setting}: {text} is no size, or no bound; there is always one here")),
    }
}

fn key(key: &'static str, algorithm: &'static str, arguments: &[String], draft: &mut Draft) {
    match arguments {
        [] => draft.note(format!("{key}: there is none; set it")),
        [secret, rest @ ..] => {
            draft.one(key, secret);
            if let Some(name) = rest.first().filter(|name| !name.is_empty()) {
                draft.one(algorithm, name);
            }
        }
    }
}

fn origins(setting: &'static str, arguments: &[String], draft: &mut Draft) {
    if setting == "publish_origins" && arguments.iter().any(|origin| origin == "*") {
        draft.note("publish_origins *: here each origin has to be named");
        return;
    }
    draft.set(setting, arguments.iter().map(|origin| origin.trim_end_matches('/').to_owned()));
}

fn issuer(id: &str, block: &[Directive], draft: &mut Draft) {
    let mut table = toml::Table::from_iter([("id".to_owned(), id.into())]);
    for directive in block {
        match directive.name.as_str() {
            "authorization_server" => {
                table.insert("authorization_server".to_owned(), true.into());
            }
            role @ ("publisher" | "subscriber") => match issuer_keys(&directive.block) {
                Some(keys) => drop(table.insert(role.to_owned(), keys.into())),
                None => draft.note(format!(
                    "issuer {id}: the {role}'s key is not set; give it with --env-file"
                )),
            },
            other => draft.note(format!("{other} of issuer {id}: not known, so not imported")),
        }
    }
    draft.issuers.push(table);
}

fn issuer_keys(block: &[Directive]) -> Option<toml::Table> {
    let (directive, name) = block.iter().find_map(|one| match one.name.as_str() {
        "jwt" => Some((one, "key")),
        "jwks_uri" => Some((one, "jwks_uri")),
        _ => None,
    })?;
    let mut keys =
        toml::Table::from_iter([(name.to_owned(), directive.arguments.first()?.as_str().into())]);
    if let Some(algorithm) = directive.arguments.get(1).filter(|name| !name.is_empty()) {
        keys.insert("alg".to_owned(), algorithm.as_str().into());
    }
    Some(keys)
}

fn transport(kind: &str, block: &[Directive], draft: &mut Draft) {
    let of = |name: &str| {
        let found = block.iter().find(|one| one.name == name);
        found.and_then(|one| one.arguments.first()).map(String::as_str)
    };
    match kind {
        "bolt" => bolt(of("path").unwrap_or("mercure.db"), of("size"), draft),
        "local" => draft.one("transport", "memory://"),
        other => match of("url") {
            Some(url) => transport_url(url, draft),
            None => draft.note(format!(
                "transport {other}: choose one of redis://, postgres:// and nats://"
            )),
        },
    }
}

fn transport_url(url: &str, draft: &mut Draft) {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    match address.split_once("://") {
        Some(("bolt", path)) => {
            let mut size = url::form_urlencoded::parse(query.as_bytes());
            let size = size.find(|(name, _)| name == "size").map(|(_, value)| value.into_owned());
            bolt(path, size.as_deref(), draft);
        }
        Some(("local" | "null", _)) => draft.one("transport", "memory://"),
        Some(("redis" | "rediss" | "postgres" | "postgresql" | "nats", _)) => {
            draft.one("transport", address);
            draft.note("transport: the history of the other hub is not taken over, and its options are not");
        }
        _ => draft.note(format!(
            "transport: {address} has no counterpart; redis, postgres and nats have"
        )),
    }
}

fn bolt(path: &str, size: Option<&str>, draft: &mut Draft) {
    let absolute = match path.starts_with('/') {
        true => path.to_owned(),
        false => {
            draft.note(format!(
                "{path} was relative to where the hub was started; choose the folder"
            ));
            format!("/var/lib/mercure-hub/{path}")
        }
    };
    let file = absolute.strip_suffix(".db").unwrap_or(&absolute).to_owned() + ".sqlite";
    draft.one("transport", &format!("sqlite://{file}"));
    draft.note("transport: the history itself is not taken over; subscribers are told of the gap");
    match size {
        None | Some("0") => {
            draft.note("history_size: there is always a bound here; the default is 100000")
        }
        Some(size) => draft.one("history_size", size),
    }
}
