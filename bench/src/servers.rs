//! The servers that are compared, started on free ports of this machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use mercure_transports::testing::{Process, free_port};
use tempfile::TempDir;

use crate::dialect::Dialect;
use crate::usage::Processes;

/// Where Debian keeps nginx's modules.
const MODULES: &str = "/usr/lib/nginx/modules";
const NCHAN: &str = "ngx_nchan_module.so";
/// A key for the tokens of one run.
const KEY: &str = "a-key-of-32-bytes-for-measurements-only";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The loop of [`bare`](crate::bare).
    Bare,
    /// Our hub.
    Hub,
    /// nginx with Nchan.
    Nchan,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Hub, Self::Nchan];

    /// Whether it can be had here. Without Nchan there is less to compare, which CI does not accept.
    pub(crate) fn is_here(self) -> bool {
        let is_here = self != Self::Nchan || Path::new(MODULES).join(NCHAN).exists();
        let is_ci = std::env::vars().any(|(name, _)| name == "CI");
        assert!(is_here || !is_ci, "Nchan is missing: scripts/test-tools installs it");
        is_here
    }

    /// Its name in tables and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Hub => "hub",
            Self::Nchan => "nchan",
        }
    }
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
    process: Process,
    /// Where it keeps what it keeps.
    pub(crate) folder: TempDir,
}

impl Server {
    /// Starts a server; our hub with arguments beside the usual ones.
    pub(crate) fn start(kind: Kind, arguments: &[&str]) -> anyhow::Result<Self> {
        let (port, folder) = (free_port(), TempDir::new()?);
        let (mut command, dialect) = match kind {
            Kind::Bare => (bare(port)?, Dialect::Bare),
            Kind::Hub => hub(port, &folder, arguments)?,
            Kind::Nchan => (nchan(port, &folder)?, Dialect::Nchan),
        };
        let log = folder.path().join("log");
        let mut process = Process::start(&mut command, &log, "TERM")
            .with_context(|| format!("{} cannot be started", kind.name()))?;
        if !process.listens(port) {
            let words = fs::read_to_string(&log).unwrap_or_default();
            anyhow::bail!("{} does not run: {words}", kind.name());
        }
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self { address, dialect, process, folder })
    }

    /// Its processes.
    pub(crate) fn processes(&self) -> Processes {
        Processes::of(self.process.id())
    }
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.parent().context("a program is in a folder")?.join(name);
    anyhow::ensure!(program.exists(), "{} is not built: make bench", program.display());
    Ok(program)
}

fn bare(port: u16) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare", &port.to_string()]);
    Ok(command)
}

fn hub(port: u16, folder: &TempDir, arguments: &[&str]) -> anyhow::Result<(Command, Dialect)> {
    let program = beside("mercure-hub")?;
    let publisher = token(&program, "--publish=*")?;
    let reader = token(&program, "--subscribe=*")?;
    let path = folder.path().display().to_string();
    let arguments = arguments.iter().map(|argument| argument.replace("{folder}", &path));
    let mut command = Command::new(program);
    command
        .args(["serve", "--anonymous=true", "--ops-listen=none", "--max-connections=200000"])
        .args(["--history-size=10000000", "--history-bytes=4GiB", "--log-level=warn"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .args(arguments)
        .env("MERCURE_PUBLISHER_JWT_KEY", KEY)
        .env("MERCURE_SUBSCRIBER_JWT_KEY", KEY);
    let path = "/.well-known/mercure".to_owned();
    Ok((command, Dialect::Mercure { path, publisher, reader }))
}

/// A token that our hub's own command makes.
fn token(program: &Path, right: &str) -> anyhow::Result<String> {
    let made = Command::new(program).args(["token", right, "--key", KEY]).output()?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// One worker process: of several, each would pass on to the others. It is told of more connections
/// than it will have: nginx closes some when it comes near to what it is told.
fn nchan(port: u16, folder: &TempDir) -> anyhow::Result<Command> {
    let path = folder.path().display();
    let configuration = format!(
        "load_module {MODULES}/{NCHAN};
        daemon off; worker_processes 1; worker_rlimit_nofile 20000;
        pid {path}/pid; error_log {path}/log error;
        events {{ worker_connections 40000; }}
        http {{
            access_log off; keepalive_requests 100000000; tcp_nodelay on;
            nchan_shared_memory_size 1024M;
            client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
            fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;
            scgi_temp_path {path}/scgi;
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                nchan_message_buffer_length 200000; nchan_message_timeout 1h;
                location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
                location ~ ^/sub/(.+)$ {{
                    nchan_subscriber eventsource; nchan_channel_id $1;
                    nchan_subscriber_first_message newest;
                }}
            }}
        }}"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin")).arg("-c").arg(file);
    Ok(command)
}
