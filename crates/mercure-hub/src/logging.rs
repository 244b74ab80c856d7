//! Log lines: to standard error, as text or JSON. No secret, token or payload is ever logged.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that a slow reader may lag behind before it misses some.
const BACKLOG: usize = 256;

/// Lines of the log, as they are written, for whoever listens.
pub type Lines = broadcast::Sender<String>;

/// Changes which lines are written.
pub struct LevelHandle(Box<dyn Fn(&str) + Send + Sync>);

impl LevelHandle {
    /// Writes lines of this level and the graver ones.
    pub fn set(&self, level: &str) {
        (self.0)(level);
    }
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelHandle").finish_non_exhaustive()
    }
}

/// Starts logging.
#[must_use]
pub fn init(json: bool, level: &str) -> LevelHandle {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(io::stderr().is_terminal())
        // A log that nobody reads any more must not end the hub.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    // A second subscriber in one process (tests) is not an error worth ending for.
    if json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        LevelHandle(Box::new(move |level| drop(handle.reload(filter(level)))))
    } else {
        let builder = builder.with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        LevelHandle(Box::new(move |level| drop(handle.reload(filter(level)))))
    }
}

/// Starts logging to standard error and to whoever subscribes to the lines.
#[must_use]
pub fn init_shared(level: &str) -> Lines {
    let lines = Lines::new(BACKLOG);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(false)
        .log_internal_errors(false)
        .with_target(false)
        .with_writer(Tee(lines.clone()));
    let _ = builder.try_init();
    lines
}

fn filter(level: &str) -> EnvFilter {
    // The level is one of a list, so the filter is valid.
    let ours = ["mercure_hub", "mercure_engine", "mercure_transports"];
    let ours = ours.map(|name| format!("{name}={level}")).join(",");
    // What that driver says of a lost connection, the transport says better.
    EnvFilter::new(format!("warn,async_nats=off,{ours}"))
}

/// Lets so many lines of one kind through in a second: who floods a hub does not flood its log.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Passed>);

#[derive(Debug)]
struct Passed {
    /// Of the clock, rounded down.
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    const LINES: u32 = 10;

    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Passed { second: 0, lines: 0, left_out: 0 }))
    }

    /// Whether another line may be written, and how many before it were not.
    pub(crate) fn pass(&self, now: Duration) -> Option<u64> {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.second != now.as_secs() {
            (passed.second, passed.lines) = (now.as_secs(), 0);
        }
        if passed.lines == Self::LINES {
            passed.left_out += 1;
            return None;
        }
        passed.lines += 1;
        Some(std::mem::take(&mut passed.left_out))
    }
}

/// Writes to standard error, and tells each line to those who listen.
#[derive(Debug, Clone)]
struct Tee(Lines);

impl<'a> MakeWriter<'a> for Tee {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Tee {
    /// Called once for each line, with all of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Nobody listens: it is in the file.
        let _ = self.0.send(String::from_utf8_lossy(line).trim_end().to_owned());
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_some_lines_and_how_many_more_there_were() {
        let throttle = Throttle::new();
        let passed = (0..1000).filter(|_| throttle.pass(Duration::from_millis(5500)) == Some(0));
        assert_eq!(passed.count(), 10);
        assert_eq!(throttle.pass(Duration::from_secs(6)), Some(990));
        assert_eq!(throttle.pass(Duration::from_secs(6)), Some(0));
    }
}
