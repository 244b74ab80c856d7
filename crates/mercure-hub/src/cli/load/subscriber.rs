//! Subscribers: each checks that it gets every event once and in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use memchr::memchr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Plan;
use super::tally::Tally;
use super::target::{Socket, Target};

/// Connections that are being opened at once.
const AT_ONCE: usize = 200;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest head, and the longest line.
const LONGEST: usize = 4 << 20;

/// Opens all, and returns when each has been answered.
pub(super) async fn connect_all(
    plan: &Plan,
    tally: &Arc<Tally>,
    subscribers: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let request: Arc<str> = plan.target.subscription(plan.subscriber_token.as_deref()).into();
    let (gate, mut opening) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for _ in 0..plan.subscribers {
        let permit = Arc::clone(&gate).acquire_owned().await?;
        let (target, request) = (plan.target.clone(), Arc::clone(&request));
        opening.spawn(async move {
            let opened = open(&target, &request);
            let opened = tokio::time::timeout(PATIENCE, opened).await;
            drop(permit);
            opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        });
        // What has failed already ends the attempt.
        while let Some(opened) = opening.try_join_next() {
            follow(opened?, plan, tally, subscribers)?;
        }
    }
    while let Some(opened) = opening.join_next().await {
        follow(opened?, plan, tally, subscribers)?;
    }
    Ok(())
}

fn follow(
    opened: io::Result<Stream>,
    plan: &Plan,
    tally: &Arc<Tally>,
    subscribers: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let mut stream = opened.context("a subscriber could not connect")?;
    let (tally, publishers) = (Arc::clone(tally), plan.publishers.into());
    subscribers.spawn(async move {
        // What is expected next of each publisher.
        let mut next = vec![1; publishers];
        while let Ok(Some(line)) = stream.line().await {
            if let Some((publisher, number, at)) = parse(&line)
                && let Some(next) = next.get_mut(publisher)
            {
                *next = tally.received(number, *next, at);
            }
        }
        tally.ended();
    });
    Ok(())
}

/// Who has published an event, its number, and when.
fn parse(line: &[u8]) -> Option<(usize, u64, Duration)> {
    let text = std::str::from_utf8(line.strip_prefix(b"data:")?).ok()?;
    let mut words = text.split_whitespace();
    let publisher = words.next()?.parse().ok()?;
    let (number, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((publisher, number, Duration::from_nanos(at)))
}

/// The lines of a body, chunked or not.
struct Stream {
    socket: Box<dyn Socket>,
    read: Vec<u8>,
    /// Of `read`, how much belongs to the body and is not part of a chunk's frame.
    body: Vec<u8>,
    chunked: Option<Chunk>,
}

/// Where in the chunks the reader stands (RFC 9112, 7.1).
enum Chunk {
    Size,
    Data(usize),
    End,
}

async fn open(target: &Target, request: &str) -> io::Result<Stream> {
    let mut socket = target.connect().await?;
    socket.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if read.len() > LONGEST || socket.read_buf(&mut read).await? == 0 {
            return Err(io::Error::other("the hub closed the connection instead of an answer"));
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let advice = match status {
            "401" => ": subscribers need a token here (--subscriber-jwt)",
            "403" => ": the token does not allow the topic",
            "429" => {
                ": raise max_connections_per_address and, with --subscriber-jwt, \
                 max_connections_per_subject, or load from several machines"
            }
            _ => "",
        };
        return Err(io::Error::other(format!("the hub answered {status}{advice}")));
    }
    let is_chunked =
        head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    read.drain(..end);
    Ok(Stream { socket, read, body: Vec::new(), chunked: is_chunked.then_some(Chunk::Size) })
}

impl Stream {
    /// The next line, without its end; `None` at the end of the stream.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            self.unpack()?;
            if let Some(end) = memchr(b'\n', &self.body) {
                let line: Vec<u8> = self.body.drain(..=end).collect();
                return Ok(Some(line));
            }
            if self.read.len() + self.body.len() > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Moves what was read into the body, without the frames of chunks.
    fn unpack(&mut self) -> io::Result<()> {
        let Some(chunk) = &mut self.chunked else {
            self.body.append(&mut self.read);
            return Ok(());
        };
        loop {
            match chunk {
                Chunk::Size | Chunk::End => {
                    let Some(end) = memchr(b'\n', &self.read) else { return Ok(()) };
                    let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
                    self.read.drain(..=end);
                    *chunk = match chunk {
                        Chunk::End => Chunk::Size,
                        _ => {
                            let size = line.split(';').next().unwrap_or_default().trim();
                            let size = usize::from_str_radix(size, 16);
                            Chunk::Data(size.map_err(|_| io::ErrorKind::InvalidData)?)
                        }
                    };
                }
                Chunk::Data(left) => {
                    let count = (*left).min(self.read.len());
                    self.body.extend(self.read.drain(..count));
                    *left -= count;
                    if *left > 0 {
                        return Ok(());
                    }
                    *chunk = Chunk::End;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_are_taken_out_of_their_frames() {
        let (mine, mut theirs) = tokio::io::duplex(64);
        let writing = tokio::spawn(async move {
            for part in [&b"5\r\ndata:\r"[..], b"\n9;x=1\r\n 0 1 2 x\n\r\n0\r\n\r\n"] {
                theirs.write_all(part).await.expect("write");
            }
        });
        let chunked = Some(Chunk::Size);
        let mut stream =
            Stream { socket: Box::new(mine), read: Vec::new(), body: Vec::new(), chunked };
        let line = stream.line().await.expect("whole").expect("a line");
        assert_eq!(parse(&line), Some((0, 1, Duration::from_nanos(2))));
        assert_eq!(stream.line().await.expect("whole"), None);
        writing.await.expect("written");
    }
}
