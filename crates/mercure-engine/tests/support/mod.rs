//! A hub on the memory transport, and readers of its streams.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mercure_engine::{
    Clock, From, Hub, MemoryTransport, NewSubscriber, Options, Outlet, Retention, Transport,
};
use mercure_protocol::{Grants, HubUrl, Limits, Matcher, MatcherType, Publication, Update};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn hub_url() -> HubUrl {
    HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL")
}

pub fn options() -> Options {
    // Heartbeats would keep a reader waiting that has missed its event.
    Options { shards: 2, heartbeat: None, ..Options::new(hub_url()) }
}

pub fn memory(retention: Retention, clock: &Clock) -> Arc<dyn Transport> {
    Arc::new(MemoryTransport::new(retention, clock.clone()))
}

pub async fn start(transport: Arc<dyn Transport>, options: Options, clock: Clock) -> Arc<Hub> {
    Hub::start(transport, options, clock).await.expect("the hub starts")
}

pub async fn simple() -> Arc<Hub> {
    let clock = Clock::system();
    start(memory(Retention::default(), &clock), options(), clock).await
}

pub fn update(topic: &str, data: &str) -> Update {
    build(&Publication { topics: vec![topic], data, ..Publication::default() })
}

pub fn build(raw: &Publication<'_>) -> Update {
    Update::new(raw, &hub_url(), &Limits::default()).expect("valid update")
}

pub fn selector(text: &str) -> Matcher {
    Matcher::parse(MatcherType::Selector, text, &hub_url(), &Limits::default()).expect("selector")
}

pub fn may_read(topics: &[&str]) -> Option<Arc<Grants>> {
    let none: &[&str] = &[];
    let grants = Grants::from_selectors(none, topics, &hub_url(), &Limits::default());
    Some(Arc::new(grants.expect("grants")))
}

pub fn subscriber(hub: &Hub, outlet: Outlet, topics: &[&str]) -> NewSubscriber {
    NewSubscriber {
        outlet,
        matchers: topics.iter().map(|topic| selector(topic)).collect(),
        grants: None,
        from: hub.now(),
        preamble: Bytes::from_static(b":ok\n\n"),
        permit: hub.admit(None).expect("room"),
        present: None,
        deadline: None,
    }
}

/// A connected pair: the hub's end as an outlet, and the client's end.
pub fn connection() -> (Outlet, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    (Outlet::tcp(server).expect("outlet"), Stream { socket: client, buffer: Vec::new() })
}

/// A client that reads an event stream, with a deadline.
pub struct Stream {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Stream {
    /// Attaches a subscriber and waits until its preamble has arrived: from then on it is live
    /// or catching up.
    pub fn attach(hub: &Hub, topics: &[&str], adjust: impl FnOnce(&mut NewSubscriber)) -> Self {
        let (outlet, mut stream) = connection();
        let mut new = subscriber(hub, outlet, topics);
        adjust(&mut new);
        hub.attach(new);
        assert_eq!(stream.block().as_deref(), Some(":ok"));
        stream
    }

    pub fn live(hub: &Hub, topics: &[&str]) -> Self {
        Self::attach(hub, topics, |_| {})
    }

    pub fn from(hub: &Hub, topics: &[&str], from: From) -> Self {
        Self::attach(hub, topics, |new| new.from = from)
    }

    /// The next block (up to an empty line); `None` at the end of the stream.
    pub fn block(&mut self) -> Option<String> {
        self.socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block = self.buffer.drain(..at + 2).collect::<Vec<_>>();
                return Some(String::from_utf8(block[..at].to_vec()).expect("UTF-8"));
            }
            let mut chunk = [0; 65536];
            match self.socket.read(&mut chunk).expect("something arrives in time") {
                0 => return None,
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// The data of the next event.
    pub fn data(&mut self) -> Option<String> {
        loop {
            let block = self.block()?;
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) = data {
                return Some(data.to_owned());
            }
        }
    }

    /// Reads until a heartbeat has arrived.
    pub fn expect_heartbeat(&mut self) {
        self.socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        while !self.buffer.starts_with(b":\n") {
            let mut chunk = [0; 1024];
            let count = self.socket.read(&mut chunk).expect("a heartbeat arrives in time");
            assert_ne!(count, 0, "the stream goes on");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
        self.buffer.drain(..2);
    }

    pub fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.data().expect("the stream goes on")).collect()
    }
}
