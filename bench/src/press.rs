//! Publishers who each wait for their acknowledgement, in one thread: it takes less from the server
//! than a thread for each.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::dialect::{Dialect, Publication};
use crate::event;
use crate::latency::Latency;
use crate::publisher::whole_answer;
use crate::scenarios::SIZE;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishers that are connected.
pub(crate) struct Press {
    poll: Poll,
    members: Vec<Member>,
    dialect: Dialect,
}

struct Member {
    socket: TcpStream,
    read: Vec<u8>,
    sent_at: u64,
}

impl Press {
    pub(crate) fn connect(
        address: SocketAddr,
        dialect: &Dialect,
        count: usize,
    ) -> anyhow::Result<Self> {
        let (poll, mut members) = (Poll::new()?, Vec::new());
        for number in 0..count {
            let socket = std::net::TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            members.push(Member { socket, read: Vec::new(), sent_at: 0 });
        }
        Ok(Self { poll, members, dialect: dialect.clone() })
    }

    /// Publishes so many events, each publisher its next one once the last is acknowledged; how long
    /// that took.
    pub(crate) fn publish(mut self, count: u64) -> anyhow::Result<Latency> {
        let (mut events, mut latency) = (Events::with_capacity(1024), Latency::default());
        let (mut sent, mut answered) = (0, 0);
        for member in self.members.iter_mut().take(usize::try_from(count)?) {
            sent += 1;
            member.send(&self.dialect, sent)?;
        }
        while answered < count {
            self.poll.poll(&mut events, Some(PATIENCE))?;
            if events.is_empty() {
                bail!("{answered} of {count} publications are answered, and nothing more comes");
            }
            for event in &events {
                let member = &mut self.members[event.token().0];
                if !member.is_answered()? {
                    continue;
                }
                answered += 1;
                latency.add(event::now() - member.sent_at);
                if sent < count {
                    sent += 1;
                    member.send(&self.dialect, sent)?;
                }
            }
        }
        Ok(latency)
    }
}

impl Member {
    fn send(&mut self, dialect: &Dialect, number: u64) -> anyhow::Result<()> {
        let request = dialect.publish(&Publication::new("t", &event::data(number, SIZE)));
        self.sent_at = event::now();
        // One request is smaller than any socket's buffer.
        self.socket.write_all(request.as_bytes()).context("a publication cannot be sent")
    }

    /// Reads what there is; whether that is a whole answer.
    fn is_answered(&mut self) -> anyhow::Result<bool> {
        let mut chunk = [0; 4096];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => bail!("the server closed a publisher's connection"),
                Ok(count) => self.read.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let is_whole = whole_answer(&self.read)?.is_some();
        if is_whole {
            self.read.clear();
        }
        Ok(is_whole)
    }
}
