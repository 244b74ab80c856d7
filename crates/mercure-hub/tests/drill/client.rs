//! Clients that note what they see.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::PATH;

/// How long a client waits for a byte, heartbeats included, before it tries another node.
const SILENCE: Duration = Duration::from_secs(20);

/// A connection that is read piece by piece.
pub struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer is read already.
    begin: usize,
}

impl Wire {
    pub async fn connect(address: &str) -> io::Result<Self> {
        let socket = tokio::time::timeout(SILENCE, TcpStream::connect(address)).await??;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::new(), begin: 0 })
    }

    pub async fn write(&mut self, text: &str) -> io::Result<()> {
        self.write_bytes(text.as_bytes()).await
    }

    pub async fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The text up to a mark, which is taken out.
    pub async fn until(&mut self, mark: &str) -> io::Result<String> {
        let mut looked = self.begin;
        loop {
            let rest = &self.buffer[looked..];
            if let Some(at) = rest.windows(mark.len()).position(|w| w == mark.as_bytes()) {
                let end = looked + at;
                let part = String::from_utf8_lossy(&self.buffer[self.begin..end]).into_owned();
                self.begin = end + mark.len();
                return Ok(part);
            }
            looked = self.buffer.len().saturating_sub(mark.len() - 1).max(self.begin);
            if self.begin > 1 << 16 {
                self.buffer.drain(..self.begin);
                looked -= self.begin;
                self.begin = 0;
            }
            let read = self.socket.read_buf(&mut self.buffer);
            if tokio::time::timeout(SILENCE, read).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The body of an answer with a length.
    pub async fn body(&mut self, head: &str) -> io::Result<String> {
        let length: usize = field(head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        while self.buffer.len() - self.begin < length {
            let read = self.socket.read_buf(&mut self.buffer);
            if tokio::time::timeout(SILENCE, read).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let body = self.buffer[self.begin..self.begin + length].to_vec();
        self.begin += length;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// A header field.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Publishes on a connection that is kept. `Ok(false)`: the hub has refused, for now.
pub async fn publish(wire: &mut Wire, token: &str, form: &str) -> io::Result<bool> {
    wire.write(&format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    ))
    .await?;
    let head = wire.until("\r\n\r\n").await?;
    wire.body(&head).await?;
    match status(&head) {
        200 => Ok(true),
        503 => {
            assert!(
                field(&head, "retry-after").is_some(),
                "a refusal says when to come back: {head}"
            );
            Ok(false)
        }
        other => panic!("a publication is answered {other}: {head}"),
    }
}

/// Gets a document.
pub async fn get(address: &str, path: &str, token: &str) -> io::Result<String> {
    let mut wire = Wire::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    wire.write(&request).await?;
    let head = wire.until("\r\n\r\n").await?;
    let body = wire.body(&head).await?;
    if status(&head) == 200 { Ok(body) } else { Err(io::Error::other(head)) }
}

/// A hub's figures, whose answer has a length as well.
pub async fn get_figures(ops: &str) -> io::Result<String> {
    get(ops, "/metrics", "none").await
}

/// An event, as a subscriber saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub data: String,
}

/// An open stream.
pub struct Stream(Wire);

impl Stream {
    /// Subscribes after an event. The hub must say that nothing is missing before what follows.
    pub async fn open(
        address: &str,
        query: &str,
        token: &str,
        cursor: &str,
    ) -> io::Result<Result<Self, String>> {
        let mut wire = Wire::connect(address).await?;
        wire.write(&format!(
            "GET {PATH}?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Last-Event-ID: {cursor}\r\n\r\n"
        ))
        .await?;
        let head = wire.until("\r\n\r\n").await?;
        if status(&head) != 200 {
            return Err(io::Error::other(head));
        }
        match field(&head, "mercure-last-event-id") {
            Some(found) if found == cursor => Ok(Ok(Self(wire))),
            other => Ok(Err(format!("after {cursor}, the hub goes on after {other:?}"))),
        }
    }

    /// The next event.
    pub async fn next(&mut self) -> io::Result<Seen> {
        loop {
            let block = self.0.until("\n\n").await?;
            let mut seen = Seen { id: String::new(), data: String::new() };
            for line in block.lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    id.clone_into(&mut seen.id);
                } else if let Some(data) = line.strip_prefix("data: ") {
                    data.clone_into(&mut seen.data);
                }
            }
            if !seen.data.is_empty() {
                return Ok(seen);
            }
        }
    }
}

/// Everything that the log holds, up to an event that is published for that purpose.
pub async fn replay(address: &str, publisher: &str, reader: &str) -> io::Result<Vec<Seen>> {
    let last = format!("last-{}", fastrand::u64(..));
    let mut wire = Wire::connect(address).await?;
    let form = format!("topic=last&data={last}&id={last}");
    if !publish(&mut wire, publisher, &form).await? {
        return Err(io::Error::other("not yet"));
    }
    let opened = Stream::open(address, "topic=*", reader, "earliest").await?;
    let mut stream = opened.map_err(io::Error::other)?;
    let mut all = Vec::new();
    loop {
        let seen = stream.next().await?;
        if seen.id == last {
            return Ok(all);
        }
        all.push(seen);
    }
}
