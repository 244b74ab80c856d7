use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::outlet::{COALESCE, Outlet};
use crate::shared::Shared;

/// Frames that may wait for a socket before their subscriber leaves live dispatch.
const BACKLOG_FRAMES: usize = 64;
/// Their size in bytes; one frame may exceed it.
pub(crate) const BACKLOG_BYTES: usize = 64 * 1024;

/// What could not be written yet.
#[derive(Debug)]
pub(crate) struct Backlog {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes of the first frame that are written already.
    written: usize,
    /// Waits for company, not for the outlet.
    pub(crate) held: bool,
    /// Where its bytes are counted.
    shared: Arc<Shared>,
}

impl Backlog {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { frames: VecDeque::new(), bytes: 0, written: 0, held: false, shared }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame of this many bytes may wait as well.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.frames.len() < BACKLOG_FRAMES
            && (self.frames.is_empty() || self.bytes + bytes <= BACKLOG_BYTES)
    }

    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.shared.counters.backlog_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.frames.push_back(frame);
    }

    /// Writes what the outlet takes in one go; whether it took anything.
    pub(crate) fn write_to(&mut self, outlet: &mut Outlet) -> io::Result<bool> {
        let mut frames = [&EMPTY; COALESCE];
        let count = self.frames.len().min(COALESCE);
        for (slot, frame) in frames.iter_mut().zip(&self.frames) {
            *slot = frame;
        }
        let taken = outlet.write(&frames[..count], self.written)?;
        self.advance(taken);
        Ok(taken > 0)
    }

    /// Forgets bytes that are written.
    pub(crate) fn advance(&mut self, taken: usize) {
        self.written += taken;
        while let Some(first) = self.frames.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.bytes -= first.len();
            self.shared.counters.backlog_bytes.fetch_sub(first.len() as u64, Ordering::Relaxed);
            self.frames.pop_front();
        }
    }

    /// What has not left yet.
    pub(crate) fn unsent(&self) -> Bytes {
        let mut unsent = Vec::with_capacity(self.bytes);
        self.frames.iter().for_each(|frame| unsent.extend_from_slice(frame));
        Bytes::from(unsent).slice(self.written..)
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.shared.counters.backlog_bytes.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

static EMPTY: Bytes = Bytes::new();
