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

use mercure_engine::{Event, Tail};

/// The file, open for as long as the companion runs.
#[derive(Debug)]
pub(super) struct HeadFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl HeadFile {
    /// Creates the file, or empties that of a former companion: its ids mean nothing any more.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join("head");
        Ok(Self { file: Mutex::new(open(&path)?), path })
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
}
