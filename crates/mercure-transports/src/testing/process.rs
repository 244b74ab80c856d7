use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a server may take to accept connections, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A program that was started here, and ends with its owner.
#[derive(Debug)]
pub struct Process {
    child: Child,
    signal: &'static str,
}

impl Process {
    /// Starts a program whose words go to a file; `signal` ends it in an orderly way.
    pub fn start(command: &mut Command, log: &Path, signal: &'static str) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // In a group of its own, so that a Ctrl-C reaches it through its owner only.
        let child = command.process_group(0).spawn()?;
        Ok(Self { child, signal })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name} {id}");
    }

    /// Ends it at once, as a crash would, with whatever it has started.
    pub fn kill(&mut self) {
        // It may have ended by itself; its id is not given to another one before it was waited for.
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }

    /// Ends it in the orderly way, and waits for its end.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(self.signal);
            let _ = self.child.wait();
        }
    }

    /// Waits for an end that it was asked for; `false` if it takes longer than this.
    #[must_use]
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        for _ in 0..patience.as_millis() / 20 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            #[expect(clippy::disallowed_methods, reason = "there is nothing else to wait for")]
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Waits until a port of it accepts connections.
    pub fn wait_for(&mut self, port: u16) {
        assert!(self.listens(port), "the server on port {port} has ended, or does not listen");
    }

    /// The same; `false` if it ends instead.
    #[must_use]
    pub fn listens(&mut self, port: u16) -> bool {
        for _ in 0..START.as_millis() / 20 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "another program says nothing when ready"
            )]
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is stopped (SIGSTOP) hears of no other signal.
        self.kill();
    }
}

/// A port that nobody listens on, that is given to nobody else in this process, and that no connection gets as
/// its own: the kernel takes those from 32768 on.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const PORTS: u32 = 20_000;
    let first = std::process::id().wrapping_mul(101);
    let mut candidates = (0..PORTS).map(|_| {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        10_000 + u16::try_from(number).expect("below 20,000")
    });
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
