//! The least that anybody could do: one thread that writes the same bytes to every socket. It has no
//! topics, no log and no rights; what a hub takes beyond it is the price of being one.
//!
//! What waits for a socket leaves in one write, and so does what arrives in one read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:\n\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

struct Bare {
    poll: Poll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    /// Which of them are subscribers.
    subscribers: Vec<usize>,
}

struct Client {
    socket: TcpStream,
    read: Vec<u8>,
    /// What waits for the socket.
    waiting: Vec<u8>,
}

/// Serves until the process is ended.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut bare = Bare { poll, listener, clients: Vec::new(), subscribers: Vec::new() };
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
    loop {
        match bare.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => bare.accept()?,
                Token(number) => bare.ready(number, &mut buffer),
            }
        }
    }
}

impl Bare {
    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nodelay(true)?;
            let token = Token(self.clients.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, token, interest)?;
            self.clients.push(Some(Client { socket, read: Vec::new(), waiting: Vec::new() }));
        }
    }

    fn ready(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(client) = &mut self.clients[number] else { return };
        let is_open = client.flush() && client.fill(buffer);
        let mut frames = Vec::new();
        let mut answers = 0;
        while let Some(request) = client.next_request() {
            match request {
                Request::Subscribe => {
                    client.write(HEAD);
                    self.subscribers.push(number);
                }
                Request::Publish(data) => {
                    frames.extend_from_slice(b"data: ");
                    frames.extend_from_slice(&data);
                    frames.extend_from_slice(b"\n\n");
                    answers += 1;
                }
            }
        }
        if !frames.is_empty() {
            for subscriber in &self.subscribers {
                if let Some(client) = &mut self.clients[*subscriber] {
                    client.write(&frames);
                }
            }
        }
        if let Some(client) = &mut self.clients[number] {
            client.write(&ANSWER.repeat(answers));
        }
        if !is_open {
            self.clients[number] = None;
            self.subscribers.retain(|subscriber| *subscriber != number);
        }
    }
}

enum Request {
    Subscribe,
    Publish(Vec<u8>),
}

impl Client {
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.waiting.is_empty() {
            // An error shows when it is read from.
            let written = self.socket.write(rest).unwrap_or_default();
            rest = &rest[written..];
        }
        self.waiting.extend_from_slice(rest);
    }

    /// Writes what waits; `false` once nothing can be written any more.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Reads what there is; `false` at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return false,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn next_request(&mut self) -> Option<Request> {
        let end = memchr::memmem::find(&self.read, b"\r\n\r\n")? + 4;
        if self.read.starts_with(b"GET ") {
            self.read.drain(..end);
            return Some(Request::Subscribe);
        }
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        if self.read.len() < end + length {
            return None;
        }
        let data = self.read[end..end + length].to_vec();
        self.read.drain(..end + length);
        Some(Request::Publish(data))
    }
}
