//! The newest event's id in a file, so that a worker knows it without asking.
//!
//! A page that is rendered takes the id along and begins there; every request of the application
//! reads it, before it reads anything else. The file is written before an update is acknowledged:
//! what it names is never older than what the application knows to be published.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mercure_engine::{Event, Position, Tail};
use mercure_protocol::EventId;

/// The file, open for as long as the companion runs.
#[derive(Debug)]
pub(super) struct HeadFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl HeadFile {
    /// Creates the file, in the place of a former companion's. `newest` is the id of the newest
    /// event of a log that goes on; those of a log that is gone mean nothing any more.
    pub(super) fn create(directory: &Path, newest: Option<&EventId>) -> io::Result<Self> {
        let path = directory.join("head");
        if newest.is_none() {
            return Ok(Self { file: Mutex::new(open(&path)?), path });
        }
        // Not emptied: a reader that finds nothing would begin at the oldest event.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path)?;
        let this = Self { file: Mutex::new(file), path };
        newest.map_or(Ok(()), |id| this.write(id.as_str()))?;
        Ok(this)
    }

    fn write(&self, id: &str) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A cleaner of temporary files takes it away; readers would begin at the oldest event.
        if file.metadata()?.nlink() == 0 {
            *file = open(&self.path)?;
        }
        file.write_all_at(format!("{id}\n{id}\n").as_bytes(), 0)
            // Better none than an old one.
            .inspect_err(|_| drop(file.set_len(0)))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)
}

impl Tail for HeadFile {
    /// Writes the id twice: a reader that finds two different ones has met a write half done.
    /// Ids hold no line break, and what an older, longer one leaves behind is not read.
    fn on_event(&self, event: Arc<Event>) {
        if let Err(error) = self.write(event.record.id.as_str()) {
            tracing::warn!(%error, "the newest event's id could not be noted");
        }
    }

    /// What is noted is still the newest that anybody was told of.
    fn on_gap(&self, _: Position) {}
}
