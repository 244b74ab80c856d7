//! Messages with descriptors (`SCM_RIGHTS`) over a Unix stream socket: a length of four bytes,
//! big-endian, then that many bytes.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingUnixStream;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Longest message, in bytes: an update of the greatest length that anybody may set, and its topics, fit.
const MAX_MESSAGE: usize = 1 << 30;
/// Descriptors that one message carries at most.
const DESCRIPTORS: usize = 3;
/// What is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Reads messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl Messages {
    /// The next message; `None` once the other side has closed between two messages.
    pub(crate) async fn next(&mut self, socket: &UnixStream) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.complete()? {
                return Ok(Some(message));
            }
            if socket.async_io(Interest::READABLE, || self.receive(socket)).await? == 0 {
                return self.end();
            }
        }
    }

    /// The same, waiting as long as the socket's read timeout.
    pub(crate) fn wait(&mut self, socket: &BlockingUnixStream) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.complete()? {
                return Ok(Some(message));
            }
            match self.receive(socket) {
                Ok(0) => return self.end(),
                Ok(_) => {}
                // Being stopped and continued is enough, with a timeout on the socket.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The oldest descriptor that came with a message and was not taken yet.
    pub(crate) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Whether nothing was received that waits for more.
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    fn end(&self) -> io::Result<Option<Bytes>> {
        if self.is_idle() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn complete(&mut self) -> io::Result<Option<Bytes>> {
        let Some(length) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        self.bytes.advance(4);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut chunk)];
        // Close-on-exec from the start, so that no child can inherit a client's connection.
        let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.descriptors.len() > DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
        }
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        Ok(received.bytes)
    }
}

/// Sends a message, waiting as long as the socket's write timeout.
pub(crate) fn send(
    socket: &BlockingUnixStream,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    let mut left = &framed[..];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    while !left.is_empty() {
        match sendmsg(socket, &[IoSlice::new(left)], &mut control, SendFlags::NOSIGNAL) {
            // They left with the first byte.
            Ok(count) => {
                left = &left[count..];
                control.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
