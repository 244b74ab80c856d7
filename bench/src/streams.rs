//! Subscribers over HTTP/2: many streams on each connection, so that more fit on a machine than it
//! has descriptors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::event;
use crate::progress::reach;

/// Streams on one connection: what a server allows.
const EACH: usize = 250;

/// Streams that are open.
pub(crate) struct Streams {
    counts: Arc<Counts>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Counts {
    ready: AtomicU64,
    received: AtomicU64,
    /// Streams that have ended, or got something that was not for them.
    wrong: AtomicU64,
}

impl Streams {
    /// Opens all, and returns when each has been answered.
    pub(crate) fn open(address: SocketAddr, target: &str, count: usize) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).enable_all();
        let (runtime, counts) = (builder.build()?, Arc::new(Counts::default()));
        let uri = format!("http://localhost{target}");
        for first in (0..count).step_by(EACH) {
            let (counts, uri) = (Arc::clone(&counts), uri.clone());
            runtime.block_on(connection(address, uri, EACH.min(count - first), counts))?;
        }
        let streams = Self { counts, _runtime: runtime };
        streams.wait(count as u64, |counts| &counts.ready)?;
        Ok(streams)
    }

    /// Waits until so many events have arrived since the beginning, at all together.
    pub(crate) fn received(&self, count: u64) -> anyhow::Result<()> {
        self.wait(count, |counts| &counts.received)
    }

    fn wait(&self, goal: u64, progress: impl Fn(&Counts) -> &AtomicU64) -> anyhow::Result<()> {
        reach(goal, || match self.counts.wrong.load(Ordering::Acquire) {
            0 => Ok(progress(&self.counts).load(Ordering::Acquire)),
            wrong => bail!("{wrong} streams have broken"),
        })
    }
}

async fn connection(
    address: SocketAddr,
    uri: String,
    count: usize,
    counts: Arc<Counts>,
) -> anyhow::Result<()> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut client, connection) = h2::client::Builder::new()
        .initial_connection_window_size(1 << 24)
        .handshake::<_, bytes::Bytes>(socket)
        .await?;
    tokio::spawn(connection);
    for _ in 0..count {
        client = client.ready().await?;
        tokio::spawn(follow(open(&mut client, &uri)?, Arc::clone(&counts)));
    }
    // Kept as long as its streams are.
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(client);
    });
    Ok(())
}

fn open(
    client: &mut SendRequest<bytes::Bytes>,
    uri: &str,
) -> anyhow::Result<h2::client::ResponseFuture> {
    let (response, _) = client.send_request(Request::get(uri).body(())?, true)?;
    Ok(response)
}

/// Reads one stream, and checks that its events come once and in order.
async fn follow(response: h2::client::ResponseFuture, counts: Arc<Counts>) {
    if read(response, &counts).await.is_err() {
        counts.wrong.fetch_add(1, Ordering::AcqRel);
    }
}

async fn read(response: h2::client::ResponseFuture, counts: &Counts) -> anyhow::Result<()> {
    let response = response.await?;
    if response.status() != 200 {
        bail!("refused: {}", response.status());
    }
    counts.ready.fetch_add(1, Ordering::AcqRel);
    let (mut body, mut part, mut next) = (response.into_body(), Vec::new(), 1);
    loop {
        let chunk = body.data().await.context("the stream ended")??;
        body.flow_control().release_capacity(chunk.len())?;
        part.extend_from_slice(&chunk);
        while let Some(end) = memchr::memchr(b'\n', &part) {
            let line: Vec<u8> = part.drain(..=end).collect();
            let Some((number, _)) = event::parse(&line[..end]) else { continue };
            if number != next {
                bail!("event {number} came instead of {next}");
            }
            next += 1;
            counts.received.fetch_add(1, Ordering::AcqRel);
        }
        part.shrink_to(0);
    }
}
