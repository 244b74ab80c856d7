//! The command as a user meets it: the binary, its errors, its exit status.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use support::{PATH, TestHub};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the command, which must fail with a status and say certain words, and no secret.
fn fails(arguments: &[&str], status: i32, words: &[&str]) {
    let output = run(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?} should say {word:?}: {text}");
    }
    assert!(!text.contains("very-secret"), "no secret: {text}");
}

#[test]
fn a_wrong_flag_is_named_with_what_is_expected() {
    let cases: [(&str, &str, &str); 9] = [
        ("--listen", "nonsense", "needs host:port"),
        ("--heartbeat", "soon", "must be a duration, as in 250ms"),
        ("--max-request-body", "0B", "must be a size above 0"),
        ("--protocol", "2.0", "must be one of both, 1.0, 0.x"),
        ("--transport", "kafka://u:very-secret@h", "unknown transport \"kafka\""),
        (
            "--transport",
            "redis://u:very-secret@h?x=1",
            "the URL of the transport has a parameter that is not known: x",
        ),
        ("--lease", "1ms", "must be 1s or longer"),
        ("--cors-origins", "example.com", "needs an origin"),
        ("--public-url", "https://example.com/path", "needs an origin"),
    ];
    for (flag, value, expected) in cases {
        let words = format!("{flag}: {expected}");
        fails(&["--publisher-jwt-key=k", flag, value], 2, &[&words]);
    }
}

#[test]
fn a_missing_key_is_explained() {
    fails(&[], 2, &["no key is configured", "openssl rand -hex 32", "MERCURE_PUBLISHER_JWT_KEY"]);
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = taken.local_addr().expect("address").to_string();
    let listen = |address: &str, words: &[&str]| {
        fails(&["--publisher-jwt-key=k", "--listen", address], 1, words);
    };
    listen(&taken, &["cannot listen on", &taken, "another program listens there", "--listen"]);
    listen("unix:/nowhere/hub.sock", &["cannot listen on", "directory does not exist"]);
    listen("192.0.2.1:5500", &["cannot listen on", "this machine has no such address"]);
}

#[test]
fn only_a_stale_socket_is_in_the_way() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("precious.txt");
    std::fs::write(&path, "keep").expect("write");
    let listen = format!("unix:{}", path.display());
    fails(&["--publisher-jwt-key=k", "--listen", &listen], 1, &["cannot listen on"]);
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "keep");
}

#[test]
fn a_key_is_taken_as_it_is() {
    let (_served, url) = Served::start(&["--publisher-jwt-key=a, b  c"]);
    let token = stdout(&run(&["token", "--publish", "*", "--key", "a, b  c"]));
    let published = run(&["publish", "--hub", &url, "--jwt", &token, "-t", "a"]);
    assert!(stdout(&published).starts_with("urn:uuid:"), "{}", stderr(&published));
    fails(&["--publisher-jwt-key=a", "--publisher-jwt-key=b"], 2, &["given more than once"]);
}

#[test]
fn a_wrong_file_is_reported_whole() {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let typo = file("typo.toml", "hartbeat = \"3s\"\npublisher_jwt_key = \"k\"");
    fails(&["--config", &typo], 2, &["hartbeat: unknown setting; did you mean heartbeat?"]);
    let broken = file("broken.toml", "publisher_jwt_key = \"very-secret\nx");
    fails(&["--config", &broken], 2, &["not valid TOML, line"]);
    let several = file("several.toml", "heartbeat = 3\nanonymous = \"maybe\"\nlisten = [\"x\"]");
    fails(&["--config", &several], 2, &["heartbeat: ", "anonymous: ", "listen: ", "no key"]);
    fails(&["--config", "/nowhere.toml"], 2, &["cannot read --config /nowhere.toml"]);
}

