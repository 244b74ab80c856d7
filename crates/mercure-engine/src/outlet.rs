//! Where a subscriber's bytes go: straight to a socket, or into the body of a response that an
//! HTTP library writes. Both take what they can at once and say when they can take more.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};

use crate::shard::{Notify, SlotRef};

/// Frames that leave in one system call at most.
pub(crate) const COALESCE: usize = 64;
/// What a body buffers before its reader has to catch up, in bytes; one frame may exceed it.
const BODY_BYTES: usize = 64 * 1024;
/// What one readiness event may read from a client that keeps sending, in bytes.
const DISCARD_BYTES: usize = 64 * 1024;

/// Where a subscriber's bytes go.
#[derive(Debug)]
pub enum Outlet {
    /// A non-blocking TCP socket.
    Tcp(TcpStream),
    /// A non-blocking Unix stream socket.
    Unix(UnixStream),
    /// The body of a response; see [`body`].
    Body(BodyWriter),
}

impl Outlet {
    /// Takes over a TCP connection.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking.
    pub fn tcp(socket: std::net::TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpStream::from_std(socket)))
    }

    /// Takes over a Unix stream connection.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking.
    pub fn unix(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Unix(UnixStream::from_std(socket)))
    }

    /// Takes over a connection of either family.
    ///
    /// # Errors
    /// If the descriptor is no stream socket, or cannot be made non-blocking.
    pub fn from_descriptor(descriptor: OwnedFd, is_unix: bool) -> io::Result<Self> {
        match is_unix {
            true => Self::unix(descriptor.into()),
            false => Self::tcp(descriptor.into()),
        }
    }

    /// The socket, and whether it is a Unix one; `None` for a body, which cannot leave the process.
    #[must_use]
    pub fn descriptor(&self) -> Option<(BorrowedFd<'_>, bool)> {
        match self {
            Self::Tcp(socket) => Some((socket.as_fd(), false)),
            Self::Unix(socket) => Some((socket.as_fd(), true)),
            Self::Body(_) => None,
        }
    }

    pub(crate) fn source(&mut self) -> Option<&mut dyn Source> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Unix(socket) => Some(socket),
            Self::Body(_) => None,
        }
    }

    /// Tells a body whom to notify; sockets are polled.
    pub(crate) fn bind(&mut self, notify: Notify, slot: SlotRef) {
        if let Self::Body(body) = self {
            body.0.lock().notify = Some((notify, slot));
        }
    }

    /// Writes as much as possible of the frames without waiting, leaving out the first `skip`
    /// bytes. Returns the number of bytes taken; fewer than all means that
    /// [`Outlet`] readiness will be signalled later.
    ///
    /// # Errors
    /// Any error means that the connection is over.
    pub(crate) fn write(&mut self, frames: &[&Bytes], skip: usize) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => write_slices(socket, frames, skip),
            Self::Unix(socket) => write_slices(socket, frames, skip),
            Self::Body(body) => body.write(frames, skip),
        }
    }

    /// Discards what the client sent; `false` once it has closed its side.
    pub(crate) fn drain(&mut self) -> bool {
        match self {
            Self::Tcp(socket) => drain(socket),
            Self::Unix(socket) => drain(socket),
            Self::Body(body) => !body.0.lock().reader_gone,
        }
    }

    /// Ends the stream in the orderly way: the client sees the end of the body.
    pub(crate) fn close(&mut self) {
        // The peer may be gone already; there is nothing left to do for it then. Shutting down
        // before closing matters where another process still holds the descriptor.
        match self {
            Self::Tcp(socket) => drop(socket.shutdown(Shutdown::Both)),
            Self::Unix(socket) => drop(socket.shutdown(Shutdown::Both)),
            Self::Body(body) => body.0.lock().end(),
        }
    }
}

fn write_slices(socket: &mut impl Write, frames: &[&Bytes], skip: usize) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); COALESCE];
    for (at, (slice, frame)) in slices.iter_mut().zip(frames).enumerate() {
        *slice = IoSlice::new(if at == 0 { &frame[skip..] } else { frame });
    }
    let count = frames.len().min(COALESCE);
    loop {
        match socket.write_vectored(&slices[..count]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn drain(socket: &mut impl Read) -> bool {
    let mut scratch = [0; 4096];
    let mut discarded = 0;
    loop {
        match socket.read(&mut scratch) {
            Ok(0) => return false,
            Ok(count) => discarded += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
        // A subscriber has nothing to say; one that floods is not worth a shard's time.
        if discarded > DISCARD_BYTES {
            return false;
        }
    }
}

/// A bounded pipe from a shard to the body of a response.
#[must_use]
pub fn body() -> (Outlet, BodyReader) {
    let pipe = Arc::new(Pipe::default());
    (Outlet::Body(BodyWriter(Arc::clone(&pipe))), BodyReader(pipe))
}

/// The shard's end of [`body`].
#[derive(Debug)]
pub struct BodyWriter(Arc<Pipe>);

/// The response's end of [`body`].
#[derive(Debug)]
pub struct BodyReader(Arc<Pipe>);

#[derive(Debug, Default)]
struct Pipe(Mutex<PipeState>);

#[derive(Debug, Default)]
struct PipeState {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The shard had to stop and wants to hear when there is room.
    blocked: bool,
    ended: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    notify: Option<(Notify, SlotRef)>,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PipeState {
    fn end(&mut self) {
        self.ended = true;
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn notify_shard(&self) {
        if let Some((notify, slot)) = &self.notify {
            notify.ready(*slot);
        }
    }
}

impl BodyWriter {
    fn write(&mut self, frames: &[&Bytes], skip: usize) -> io::Result<usize> {
        let mut pipe = self.0.lock();
        if pipe.reader_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        for (at, frame) in frames.iter().enumerate() {
            if !pipe.frames.is_empty() && pipe.bytes + frame.len() > BODY_BYTES {
                pipe.blocked = true;
                break;
            }
            let rest = if at == 0 { frame.slice(skip..) } else { Bytes::clone(frame) };
            taken += rest.len();
            pipe.bytes += rest.len();
            pipe.frames.push_back(rest);
        }
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
        Ok(taken)
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.0.lock().end();
    }
}

/// Whether the shard has ended a [`body`].
#[derive(Debug, Clone)]
pub struct BodyEnd(Weak<Pipe>);

impl BodyEnd {
    /// Nothing will be added any more; what is there may not have been read.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.0.upgrade().is_none_or(|pipe| pipe.lock().ended)
    }
}

impl BodyReader {
    /// Tells of the end, while somebody else reads.
    #[must_use]
    pub fn end(&self) -> BodyEnd {
        BodyEnd(Arc::downgrade(&self.0))
    }

    /// The next bytes of the stream; `None` at its end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut pipe = self.0.lock();
        if let Some(frame) = pipe.frames.pop_front() {
            pipe.bytes -= frame.len();
            if pipe.blocked && pipe.bytes <= BODY_BYTES / 2 {
                pipe.blocked = false;
                pipe.notify_shard();
            }
            return Poll::Ready(Some(frame));
        }
        if pipe.ended {
            return Poll::Ready(None);
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        pipe.reader_gone = true;
        pipe.frames.clear();
        pipe.notify_shard();
    }
}
