//! HTTPS at the hub's own listeners, as curl meets it; certificates from files and from an authority
//! (Pebble).

mod drill;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use drill::node::Node;
use mercure_hub::config::{Config, Layers};
use mercure_transports::testing::free_port;
use serde_json::json;
use support::{PATH, PUBLISHER_KEY, TestHub, bearer, v0};
use tempfile::TempDir;

/// A certificate for localhost that is its own authority, in `cert.pem` and `key.pem`.
fn certify(folder: &Path) {
    let key = rcgen::KeyPair::generate().expect("key");
    let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("names");
    let certificate = parameters.self_signed(&key).expect("certificate");
    replace(&folder.join("key.pem"), &key.serialize_pem());
    replace(&folder.join("cert.pem"), &certificate.pem());
}

/// Puts a file in the place of another one, as programs that renew certificates do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("write");
    std::fs::rename(&beside, path).expect("rename");
}

fn secured(folder: &Path, more: &str) -> TestHub {
    let file = |name| folder.join(name).display().to_string();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    TestHub::with(&format!("tls_cert = \"{certificate}\"\ntls_key = \"{key}\"\n{more}"))
}

fn port(hub: &TestHub) -> &str {
    hub.address.rsplit_once(':').expect("a port").1
}

fn curl(authority: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]);
    command.arg(authority).args(arguments);
    command
}

/// What curl says of an exchange; `Err` holds why there was none.
fn answer(authority: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = curl(authority, arguments).output().expect("curl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Tries until it succeeds, for a minute.
#[expect(clippy::disallowed_methods, reason = "other programs say nothing when they are ready")]
fn until<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let mut error = String::new();
    for _ in 0..600 {
        match attempt() {
            Ok(result) => return result,
            Err(reason) => error = reason,
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{error}");
}

/// A stream that curl reads.
struct Stream(Child, BufReader<std::process::ChildStdout>);

impl Stream {
    fn open(authority: &Path, url: &str, version: &str) -> Self {
        let mut command = curl(authority, &["--no-buffer", "--max-time", "120", version, url]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("curl runs");
        let reader = BufReader::new(child.stdout.take().expect("piped"));
        Self(child, reader)
    }

    fn data(&mut self) -> String {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert_ne!(self.1.read_line(&mut line).expect("read"), 0, "the stream goes on");
        }
        line["data: ".len()..].trim_end().to_owned()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn publish(authority: &Path, url: &str, data: &str) -> String {
    let token = bearer(&v0(PUBLISHER_KEY, &json!({"publish": ["*"]})));
    let data = format!("data={data}");
    answer(authority, &["-H", &token, "-d", "topic=t", "-d", &data, url]).expect("published")
}

#[test]
fn both_versions_of_http_are_spoken_and_streams_reach_everybody() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    let (hub, authority) = (secured(folder.path(), ""), folder.path().join("cert.pem"));
    let url = format!("https://localhost:{}{PATH}", port(&hub));
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let said = answer(&authority, &[flag, "-o", "/dev/null", "-w", "%{http_version}", &url]);
        assert_eq!(said.as_deref(), Ok(version));
    }
    let from_start = format!("{url}?topic=t&lastEventID=earliest");
    let mut streams =
        ["--http2", "--http1.1"].map(|version| Stream::open(&authority, &from_start, version));
    for number in ["one", "two", "three"] {
        publish(&authority, &url, number);
    }
    for stream in &mut streams {
        assert_eq!([stream.data(), stream.data(), stream.data()], ["one", "two", "three"]);
    }
    // The hub's own URL, which is told, is the one that clients use.
    let told = answer(&authority, &["-i", "-X", "POST", &url]).expect("refused");
    assert!(told.contains(&format!("https://localhost:{}/.well-known", port(&hub))), "{told}");
}

#[test]
fn who_speaks_plain_http_is_told() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    let hub = secured(folder.path(), "");
    let mut socket = TcpStream::connect(&hub.address).expect("connect");
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("write");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("read");
    assert!(text.ends_with("this port speaks HTTPS, not HTTP.\n"), "{text}");
}

#[test]
fn a_certificate_that_was_renewed_is_shown_and_streams_go_on() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    let (old, new) = (folder.path().join("old.pem"), folder.path().join("cert.pem"));
    std::fs::copy(&new, &old).expect("copy");
    let certificate = format!("--tls-cert={}", new.display());
    let key = format!("--tls-key={}", folder.path().join("key.pem").display());
    let hub = Node::start("memory://", &[&certificate, &key]);
    let url = format!("https://localhost:{}{PATH}", hub.port);
    let from_start = format!("{url}?topic=t&lastEventID=earliest");
    let mut stream = Stream::open(&old, &from_start, "--http1.1");
    publish(&old, &url, "before");
    assert_eq!(stream.data(), "before");

    // A certificate without its key is not shown.
    replace(&new, &certificate_of_another_key());
    until(|| match hub.words() {
        words if words.contains("the old certificate is kept") => Ok(()),
        words => Err(words),
    });
    publish(&old, &url, "between");
    certify(folder.path());
    until(|| answer(&new, &["-o", "/dev/null", &url]));
    answer(&old, &["-o", "/dev/null", &url]).expect_err("the old one is not shown any more");
    publish(&new, &url, "after");
    assert_eq!([stream.data(), stream.data()], ["between", "after"]);
}

fn certificate_of_another_key() -> String {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    std::fs::read_to_string(folder.path().join("cert.pem")).expect("read")
}

#[test]
fn plain_http_is_sent_on_and_a_listener_can_stay_plain() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    let authority = folder.path().join("cert.pem");
    let (plain, redirect) = (free_port(), free_port());
    let hub = secured(
        folder.path(),
        &format!(
            "listen = [\"127.0.0.1:0\", \"http://127.0.0.1:{plain}\"]\n\
             redirect_listen = \"127.0.0.1:{redirect}\"\n\
             public_url = \"https://hub.example\"\n"
        ),
    );
    let url = format!("http://127.0.0.1:{plain}{PATH}");
    assert!(publish(&authority, &url, "x").starts_with("urn:uuid:"));
    let url = format!("http://localhost:{redirect}/a/b?c=d");
    let said = answer(&authority, &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url]);
    assert_eq!(said.as_deref(), Ok("308 https://hub.example/a/b?c=d"));
    drop(hub);
}

