//! A hub as a process.

use std::process::Command;
use std::time::Duration;

use mercure_transports::testing::{Process, free_port};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{PUBLISHER_KEY, SUBSCRIBER_KEY};

/// How long something may take that has no reason to.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node of a cluster, or a hub of its own.
pub struct Node {
    pub process: Process,
    pub port: u16,
    arguments: Vec<String>,
    prefix: Vec<String>,
    folder: TempDir,
}

impl Node {
    /// Starts a hub on a log, with arguments beside the usual ones.
    pub fn start(transport: &str, arguments: &[&str]) -> Self {
        Self::start_under(&[], transport, arguments)
    }

    /// The same, run by another program.
    pub fn start_under(prefix: &[&str], transport: &str, arguments: &[&str]) -> Self {
        Self::start_at(prefix, transport, arguments, free_port())
    }

    /// The same, at a port.
    pub fn start_at(prefix: &[&str], transport: &str, arguments: &[&str], port: u16) -> Self {
        let mut all = vec!["serve".to_owned(), format!("--transport={transport}")];
        let defaults = [
            "--history-size=10000000".to_owned(),
            "--heartbeat=1s".to_owned(),
            "--retry=0s".to_owned(),
            // The clients of a drill share a token.
            "--max-connections-per-subject=100000".to_owned(),
            format!("--listen=127.0.0.1:{port}"),
            "--ops-listen=none".to_owned(),
            "--drain=0s".to_owned(),
        ];
        let names = |flag: &str| {
            let flag = flag.split('=').next().unwrap_or_default();
            arguments.iter().any(|argument| argument.split('=').next() == Some(flag))
        };
        all.extend(defaults.into_iter().filter(|default| !names(default)));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let prefix: Vec<_> = prefix.iter().map(|part| (*part).to_owned()).collect();
        let folder = TempDir::new().expect("folder");
        let process = Self::launch(&prefix, &all, &folder, port);
        Self { process, port, arguments: all, prefix, folder }
    }

    fn launch(prefix: &[String], arguments: &[String], folder: &TempDir, port: u16) -> Process {
        let binary = env!("CARGO_BIN_EXE_mercure-hub").to_owned();
        let mut words = prefix.iter().cloned().chain([binary]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words).args(arguments);
        without_settings(&mut command);
        command.env("MERCURE_PUBLISHER_JWT_KEY", PUBLISHER_KEY);
        command.env("MERCURE_SUBSCRIBER_JWT_KEY", SUBSCRIBER_KEY);
        let log = folder.path().join("log");
        let mut process = Process::start(&mut command, &log, "TERM").expect("the hub starts");
        process.wait_for(port);
        let ops = arguments.iter().filter_map(|one| one.strip_prefix("--ops-listen=127.0.0.1:"));
        ops.filter_map(|port| port.parse().ok()).for_each(|port| process.wait_for(port));
        process
    }

    /// Starts it again after it was ended.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.prefix, &self.arguments, &self.folder, self.port);
    }

    /// What it has said so far.
    pub fn words(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it has said a word.
    pub async fn says(&self, word: &str) {
        let begin = Instant::now();
        while !self.words().contains(word) {
            assert!(begin.elapsed() < PATIENCE, "{word}: {}", self.words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Variables that are meant for the tests are no settings of a hub.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MERCURE_")) {
        command.env_remove(name);
    }
    command
}

/// A process that is nobody's child here; it is ended with the test.
pub struct Heir(pub Pid);

impl Heir {
    /// The one that the log names last.
    pub async fn of(node: &Node, count: usize) -> Self {
        let begin = Instant::now();
        loop {
            let words = node.words();
            let named: Vec<_> = words.split(" process=").skip(1).collect();
            if named.len() >= count {
                let number =
                    named[count - 1].split_whitespace().next().and_then(|n| n.parse().ok());
                return Self(number.and_then(Pid::from_raw).expect("a process"));
            }
            assert!(begin.elapsed() < PATIENCE, "{words}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).expect("it lives");
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if test_kill_process(self.0).is_ok() {
            let _ = kill_process(self.0, Signal::TERM);
        }
    }
}
