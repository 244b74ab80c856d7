use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, kv, stream};
use async_nats::{ConnectOptions, ServerAddr};
use futures_util::{Stream, StreamExt};
use mercure_engine::{Retention, TransportError};
use percent_encoding::percent_decode_str;
use tokio::sync::Mutex;

use crate::Purpose;
use crate::address::{Address, ConnectError, invalid};
use crate::store::{Outcome, newer, signed};
use crate::tls;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(4);
/// How long a page may stand still.
const SILENCE: Duration = Duration::from_millis(700);
/// The version of what is kept, in case it ever has to change; stands in the stream's description.
const FORMAT: u32 = 1;
const DESCRIPTION: &str = "log of mercure-hub, format ";

pub(super) struct Connections {
    pub(super) names: Names,
    servers: Vec<ServerAddr>,
    options: Options,
    retention: Option<Retention>,
    is_to_serve: bool,
    client: Mutex<Option<async_nats::Client>>,
    session: Mutex<Option<Session>>,
}

struct Options {
    login: Option<Login>,
    tls: Option<rustls::ClientConfig>,
    credentials: Option<PathBuf>,
    replicas: usize,
}

/// Who the hub is to the server.
enum Login {
    Password(String, String),
    Token(String),
}

/// What things are called.
#[derive(Clone)]
pub(super) struct Names(Arc<str>);

impl Names {
    pub(super) fn log(&self) -> String {
        format!("{}_log", self.0)
    }

    fn roster(&self) -> String {
        format!("{}_roster", self.0)
    }

    fn nodes(&self) -> String {
        format!("{}_nodes", self.0)
    }

    pub(super) fn subject_of_update(&self, digest: &str) -> String {
        format!("{}.log.update.{digest}", self.0)
    }

    pub(super) fn subject_of_told(&self, digest: &str) -> String {
        format!("{}.log.told.{digest}", self.0)
    }

    pub(super) fn subject_of_entry(&self, node: &str, subscriber: &str) -> String {
        format!("{}.roster.{node}.{subscriber}", self.0)
    }
}

/// What a connected hub works with.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) names: Names,
    pub(super) jetstream: jetstream::Context,
    pub(super) log: stream::Stream,
    pub(super) roster: stream::Stream,
    pub(super) nodes: kv::Store,
}

impl Session {
    pub(super) fn replicas(&self) -> usize {
        self.log.cached_info().config.num_replicas
    }
}

