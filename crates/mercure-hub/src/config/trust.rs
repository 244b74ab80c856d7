//! Whose tokens the hub believes: the quick form (one key per role) and `[[issuer]]` blocks.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::advice::of_secret;
use super::values::Reader;
use crate::auth::{
    FetchedKeys, Freshness, Issuer, KeySet, Keys, Playground, Roles, Source, Trust, parse_algorithm,
};

/// What is accepted of a fetched set if nothing else is said (section "Token Validation").
const FETCHED_ALGORITHMS: [&str; 3] = ["EdDSA", "ES256", "RS256"];

/// Where a key comes from, as it is written down.
struct Given<'a> {
    key: Option<&'a str>,
    jwks_uri: Option<&'a str>,
    algorithms: Vec<String>,
}

/// The keys of a playground, if this is one. Keys that somebody chose protect something, so they do not go
/// together with it.
pub(super) fn playground(read: &mut Reader<'_>) -> Option<Playground> {
    if !read.flag("playground") {
        return None;
    }
    let (publisher, subscriber) = (PUBLISHER, SUBSCRIBER);
    let chosen = [publisher.0, publisher.1, subscriber.0, subscriber.1, "trusted_issuers"];
    let is_chosen = |name: &&&'static str| read.text(name).is_some_and(|value| !value.is_empty());
    let given = chosen.iter().find(is_chosen).copied();
    let given = given.or((!read.issuers().is_empty()).then_some("[[issuer]]"));
    if let Some(name) = given {
        let reason = "makes keys of its own and gives everybody a token for everything: use debugger \
                      instead, or leave out";
        read.error("playground", &format!("{reason} {name}"));
        return None;
    }
    Playground::new().map_err(|error| read.error("playground", &error.to_string())).ok()
}

pub(super) fn trust(read: &mut Reader<'_>, playground: Option<&Playground>) -> Trust {
    let errors = read.error_count();
    let freshness = Freshness {
        refresh: read.positive_duration("jwks_refresh"),
        cooldown: read.positive_duration("jwks_cooldown"),
    };
    let own = playground.map(Playground::keys);
    let shared = Roles {
        publisher: own.clone().or_else(|| quick(read, freshness, PUBLISHER)),
        subscriber: own.or_else(|| quick(read, freshness, SUBSCRIBER)),
    };
    let mut trusted = read.list("trusted_issuers", |text| Ok(text.to_owned()));
    trusted.extend(playground.map(|_| Playground::ISSUER.to_owned()));
    let mut trust = Trust { shared, trusted, issuers: Vec::new() };
    for (at, block) in read.issuers().to_vec().iter().enumerate() {
        let mut advice = Vec::new();
        let made = issuer(block, freshness, &mut advice);
        advice.iter().for_each(|text| read.mention(format!("issuer {}: {text}", at + 1)));
        match made {
            Ok(issuer) if trust.knows(&issuer.id) => {
                read.problem(&format!("issuer {}: {} is named twice", at + 1, issuer.id));
            }
            Ok(issuer) => trust.issuers.push(issuer),
            Err(reason) => read.problem(&format!("issuer {}: {reason}", at + 1)),
        }
    }
    // A key that could not be read was reported already.
    if trust.is_empty() && read.error_count() == errors && !read.is_file_lost() {
        read.problem(
            "no key is configured, so nobody could publish; make one with `openssl rand -hex 32` \
             and set publisher_jwt_key (MERCURE_PUBLISHER_JWT_KEY, --publisher-jwt-key), and \
             subscriber_jwt_key for private updates; or try it out with --playground=true",
        );
    }
    trust
}

impl Trust {
    fn knows(&self, id: &str) -> bool {
        self.trusted.iter().chain(self.issuers.iter().map(|issuer| &issuer.id)).any(|one| one == id)
    }
}

