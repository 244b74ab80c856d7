//! Two connections: one for commands, one that waits for news. Either is made when it is needed, and
//! made anew after any failure, so that a failure is always seen.

use std::time::Duration;

use mercure_engine::TransportError;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError,
    RedisResult, TlsCertificates, TlsMode,
};
use tokio::sync::Mutex;

use crate::address::{Address, ConnectError, Engine, invalid};
use crate::store::Outcome;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take; longer than a wait for news or for replicas.
const ANSWER: Duration = Duration::from_secs(7);

pub(super) struct Connections {
    server: Server,
    commands: Place,
    follower: Place,
}

/// Where a connection is kept, with a number that no other one has.
type Place = Mutex<Option<(MultiplexedConnection, u64)>>;

enum Server {
    Fixed(Box<Client>),
    /// Whoever is the master now, as the sentinels say.
    Elected(Box<Mutex<SentinelClient>>),
}

impl Connections {
    pub(super) fn new(address: &Address) -> Result<Self, ConnectError> {
        let server = match address.engine {
            Engine::Sentinel => Server::Elected(Box::new(Mutex::new(sentinel(address)?))),
            _ => {
                let client = match certificates(address)? {
                    Some(certificates) => Client::build_with_tls(&*address.url, certificates),
                    None => Client::open(&*address.url),
                };
                Server::Fixed(Box::new(client.map_err(|error| unreadable(&error))?))
            }
        };
        Ok(Self { server, commands: Mutex::default(), follower: Mutex::default() })
    }

    /// Runs commands; several at once share the connection.
    pub(super) async fn commands<T>(
        &self,
        run: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Outcome<T> {
        self.on(&self.commands, run).await
    }

    /// Runs a command that waits.
    pub(super) async fn follower<T>(
        &self,
        run: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Outcome<T> {
        self.on(&self.follower, run).await
    }

    async fn on<T>(
        &self,
        place: &Place,
        run: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Outcome<T> {
        let (mut connection, number) = {
            let mut kept = place.lock().await;
            match &*kept {
                Some((connection, number)) => (connection.clone(), *number),
                None => {
                    let new = self.connect().await.map_err(|error| explain(&error))?;
                    kept.insert((new, fastrand::u64(..))).clone()
                }
            }
        };
        let result = run(&mut connection).await;
        if let Err(error) = &result
            && !is_answer(error)
        {
            let mut kept = place.lock().await;
            // Somebody else may have made a new one already.
            if kept.as_ref().is_some_and(|(_, found)| *found == number) {
                *kept = None;
            }
        }
        result.map_err(|error| explain(&error))
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        match &self.server {
            Server::Fixed(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await
            }
            Server::Elected(sentinel) => {
                sentinel.lock().await.get_async_connection_with_config(&config).await
            }
        }
    }

    /// Says what the server is set to, as far as that loses events.
    pub(super) async fn warn_of_loss(&self) {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("appendonly").arg("appendfsync").arg("maxmemory-policy");
        let settings = self.commands(async |connection| {
            ask.query_async::<std::collections::HashMap<String, String>>(connection).await
        });
        let Ok(settings) = settings.await else {
            tracing::info!("whether Redis keeps what it acknowledges cannot be asked (CONFIG GET)");
            return;
        };
        let is = |name: &str, value: &str| settings.get(name).is_some_and(|is| is == value);
        if is("appendonly", "no") {
            tracing::warn!(
                "Redis does not keep its data on disk (appendonly no): a restart of Redis loses \
                 events that were acknowledged; set appendonly yes"
            );
        } else if is("appendfsync", "no") {
            tracing::warn!(
                "Redis leaves it to the system when its data goes to disk (appendfsync no): when its \
                 machine dies, half a minute of acknowledged events may be lost; set appendfsync always"
            );
        } else if !is("appendfsync", "always") {
            tracing::warn!(
                "Redis syncs its data to disk once a second: when its machine dies, up to a second \
                 of acknowledged events is lost; set appendfsync always, or accept it"
            );
        }
        if !is("maxmemory-policy", "noeviction") {
            tracing::warn!(
                "Redis may evict the log when its memory is full; set maxmemory-policy noeviction"
            );
        }
    }
}

fn sentinel(address: &Address) -> Result<SentinelClient, ConnectError> {
    let (credentials, rest) = match address.rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, &*address.rest),
    };
    let needs = || {
        invalid("needs sentinels and a master, as in redis+sentinel://s1:26379,s2:26379/mymaster")
    };
    let (hosts, path) = rest.split_once('/').ok_or_else(needs)?;
    let (master, db) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() || hosts.is_empty() {
        return Err(needs());
    }
    let hosts = hosts.split(',').map(|host| {
        let (host, port) = host.rsplit_once(':').unwrap_or((host, "26379"));
        Ok(ConnectionAddr::Tcp(host.to_owned(), port.parse().map_err(|_| needs())?))
    });
    let hosts = hosts.collect::<Result<Vec<_>, ConnectError>>()?;
    let readable = |error: RedisError| unreadable(&error);
    let mut builder = SentinelClientBuilder::new(hosts, master, SentinelServerType::Master)
        .map_err(readable)?
        .set_client_to_redis_db(db.parse().map_err(|_| invalid("needs a number as database"))?);
    if let Some((user, password)) = credentials.and_then(|text| text.split_once(':')) {
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        if !user.is_empty() {
            builder = builder.set_client_to_redis_username(decode(user));
        }
        builder = builder.set_client_to_redis_password(decode(password));
    }
    if let Some(user) = address.parameter("sentinel_username") {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = address.parameter("sentinel_password") {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if address.url.starts_with("rediss") {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates(address)? {
            builder = builder.set_client_to_redis_certificates(certificates);
        }
    }
    builder.build().map_err(readable)
}

fn certificates(address: &Address) -> Result<Option<TlsCertificates>, ConnectError> {
    let Some(path) = &address.tls_ca else { return Ok(None) };
    let info = (&*address.url).into_connection_info();
    if info.is_ok_and(|info| !matches!(info.addr(), ConnectionAddr::TcpTls { .. })) {
        return Err(invalid("has tls_ca, but not the scheme rediss://"));
    }
    let read = std::fs::read(path);
    let pem =
        read.map_err(|error| invalid(&format!("names a tls_ca that cannot be read: {error}")))?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
}

/// The driver's words say which part is wrong, and repeat none.
fn unreadable(error: &RedisError) -> ConnectError {
    invalid(&format!("is not one of Redis: {error}"))
}

/// Whether the server has answered: the connection itself is in order. What a server answers that is
/// no master, or is just loading, is a reason to look for another one.
fn is_answer(error: &RedisError) -> bool {
    !error.is_io_error()
        && !error.is_connection_dropped()
        && !error.is_unrecoverable_error()
        && !matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN"))
}

pub(super) fn explain(error: &RedisError) -> TransportError {
    let denied = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    if denied || error.kind() == ErrorKind::AuthenticationFailed {
        return TransportError::Refused(format!("Redis refuses these credentials ({error})"));
    }
    TransportError::Unavailable(format!("Redis: {error}"))
}