impl Connections {
    pub(super) fn new(
        address: &Address,
        purpose: Purpose,
        retention: Option<&Retention>,
    ) -> Result<Self, ConnectError> {
        let scheme = address.url.split("://").next().unwrap_or("nats");
        let (user, hosts) = match address.rest.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, &*address.rest),
        };
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = user.map(|user| match user.split_once(':') {
            Some((name, password)) => Login::Password(decode(name), decode(password)),
            None => Login::Token(decode(user)),
        });
        let server = |host: &str| format!("{scheme}://{}", host.trim_end_matches('/')).parse();
        let servers = hosts.split(',').map(server).collect::<Result<Vec<ServerAddr>, _>>();
        let servers = servers.map_err(|_| invalid("is not one of NATS: nats://host:4222"))?;
        let needs_tls = scheme == "tls" || address.tls_ca.is_some();
        Ok(Self {
            names: Names(address.namespace.as_str().into()),
            servers,
            options: Options {
                login,
                tls: needs_tls.then(|| tls::client(address.tls_ca.as_deref())).transpose()?,
                credentials: address.parameter("credentials").map(Into::into),
                replicas: address.number("replicas")?.unwrap_or(1).max(1) as usize,
            },
            retention: retention.cloned(),
            is_to_serve: purpose == Purpose::Serve,
            client: Mutex::default(),
            session: Mutex::default(),
        })
    }

    /// What to work with, made anew if need be. The client itself reconnects; while it does, it
    /// would keep what it is given for later, so it is given nothing.
    pub(super) async fn session(&self) -> Outcome<Session> {
        let client = self.client().await?;
        if client.connection_state() != State::Connected {
            return Err(TransportError::Unavailable("NATS: not connected".to_owned()));
        }
        let mut session = self.session.lock().await;
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        // Rare and large: kept out of the futures of everything that needs a session.
        Ok(session.insert(Box::pin(self.set_up(client)).await?).clone())
    }

    /// Makes the next session be set up anew.
    pub(super) async fn forget(&self) {
        *self.session.lock().await = None;
    }

    async fn client(&self) -> Outcome<async_nats::Client> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(Box::pin(self.connect()).await?).clone())
    }

    async fn connect(&self) -> Outcome<async_nats::Client> {
        let mut options = ConnectOptions::new()
            .name("mercure-hub")
            .connection_timeout(Duration::from_secs(3))
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(3))
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis((50_u64 << attempts.min(5)).min(1000))
            });
        match &self.options.login {
            Some(Login::Password(name, password)) => {
                options = options.user_and_password(name.clone(), password.clone());
            }
            Some(Login::Token(token)) => options = options.token(token.clone()),
            None => {}
        }
        if let Some(tls) = &self.options.tls {
            options = options.require_tls(true).tls_client_config(tls.clone());
        }
        if let Some(path) = &self.options.credentials {
            options = options.credentials_file(path).await.map_err(|error| {
                TransportError::Refused(format!("the credentials cannot be read: {error}"))
            })?;
        }
        options.connect(&*self.servers).await.map_err(|error| {
            use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
            let reason = format!("NATS: {error}");
            match error.kind() {
                Authentication | AuthorizationViolation => TransportError::Refused(reason),
                _ => TransportError::Unavailable(reason),
            }
        })
    }

    async fn set_up(&self, client: async_nats::Client) -> Outcome<Session> {
        let jetstream = ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER).build(client);
        let log = self.log(&jetstream).await?;
        let roster = jetstream.get_or_create_stream(stream::Config {
            name: self.names.roster(),
            description: Some("who is subscribed at which node".to_owned()),
            subjects: vec![self.names.subject_of_entry("*", "*")],
            max_messages_per_subject: 1,
            num_replicas: self.options.replicas,
            ..stream::Config::default()
        });
        let roster = roster.await.map_err(unavailable)?;
        // A bucket, made by hand: the driver's own way asks for what older servers do not tell.
        let bucket = jetstream.get_or_create_stream(stream::Config {
            name: format!("KV_{}", self.names.nodes()),
            subjects: vec![format!("$KV.{}.>", self.names.nodes())],
            max_messages_per_subject: 1,
            allow_rollup: true,
            deny_delete: true,
            // A node that is alive renews its entry long before; this removes what dead ones leave.
            max_age: Duration::from_secs(24 * 3600),
            num_replicas: self.options.replicas,
            ..stream::Config::default()
        });
        bucket.await.map_err(unavailable)?;
        let nodes = jetstream.get_key_value(self.names.nodes()).await.map_err(unavailable)?;
        Ok(Session { names: self.names.clone(), jetstream, log, roster, nodes })
    }

    async fn log(&self, jetstream: &jetstream::Context) -> Outcome<stream::Stream> {
        let two_minutes = Duration::from_secs(120);
        let retention = self.retention.as_ref();
        let max_age = retention.and_then(|kept| kept.age).unwrap_or_default();
        let wanted = stream::Config {
            name: self.names.log(),
            description: Some(format!("{DESCRIPTION}{FORMAT}")),
            subjects: vec![self.names.subject_of_update("*"), self.names.subject_of_told("*")],
            max_age,
            max_bytes: retention.map_or(-1, |kept| signed(kept.bytes)),
            // Not used, but it may not be longer than the age.
            duplicate_window: if max_age.is_zero() {
                two_minutes
            } else {
                max_age.min(two_minutes)
            },
            num_replicas: self.options.replicas,
            ..stream::Config::default()
        };
        let log = jetstream.get_or_create_stream(wanted.clone()).await.map_err(no_jetstream)?;
        let found = &log.cached_info().config;
        let format = found.description.as_deref().and_then(|text| text.strip_prefix(DESCRIPTION));
        match format.and_then(|number| number.parse::<u32>().ok()) {
            None => {
                return Err(TransportError::Refused(format!(
                    "the stream {} is not a log of a hub; choose another namespace",
                    self.names.log()
                )));
            }
            Some(format) if format > FORMAT => {
                return Err(newer("the log", format, FORMAT));
            }
            Some(_) => {}
        }
        let is_set = (found.max_age, found.max_bytes) == (wanted.max_age, wanted.max_bytes);
        if found.num_replicas < self.options.replicas {
            tracing::warn!(
                "NATS keeps {} copies of the log, not {}: raise them with `nats stream edit`",
                found.num_replicas,
                self.options.replicas
            );
        }
        if self.is_to_serve && !is_set {
            let (max_age, max_bytes) = (wanted.max_age, wanted.max_bytes);
            let duplicate_window = wanted.duplicate_window;
            let found = found.clone();
            let set = stream::Config { max_age, max_bytes, duplicate_window, ..found };
            jetstream.update_stream(set).await.map_err(unavailable)?;
            tracing::info!("the retention of the log was set to this node's");
        }
        Ok(log)
    }
}

/// The next message of a page. A server whose stream is purged while it answers may leave out the rest,
/// and say nothing: that is an error, after which only a new consumer can tell what there is.
pub(super) async fn next<T, E: std::fmt::Display>(
    page: &mut (impl Stream<Item = Result<T, E>> + Unpin),
) -> Outcome<Option<T>> {
    match tokio::time::timeout(SILENCE, page.next()).await {
        Ok(message) => message.transpose().map_err(unavailable),
        Err(_) => Err(unavailable("the server has left out the rest of a page")),
    }
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> TransportError {
    TransportError::Unavailable(format!("NATS: {error}"))
}

/// A server without JetStream does not answer at all, or says so; one with too little room for the
/// history, which it sets aside, says that.
fn no_jetstream(error: impl std::fmt::Display) -> TransportError {
    let text = error.to_string();
    if text.contains("insufficient storage") {
        return TransportError::Refused(format!(
            "NATS has too little room for history_bytes, which it sets aside; lower it, or raise the \
             server's max_file_store ({text})"
        ));
    }
    if !["not enabled", "responders", "JetStream unavailable"]
        .iter()
        .any(|sign| text.contains(sign))
    {
        return unavailable(text);
    }
    TransportError::Refused(
        "NATS runs without JetStream; start it with -js, or enable it in its configuration"
            .to_owned(),
    )
}

/// Whether there is no such message.
pub(super) fn is_missing(error: &stream::RawMessageError) -> bool {
    matches!(error.kind(), stream::LastRawMessageErrorKind::NoMessageFound)
}
