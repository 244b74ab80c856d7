use std::io::Write as _;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal as Number, kill_process};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Hears signals also if whoever has started this process does not want to hear any: servers block them in
/// the threads that do their work (uWSGI), and what such a thread starts inherits that.
pub(super) fn unblock() {
    if let Err(error) = SigSet::empty().thread_set_mask() {
        // Nothing is logged as yet, and nobody may read this.
        let _ = writeln!(std::io::stderr(), "mercure-hub: signals may be blocked: {error}");
    }
}

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP: take a changed configuration.
    Reload,
    /// SIGUSR2: let another program take this one's place.
    Upgrade,
    /// SIGTERM: stop in the orderly way.
    Terminate,
    /// SIGINT: stop now.
    Interrupt,
}

/// Signals from here on are answered instead of ending the process.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Stream,
    upgrade: Stream,
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.upgrade.recv() => Signal::Upgrade,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }

    /// Passes on to the process that serves now what came in the meantime, and what comes from those who
    /// have not noticed yet.
    pub(super) async fn pass_on(mut self, process: u32) {
        const MOMENT: Duration = Duration::from_millis(300);
        let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return };
        let passing = async {
            loop {
                let number = match self.next().await {
                    Signal::Reload => Number::HUP,
                    Signal::Upgrade => Number::USR2,
                    Signal::Terminate => Number::TERM,
                    Signal::Interrupt => Number::INT,
                };
                if let Err(error) = kill_process(process, number) {
                    tracing::warn!(%error, "a signal could not be passed on");
                }
            }
        };
        // It never ends by itself.
        let _ = tokio::time::timeout(MOMENT, passing).await;
    }

    /// Completes when somebody asks, or asks once more, to stop.
    pub(super) async fn hurry(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}
