//! A publisher on one connection that is kept.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::dialect::{Dialect, Publication};

/// Publications under way at once, if as many as possible are wanted.
pub(crate) const UNDER_WAY: usize = 64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    socket: TcpStream,
    dialect: Dialect,
    /// What was read and is not an answer yet.
    read: Vec<u8>,
    /// Publications that are not answered.
    under_way: usize,
}

impl Publisher {
    pub(crate) fn connect(address: SocketAddr, dialect: &Dialect) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, dialect: dialect.clone(), read: Vec::new(), under_way: 0 })
    }

    /// Publishes; waits only while too many are under way.
    pub(crate) fn send(&mut self, publication: &Publication<'_>) -> anyhow::Result<()> {
        while self.under_way >= UNDER_WAY {
            self.answer()?;
        }
        self.socket.write_all(self.dialect.publish(publication).as_bytes())?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits until everything is acknowledged.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        while self.under_way > 0 {
            self.answer()?;
        }
        Ok(())
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(length) = whole_answer(&self.read)? {
                self.read.drain(..length);
                self.under_way -= 1;
                return Ok(());
            }
            let mut chunk = [0; 16 * 1024];
            let count = self.socket.read(&mut chunk).context("a publication is not answered")?;
            if count == 0 {
                bail!("the server closed the publisher's connection");
            }
            self.read.extend_from_slice(&chunk[..count]);
        }
    }
}

/// The length of the answer that the bytes begin with, once all of it is there.
pub(crate) fn whole_answer(read: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(read, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&read[..end])?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !matches!(status, "200" | "201" | "202") {
        bail!("a publication is answered {status}: {head}");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    let length = end + 4 + length.context("an answer without Content-Length")?;
    Ok((read.len() >= length).then_some(length))
}
