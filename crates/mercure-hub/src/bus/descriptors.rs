//! Messages with descriptors (`SCM_RIGHTS`) from a worker.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Descriptors one message carries: the client's connection and the far end of the worker's.
const DESCRIPTORS: usize = 2;

/// Reads messages: a length of four bytes, big-endian, then that many bytes.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// One message and what came with it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Messages {
    /// The next message; `None` once the worker has closed its side between two messages.
    pub(super) async fn next(&mut self, socket: &UnixStream) -> io::Result<Option<Message>> {
        loop {
            if let Some(bytes) = self.complete()? {
                let descriptors = std::mem::take(&mut self.descriptors);
                return Ok(Some(Message { bytes, descriptors }));
            }
            if socket.async_io(Interest::READABLE, || self.receive(socket)).await? == 0 {
                return match self.bytes.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    fn complete(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = rest[..length].to_vec();
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }

    fn receive(&mut self, socket: &UnixStream) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
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
