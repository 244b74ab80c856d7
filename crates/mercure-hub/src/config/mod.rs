//! Configuration: defaults, then a TOML file, then the environment, then flags.
//!
//! One table ([`SETTINGS`]) names every setting; flags, environment variables, the file's keys and
//! the error messages all come from it. Parsing is a function of what was read, and reports every
//! error at once, before anything is opened.

mod advice;
mod layers;
mod listen;
mod reload;
mod schema;
mod tls;
mod trust;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mercure_engine::Retention;
use mercure_protocol::{Generation, HubUrl, Limits, Protocol};

pub use self::layers::{Layers, Raw};
pub use self::listen::Listen;
use self::listen::own_url;
pub(crate) use self::listen::parse_listen;
pub use self::schema::{SETTINGS, Setting};
pub use self::trust::read_key;
use self::values::Reader;
pub use self::values::parse_duration;
use crate::api::{Origins, Proxies, Quotas};
use crate::auth::{Playground, Policy, VerifiedTokens};
use crate::ops::TraceSettings;
use crate::tls::Certificates;

/// The cookie of generation 1.0.
const COOKIE_V1: &str = "__Secure-mercure_access_token";
/// The cookie of generation 0.x.
const COOKIE_V0: &str = "mercureAuthorization";

/// A valid configuration of a hub.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// What listeners that speak TLS show; `None` if there are none.
    pub certificates: Option<Certificates>,
    /// Where plain HTTP is sent on to HTTPS.
    pub redirect_listen: Vec<Listen>,
    /// Path of the hub.
    pub hub_path: String,
    /// The hub's own URL.
    pub hub_url: HubUrl,
    /// How requests are authorized.
    pub policy: Policy,
    /// Whether active subscriptions are told.
    pub subscriptions: bool,
    /// Silence after which a comment is sent; zero for never.
    pub heartbeat: Duration,
    /// Reconnection time told to subscribers, before jitter; zero for none.
    pub retry: Duration,
    /// Longest life of a connection; zero for no bound.
    pub max_connection_age: Duration,
    /// How long a subscriber may refuse what waits for it.
    pub write_timeout: Duration,
    /// Subscribers at once.
    pub max_connections: usize,
    /// Subscribers at once that belong to one subject of a token.
    pub max_connections_per_subject: usize,
    /// How much one address or subject may take.
    pub quotas: Quotas,
    /// Whether believed proxies begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Largest request body in bytes.
    pub max_request_body: usize,
    /// Bounds on what a request holds.
    pub limits: Limits,
    /// URL of the keeper of the log.
    pub transport: String,
    /// How much history is kept.
    pub retention: Retention,
    /// How long the subscriptions of a node outlive it.
    pub lease: Duration,
    /// Time over which streams end when the hub stops; zero for at once.
    pub drain: Duration,
    /// Time between saying that the hub stops and accepting no more connections.
    pub drain_delay: Duration,
    /// Where the operator's endpoints are served; `None` for nowhere.
    pub ops_listen: Option<Listen>,
    /// Whether the user has chosen that address.
    pub ops_is_chosen: bool,
    /// Where publications are traced; `None` for nowhere.
    pub traces: Option<TraceSettings>,
    /// Whether the debugger's page is shown.
    pub debugger: bool,
    /// Keys of its own, if this is a playground.
    pub playground: Option<Playground>,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Which log lines are written.
    pub log_level: String,
    /// What is valid, and most likely not wanted; one line each.
    pub advice: Vec<String>,
    /// Every setting's values as they were written, or its default.
    values: BTreeMap<&'static str, Vec<String>>,
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} error(s):", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Makes sense of what the layers hold.
    ///
    /// # Errors
    /// Every error there is, not only the first.
    pub fn parse(layers: &Layers) -> Result<Self, ConfigErrors> {
        let mut read = Reader::new(layers);
        let listen = read.list("listen", parse_listen);
        let hub_path = read.one("hub_path", parse_hub_path);
        let public_url = read.list("public_url", parse_origin);
        let certificates = tls::certificates(&mut read);
        let hub_url = own_url(&listen, &public_url, certificates.as_ref(), &hub_path);
        let playground = trust::playground(&mut read);
        let policy = policy(&mut read, &public_url, &hub_url, playground.as_ref());
        let transport = read.one("transport", parse_transport);
        let quotas = quotas(&mut read);
        let mut config = Self {
            advice: Vec::new(),
            subscriptions: read.flag("subscriptions") || playground.is_some(),
            heartbeat: read.duration("heartbeat"),
            retry: read.duration("retry"),
            max_connection_age: read.duration("max_connection_age"),
            write_timeout: read.positive_duration("write_timeout"),
            max_connections: read.count("max_connections"),
            max_connections_per_subject: read.count("max_connections_per_subject"),
            proxy_protocol: proxy_protocol(&mut read, &quotas.trusted_proxies, &listen),
            max_request_body: read.size("max_request_body"),
            limits: limits(&mut read),
            retention: retention(&mut read),
            lease: lease(&mut read),
            redirect_listen: tls::redirect_listen(&mut read, certificates.as_ref()),
            certificates,
            drain: read.duration("drain"),
            drain_delay: read.duration("drain_delay"),
            ops_is_chosen: read.is_given("ops_listen"),
            ops_listen: read.one("ops_listen", |text| match text {
                "none" => Ok(None),
                address => parse_listen(address).map(Some),
            }),
            traces: traces(&mut read),
            debugger: read.flag("debugger") || playground.is_some(),
            playground,
            log_json: read.choice("log_format", &["text", "json"]) == "json",
            log_level: read.choice("log_level", &["error", "warn", "info", "debug", "trace"]),
            values: read.values(),
            listen,
            hub_path,
            hub_url: hub_url.unwrap_or_else(|error| {
                read.error("public_url", &error);
                fallback_url()
            }),
            policy: Policy { trusted_proxies: quotas.trusted_proxies.clone(), ..policy },
            quotas,
            transport,
        };
        config.check_places(&mut read);
        config.advice = config.advise(&read);
        read.finish().map(|()| config)
    }

    /// Every address once, and one at least for clients.
    fn check_places(&self, read: &mut Reader<'_>) {
        if self.listen.is_empty() && read.error_count() == 0 {
            read.error("listen", "needs an address, as in 127.0.0.1:5500");
        }
        // A place that nobody has chosen gives way.
        let ops = self.ops_listen.iter().filter(|_| self.ops_is_chosen);
        let all = self.listen.iter().chain(&self.redirect_listen).chain(ops);
        let names: Vec<_> = all.map(ToString::to_string).collect();
        for (at, name) in names.iter().enumerate() {
            // Port 0 is another one each time.
            if names[..at].contains(name) && !name.ends_with(":0") {
                read.problem(&format!(
                    "{name} is listened on twice: each address can be named once"
                ));
            }
        }
    }
}

