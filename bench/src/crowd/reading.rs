use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::reader::Reader;
use super::{Ended, Manner, Shared, Wanted};

/// Connections that are being made at once: fewer than a server lets wait.
const AT_ONCE: usize = 128;
/// How often those read who read slowly.
const SLOWLY: Duration = Duration::from_millis(50);

/// The thread that reads.
pub(super) struct Reading {
    address: SocketAddr,
    poll: Poll,
    wanted: VecDeque<Wanted>,
    readers: Vec<Reader>,
    /// Those who read slowly, and when they have read last.
    slow: Vec<usize>,
    slow_read_at: Instant,
    /// Readers that were not answered yet.
    connecting: usize,
    shared: Arc<Shared>,
    seen: Ended,
}

impl Reading {
    pub(super) fn new(
        address: SocketAddr,
        wanted: Vec<Wanted>,
        shared: Arc<Shared>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            poll: Poll::new()?,
            readers: Vec::with_capacity(wanted.len()),
            wanted: wanted.into(),
            slow: Vec::new(),
            slow_read_at: Instant::now(),
            connecting: 0,
            shared,
            seen: Ended::default(),
        })
    }

    pub(super) fn run(mut self) -> Ended {
        if let Err(error) = self.read_all() {
            *self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("{error:#}"));
        }
        self.seen.last_id = self.readers.iter_mut().find_map(|reader| reader.last_id.take());
        self.seen
    }

    fn read_all(&mut self) -> anyhow::Result<()> {
        let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 256 * 1024]);
        while !self.shared.ends.load(Ordering::Acquire) {
            while self.connecting < AT_ONCE
                && let Some(wanted) = self.wanted.pop_front()
            {
                self.connect(wanted)?;
            }
            match self.poll.poll(&mut events, Some(Duration::from_millis(20))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            if self.shared.forgets.swap(false, Ordering::AcqRel) {
                self.seen.latency = Default::default();
            }
            for event in &events {
                let number = event.token().0;
                self.read(number, &mut buffer).with_context(|| format!("subscriber {number}"))?;
            }
            self.read_slowly(&mut buffer)?;
        }
        Ok(())
    }

    fn connect(&mut self, wanted: Wanted) -> anyhow::Result<()> {
        let mut socket = TcpStream::connect(self.address)?;
        let number = self.readers.len();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(number), interest)?;
        if wanted.manner == Manner::Slowly {
            self.slow.push(number);
        }
        self.readers.push(Reader::new(socket, wanted, number == 0));
        self.connecting += 1;
        Ok(())
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        let reader = &mut self.readers[number];
        if !reader.is_sent {
            reader.send()?;
        }
        while !reader.is_answered || reader.wanted.manner == Manner::AtOnce {
            let Some(count) = reader.read(buffer)? else { break };
            let mut rest = &buffer[..count];
            if !reader.is_answered {
                let Some(body) = reader.head(rest)? else { continue };
                rest = &rest[body..];
                self.connecting -= 1;
                self.shared.ready.fetch_add(1, Ordering::AcqRel);
            }
            let received = reader.body(rest, &mut self.seen.latency)?;
            if reader.wanted.manner == Manner::AtOnce {
                self.shared.received.fetch_add(received, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// Lets those who read slowly read a little.
    fn read_slowly(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        if self.slow_read_at.elapsed() < SLOWLY {
            return Ok(());
        }
        self.slow_read_at = Instant::now();
        for number in &self.slow {
            let reader = &mut self.readers[*number];
            let little = buffer.len().min(512);
            if reader.is_answered
                && let Some(count) = reader.read(&mut buffer[..little])?
            {
                // Their time says how slow they are, and nothing of the server.
                reader.body(&buffer[..count], &mut Default::default())?;
            }
        }
        Ok(())
    }
}
