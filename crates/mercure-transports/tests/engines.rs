//! What is particular about engines: versions, credentials, encryption, and what happens when one
//! loses what it had acknowledged.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mercure_engine::{
    Batch, Clock, Event, From, Position, ReadLimit, Record, Retention, State, Tail, Transport,
    TransportError,
};
use mercure_protocol::{EventId, Topic};
use mercure_transports::connect;
use mercure_transports::testing::{
    NatsServer, PostgresServer, Process, RedisServer, free_port, is_missing,
};
use tempfile::TempDir;

const LIMIT: ReadLimit = ReadLimit { events: 100, bytes: 1 << 20 };

/// What a node is told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Result<String, Position>>>);

impl Tail for Told {
    fn on_event(&self, event: Arc<Event>) {
        self.0.lock().expect("no panic").push(Ok(event.record.id.to_string()));
    }

    fn on_gap(&self, through: Position) {
        self.0.lock().expect("no panic").push(Err(through));
    }
}

impl Told {
    fn gap(&self) -> Option<Position> {
        self.0.lock().expect("no panic").iter().find_map(|told| told.clone().err())
    }

    fn ids(&self) -> Vec<String> {
        self.0.lock().expect("no panic").iter().filter_map(|told| told.clone().ok()).collect()
    }
}

fn record(id: &str) -> Record {
    Record {
        id: EventId::from_log(id),
        topics: [Topic::from_log("t")].into(),
        private: false,
        of_subscription: false,
        frame: Bytes::from(format!("id: {id}\ndata: x\n\n")),
    }
}

fn transport(url: &str) -> Arc<dyn Transport> {
    connect(url, Retention::default(), Clock::system()).expect("a valid URL")
}

async fn start(url: &str) -> Result<(Arc<dyn Transport>, Arc<Told>), TransportError> {
    let (transport, told) = (transport(url), Arc::new(Told::default()));
    transport.start(Arc::<Told>::clone(&told)).await?;
    Ok((transport, told))
}

async fn works(url: &str) {
    let (transport, _) = start(url).await.expect("it can be used");
    transport.append(record("a")).await.expect("accepted");
}

/// The transport cannot be used, and trying again would not help.
async fn refuses(url: &str, words: &str) {
    match start(url).await {
        Err(TransportError::Refused(reason)) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{words:?} should be refused, and not: {other:?}"),
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn redis_says(port: u16, words: &[&str]) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/0")).expect("URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async::<()>(&mut connection).await.expect("done");
}

async fn postgres_says(server: &PostgresServer, statement: &str) {
    let url = format!("postgres://mercure@127.0.0.1:{}/postgres", server.port);
    let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.expect("connected");
    tokio::spawn(connection);
    client.batch_execute(statement).await.expect("done");
}

/// An engine that was emptied gives its places to other events. Nobody may take those for the ones
/// that were told before.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_loses_is_a_gap() {
    if is_missing("redis-server") {
        return;
    }
    let mut server = RedisServer::start(&["--appendonly", "no"]);
    let (transport, told) = start(&server.url("lossy")).await.expect("started");
    let mut before = Position::START;
    for id in ["a", "b", "c"] {
        before = transport.append(record(id)).await.expect("accepted");
    }
    server.process.kill();
    eventually("the loss of the engine is noticed", async || {
        matches!(transport.state(), State::Away { .. })
    })
    .await;
    let refused = transport.append(record("meanwhile")).await;
    assert!(matches!(refused, Err(TransportError::Unavailable(_))), "{refused:?}");
    server.restart();
    eventually("a gap is told", async || told.gap().is_some()).await;
    assert!(told.gap() > Some(before), "positions go on");
    let read = transport.read(From::After(before), LIMIT).await.expect("read");
    assert_eq!(read, Batch::Gone, "an older cursor is gone, although its place is there again");
    for id in ["d", "e", "f", "g"] {
        eventually("accepted", async || transport.append(record(id)).await.is_ok()).await;
    }
    eventually("new events are told", async || told.ids() == ["a", "b", "c", "d", "e", "f", "g"])
        .await;
    eventually("it is not there any more", async || transport.locate("a").await == Ok(None)).await;
    assert!(transport.locate("d").await.expect("asked") > Some(before));
}