/// The keeper of the log alone, for tools that need nothing else.
///
/// # Errors
/// If what the layers hold of it is not valid.
pub fn transport(layers: &Layers) -> Result<String, ConfigErrors> {
    let mut read = Reader::new(layers);
    let transport = read.one("transport", parse_transport);
    read.finish().map(|()| transport)
}

fn parse_transport(url: &str) -> Result<String, String> {
    mercure_transports::check(url).map(|()| url.to_owned()).map_err(|error| error.to_string())
}

/// Shorter ones would expire by a mere delay.
fn lease(read: &mut Reader<'_>) -> Duration {
    const SHORTEST: Duration = Duration::from_secs(1);
    let lease = read.duration("lease");
    if lease < SHORTEST && read.error_count() == 0 {
        read.error("lease", "must be 1s or longer");
    }
    lease
}

impl Config {
    /// Generations in which active subscriptions are told.
    #[must_use]
    pub fn told_generations(&self) -> Vec<Generation> {
        let protocol = self.policy.protocol;
        let v1 = protocol.speaks_v1().then_some(Generation::V1);
        let v0 = protocol.speaks_v0().then_some(Generation::V0);
        v1.into_iter().chain(v0).filter(|_| self.subscriptions).collect()
    }
}

fn policy(
    read: &mut Reader<'_>,
    public_url: &[String],
    hub_url: &Result<HubUrl, String>,
    playground: Option<&Playground>,
) -> Policy {
    let protocol = match read.choice("protocol", &["both", "1.0", "0.x"]).as_str() {
        "1.0" => Protocol::V1,
        "0.x" => Protocol::V0,
        _ => Protocol::Both,
    };
    let trust = trust::trust(read, playground);
    let mut cookie_names = read.list("cookie_name", parse_cookie_name);
    if cookie_names.is_empty() {
        let v1 = protocol.speaks_v1().then_some(COOKIE_V1);
        let v0 = protocol.speaks_v0().then_some(COOKIE_V0);
        cookie_names = v1.into_iter().chain(v0).map(str::to_owned).collect();
    }
    let identifier = read.text("resource_identifier");
    let own = hub_url.as_ref().map_or("", HubUrl::as_str);
    Policy {
        protocol,
        anonymous: read.flag("anonymous"),
        origins: Origins { allowed: read.list("cors_origins", parse_cors_origin) },
        publish_origins: read.list("publish_origins", parse_origin),
        cookie_names,
        trust,
        verified: Some(Arc::new(VerifiedTokens::new())),
        metadata: protocol.speaks_v1(),
        public_origins: public_url.to_vec(),
        trusted_proxies: Proxies::default(),
        resource_identifier: identifier.unwrap_or_else(|| own.to_owned()),
    }
}

