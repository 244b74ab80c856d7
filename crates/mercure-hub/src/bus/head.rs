//! The newest event's id in a file, so that a worker knows it without asking.
//!
//! A page that is rendered takes the id along and begins there; every request of the application
//! reads it, before it reads anything else. The file is written before an update is acknowledged:
//! what it names is never older than what the application knows to be published.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use mercure_engine::{Event, Tail};

/// The file, open for as long as the companion runs.
#[derive(Debug)]
pub(super) struct HeadFile(File);

impl HeadFile {
    /// Creates the file, or empties that of a former companion: its ids mean nothing any more.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(directory.join("head")).map(Self)
    }
}

impl Tail for HeadFile {
    /// Writes the id twice: a reader that finds two different ones has met a write half done.
    /// Ids hold no line break, and what an older, longer one leaves behind is not read.
    fn on_event(&self, event: Arc<Event>) {
        let id = event.record.id.as_str();
        if let Err(error) = self.0.write_all_at(format!("{id}\n{id}\n").as_bytes(), 0) {
            tracing::warn!(%error, "the newest event's id could not be noted");
            // Better none than an old one: readers begin at the oldest event then.
            let _ = self.0.set_len(0);
        }
    }
}
