//! Key sets that are fetched: rotation, failures, and how often they are asked for.

mod drill;
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use drill::node::{Heir, Node, PATIENCE};
use mercure_hub::config::{Config, Layers};
use mercure_hub::{Listeners, Server};
use serde_json::{Value, json};
use support::keys::*;
use support::*;

const ONE: &str = "https://one.example";

/// A server of key sets that counts how often it is asked.
struct Sets {
    url: String,
    document: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Sets {
    fn serve(document: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("address"));
        let current = Arc::new(Mutex::new(Some(document.to_string())));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shown, count) = (Arc::clone(&current), Arc::clone(&asked));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.expect("accept");
                let mut request = [0; 4096];
                let _ = socket.read(&mut request);
                count.fetch_add(1, Ordering::SeqCst);
                let answer = match shown.lock().expect("document").as_ref() {
                    Some(text) => format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                        text.len()
                    ),
                    None => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        .to_owned(),
                };
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { url, document: current, asked }
    }

    fn show(&self, document: Option<&Value>) {
        *self.document.lock().expect("document") = document.map(ToString::to_string);
    }
}

/// Key pairs of one algorithm as a JWK Set, named by their place.
fn set(pairs: &[(&str, &Pair)]) -> Value {
    let keys: Vec<_> = pairs
        .iter()
        .map(|(kid, pair)| {
            let key = jsonwebtoken::EncodingKey::from_ec_pem(pair.private.as_bytes()).expect("key");
            let jwk =
                jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256);
            let mut jwk = serde_json::to_value(jwk.expect("jwk")).expect("JSON");
            jwk["kid"] = json!(kid);
            jwk
        })
        .collect();
    json!({ "keys": keys })
}

#[test]
fn fetched_keys_rotate() {
    let (old, new) = (pair_for("ES256"), pair_for("ES256"));
    let sets = Sets::serve(&set(&[("old", &old)]));
    let hub = TestHub::with(&format!(
        "jwks_cooldown = \"1ms\"\n[[issuer]]\nid = \"{ONE}\"\npublisher = {{ jwks_uri = \"{}\" }}\n",
        sets.url
    ));
    let by_old = signed(&old.private, "ES256", Some("old"), &claims(ONE));
    let by_new = signed(&new.private, "ES256", Some("new"), &claims(ONE));
    until(&hub, &by_old, 200);
    assert_eq!(status(&hub, &by_new), 401, "not published yet");
    sets.show(Some(&set(&[("old", &old), ("new", &new)])));
    // An unknown kid is a reason to look again, once the cooldown is over.
    until(&hub, &by_new, 200);
    assert_eq!(status(&hub, &by_old), 200);
    sets.show(None);
    assert_eq!(status(&hub, &signed(&new.private, "ES256", Some("x"), &claims(ONE))), 401);
    assert_eq!(status(&hub, &by_new), 200, "a failing endpoint keeps the last good set");
    sets.show(Some(&json!({"keys": []})));
    // An empty set revokes everything, as soon as an unknown kid has made the hub look.
    let unknown = signed(&new.private, "ES256", Some("y"), &claims(ONE));
    let mut looks = 0..10_000;
    while status(&hub, &by_new) == 200 {
        assert_eq!(status(&hub, &unknown), 401);
        assert!(looks.next().is_some(), "an empty set revokes everything");
    }
    sets.show(Some(&set(&[("new", &new)])));
    until(&hub, &by_new, 200);
    assert_eq!(status(&hub, &by_old), 401, "a withdrawn key verifies nothing any more");
}

#[test]
fn withdrawn_keys_disappear_without_being_asked_for() {
    let (old, new) = (pair_for("ES256"), pair_for("ES256"));
    let sets = Sets::serve(&set(&[("old", &old)]));
    let hub = TestHub::with(&format!(
        "jwks_refresh = \"20ms\"\n[[issuer]]\nid = \"{ONE}\"\npublisher = {{ jwks_uri = \"{}\" }}\n",
        sets.url
    ));
    let token = signed(&old.private, "ES256", Some("old"), &claims(ONE));
    until(&hub, &token, 200);
    sets.show(Some(&set(&[("new", &new)])));
    until(&hub, &token, 401);
}

