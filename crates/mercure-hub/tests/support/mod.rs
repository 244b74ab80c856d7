//! A hub on a free port, and a client that sees every byte.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod keys;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

use mercure_hub::auth::SigningKey;
use mercure_hub::config::{Config, Layers};
use mercure_hub::{Listeners, serve};
use serde_json::{Value, json};
use tokio::sync::oneshot;

pub const PUBLISHER_KEY: &str = "publisher-key";
pub const SUBSCRIBER_KEY: &str = "subscriber-key";
pub const PATH: &str = "/.well-known/mercure";
pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "https://hub.example/.well-known/mercure";
const PATIENCE: Duration = Duration::from_secs(20);

/// A running hub; it is stopped when dropped.
pub struct TestHub {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestHub {
    pub fn start() -> Self {
        Self::with("")
    }

    /// A hub with settings over the tests' own.
    pub fn with(settings: &str) -> Self {
        let mut layers = Layers::default();
        let names: Vec<_> =
            settings.lines().filter_map(|line| line.split(" = ").next()).map(str::trim).collect();
        let base = [
            ("listen", "\"127.0.0.1:0\"".to_owned()),
            ("ops_listen", "\"none\"".to_owned()),
            ("drain", "\"0s\"".to_owned()),
            ("publisher_jwt_key", format!("\"{PUBLISHER_KEY}\"")),
            ("subscriber_jwt_key", format!("\"{SUBSCRIBER_KEY}\"")),
            ("trusted_issuers", format!("[\"{ISSUER}\"]")),
            ("resource_identifier", format!("\"{AUDIENCE}\"")),
        ];
        let base = base.iter().filter(|(name, _)| !names.contains(name));
        let text: String = base.map(|(name, value)| format!("{name} = {value}\n")).collect();
        layers.file(&format!("{text}{settings}"));
        let config = Config::parse(&layers).expect("valid configuration");

        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("runtime").block_on(async {
                let listeners = Listeners::bind(&config).await.expect("bind");
                tell.send(listeners.addresses()[0].clone()).expect("tell");
                let shutdown = async {
                    let _ = stopped.await;
                };
                serve(config, listeners, shutdown).await.expect("serve");
            });
        });
        let address = told.recv().expect("listening");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn connect(&self) -> Client {
        let socket = TcpStream::connect(&self.address).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Client { socket, buffer: Vec::new() }
    }

    /// Sends a request on a connection of its own and reads the head of the answer.
    pub fn send(&self, request: &str) -> (Response, Client) {
        let mut client = self.connect();
        client.write(request);
        (client.head(), client)
    }

    pub fn get(&self, query: &str, headers: &[&str]) -> (Response, Client) {
        self.send(&format!("GET {PATH}?{query} HTTP/1.1\r\nHost: x\r\n{}\r\n", lines(headers)))
    }

    /// Subscribes; the answer must be a stream.
    pub fn subscribe(&self, query: &str, headers: &[&str]) -> Client {
        let (response, client) = self.get(query, headers);
        assert_eq!(response.status, 200, "{query} {}", response.text);
        client
    }

    pub fn post(&self, body: &str, headers: &[&str]) -> (u16, String, Response) {
        let (response, mut client) = self.send(&post(body, headers));
        let body = client.body(&response);
        (response.status, body, response)
    }

    /// Publishes with a token that allows everything; returns the id.
    pub fn publish(&self, body: &str) -> String {
        let token = v0(PUBLISHER_KEY, &json!({"publish": ["*"]}));
        let (status, body, _) = self.post(body, &[&bearer(&token)]);
        assert_eq!(status, 200, "{body}");
        body
    }

    pub fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the hub ends without a panic");
        }
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn post(body: &str, headers: &[&str]) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n{}\r\n{body}",
        body.len(),
        lines(headers),
    )
}

fn lines(headers: &[&str]) -> String {
    headers.iter().map(|header| format!("{header}\r\n")).collect()
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// A 0.x token.
pub fn v0(key: &str, mercure: &Value) -> String {
    sign(key, "JWT", &json!({"mercure": mercure}))
}

/// A 1.0 token that is right in everything but what `changes` makes of it.
pub fn v1(key: &str, action: &str, topic: &str, changes: &Value) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": 4_000_000_000_u64,
        "authorization_details": [{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": [action],
            "topics": [{"match": topic}],
        }],
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    sign(key, "at+jwt", &claims)
}

pub fn sign(key: &str, typ: &str, claims: &Value) -> String {
    SigningKey::parse(key, "HS256").expect("key").sign(typ, claims).expect("token")
}

/// The head of an answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub text: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn write(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).expect("write");
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65536];
        let count = self.socket.read(&mut chunk).expect("something arrives in time");
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }

    fn until(&mut self, mark: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                let part = self.buffer.drain(..at + mark.len()).collect::<Vec<_>>();
                return Some(String::from_utf8(part[..at].to_vec()).expect("UTF-8"));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    pub fn head(&mut self) -> Response {
        let text = self.until(b"\r\n\r\n").expect("a response");
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
        Response { status, text }
    }

    /// The body of an answer with a length.
    pub fn body(&mut self, response: &Response) -> String {
        let length = response.header("content-length").map_or(0, |n| n.parse().expect("length"));
        while self.buffer.len() < length {
            assert!(self.fill(), "the body is complete");
        }
        String::from_utf8(self.buffer.drain(..length).collect()).expect("UTF-8")
    }

    /// The fields of the next event; `None` at the end of the stream.
    pub fn event(&mut self) -> Option<Vec<(String, String)>> {
        loop {
            let block = self.until(b"\n\n")?;
            let fields = block.lines().filter_map(|line| line.split_once(": "));
            let fields: Vec<_> = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            if fields.iter().any(|(name, _)| name == "data") {
                return Some(fields);
            }
        }
    }

    /// The data of the next event.
    pub fn data(&mut self) -> Option<String> {
        let fields = self.event()?;
        fields.into_iter().find(|(name, _)| name == "data").map(|(_, value)| value)
    }
}