#[test]
fn without_a_public_url_plain_http_is_sent_to_our_own_port() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    let (own, redirect) = (free_port(), free_port());
    let settings =
        format!("listen = \"0.0.0.0:{own}\"\nredirect_listen = \"127.0.0.1:{redirect}\"\n");
    let _hub = secured(folder.path(), &settings);
    let url = format!("http://localhost:{redirect}/");
    let authority = folder.path().join("cert.pem");
    let said = answer(&authority, &["-o", "/dev/null", "-w", "%{redirect_url}", &url]);
    assert_eq!(said, Ok(format!("https://localhost:{own}/")));
}

#[test]
fn what_is_wrong_with_certificates_is_said() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("other.pem"), certificate_of_another_key()).expect("write");
    std::fs::write(file("empty.pem"), "nothing\n").expect("write");
    std::fs::write(file("cut.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").expect("write");
    support::keys::openssl(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-521",
            "-out",
            &file("p521.pem"),
        ],
        "",
    );
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n\
                     -----END RSA PRIVATE KEY-----\n";
    std::fs::write(file("encrypted.pem"), encrypted).expect("write");
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let (empty, other) = (file("empty.pem"), file("other.pem"));
    let (cut, encrypted, p521) = (file("cut.pem"), file("encrypted.pem"), file("p521.pem"));
    let cases = [
        (vec![("tls_cert", certificate.as_str())], "tls_cert: needs tls_key as well"),
        (vec![("tls_key", key.as_str())], "tls_key: needs tls_cert as well"),
        (vec![("tls_cert", "/nowhere"), ("tls_key", &key)], "/nowhere cannot be read as PEM"),
        (vec![("tls_cert", &certificate), ("tls_key", &certificate)], "cannot be read as PEM"),
        (vec![("tls_cert", &cut), ("tls_key", &key)], "cut.pem is cut off"),
        (vec![("tls_cert", &certificate), ("tls_key", &encrypted)], "is encrypted; give it"),
        (vec![("tls_cert", &certificate), ("tls_key", &p521)], "p521.pem cannot be used: it takes"),
        (vec![("tls_cert", &empty), ("tls_key", &key)], "holds no certificate"),
        (vec![("tls_cert", &other), ("tls_key", &key)], "is not the key of"),
        (vec![("acme_domains", "a.example")], "acme_domains: needs acme_cache"),
        (vec![("acme_domains", "*.example")], "acme_domains: needs names of hosts"),
        (vec![("acme_directory", "http://x")], "acme_directory: needs a URL that begins with"),
        (vec![("acme_email", "nobody")], "acme_email: needs an address"),
        (vec![("acme_challenge", "dns-01")], "acme_challenge: must be one of tls-alpn-01, http-01"),
        (vec![("acme_ca", "/nowhere")], "acme_ca: /nowhere cannot be read"),
        (
            vec![
                ("acme_domains", "a.example"),
                ("acme_cache", "/c"),
                ("acme_challenge", "http-01"),
            ],
            "acme_challenge: http-01 needs redirect_listen",
        ),
        (vec![("redirect_listen", "0.0.0.0:80")], "redirect_listen: needs a certificate"),
        (
            vec![
                ("acme_domains", "a.example"),
                ("acme_cache", "/c"),
                ("tls_cert", &certificate),
                ("tls_key", &key),
            ],
            "acme_domains: cannot be given together with tls_cert",
        ),
    ];
    for (settings, expected) in cases {
        let mut layers = Layers::default();
        let text: String = settings.iter().map(|(n, v)| format!("{n} = \"{v}\"\n")).collect();
        layers.file(&format!("publisher_jwt_key = \"k\"\n{text}"));
        let errors = Config::parse(&layers).expect_err(expected).0;
        assert!(errors.len() == 1 && errors[0].contains(expected), "{settings:?}: {errors:?}");
    }
}