#[test]
fn the_environment_is_read_and_its_typos_are_errors() {
    let mut check = command(&["check-config"]);
    check
        .env("MERCURE_PUBLISHER_JWT_KEY", "k")
        .env("MERCURE_CORS_ORIGINS", "https://a.example, https://b.example");
    check.env("MERCURE_HUB_URL", "http://for.the.extension").env("UNRELATED", "x");
    let output = check.output().expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("https://a.example https://b.example"));
    let output = check.env("MERCURE_HARTBEAT", "1s").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean MERCURE_HEARTBEAT?"));
    let output = check.env_remove("MERCURE_HARTBEAT").arg("--protocol=1.0").output().expect("runs");
    assert!(
        stdout(&output).contains("protocol             1.0"),
        "flags go before the environment"
    );
}

struct Served(Child);

impl Served {
    fn start(arguments: &[&str]) -> (Self, String) {
        // The other listener's own port may be another hub's.
        let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--ops-listen", "none"]);
        serve.args(["--log-format", "json"]).args(arguments).stderr(Stdio::piped());
        let mut served = Self(serve.spawn().expect("starts"));
        let words = served.0.stderr.take().expect("piped");
        let address_in = |line: &str| {
            let from = line.split("\"address\":\"").nth(1)?;
            from.split('"').next().map(str::to_owned)
        };
        let mut lines = BufReader::new(words).lines();
        let address = lines.find_map(|line| address_in(&line.expect("text"))).expect("an address");
        (served, format!("http://{address}{PATH}"))
    }

