//! What processes take: processor time and memory.

use std::fs;
use std::time::Duration;

/// A server's processes.
#[derive(Debug, Clone)]
pub(crate) struct Processes(pub(crate) Vec<u32>);

impl Processes {
    /// A process and its children.
    pub(crate) fn of(id: u32) -> Self {
        let path = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        Self(std::iter::once(id).chain(children).collect())
    }

    /// Processor time so far, of their threads and of the kernel for them.
    pub(crate) fn cpu(&self) -> Duration {
        let thread = |task: fs::DirEntry| -> Option<u64> {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        let tasks = self.0.iter().filter_map(|id| fs::read_dir(format!("/proc/{id}/task")).ok());
        let nanoseconds = tasks.flatten().flatten().filter_map(thread).sum();
        Duration::from_nanos(nanoseconds)
    }

    /// The most memory that was resident at any time, in bytes; what processes share counts for each.
    pub(crate) fn peak_memory(&self) -> u64 {
        let peak = |id: &u32| -> Option<u64> {
            kilobytes(&fs::read_to_string(format!("/proc/{id}/status")).ok()?, "VmHWM:")
        };
        self.0.iter().filter_map(peak).sum::<u64>() * 1024
    }

    /// Resident memory now, in bytes; what processes share is counted once only if they share it
    /// all.
    pub(crate) fn memory(&self) -> u64 {
        let resident = |id: &u32| -> Option<u64> {
            kilobytes(&fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?, "Pss:")
        };
        self.0.iter().filter_map(resident).sum::<u64>() * 1024
    }
}

/// A figure of a file of `/proc`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