/// An authority on this machine that looks at ports of ours.
struct Authority {
    child: Child,
    folder: TempDir,
    port: u16,
    management: u16,
}

impl Authority {
    fn start(http: u16, tls: u16) -> Self {
        let folder = TempDir::new().expect("folder");
        certify(folder.path());
        let (port, management) = (free_port(), free_port());
        let file = |name| folder.path().join(name).display().to_string();
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": file("cert.pem"), "privateKey": file("key.pem"),
            "httpPort": http, "tlsPort": tls,
        }});
        std::fs::write(file("pebble.json"), config.to_string()).expect("write");
        let child = Command::new("pebble")
            .args(["-config", &file("pebble.json")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // It refuses some requests by chance, and after several the hub waits for long.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble runs");
        let this = Self { child, folder, port, management };
        let management = ("127.0.0.1", this.management);
        until(|| TcpStream::connect(management).map_err(|error| format!("pebble: {error}")));
        this
    }

    /// Whom clients of ours trust: the root that signs what it gives.
    fn root(&self) -> std::path::PathBuf {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let root = answer(&self.folder.path().join("cert.pem"), &[&url]).expect("a root");
        let path = self.folder.path().join("root.pem");
        std::fs::write(&path, root).expect("write");
        path
    }

    fn settings(&self, tls: u16, challenge: &str) -> String {
        let file = |name| self.folder.path().join(name).display().to_string();
        format!(
            "listen = \"127.0.0.1:{tls}\"\nacme_domains = \"localhost\"\n\
             acme_email = \"admin@example.com\"\nacme_cache = \"{}\"\nacme_ca = \"{}\"\n\
             acme_directory = \"https://localhost:{}/dir\"\nacme_challenge = \"{challenge}\"\n",
            file("cache"),
            file("cert.pem"),
            self.port,
        )
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the hub shows a certificate that the authority has given.
fn certified(authority: &Path, url: &str) {
    until(|| answer(authority, &["-o", "/dev/null", url]));
}

/// When the certificate ends that is shown, in Unix time, as far as `/metrics` knows.
fn expiry(authority: &Path, ops: u16) -> Option<u64> {
    let text = answer(authority, &[&format!("http://127.0.0.1:{ops}/metrics")]).expect("figures");
    let name = "mercure_certificate_expiry_timestamp_seconds ";
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
}

fn from_authority(challenge: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let (http, tls, ops) = (free_port(), free_port(), free_port());
    let mut authority = Authority::start(http, tls);
    let root = authority.root();
    let mut settings = authority.settings(tls, challenge);
    settings.push_str(&format!("ops_listen = \"127.0.0.1:{ops}\"\n"));
    if challenge == "http-01" {
        settings.push_str(&format!("redirect_listen = \"127.0.0.1:{http}\"\n"));
    }
    let url = format!("https://localhost:{tls}{PATH}");
    let hub = TestHub::with(&settings);
    certified(&root, &url);
    publish(&root, &url, "x");
    let given = expiry(&root, ops);
    let now = mercure_engine::Clock::system().unix_time().as_secs();
    assert!(given > Some(now + 3600), "it ends much later: {given:?}");
    drop(hub);
    let cache = authority.folder.path().join("cache");
    let mode = std::fs::metadata(&cache).expect("cache").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "keys are nobody else's business");

    // What was given is kept: nothing is asked for after a restart.
    authority.child.kill().expect("it runs");
    let hub = TestHub::with(&settings);
    certified(&root, &url);
    assert_eq!(expiry(&root, ops), given);
    drop(hub);
}

#[test]
fn a_certificate_is_had_from_an_authority_within_tls() {
    from_authority("tls-alpn-01");
}

#[test]
fn a_certificate_is_had_from_an_authority_over_http() {
    from_authority("http-01");
}
