//! Subscribers: thousands of connections that one thread reads, each of which checks that it gets
//! every event, once and in order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::event;
use crate::latency::Latency;

/// Connections that are being made at once: fewer than a server lets wait.
const AT_ONCE: usize = 128;
/// How long nothing may happen while something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Subscribers that are connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Latency>>,
}

#[derive(Debug, Default)]
struct Shared {
    ready: AtomicUsize,
    received: AtomicU64,
    ends: AtomicBool,
    wrong: Mutex<Option<String>>,
}

/// One subscriber to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Its request.
    pub(crate) request: String,
    /// Whether it stops reading once it is answered.
    pub(crate) stalls: bool,
}

impl Crowd {
    /// Connects all, and returns when each has been answered.
    pub(crate) fn connect(address: SocketAddr, wanted: Vec<Wanted>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let count = wanted.len();
        let reader = Reading::new(address, wanted, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("crowd".to_owned());
        let thread = thread.spawn(move || reader.run())?;
        let crowd = Self { shared, thread: Some(thread) };
        crowd.wait(|shared| shared.ready.load(Ordering::Acquire) as u64, count as u64)?;
        Ok(crowd)
    }

    /// Waits until so many events have arrived, at all of them together, since the beginning.
    pub(crate) fn received(&self, count: u64) -> anyhow::Result<()> {
        self.wait(|shared| shared.received.load(Ordering::Acquire), count)
    }

    fn wait(&self, progress: impl Fn(&Shared) -> u64, goal: u64) -> anyhow::Result<()> {
        let (mut last, mut still) = (0, Duration::ZERO);
        loop {
            let wrong = self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(wrong) = &*wrong {
                bail!("{wrong}");
            }
            drop(wrong);
            let now = progress(&self.shared);
            if now > goal {
                bail!("{now} events arrived, which is more than {goal}");
            }
            if now == goal {
                return Ok(());
            }
            let pause = Duration::from_micros(200);
            still = if now == last { still + pause } else { Duration::ZERO };
            last = now;
            if still > PATIENCE {
                bail!("{now} of {goal}, and nothing more comes");
            }
            std::thread::sleep(pause);
        }
    }

    /// Ends all, and tells how long deliveries took.
    pub(crate) fn end(mut self) -> anyhow::Result<Latency> {
        self.shared.ends.store(true, Ordering::Release);
        let thread = self.thread.take().context("ended once")?;
        thread.join().map_err(|_| anyhow!("the crowd panicked"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
    }
}

/// The thread that reads.
struct Reading {
    address: SocketAddr,
    poll: Poll,
    wanted: VecDeque<Wanted>,
    readers: Vec<Reader>,
    /// Readers that were not answered yet.
    connecting: usize,
    shared: Arc<Shared>,
    latency: Latency,
}

struct Reader {
    socket: TcpStream,
    wanted: Wanted,
    /// What was read of a line that has not ended, or of the head.
    part: Vec<u8>,
    is_sent: bool,
    is_answered: bool,
    /// Number of the next event.
    next: u64,
}

impl Reading {
    fn new(address: SocketAddr, wanted: Vec<Wanted>, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let (poll, readers) = (Poll::new()?, Vec::with_capacity(wanted.len()));
        let latency = Latency::default();
        let wanted = wanted.into();
        Ok(Self { address, poll, wanted, readers, connecting: 0, shared, latency })
    }

    fn run(mut self) -> Latency {
        if let Err(error) = self.read_all() {
            *self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("{error:#}"));
        }
        self.latency
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
            for event in &events {
                let number = event.token().0;
                self.read(number, &mut buffer).with_context(|| format!("subscriber {number}"))?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, wanted: Wanted) -> anyhow::Result<()> {
        let mut socket = TcpStream::connect(self.address)?;
        let token = Token(self.readers.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, token, interest)?;
        let part = Vec::new();
        self.readers.push(Reader {
            socket,
            wanted,
            part,
            is_sent: false,
            is_answered: false,
            next: 1,
        });
        self.connecting += 1;
        Ok(())
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        let reader = &mut self.readers[number];
        if !reader.is_sent {
            reader.send()?;
        }
        while !(reader.is_answered && reader.wanted.stalls) {
            let count = match reader.socket.read(buffer) {
                Ok(0) => bail!("the server ended the stream"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..count];
            if !reader.is_answered {
                let Some(body) = reader.head(rest)? else { continue };
                rest = &rest[body..];
                self.connecting -= 1;
                self.shared.ready.fetch_add(1, Ordering::AcqRel);
            }
            let received = reader.body(rest, &mut self.latency)?;
            self.shared.received.fetch_add(received, Ordering::AcqRel);
        }
        Ok(())
    }
}

impl Reader {
    fn send(&mut self) -> anyhow::Result<()> {
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

    /// Reads the head of the answer; where the body begins in these bytes.
    fn head(&mut self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
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
    fn body(&mut self, bytes: &[u8], latency: &mut Latency) -> anyhow::Result<u64> {
        let (now, mut count, mut begin) = (event::now(), 0, 0);
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[begin..end];
            begin = end + 1;
            let found = match self.part.is_empty() {
                true => event::parse(line),
                false => {
                    self.part.extend_from_slice(line);
                    let found = event::parse(&self.part);
                    self.part.clear();
                    found
                }
            };
            let Some((number, sent)) = found else { continue };
            if number != self.next {
                bail!("event {number} came instead of {}", self.next);
            }
            self.next += 1;
            count += 1;
            latency.add(now.saturating_sub(sent));
        }
        self.part.extend_from_slice(&bytes[begin..]);
        Ok(count)
    }
}