fn limits(read: &mut Reader<'_>) -> Limits {
    Limits {
        topics: read.count("max_topics"),
        topic_length: read.size("max_topic_length"),
        id_length: read.size("max_id_length"),
        type_length: read.size("max_type_length"),
        matchers: read.count("max_matchers"),
        patterns: read.count("max_patterns"),
        compiled: read.size("max_patterns_size"),
        matcher_length: read.size("max_matcher_length"),
        grants: read.count("max_grants"),
    }
}

fn quotas(read: &mut Reader<'_>) -> Quotas {
    Quotas {
        http_connections: read.count("max_http_connections"),
        connections_per_address: read.bound("max_connections_per_address"),
        publish_rate_per_address: read.bound("publish_rate_per_address"),
        publish_rate_per_subject: read.bound("publish_rate_per_subject"),
        trusted_proxies: Proxies(read.list("trusted_proxies", parse_network)),
    }
}

/// Whoever is not believed must not say who it is.
fn proxy_protocol(read: &mut Reader<'_>, proxies: &Proxies, listen: &[Listen]) -> bool {
    let wanted = read.flag("proxy_protocol");
    let is_local = listen.iter().any(|listen| matches!(listen, Listen::Unix(_)));
    if wanted && proxies.0.is_empty() && !is_local && read.error_count() == 0 {
        read.error("proxy_protocol", "needs trusted_proxies: only they are believed");
    }
    wanted
}

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or(one)
        .map_err(|_| "needs a network, as in 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

fn traces(read: &mut Reader<'_>) -> Option<TraceSettings> {
    let endpoint = read.one("otlp_endpoint", |text| match url::Url::parse(text) {
        _ if text.is_empty() => Ok(None),
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(text.to_owned())),
        _ => Err("needs a URL, as in http://127.0.0.1:4318".to_owned()),
    });
    let ratio = read.one("trace_ratio", |text| match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1".to_owned()),
    });
    endpoint.map(|endpoint| TraceSettings { endpoint, ratio })
}

fn retention(read: &mut Reader<'_>) -> Retention {
    let age = read.duration("history_age");
    Retention {
        events: read.count("history_size"),
        age: (!age.is_zero()).then_some(age),
        bytes: read.size("history_bytes"),
    }
}

/// Stands in for a URL that is an error anyway.
fn fallback_url() -> HubUrl {
    #[expect(clippy::expect_used, reason = "a constant that a test parses")]
    HubUrl::parse("http://localhost/.well-known/mercure").expect("valid")
}

fn parse_hub_path(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let is_clear = text.split('/').all(|part| part != "." && part != "..");
    if !text.starts_with('/') || text.ends_with('/') || !text.bytes().all(plain) || !is_clear {
        return Err("needs a path like /.well-known/mercure, not ending in a slash".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_origin(text: &str) -> Result<String, String> {
    let origin = url::Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
    match origin {
        Some(_) if text.contains('*') => {
            Err("needs whole origins: a wildcard within one would match nothing".to_owned())
        }
        Some(origin) if origin == text.trim_end_matches('/') => Ok(origin),
        _ => Err("needs an origin, as in https://example.com (no path)".to_owned()),
    }
}

fn parse_cors_origin(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { parse_origin(text) }
}

fn parse_cookie_name(text: &str) -> Result<String, String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        return Err("is not a valid cookie name".to_owned());
    }
    Ok(text.to_owned())
}
