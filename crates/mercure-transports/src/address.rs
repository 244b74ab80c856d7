//! What the URL of a transport says.
//!
//! Parameters that every engine understands are taken out here (`namespace`, `tls_ca`); what is left
//! is the engine's own URL, which its driver reads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Why no transport could be made of a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL names an engine that this build does not know.
    #[error("unknown transport \"{scheme}\"; this build knows: {}", SCHEMES.join(", "))]
    Unknown {
        /// What stands before `://`. The rest may hold a password and is not repeated.
        scheme: String,
    },
    /// The URL says something that the engine has no use for. Never repeats a part that may be
    /// secret.
    #[error("the URL of the transport {0}")]
    Invalid(String),
}

/// The schemes that are known.
const SCHEMES: [&str; 10] = [
    "memory://",
    "sqlite://",
    "redis://",
    "rediss://",
    "valkey://",
    "redis+sentinel://",
    "postgres://",
    "postgresql://",
    "nats://",
    "tls://",
];

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Memory,
    Sqlite,
    Redis,
    Sentinel,
    Postgres,
    Nats,
}

/// An engine, where it is, and whose log is meant there.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) engine: Engine,
    /// The URL without the parameters that are ours; may hold a password.
    pub(crate) url: String,
    /// What stands after `://`, without parameters.
    pub(crate) rest: String,
    /// Keeps the logs of several hubs apart.
    pub(crate) namespace: String,
    /// A file with the certificates to trust, instead of the system's.
    pub(crate) tls_ca: Option<PathBuf>,
    /// The engine's parameters that are ours.
    parameters: BTreeMap<String, String>,
}

/// Shows no password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, namespace, .. } = self;
        f.debug_struct("Address").field("engine", engine).field("namespace", namespace).finish()
    }
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        // What has no scheme may be anything, a password among it.
        let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
        // A password may hold any sign; the last @ ends it.
        let begin = rest.rfind('@').map_or(0, |at| at + 1);
        let end = rest[begin..].find('?').map_or(rest.len(), |at| begin + at);
        let (rest, query) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        let engine = Engine::of(scheme)?;
        let mut address = Self {
            engine,
            url: String::new(),
            rest: rest.to_owned(),
            namespace: "mercure".to_owned(),
            tls_ca: None,
            parameters: BTreeMap::new(),
        };
        let mut left = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if !address.take(pair)? {
                left.push(pair);
            }
        }
        let query = if left.is_empty() { String::new() } else { format!("?{}", left.join("&")) };
        address.url = format!("{scheme}://{rest}{query}");
        match engine {
            Engine::Memory => {}
            _ if rest.is_empty() => return Err(invalid(engine.example())),
            Engine::Sqlite if rest.ends_with('/') => return Err(invalid(engine.example())),
            _ => {}
        }
        if let (true, Some(pair)) = (engine != Engine::Postgres, left.first()) {
            let name = pair.split('=').next().unwrap_or_default();
            let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let name = if is_name { name } else { "its name is not one of a-z and _" };
            return Err(invalid(&format!("has a parameter that is not known: {name}")));
        }
        Ok(address)
    }

    /// Where the engine is, without who we are there.
    pub(crate) fn place(&self) -> String {
        let (scheme, _) = self.url.split_once("://").unwrap_or_default();
        let place = match self.engine {
            Engine::Memory | Engine::Sqlite => &self.rest,
            _ => self.rest.rsplit('@').next().unwrap_or_default(),
        };
        format!("{scheme}://{place}")
    }

    /// Takes a parameter that is ours.
    fn take(&mut self, pair: &str) -> Result<bool, ConnectError> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "namespace" if self.engine.has_namespaces() => {
                let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                let begins = |b: &u8| b.is_ascii_lowercase();
                if !(1..=40).contains(&value.len())
                    || !value.bytes().all(plain)
                    || !value.as_bytes().first().is_some_and(begins)
                {
                    let reason = "needs a namespace of 1 to 40 of a-z, 0-9 and _, from a letter on";
                    return Err(invalid(reason));
                }
                self.namespace = value;
            }
            "tls_ca" if self.engine.has_namespaces() => self.tls_ca = Some(value.into()),
            _ if self.engine.parameters().contains(&name) => {
                self.parameters.insert(name.to_owned(), value);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A parameter of the engine.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// A parameter that is a small whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u32>, ConnectError> {
        let parse = |text: &str| text.parse().ok().filter(|number| *number <= 16);
        match self.parameter(name) {
            None => Ok(None),
            Some(text) => parse(text)
                .map(Some)
                .ok_or_else(|| invalid(&format!("needs a number from 0 to 16 as {name}"))),
        }
    }
}

