//! Two connections: one writes, so that nobody's reading holds a publication up; one reads, and is
//! woken up. Either is made when it is needed, and made anew after it was lost.

use std::future::poll_fn;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mercure_engine::TransportError;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::statements::Statements;
use crate::address::{Address, ConnectError, invalid};
use crate::store::{Outcome, Place};
use crate::tls;

/// How long a connection to one host may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the network may leave what was sent without an answer.
const UNANSWERED: Duration = Duration::from_secs(8);

/// How long an answer may stay out before the connection is given up.
const SILENT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Writer,
    Reader,
}

pub(super) struct Connections {
    config: Config,
    /// `None` where nothing is encrypted.
    tls: Option<MakeRustlsConnect>,
    writer: Mutex<Option<Arc<Connected>>>,
    reader: Mutex<Option<Arc<Connected>>>,
}

/// A connection in use.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// An answer did not come, or was not waited for.
    is_silent: AtomicBool,
    /// The newest place that the server has told of.
    pub(super) heads: watch::Receiver<Place>,
}

impl Connections {
    pub(super) fn new(address: &Address) -> Result<Self, ConnectError> {
        // The driver names the parameter that is wrong, and not its value.
        let config = Config::from_str(&address.url);
        let mut config =
            config.map_err(|error| invalid(&format!("is not one of PostgreSQL: {error}")))?;
        // Of several hosts, the one that is no replica.
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .application_name("mercure-hub")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(UNANSWERED)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(2);
        if !address.url.contains("sslmode=") {
            // Encrypted and verified, unless it stays on this machine.
            let is_local = |host: &Host| match host {
                Host::Unix(_) => true,
                Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
            };
            let local = config.get_hosts().iter().all(is_local) && address.tls_ca.is_none();
            config.ssl_mode(if local { SslMode::Disable } else { SslMode::Require });
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(MakeRustlsConnect::new(tls::client(address.tls_ca.as_deref())?)),
        };
        Ok(Self { config, tls, writer: Mutex::default(), reader: Mutex::default() })
    }

    /// The connection for a purpose.
    pub(super) async fn of(&self, role: Role, schema: &str) -> Outcome<Arc<Connected>> {
        let place = match role {
            Role::Writer => &self.writer,
            Role::Reader => &self.reader,
        };
        let mut kept = place.lock().await;
        // One that leaves an answer out is as good as lost, whatever stands in between.
        let is_alive = |connected: &&Arc<Connected>| {
            !connected.client.is_closed() && !connected.is_silent.load(Ordering::Acquire)
        };
        if let Some(connected) = kept.as_ref().filter(is_alive) {
            return Ok(Arc::clone(connected));
        }
        *kept = None;
        let (client, heads) = self.connect().await?;
        let prepared = Statements::prepare(&client, schema).await;
        let statements = prepared.map_err(|error| explain(&error))?;
        if matches!(role, Role::Reader) {
            let listen = client.batch_execute(&format!("LISTEN {schema}")).await;
            listen.map_err(|error| explain(&error))?;
        }
        let connected =
            Arc::new(Connected { client, statements, is_silent: AtomicBool::new(false), heads });
        Ok(Arc::clone(kept.insert(connected)))
    }

    /// A connection with nothing prepared.
    pub(super) async fn bare(&self) -> Outcome<Client> {
        Ok(self.connect().await?.0)
    }

    async fn connect(&self) -> Outcome<(Client, watch::Receiver<Place>)> {
        let connected = match &self.tls {
            None => open(&self.config, NoTls).await,
            Some(tls) => open(&self.config, tls.clone()).await,
        };
        let (client, heads) = connected.map_err(|error| explain(&error))?;
        client.batch_execute(PLANS).await.map_err(|error| explain(&error))?;
        Ok((client, heads))
    }
}

/// Every query is small and has its index. What the server believes of a table that has just grown
/// would make it read all of it, or compile the query for a tenth of a second.
const PLANS: &str = "SET jit = off; SET enable_seqscan = off";

impl Connected {
    /// Waits for an answer; without one, the connection is not used again.
    pub(super) async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Outcome<T> {
        let mut watch = Silence { is_silent: &self.is_silent, since: Some(Instant::now()) };
        let answer = asked.await;
        watch.since = None;
        answer.map_err(|error| explain(&error))
    }
}

/// Notes that an answer was waited for in vain; not that whoever waited has left soon.
struct Silence<'a> {
    is_silent: &'a AtomicBool,
    since: Option<Instant>,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= SILENT) {
            self.is_silent.store(true, Ordering::Release);
        }
    }
}

/// Connects, and drives the connection until it is lost or nobody uses it any more.
async fn open<T>(config: &Config, tls: T) -> Result<(Client, watch::Receiver<Place>), Error>
where
    T: MakeTlsConnect<Socket, Stream: Send + 'static>,
{
    let (client, connection) = config.connect(tls).await?;
    let (tell, heads) = watch::channel(0);
    tokio::spawn(drive(connection, tell));
    Ok((client, heads))
}

async fn drive<S>(mut connection: Connection<Socket, S>, tell: watch::Sender<Place>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(news)) => {
                let head: Place = news.payload().parse().unwrap_or_default();
                tell.send_if_modified(|known| {
                    let is_news = head > *known;
                    *known = head.max(*known);
                    is_news
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to PostgreSQL is lost");
                return;
            }
        }
    }
}

/// Says what the server is set to, as far as that loses events.
pub(super) async fn warn_of_loss(client: &Client) {
    let is_off = async |setting: &str| {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await;
        row.is_ok_and(|row| row.get::<_, String>(0) == "off")
    };
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        if is_off(setting).await {
            tracing::warn!(
                "PostgreSQL is set to {setting} = off: when its machine dies, events that were \
                 acknowledged can be lost; set it on"
            );
        }
    }
}

pub(super) fn explain(error: &Error) -> TransportError {
    let reason = error.as_db_error().map_or_else(
        || match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
        |answer| answer.message().to_owned(),
    );
    // Credentials, an unknown database or schema, missing rights.
    let is_final = error.code().is_some_and(|code| {
        ["28", "3D", "3F", "42"].iter().any(|class| code.code().starts_with(class))
    });
    if is_final {
        return TransportError::Refused(format!("PostgreSQL: {reason}"));
    }
    let hint = if reason.contains("does not support TLS") {
        "; if it may be reached without encryption, add sslmode=disable"
    } else {
        ""
    };
    TransportError::Unavailable(format!("PostgreSQL: {reason}{hint}"))
}