/// The same without a broken connection to notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_deleted_is_a_gap() {
    if is_missing("redis-server") {
        return;
    }
    let server = RedisServer::start(&[]);
    let (transport, told) = start(&server.url("deleted")).await.expect("started");
    transport.append(record("a")).await.expect("accepted");
    redis_says(server.port, &["FLUSHALL"]).await;
    eventually("a gap is told", async || told.gap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_newer_version_is_refused() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("hub.db");
    let url = format!("sqlite://{}", path.display());
    works(&url).await;
    let database = rusqlite::Connection::open(&path).expect("open");
    database.pragma_update(None, "user_version", 99).expect("done");
    refuses(&url, "newer version of the hub (format 99").await;
    database.pragma_update(None, "application_id", 1).expect("done");
    refuses(&url, "a database of something else").await;
    let text = folder.path().join("text");
    std::fs::write(&text, "this is a text, and no database at all".repeat(50)).expect("write");
    refuses(&format!("sqlite://{}", text.display()), "not a log of a hub").await;

    if !is_missing("redis-server") {
        let server = RedisServer::start(&[]);
        works(&server.url("newer")).await;
        redis_says(server.port, &["HSET", "{newer}:meta", "format", "99"]).await;
        refuses(&server.url("newer"), "newer version of the hub (format 99").await;
        works(&server.url("other")).await;
    }
    if !is_missing("postgres") {
        let server = PostgresServer::start(&[]);
        works(&server.url("newer")).await;
        postgres_says(&server, "UPDATE newer.format SET version = 99").await;
        refuses(&server.url("newer"), "newer version of the hub (format 99").await;
        works(&server.url("other")).await;
    }
    if !is_missing("nats-server") {
        let server = NatsServer::start();
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await;
        let stream = async_nats::jetstream::stream::Config {
            name: "newer_log".to_owned(),
            description: Some("log of mercure-hub, format 99".to_owned()),
            subjects: vec!["newer.log.>".to_owned()],
            ..Default::default()
        };
        let made =
            async_nats::jetstream::new(client.expect("connected")).create_stream(stream).await;
        made.expect("created");
        refuses(&server.url("newer"), "newer version of the hub (format 99").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_older_version_is_migrated() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("hub.db");
    let url = format!("sqlite://{}", path.display());
    works(&url).await;
    let back = "DROP TABLE nodes; DROP TABLE attendances; ALTER TABLE log DROP COLUMN roster;
        DROP TABLE ids; ALTER TABLE log DROP COLUMN indexed;
        CREATE INDEX events_by_id ON events (id, place); PRAGMA user_version = 1;";
    rusqlite::Connection::open(&path).expect("open").execute_batch(back).expect("done");
    let (transport, _) = start(&url).await.expect("migrated");
    assert!(transport.locate("a").await.expect("asked").is_some(), "with what it held");
    let lease = Duration::from_secs(10);
    transport.roster().expect("a roster").renew(lease).await.expect("renewed");

    if !is_missing("postgres") {
        let server = PostgresServer::start(&[]);
        works(&server.url("older")).await;
        let back = "DROP TABLE older.nodes, older.attendances, older.roster;
            UPDATE older.format SET version = 2";
        postgres_says(&server, back).await;
        let (transport, _) = start(&server.url("older")).await.expect("migrated");
        assert!(transport.locate("a").await.expect("asked").is_some(), "with what it held");
        transport.roster().expect("a roster").renew(lease).await.expect("renewed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_hub() {
    let folder = TempDir::new().expect("folder");
    let url = format!("sqlite://{}/hub.db", folder.path().display());
    let first = start(&url).await.expect("started");
    refuses(&url, "another hub uses").await;
    let (path, other) = (folder.path().join("hub.db"), folder.path().join("other.db"));
    let other_url = format!("sqlite://{}", other.display());
    std::os::unix::fs::symlink(&path, &other).expect("linked");
    refuses(&other_url, "another hub uses").await;
    std::fs::remove_file(&other).expect("removed");
    std::fs::hard_link(&path, &other).expect("linked");
    refuses(&other_url, "another name").await;
    std::fs::remove_file(&other).expect("removed");
    drop(first);
    eventually("it is given up with its hub", async || start(&url).await.is_ok()).await;
    refuses("sqlite:///nowhere/hub.db", "does its folder exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_and_right_ones_work() {
    if !is_missing("redis-server") {
        let server = RedisServer::start(&["--requirepass", "secret"]);
        let port = server.port;
        refuses(&server.url("a"), "credentials").await;
        refuses(&format!("redis://:wrong@127.0.0.1:{port}"), "credentials").await;
        works(&format!("redis://:secret@127.0.0.1:{port}")).await;
        let server = RedisServer::start(&[]);
        let rights = "on >secret ~{acl}:* +@read +@write +@scripting +@connection +wait +time \
                      +config|get";
        let rights: Vec<_> =
            ["ACL", "SETUSER", "hub"].into_iter().chain(rights.split(' ')).collect();
        redis_says(server.port, &rights).await;
        works(&format!("redis://hub:secret@127.0.0.1:{}/0?namespace=acl", server.port)).await;
    }
    if !is_missing("postgres") {
        let server = PostgresServer::start(&[]);
        let port = server.port;
        refuses(&format!("postgres://mercure@127.0.0.1:{port}/nowhere"), "does not exist").await;
        refuses(&format!("postgres://nobody@127.0.0.1:{port}/postgres"), "does not exist").await;
    }
    if !is_missing("nats-server") {
        let server = NatsServer::start_with(&["--user", "me", "--pass", "secret"]);
        let port = server.port;
        refuses(&format!("nats://me:wrong@127.0.0.1:{port}"), "authorization").await;
        works(&format!("nats://me:secret@127.0.0.1:{port}")).await;
    }
}

/// One publisher's update that an engine cannot take is no trouble of the engine.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_alone() {
    if is_missing("nats-server") {
        return;
    }
    let server = NatsServer::start();
    let (transport, _) = start(&server.url("large")).await.expect("started");
    let large = Record { frame: Bytes::from(vec![b'x'; 2 << 20]), ..record("large") };
    let refused = transport.append(large).await;
    assert!(matches!(refused, Err(TransportError::TooLarge { .. })), "{refused:?}");
    assert_eq!(transport.state(), State::Available);
    transport.append(record("small")).await.expect("accepted");
}

/// A certificate for this machine, and the one of whoever signed it.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let words = arguments.split(' ');
        let done = Command::new("openssl").args(words).current_dir(folder).output();
        let done = done.expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
    );
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost");
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1")
        .expect("write");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
}

/// Over TLS, to whom the authority vouches for, and to nobody else.
async fn is_encrypted(trusting: &str, doubting: &str) {
    works(trusting).await;
    let attempt = tokio::time::timeout(Duration::from_secs(3), start(doubting)).await;
    assert!(!matches!(attempt, Ok(Ok(_))), "an unknown authority is not trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_are_reached_over_tls() {
    if is_missing("openssl") {
        return;
    }
    let folder = TempDir::new().expect("folder");
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (ca, key, certificate) = (file("ca.pem"), file("server.key"), file("server.pem"));
    if !is_missing("redis-server") {
        let port = free_port();
        let settings = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate];
        let more = ["--tls-key-file", &key, "--tls-ca-cert-file", &ca, "--tls-auth-clients", "no"];
        let _server = RedisServer::start(&[&settings[..], &more[..]].concat());
        let url = format!("rediss://localhost:{port}/0");
        is_encrypted(&format!("{url}?tls_ca={ca}"), &url).await;
    }
    if !is_missing("postgres") {
        let server = PostgresServer::start_with_tls(&certificate, &key);
        let url = format!("postgres://mercure@localhost:{}/postgres?sslmode=require", server.port);
        is_encrypted(&format!("{url}&tls_ca={ca}"), &url).await;
    }
    if !is_missing("nats-server") {
        let tls = ["--tls", "--tlscert", &certificate, "--tlskey", &key];
        let server = NatsServer::start_with(&tls);
        let url = format!("tls://localhost:{}", server.port);
        is_encrypted(&format!("{url}?tls_ca={ca}"), &url).await;
    }
}

/// Of several hosts, the one that answers and may be written to.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_of_postgresql_the_primary_is_used() {
    if is_missing("postgres") {
        return;
    }
    let mut primary = PostgresServer::start(&[]);
    let mut standby = primary.standby();
    let ports = (standby.port, primary.port);
    let url = format!("postgres://mercure@127.0.0.1:{},127.0.0.1:{}/postgres", ports.0, ports.1);
    let (transport, told) = start(&url).await.expect("started");
    transport.append(record("a")).await.expect("accepted");
    primary.process.kill();
    standby.promote();
    let accepted = async || transport.append(record("b")).await.is_ok();
    eventually("the standby takes over", accepted).await;
    eventually("what follows is told", async || told.ids().last().is_some_and(|id| id == "b"))
        .await;
    assert_eq!(told.gap(), None, "a synchronous standby has lost nothing");
}

