//! The directory that companion and workers meet in: its mode, its lock, its sockets.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::AlreadyRunning;
use crate::http::Bound;

/// Takes requests.
pub(super) const REQUESTS: &str = "http.sock";
/// Takes connections over.
pub(super) const HANDOFFS: &str = "handoff.sock";

/// What makes a process the only companion: the lock, and the sockets that workers look for.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) lock: File,
    pub(super) requests: Bound,
    pub(super) handoffs: Bound,
}

impl Place {
    /// Takes a place that is free.
    ///
    /// # Errors
    /// [`AlreadyRunning`] if it is not, or what is wrong with the directory.
    pub(super) fn take(directory: &Path) -> anyhow::Result<Self> {
        prepare_directory(directory)?;
        let lock = take_lock(directory)?;
        let bind = |name: &str| {
            let path = directory.join(name);
            Bound::unix(&path, 0o600)
                .with_context(|| format!("cannot listen on {}", path.display()))
        };
        Ok(Self { lock, requests: bind(REQUESTS)?, handoffs: bind(HANDOFFS)? })
    }

    /// The same again, from its parts.
    pub(super) fn of(lock: File, bounds: Vec<Bound>) -> anyhow::Result<Self> {
        let (requests, handoffs): (Vec<_>, Vec<_>) =
            bounds.into_iter().partition(|bound| bound.is_at(REQUESTS));
        match (requests.into_iter().next(), handoffs.into_iter().next()) {
            (Some(requests), Some(handoffs)) => Ok(Self { lock, requests, handoffs }),
            _ => bail!("a listener is missing"),
        }
    }

    /// Says whether the sockets' files go with this, or are another companion's.
    pub(super) fn own(&mut self, is_ours: bool) {
        self.requests.own(is_ours);
        self.handoffs.own(is_ours);
    }
}

/// Makes sure that nobody else can enter the directory.
fn prepare_directory(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| {
                format!("cannot create {shown}; make it writable or choose another directory")
            });
        }
        _ => {}
    }
    let found =
        std::fs::symlink_metadata(directory).with_context(|| format!("cannot read {shown}"))?;
    if !found.is_dir() {
        bail!("{shown} is not a directory; remove it or choose another one");
    }
    if found.uid() != geteuid().as_raw() {
        bail!("{shown} belongs to another user; choose another directory");
    }
    if found.mode() & 0o077 != 0 {
        bail!("{shown} is open to other users; run: chmod 700 {shown}");
    }
    Ok(())
}

/// Takes the lock that makes this the only companion; the kernel gives it back however we end.
fn take_lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AlreadyRunning.into()),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