impl Engine {
    fn of(scheme: &str) -> Result<Self, ConnectError> {
        Ok(match scheme {
            "memory" => Self::Memory,
            "sqlite" => Self::Sqlite,
            "redis" | "rediss" | "valkey" | "valkeys" => Self::Redis,
            "redis+sentinel" | "rediss+sentinel" => Self::Sentinel,
            "postgres" | "postgresql" => Self::Postgres,
            "nats" | "tls" => Self::Nats,
            other => {
                let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
                let known = other.len() <= 20 && other.bytes().all(is_scheme);
                return Err(ConnectError::Unknown {
                    scheme: if known { other.to_owned() } else { String::new() },
                });
            }
        })
    }

    fn has_namespaces(self) -> bool {
        !matches!(self, Self::Memory | Self::Sqlite)
    }

    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Memory | Self::Sqlite | Self::Postgres => &[],
            Self::Redis => &["min_replicas"],
            Self::Sentinel => &["min_replicas", "sentinel_username", "sentinel_password"],
            Self::Nats => &["replicas", "credentials"],
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Memory => "is memory://",
            Self::Sqlite => "needs the path of a file, as in sqlite:///var/lib/mercure/hub.db",
            Self::Redis => "needs a host, as in redis://localhost:6379/0",
            Self::Sentinel => {
                "needs sentinels and a master, as in redis+sentinel://s1:26379,s2:26379/mymaster"
            }
            Self::Postgres => "needs a host and a database, as in postgres://user@localhost/hub",
            Self::Nats => "needs a host, as in nats://localhost:4222",
        }
    }
}

pub(crate) fn invalid(reason: &str) -> ConnectError {
    ConnectError::Invalid(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_engine_is_named_and_its_password_is_not() {
        let error = Address::parse("kafka://user:secret@host").expect_err("unknown").to_string();
        assert!(error.starts_with("unknown transport \"kafka\"; this build knows: memory://"));
        assert!(!error.contains("secret"));
        for url in
            ["host=db password=secret", "redis:/u:secret@h", "redis://:a?secret@h:1?x/secret=1"]
        {
            let error = Address::parse(url).expect_err("refused").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let address = Address::parse("redis://user:secret@host").expect("known");
        assert!(!format!("{address:?}").contains("secret"));
        assert_eq!(address.place(), "redis://host");
        let address = Address::parse("postgres://u:a@b?c@h1,h2/db?namespace=n").expect("known");
        assert_eq!(address.place(), "postgres://h1,h2/db");
    }

    #[test]
    fn our_parameters_are_taken_out_of_the_url() {
        let address = Address::parse("redis://h/1?min_replicas=2&namespace=shop&tls_ca=%2Fca.pem");
        let address = address.expect("valid");
        assert_eq!(address.url, "redis://h/1");
        assert_eq!((&*address.namespace, address.tls_ca), ("shop", Some("/ca.pem".into())));
        let address = Address::parse("postgres://h1,h2/db?sslmode=disable&namespace=a");
        assert_eq!(address.expect("valid").url, "postgres://h1,h2/db?sslmode=disable");
    }

    #[test]
    fn what_an_engine_has_no_use_for_is_an_error() {
        let refused = |url| Address::parse(url).expect_err("refused").to_string();
        assert!(refused("sqlite://").contains("the path of a file"));
        assert!(refused("redis://").contains("needs a host"));
        assert!(refused("redis://h?namespace=A").contains("needs a namespace"));
        assert!(refused("redis://h?replicas=3").contains("not known: replicas"));
        assert!(refused("sqlite:///a.db?namespace=a").contains("not known: namespace"));
    }
}