    fn terminate(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tokens_publishing_and_subscribing_from_the_command_line() {
    let (mut served, url) = Served::start(&["--publisher-jwt-key=p", "--subscriber-jwt-key=s"]);
    let subscriber_token = stdout(&run(&["token", "--subscribe", "a", "--key", "s"]));
    let mut subscriber = command(&["subscribe", "--hub", &url, "--jwt", &subscriber_token, "a"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stream = BufReader::new(subscriber.stdout.take().expect("piped"));
    let mut line = String::new();
    stream.read_line(&mut line).expect("the stream has begun");

    let token = stdout(
        &command(&["token", "--publish", "*"])
            .env("MERCURE_PUBLISHER_JWT_KEY", "p")
            .output()
            .expect("runs"),
    );
    let published =
        run(&["publish", "--hub", &url, "--jwt", &token, "--private", "-t", "a", "hello"]);
    assert!(stdout(&published).starts_with("urn:uuid:"), "{}", stderr(&published));
    while !line.contains("data: hello") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).expect("the stream goes on"), 0);
    }

    served.terminate();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("a clean end");
    assert!(subscriber.wait().expect("ends").success());
    assert!(served.0.wait().expect("ends").success(), "SIGTERM is an ordinary end");
}

#[test]
fn a_client_is_told_why() {
    let hub = TestHub::start();
    let url = format!("http://{}{PATH}", hub.address);
    let refused = run(&["publish", "--hub", &url, "-t", "a"]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("401"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("mercure-hub token"), "{}", stderr(&refused));
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let unreachable = run(&["publish", "--hub", &format!("http://{closed}/"), "-t", "a"]);
    assert!(stderr(&unreachable).contains("is it running?"), "{}", stderr(&unreachable));
    let usage = run(&["token"]);
    assert_eq!(usage.status.code(), Some(2));
    let half = run(&["token", "--publish", "a", "--issuer", "x", "--key", "k"]);
    assert!(stderr(&half).contains("belong together"));
}

#[test]
fn help_names_every_setting() {
    let help = stdout(&run(&["serve", "--help"]));
    for word in ["--listen", "MERCURE_LISTEN", "127.0.0.1:5500", "--history-bytes", "256MiB"] {
        assert!(help.contains(word), "{word}");
    }
    assert!(!stdout(&run(&["--help"])).contains("companion"), "internal, so hidden");
}

/// The log of a hub that was asked for things.
#[expect(clippy::disallowed_methods, reason = "a file tells nobody that it has grown")]
fn log_of(arguments: &[&str], asked: impl FnOnce(&str)) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log");
    let log = std::fs::File::create(&path).expect("log");
    let serve = ["serve", "--publisher-jwt-key=very-secret-key", "--log-level=trace"];
    let mut child = command(&[&serve, arguments].concat()).stderr(log).spawn().expect("starts");
    let read = || std::fs::read_to_string(&path).expect("log");
    let address = loop {
        let text = read();
        if let Some(rest) = text.split("address=\"").nth(1) {
            break rest.split('"').next().unwrap_or_default().to_owned();
        }
        assert!(child.try_wait().expect("state").is_none(), "{text}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    asked(&format!("http://{address}{PATH}"));
    child.kill().expect("ends");
    child.wait().expect("ended");
    read()
}

#[test]
fn no_token_and_no_key_reaches_the_log() {
    let token = stdout(&run(&["token", "--publish", "*", "--key", "very-secret-key"]));
    let (claims, signature) = token.rsplit_once('.').expect("a token");
    // {"alg":"RS256","kid":"x)\nINFO forged"} {}
    let forged = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngpXG5JTkZPIGZvcmdlZCJ9.e30.AAAA";
    let log = log_of(&["--listen=127.0.0.1:0"], |url| {
        let wrong = format!("{claims}.AAAA");
        for jwt in [token.as_str(), &wrong, forged] {
            let _ = run(&["publish", "--hub", url, "--jwt", jwt, "-t", "a", "the-data"]);
            let in_url = format!("{url}?authorization={jwt}");
            let _ = run(&["publish", "--hub", &in_url, "-t", "a", "the-data"]);
        }
    });
    assert!(log.contains("a token was refused client=127.0.0.1"), "it says whose: {log}");
    assert!(!log.lines().any(|line| line.starts_with("INFO forged")), "one entry, one line: {log}");
    for secret in [signature, claims, "very-secret-key", "the-data"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn plain_http_beyond_this_machine_is_warned_about() {
    let warning = "plain HTTP is served beyond this machine";
    assert!(log_of(&["--listen=0.0.0.0:0"], |_| {}).contains(warning));
    assert!(!log_of(&["--listen=127.0.0.1:0"], |_| {}).contains(warning));
}

#[test]
fn variables_that_are_no_text_are_named_and_never_shown() {
    use std::os::unix::ffi::OsStrExt as _;
    let secret = std::ffi::OsStr::from_bytes(b"secret\xc8\xc9");
    for (name, exit) in [("MERCURE_PUBLISHER_JWT_KEY", 2), ("SOMETHING_ELSE", 0)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
        command.env_clear().env("MERCURE_PUBLISHER_JWT_KEY", "k".repeat(32)).env(name, secret);
        let output = command.arg("check-config").output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert_eq!(said.contains(name), exit != 0, "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn an_import_with_something_missing_is_refused() {
    let folder = tempfile::TempDir::new().expect("folder");
    let line = |position: u32| {
        let event = format!("id: n{position}\ndata: x\n\n");
        let id = format!("n{position}");
        serde_json::json!({"position": position, "id": id, "topics": ["t"], "event": event})
    };
    for (name, positions, status) in [("a", [7, 8], 0), ("b", [1, 3], 1), ("c", [2, 1], 1)] {
        let url = format!("sqlite://{}", folder.path().join(name).display());
        let lines = folder.path().join("lines");
        let text = positions.map(|position| format!("{}\n", line(position))).concat();
        std::fs::write(&lines, text).expect("written");
        let lines = std::fs::File::open(&lines).expect("opened");
        let mut import = command(&["history", "import", "--transport", &url]);
        let output = import.stdin(lines).output().expect("the binary runs");
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{words}");
        assert!(status == 0 || words.contains("line 2: position"), "{words}");
    }
}

#[test]
fn a_log_that_is_not_there_is_neither_waited_for_nor_made() {
    let folder = tempfile::TempDir::new().expect("folder");
    let path = folder.path().join("mistyped.db");
    let url = format!("sqlite://{}", path.display());
    for sub in ["list", "export", "trim", "verify"] {
        let words = ["mistyped.db cannot be opened: No such file or directory"];
        fails(&["history", sub, "--transport", &url], 1, &words);
    }
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_used_is_refused_at_once_and_keys_are_never_shown() {
    let folder = tempfile::TempDir::new().expect("folder");
    let (directory, file) = (folder.path().display().to_string(), folder.path().join("file"));
    std::fs::write(&file, "").expect("written");
    let serve = ["serve", "--publisher-jwt-key=k", "--ops-listen=none", "--listen=127.0.0.1:0"];
    let transport = format!("--transport=sqlite://{directory}");
    fails(&[&serve[..], &[&transport]].concat(), 1, &["is no ordinary file"]);
    let listen = format!("--listen=unix:{}", file.display());
    fails(&[&serve[..3], &[&listen]].concat(), 1, &["what is there is no socket", "--listen"]);
    let check = ["check-config", "--publisher-jwt-key"];
    fails(&[&check[..], &["file:///dev/zero"]].concat(), 2, &["too large for a key"]);
    fails(&[&check[..], &["k", "--hub-path=/../x"]].concat(), 2, &["--hub-path: needs a path"]);
    fails(&[&check[..], &["--listen=127.0.0.1:1"]].concat(), 2, &["jwt-key: needs a value"]);
    let pem = "-----BEGIN PUBLIC KEY-----\nvery-secret\n-----END PUBLIC KEY-----";
    let words = ["--publisher-jwt-key: is PEM"];
    fails(&[&check[..], &[pem, "--publisher-jwt-alg=RS256"]].concat(), 2, &words);
}

#[test]
fn clients_say_what_is_in_the_way() {
    let hub = TestHub::start();
    let url = format!("http://{}{PATH}", hub.address);
    let publish = |more: &[&str], status, words: &[&str]| {
        fails(&[&["publish", "-t", "a"], more].concat(), status, words);
    };
    publish(&["--hub", "ftp://x"], 2, &["--hub: must begin with http://"]);
    publish(&["--hub", "nonsense"], 2, &["--hub: "]);
    let named = "http://somebody:very-secret@127.0.0.1:1/";
    publish(&["--hub", named], 2, &["--hub: a hub takes no name"]);
    publish(&["--hub", &url, "--jwt", "very-secret\nx"], 2, &["--jwt: holds a character"]);
    let token = stdout(&run(&["token", "--publish", "*", "--key", support::PUBLISHER_KEY]));
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "x".repeat(4 << 20)).expect("written");
    for (token, answer) in [(token.as_str(), "answered 413"), ("nonsense", "answered 401")] {
        let mut large = command(&["publish", "--hub", &url, "--jwt", token, "-t", "a", "-"]);
        let output = large.stdin(file.reopen().expect("open")).output().expect("the binary runs");
        assert!(stderr(&output).contains(answer), "{}", stderr(&output));
    }
    let elsewhere = url.replace(PATH, "/");
    fails(&["subscribe", "--hub", &elsewhere, "a"], 1, &["is no hub: text/plain"]);
    fails(&["subscribe", "--hub", &url, "--last-event-id", "a\nb", "a"], 2, &["--last-event-id: "]);
}

#[test]
fn shells_and_man_know_every_setting() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(&["completions", shell]));
        for setting in mercure_hub::config::SETTINGS {
            assert!(script.contains(&setting.flag()), "{shell}: {}", setting.name);
        }
        assert!(script.contains("check-config"), "{shell}");
    }
    let script = stdout(&run(&["completions", "bash"]));
    let check = Command::new("bash").args(["-n", "-c", &script]).output().expect("bash runs");
    assert!(check.status.success(), "{}", stderr(&check));
    let page = stdout(&run(&["man", "serve"]));
    assert!(page.contains(".TH mercure-hub-serve"), "{page:.200}");
    assert!(page.contains("max\\-connections\\-per\\-address"));
    fails(&["man", "nonsense"], 2, &["there is no subcommand nonsense"]);
}
