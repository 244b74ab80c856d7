//! Every engine keeps the contract of a transport, also if it misbehaves now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mercure_engine::testing::{Subject, conformance};
use mercure_engine::{Clock, Retention, Transport};
use mercure_transports::connect;
use mercure_transports::testing::{
    Faults, NatsServer, PostgresServer, RedisServer, connect_through, is_missing,
};

/// Logs at an engine, by their URLs.
struct Logs<F> {
    url: F,
    is_shared: bool,
    faults: Option<Faults>,
}

static NAMES: AtomicUsize = AtomicUsize::new(0);

impl<F: Fn(&str) -> String> Subject for Logs<F> {
    fn fresh(&self) -> String {
        format!("log{}", NAMES.fetch_add(1, Ordering::Relaxed))
    }

    fn node(&self, log: &str, retention: Retention) -> Arc<dyn Transport> {
        let url = (self.url)(log);
        let transport = match self.faults {
            None => connect(&url, retention, Clock::system()),
            Some(faults) => connect_through(faults, &url, retention, Clock::system()),
        };
        transport.expect("valid URL")
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }
}

async fn judge(is_shared: bool, url: impl Fn(&str) -> String) {
    let faults =
        Faults { delay: 3, refuse: 23, lose_answer: 37, halve: 5, repeat_news: 3, drop_news: 4 };
    for faults in [None, Some(faults)] {
        conformance(&Logs { url: &url, is_shared, faults }).await.expect("conforms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let folder = tempfile::tempdir().expect("folder");
    judge(false, |log| format!("sqlite://{}", folder.path().join(log).display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    if is_missing("redis-server") {
        return;
    }
    let server = RedisServer::start(&[]);
    judge(true, |log| server.url(log)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    if is_missing("postgres") {
        return;
    }
    let server = PostgresServer::start(&[]);
    judge(true, |log| server.url(log)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    if is_missing("nats-server") {
        return;
    }
    let server = NatsServer::start();
    judge(true, |log| server.url(log)).await;
}
