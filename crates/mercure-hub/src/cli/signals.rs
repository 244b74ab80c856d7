use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

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

    /// Completes when somebody asks once more to stop.
    pub(super) async fn hurry(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
