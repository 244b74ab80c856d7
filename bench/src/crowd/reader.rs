use std::io::{ErrorKind, Read as _, Write as _};

use anyhow::bail;
use mio::net::TcpStream;

use super::Wanted;
use crate::event;
use crate::latency::Latency;

/// One subscriber.
pub(super) struct Reader {
    socket: TcpStream,
    pub(super) wanted: Wanted,
    /// What was read of a line that has not ended, or of the head.
    part: Vec<u8>,
    pub(super) is_sent: bool,
    pub(super) is_answered: bool,
    /// Id of its last event, if it is to keep it.
    pub(super) last_id: Option<String>,
    keeps_id: bool,
    /// Number of the next event.
    next: u64,
}

impl Reader {
    pub(super) fn new(socket: TcpStream, wanted: Wanted, keeps_id: bool) -> Self {
        Self {
            socket,
            next: wanted.first,
            wanted,
            part: Vec::new(),
            is_sent: false,
            is_answered: false,
            last_id: None,
            keeps_id,
        }
    }

    pub(super) fn send(&mut self) -> anyhow::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error.into());
        }
        match self.socket.write(self.wanted.request.as_bytes()) {
            Ok(count) if count == self.wanted.request.len() => self.is_sent = true,
            Ok(_) => bail!("the request does not fit into the socket"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads what fits; `None` if there is nothing.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> anyhow::Result<Option<usize>> {
        match self.socket.read(buffer) {
            Ok(0) => bail!("the server ended the stream"),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the head of the answer; where the body begins in these bytes.
    pub(super) fn head(&mut self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let before = self.part.len();
        self.part.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.part, b"\r\n\r\n") else { return Ok(None) };
        if !self.part.starts_with(b"HTTP/1.1 200 ") {
            bail!("{}", String::from_utf8_lossy(&self.part[..end]));
        }
        self.part = Vec::new();
        self.is_answered = true;
        Ok(Some(end + 4 - before))
    }

    /// Reads lines; how many events they hold.
    pub(super) fn body(&mut self, bytes: &[u8], latency: &mut Latency) -> anyhow::Result<u64> {
        let (now, mut count, mut begin) = (event::now(), 0, 0);
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[begin..end];
            begin = end + 1;
            let sent = match self.part.is_empty() {
                true => self.line(line)?,
                false => {
                    self.part.extend_from_slice(line);
                    let whole = std::mem::take(&mut self.part);
                    self.line(&whole)?
                }
            };
            let Some(sent) = sent else { continue };
            count += 1;
            latency.add(now.saturating_sub(sent));
        }
        self.part.extend_from_slice(&bytes[begin..]);
        Ok(count)
    }

    /// Checks a line; when its event was sent, if it is one.
    fn line(&mut self, line: &[u8]) -> anyhow::Result<Option<u64>> {
        if self.keeps_id
            && let Some(id) = line.strip_prefix(b"id:")
        {
            self.last_id = Some(String::from_utf8_lossy(id).trim().to_owned());
            return Ok(None);
        }
        let Some((number, sent)) = event::parse(line) else { return Ok(None) };
        let each = self.wanted.all_but_each;
        if each != 0 && self.next.is_multiple_of(each) {
            self.next += 1;
        }
        if number != self.next {
            bail!("event {number} came instead of {}", self.next);
        }
        self.next += 1;
        Ok(Some(sent))
    }
}