/// The settings of one role.
type Names = (&'static str, &'static str, &'static str);

const PUBLISHER: Names = ("publisher_jwt_key", "publisher_jwks_uri", "publisher_jwt_alg");
const SUBSCRIBER: Names = ("subscriber_jwt_key", "subscriber_jwks_uri", "subscriber_jwt_alg");

fn quick(read: &mut Reader<'_>, freshness: Freshness, names: Names) -> Option<Keys> {
    let (key_name, uri_name, algorithm_name) = names;
    let (key, uri) = (read.text(key_name), read.text(uri_name));
    if key.is_some() && uri.is_some() {
        read.error(uri_name, &format!("cannot be given together with {key_name}"));
        return None;
    }
    let algorithms = match uri.is_some() && !read.is_given(algorithm_name) {
        true => FETCHED_ALGORITHMS.map(str::to_owned).to_vec(),
        false => read.list(algorithm_name, |text| Ok(text.to_owned())),
    };
    let given = Given { key: key.as_deref(), jwks_uri: uri.as_deref(), algorithms };
    let mut advice = Vec::new();
    let made = keys(&given, freshness, &mut advice);
    advice.iter().for_each(|text| read.advise(key_name, text));
    match made {
        Ok(keys) => keys,
        Err(Wrong::Algorithm(reason)) => {
            read.error(algorithm_name, &reason);
            None
        }
        Err(Wrong::Key(reason)) => {
            read.error(if uri.is_some() { uri_name } else { key_name }, &reason);
            None
        }
    }
}

/// Which of the values is wrong, and how.
enum Wrong {
    Algorithm(String),
    Key(String),
}

fn keys(
    given: &Given<'_>,
    freshness: Freshness,
    advice: &mut Vec<String>,
) -> Result<Option<Keys>, Wrong> {
    let algorithms = given.algorithms.iter().map(|name| parse_algorithm(name));
    let algorithms = algorithms.collect::<Result<Vec<Algorithm>, _>>();
    let algorithms = algorithms.map_err(|error| Wrong::Algorithm(error.to_string()))?;
    if let Some(uri) = given.jwks_uri {
        let source = Source::parse(uri).map_err(Wrong::Key)?;
        let keys = FetchedKeys::new(source, algorithms, freshness);
        return Ok(Some(Keys::Fetched(Arc::new(keys))));
    }
    let Some(key) = given.key else { return Ok(None) };
    let text = read_key(key).map_err(Wrong::Key)?;
    let set = KeySet::parse(&text, &algorithms).map_err(|error| Wrong::Key(error.to_string()))?;
    if set.is_secret() {
        advice.extend(of_secret(&text));
    }
    Ok(Some(Keys::Fixed(Arc::new(set))))
}

/// In bytes; a large set of keys has some hundred kilobytes.
const LARGEST_KEY: u64 = 1 << 20;

/// A key itself, or the contents of the file that it names.
///
/// # Errors
/// If the file cannot be read, or is meant, most likely, and not named as one.
pub fn read_key(key: &str) -> Result<String, String> {
    let Some(path) = key.strip_prefix("file://") else {
        return match key.starts_with('/') && Path::new(key).is_file() {
            true => {
                Err("is the path of a file: write file:// before it to take what that holds"
                    .to_owned())
            }
            false => Ok(key.to_owned()),
        };
    };
    let mut text = String::new();
    let file = File::open(path).map(|file| file.take(LARGEST_KEY + 1));
    file.and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|error| format!("is in the file {path}, which cannot be read: {error}"))?;
    if text.len() as u64 > LARGEST_KEY {
        return Err(format!("is in the file {path}, which is too large for a key"));
    }
    // An editor's or `openssl`'s line end is not part of a secret.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn issuer(
    block: &toml::Table,
    freshness: Freshness,
    advice: &mut Vec<String>,
) -> Result<Issuer, String> {
    check_names(block, &["id", "authorization_server", "publisher", "subscriber"])?;
    let id = block.get("id").and_then(toml::Value::as_str).filter(|id| !id.is_empty());
    let id = id.ok_or("needs an id: the iss claim of its tokens")?.to_owned();
    let authorization_server = match block.get("authorization_server") {
        None => false,
        Some(value) => value.as_bool().ok_or("authorization_server must be true or false")?,
    };
    let mut role = |name: &str| match block.get(name) {
        None => Ok(None),
        Some(toml::Value::Table(table)) => {
            let of = |reason| format!("{name}: {reason}");
            issuer_keys(table, freshness, advice).map_err(of)
        }
        Some(_) => Err(format!("{name} must be a table, as in {{ jwks_uri = \"https://…\" }}")),
    };
    let roles = Roles { publisher: role("publisher")?, subscriber: role("subscriber")? };
    if roles.publisher.is_none() && roles.subscriber.is_none() {
        return Err("needs keys: publisher = { … }, subscriber = { … }, or both".to_owned());
    }
    Ok(Issuer { id, authorization_server, roles })
}

fn issuer_keys(
    table: &toml::Table,
    freshness: Freshness,
    advice: &mut Vec<String>,
) -> Result<Option<Keys>, String> {
    check_names(table, &["key", "jwks_uri", "alg"])?;
    let text = |name: &str| match table.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(format!("{name} must be a text")),
    };
    let (key, jwks_uri) = (text("key")?, text("jwks_uri")?);
    if key.is_some() == jwks_uri.is_some() {
        return Err("needs either key or jwks_uri".to_owned());
    }
    let algorithms = match table.get("alg") {
        None if jwks_uri.is_some() => FETCHED_ALGORITHMS.map(str::to_owned).to_vec(),
        None => vec!["HS256".to_owned()],
        Some(toml::Value::String(name)) => vec![name.clone()],
        Some(value) => value
            .as_array()
            .and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect())
            .ok_or("alg must be a text or a list of texts")?,
    };
    let from = advice.len();
    let made = keys(&Given { key, jwks_uri, algorithms }, freshness, advice);
    advice[from..].iter_mut().for_each(|text| text.insert_str(0, "the key "));
    made.map_err(|wrong| match wrong {
        Wrong::Algorithm(reason) => format!("alg: {reason}"),
        Wrong::Key(reason) => format!("the key {reason}"),
    })
}

fn check_names(table: &toml::Table, known: &[&str]) -> Result<(), String> {
    match table.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(format!("unknown setting {name}; there are {}", known.join(", "))),
    }
}
