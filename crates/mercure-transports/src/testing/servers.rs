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
    /// Folders that it needs.
    kept: Vec<TempDir>,
}

impl PostgresServer {
    /// Starts one with settings (`name=value`) beside the usual ones.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let folder = TempDir::new().expect("folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("folder");
        give_away(&[folder.path(), &data]);
        let mut init = as_owner("initdb", unprivileged().as_deref());
        init.args(["--auth=trust", "--username=mercure", "--no-sync", "--encoding=UTF8", "-D"]);
        let made = init.arg(&data).output().expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let settings: Vec<_> = settings.iter().map(|text| (*text).to_owned()).collect();
        let process = Self::launch(folder.path(), port, &settings);
        Self { process, port, folder, settings, kept: Vec::new() }
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

    /// Starts one that can be reached over TLS. It insists on a key of its own that nobody else reads.
    #[must_use]
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let folder = TempDir::new().expect("folder");
        let own = folder.path().join("server.key");
        std::fs::copy(key, &own).expect("copy");
        give_away(&[folder.path(), &own]);
        let mode = Command::new("chmod").arg("600").arg(&own).status();
        assert!(mode.is_ok_and(|status| status.success()), "chmod");
        std::fs::copy(certificate, folder.path().join("server.pem")).expect("copy");
        let mut server = Self::start(&[
            "ssl=on",
            &format!("ssl_key_file={}", own.display()),
            &format!("ssl_cert_file={}/server.pem", folder.path().display()),
        ]);
        server.kept.push(folder);
        server
    }

    /// A standby that has confirmed whatever this one acknowledges.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn standby(&self) -> Self {
        let folder = TempDir::new().expect("folder");
        give_away(&[folder.path()]);
        let mut copy = as_owner("pg_basebackup", unprivileged().as_deref());
        copy.args(["-h", "127.0.0.1", "-U", "mercure", "-R", "-c", "fast", "-p"]);
        copy.arg(self.port.to_string()).arg("-D").arg(folder.path().join("data"));
        let made = copy.output().expect("pg_basebackup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let process = Self::launch(folder.path(), port, &[]);
        self.configure("synchronous_standby_names", "*");
        Self { process, port, folder, settings: Vec::new(), kept: Vec::new() }
    }

    /// Makes a standby the primary.
    pub fn promote(&mut self) {
        let mut promote = as_owner("pg_ctl", unprivileged().as_deref());
        let done = promote.arg("promote").arg("-D").arg(self.folder.path().join("data")).status();
        assert!(done.is_ok_and(|status| status.success()), "pg_ctl promote");
    }

    /// Changes a setting while it runs.
    fn configure(&self, name: &str, value: &str) {
        let mut psql = program("psql");
        psql.args(["-h", "127.0.0.1", "-U", "mercure", "-p", &self.port.to_string(), "postgres"]);
        psql.args(["-c", &format!("ALTER SYSTEM SET {name} = '{value}'")]);
        psql.args(["-c", "SELECT pg_reload_conf()"]);
        let done = psql.output().expect("psql");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
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

/// PostgreSQL refuses to run as root, and so its files belong to somebody else.
fn give_away(paths: &[&Path]) {
    if let Some(owner) = unprivileged() {
        let given = Command::new("chown").arg(&owner).args(paths).status();
        assert!(given.is_ok_and(|status| status.success()), "chown to {owner}");
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
    settings: Vec<String>,
    folder: TempDir,
}

impl NatsServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with settings beside the usual ones.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = TempDir::new().expect("folder");
        let port = free_port();
        let settings: Vec<_> = settings.iter().map(|text| (*text).to_owned()).collect();
        let process = Self::launch(folder.path(), port, &settings);
        Self { process, port, settings, folder }
    }

    fn launch(folder: &Path, port: u16, settings: &[String]) -> Process {
        let mut command = program("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]);
        command.arg(folder.join("data")).args(settings);
        let log = folder.join("log");
        let mut process = Process::start(&mut command, &log, "TERM").expect("nats-server");
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
        format!("nats://127.0.0.1:{port}?namespace={namespace}")
    }
}
