use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, free_port};

/// Whether an engine's program is missing; says so. Where nothing may be skipped, that is a failure.
#[must_use]
pub fn is_missing(program: &str) -> bool {
    if find(program).is_some() {
        return false;
    }
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && !value.is_empty());
    assert!(!in_ci, "{program} is not installed; scripts/test-tools installs it");
    eprintln!("SKIPPED: {program} is not installed; scripts/test-tools installs it");
    true
}

/// Where a program is; PostgreSQL's are where Debian puts them.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::vars_os().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let mut folders: Vec<_> = std::env::split_paths(&path.unwrap_or_default()).collect();
    folders.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut versions: Vec<_> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().collect();
    versions.sort_by_key(|version| version.as_ref().ok().map(std::fs::DirEntry::path));
    folders.extend(versions.into_iter().rev().flatten().map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn program(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| panic!("{name} is not installed")))
}

/// A Redis that syncs every command to disk.
#[derive(Debug)]
pub struct RedisServer {
    /// The server.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
    settings: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one with settings beside the usual ones.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let folder = TempDir::new().expect("folder");
        let port = free_port();
        let settings: Vec<_> = settings.iter().map(|text| (*text).to_owned()).collect();
        let process = Self::launch(folder.path(), port, &settings);
        Self { process, port, settings, folder }
    }

    fn launch(folder: &Path, port: u16, settings: &[String]) -> Process {
        let mut command = program("redis-server");
        command.current_dir(folder).args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        command.args(settings);
        let log = folder.join("log");
        let mut process = Process::start(&mut command, &log, "TERM").expect("redis-server");
        process.wait_for(port);
        process
    }

    /// Starts it again, on its data, after it was ended.
    pub fn restart(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port, &self.settings);
    }

    /// Its URL, for a log of its own.
    #[must_use]
    pub fn url(&self, namespace: &str) -> String {
        Self::url_at(self.port, namespace)
    }

    /// The URL by which it is reached at another port, through a proxy.
    #[must_use]
    pub fn url_at(port: u16, namespace: &str) -> String {
        format!("redis://127.0.0.1:{port}/0?namespace={namespace}")
    }
}

/// A PostgreSQL with one database.
#[derive(Debug)]
pub struct PostgresServer {
    /// The server.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
    folder: TempDir,
    settings: Vec<String>,
}

impl PostgresServer {
    /// Starts one with settings (`name=value`) beside the usual ones.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let folder = TempDir::new().expect("folder");
        // PostgreSQL refuses to run as root, and so its folder belongs to somebody else.
        let owner = unprivileged();
        std::fs::create_dir(folder.path().join("data")).expect("folder");
        if let Some(owner) = &owner {
            let paths = [folder.path().to_owned(), folder.path().join("data")];
            let given = Command::new("chown").arg(owner).args(paths).status();
            assert!(given.is_ok_and(|status| status.success()), "chown to {owner}");
        }
        let data = folder.path().join("data");
        let mut init = as_owner("initdb", owner.as_deref());
        init.args(["--auth=trust", "--username=mercure", "--no-sync", "--encoding=UTF8", "-D"]);
        let made = init.arg(&data).output().expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let settings: Vec<_> = settings.iter().map(|text| (*text).to_owned()).collect();
        let process = Self::launch(folder.path(), port, &settings);
        Self { process, port, folder, settings }
    }

    /// One that was killed leaves processes behind, which end when they notice, and keep the next one
    /// from starting until then.
    fn launch(folder: &Path, port: u16, settings: &[String]) -> Process {
        for _ in 0..100 {
            let mut process = Self::attempt(folder, port, settings);
            if process.listens(port) {
                return process;
            }
        }
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("postgres does not start: {log}");
    }

    fn attempt(folder: &Path, port: u16, settings: &[String]) -> Process {
        let mut command = as_owner("postgres", unprivileged().as_deref());
        command.arg("-D").arg(folder.join("data"));
        command.args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        let log = folder.join("log");
        // A fast shutdown: clients are cut off.
        Process::start(&mut command, &log, "INT").expect("postgres")
    }

    /// Starts it again, on its data, after it was ended.
    pub fn restart(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port, &self.settings);
    }

    /// Its URL, for a log of its own.
    #[must_use]
    pub fn url(&self, namespace: &str) -> String {
        Self::url_at(self.port, namespace)
    }

    /// The URL by which it is reached at another port, through a proxy.
    #[must_use]
    pub fn url_at(port: u16, namespace: &str) -> String {
        format!("postgres://mercure@127.0.0.1:{port}/postgres?namespace={namespace}")
    }
}

/// Whom to run as, if this user is root.
fn unprivileged() -> Option<String> {
    let id = Command::new("id").arg("-u").output().expect("id");
    (id.stdout == b"0\n").then(|| "nobody".to_owned())
}

fn as_owner(name: &str, owner: Option<&str>) -> Command {
    let Some(owner) = owner else { return program(name) };
    let mut command = program("setpriv");
    command.args([&format!("--reuid={owner}"), "--regid=nogroup", "--clear-groups"]);
    command.arg(find(name).unwrap_or_else(|| panic!("{name} is not installed")));
    command.current_dir("/");
    command
}

/// A NATS server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    /// The server.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
    folder: TempDir,
}

impl NatsServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let folder = TempDir::new().expect("folder");
        let port = free_port();
        let process = Self::launch(folder.path(), port);
        Self { process, port, folder }
    }

    fn launch(folder: &Path, port: u16) -> Process {
        let mut command = program("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]);
        command.arg(folder.join("data"));
        let log = folder.join("log");
        let mut process = Process::start(&mut command, &log, "TERM").expect("nats-server");
        process.wait_for(port);
        process
    }

    /// Starts it again, on its data, after it was ended.
    pub fn restart(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port);
    }

    /// Its URL, for a log of its own.
    #[must_use]
    pub fn url(&self, namespace: &str) -> String {
        Self::url_at(self.port, namespace)
    }

    /// The URL by which it is reached at another port, through a proxy.
    #[must_use]
    pub fn url_at(port: u16, namespace: &str) -> String {
        format!("nats://127.0.0.1:{port}?namespace={namespace}")
    }
}