/// The beginning of the answer to a request.
fn ask(address: &str, request: &str) -> impl FnOnce() -> String + Send + 'static {
    let (address, request) = (address.to_owned(), request.to_owned());
    move || {
        let mut socket = TcpStream::connect(&address).expect("connect");
        socket.write_all(request.as_bytes()).expect("write");
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_was_fetched_while_its_server_is_away() {
    let pair = pair_for("ES256");
    let sets = Sets::serve(&set(&[("known", &pair)]));
    let mut layers = Layers::default();
    layers.file(&format!(
        "listen = \"127.0.0.1:0\"\nops_listen = \"none\"\ndrain = \"0s\"\nresource_identifier = \"{AUDIENCE}\"\n\
         [[issuer]]\nid = \"{ONE}\"\npublisher = {{ jwks_uri = \"{}\" }}\n",
        sets.url
    ));
    let config = || Config::parse(&layers).expect("valid");
    let listeners = Listeners::bind(&config()).await.expect("bind");
    let address = listeners.addresses()[0].clone();
    let mut server = Server::start(config(), listeners).await.expect("start");
    let token = signed(&pair.private, "ES256", Some("known"), &claims(ONE));
    let request = post("topic=t", &[&bearer(&token)]);
    let asked = || tokio::task::spawn_blocking(ask(&address, &request));
    let mut tries = 0..1000;
    while asked().await.expect("asked") != "HTTP/1.1 200" {
        assert!(tries.next().is_some(), "the set is fetched at the start");
    }
    sets.show(None);
    assert_eq!(server.reload(config()), Ok(vec![]));
    assert_eq!(asked().await.expect("asked"), "HTTP/1.1 200");
    server.stop(async || ()).await.expect("stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_needs_what_the_program_before_has_fetched() {
    let (pair, folder) = (pair_for("ES256"), tempfile::tempdir().expect("folder"));
    let known = set(&[("known", &pair)]);
    let (sets, file) = (Sets::serve(&known), folder.path().join("hub.toml"));
    let text = format!(
        "resource_identifier = \"{AUDIENCE}\"\n\
         [[issuer]]\nid = \"{ONE}\"\npublisher = {{ jwks_uri = \"{}\" }}\n",
        sets.url
    );
    std::fs::write(&file, text).expect("write");
    let mut node = Node::start("memory://", &[&format!("--config={}", file.display())]);
    let token = signed(&pair.private, "ES256", Some("known"), &claims(ONE));
    let (address, request) = (node.address(), post("topic=t", &[&bearer(&token)]));
    let asked = || tokio::task::spawn_blocking(ask(&address, &request));
    let mut tries = 0..1000;
    while asked().await.expect("asked") != "HTTP/1.1 200" {
        assert!(tries.next().is_some(), "the set is fetched at the start");
    }
    sets.show(None);
    node.process.signal("USR2");
    node.says("fetching the keys of").await;
    node.says("did not start").await;
    assert_eq!(asked().await.expect("asked"), "HTTP/1.1 200", "the one with the keys goes on");
    sets.show(Some(&known));
    node.process.signal("USR2");
    let _heir = Heir::of(&node, 1).await;
    assert!(node.process.ends_within(PATIENCE), "{}", node.words());
    sets.show(None);
    assert_eq!(asked().await.expect("asked"), "HTTP/1.1 200");
}

#[test]
fn made_up_key_names_cause_few_fetches() {
    let pair = pair_for("ES256");
    let sets = Sets::serve(&set(&[("known", &pair)]));
    let hub = TestHub::with(&format!(
        "jwks_cooldown = \"1h\"\n[[issuer]]\nid = \"{ONE}\"\npublisher = {{ jwks_uri = \"{}\" }}\n",
        sets.url
    ));
    until(&hub, &signed(&pair.private, "ES256", Some("known"), &claims(ONE)), 200);
    for number in 0..100 {
        let kid = format!("made-up-{number}");
        assert_eq!(status(&hub, &signed(&pair.private, "ES256", Some(&kid), &claims(ONE))), 401);
    }
    assert!(sets.asked.load(Ordering::SeqCst) <= 2, "one at the start, one at most since");
}

#[test]
fn a_set_may_be_a_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path: PathBuf = folder.path().join("jwks.json");
    let (old, new) = (pair_for("ES256"), pair_for("ES256"));
    std::fs::write(&path, set(&[("old", &old)]).to_string()).expect("write");
    let hub = TestHub::with(&format!(
        "jwks_cooldown = \"1ms\"\n[[issuer]]\nid = \"{ONE}\"\n\
         publisher = {{ jwks_uri = \"file://{}\", alg = \"ES256\" }}\n",
        path.display()
    ));
    until(&hub, &signed(&old.private, "ES256", Some("old"), &claims(ONE)), 200);
    std::fs::write(&path, set(&[("new", &new)]).to_string()).expect("write");
    until(&hub, &signed(&new.private, "ES256", Some("new"), &claims(ONE)), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_keys_are_fetched_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let path: PathBuf = folder.path().join("jwks.json");
    let pair = pair_for("ES256");
    std::fs::write(&path, set(&[("k", &pair)]).to_string()).expect("write");
    let mut layers = Layers::default();
    layers.file(&format!(
        "listen = \"127.0.0.1:0\"\nops_listen = \"none\"\ndrain = \"0s\"\npublisher_jwt_key = \"p\"\n\
         trusted_issuers = \"{ONE}\"\nresource_identifier = \"{AUDIENCE}\"\nsubscriber_jwks_uri = \"file://{}\"\n",
        path.display()
    ));
    let config = Config::parse(&layers).expect("valid");
    let listeners = Listeners::bind(&config).await.expect("bind");
    let address = listeners.addresses()[0].clone();
    let server = Server::start(config, listeners).await.expect("start");
    let token = bearer(&signed(&pair.private, "ES256", Some("k"), &claims(ONE)));
    let subscription = format!("GET {PATH}?match=a HTTP/1.1\r\nHost: x\r\n{token}\r\n\r\n");
    let asked = |request: &str| tokio::task::spawn_blocking(ask(&address, request));
    // It is fetched at the start.
    let mut tries = 0..1000;
    while asked(&subscription).await.expect("asked") != "HTTP/1.1 200" {
        assert!(tries.next().is_some(), "the set verifies subscribers");
    }
    let publication = post("topic=a", &[&token]);
    assert_eq!(asked(&publication).await.expect("asked"), "HTTP/1.1 401", "no publishers' key");
    server.stop(async || ()).await.expect("stop");
}

/// What everybody can fetch is no secret: a symmetric key in a fetched set does not count.
#[test]
fn a_fetched_secret_is_none() {
    let secret = json!({"keys": [{"kty": "oct", "kid": "s", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]});
    let sets = Sets::serve(&secret);
    let hub = TestHub::with(&format!(
        "jwks_cooldown = \"1ms\"\n[[issuer]]\nid = \"{ONE}\"\n\
         publisher = {{ jwks_uri = \"{}\", alg = [\"HS256\", \"ES256\"] }}\n",
        sets.url
    ));
    let token = signed("secret-secret-secret", "HS256", Some("s"), &claims(ONE));
    assert_eq!(status(&hub, &token), 401);
    assert_eq!(status(&hub, &token), 401);
}