/// The sentinels say who is the master.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_replica_takes_over() {
    if is_missing("redis-server") || is_missing("redis-sentinel") {
        return;
    }
    let mut master = RedisServer::start(&[]);
    let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let folder = TempDir::new().expect("folder");
    let (port, path) = (free_port(), folder.path().join("sentinel.conf"));
    let settings = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor hub 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds hub 500\nsentinel failover-timeout hub 3000\n",
        folder.path().display(),
        master.port
    );
    std::fs::write(&path, settings).expect("write");
    let mut command = Command::new("redis-sentinel");
    let mut sentinel =
        Process::start(command.arg(&path), &folder.path().join("log"), "TERM").expect("sentinel");
    sentinel.wait_for(port);
    let url = format!("redis+sentinel://127.0.0.1:{port}/hub/0?min_replicas=1");
    let (transport, told) = start(&url).await.expect("started");
    // The replica has to be in step before it can confirm anything.
    eventually("a replica confirms", async || transport.append(record("a")).await.is_ok()).await;
    // It learns of it from the master, now and then.
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    eventually("the sentinel knows the replica", async || log().contains("+slave slave")).await;
    master.process.kill();
    redis_says(replica.port, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    let read = async || transport.locate("a").await.is_ok_and(|found| found.is_some());
    eventually("the replica takes over, with what it had confirmed", read).await;
    let lone = transport.append(record("b")).await;
    assert!(matches!(lone, Err(TransportError::Unavailable(_))), "nobody confirms: {lone:?}");
    assert_eq!(told.gap(), None, "what was confirmed is there");
}
