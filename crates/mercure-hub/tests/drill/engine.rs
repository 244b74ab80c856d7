//! The engine under a log.

use mercure_transports::testing::{NatsServer, PostgresServer, RedisServer, is_missing};
use tempfile::TempDir;

/// A real engine.
pub enum Engine {
    Sqlite(TempDir),
    Redis(RedisServer),
    Postgres(PostgresServer),
    Nats(NatsServer),
}

impl Engine {
    /// Starts one; `None`, loudly, if it is not installed.
    pub fn start(name: &str) -> Option<Self> {
        let program = match name {
            "sqlite" => return Some(Self::Sqlite(TempDir::new().expect("folder"))),
            "redis" => "redis-server",
            "postgres" => "postgres",
            _ => "nats-server",
        };
        if is_missing(program) {
            return None;
        }
        Some(match name {
            "redis" => Self::Redis(RedisServer::start(&[])),
            "postgres" => Self::Postgres(PostgresServer::start(&[])),
            _ => Self::Nats(NatsServer::start()),
        })
    }

    /// The URL of a log.
    pub fn url(&self, log: &str) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite://{}/{log}.db", folder.path().display()),
            _ => self.url_at(self.port(), log),
        }
    }

    /// The URL of a log, by way of another port.
    pub fn url_at(&self, port: u16, log: &str) -> String {
        match self {
            Self::Sqlite(_) => self.url(log),
            Self::Redis(_) => RedisServer::url_at(port, log),
            Self::Postgres(_) => PostgresServer::url_at(port, log),
            Self::Nats(_) => NatsServer::url_at(port, log),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        match self {
            Self::Sqlite(_) => 0,
            Self::Redis(server) => server.port,
            Self::Postgres(server) => server.port,
            Self::Nats(server) => server.port,
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Redis(server) => server.process.kill(),
            Self::Postgres(server) => server.process.kill(),
            Self::Nats(server) => server.process.kill(),
        }
    }

    /// Starts it again, on its data.
    pub fn restart(&mut self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Redis(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
            Self::Nats(server) => server.restart(),
        }
    }
}
