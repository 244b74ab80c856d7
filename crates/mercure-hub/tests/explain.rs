//! `token` and `explain`: a token is made, and judged by the hub's own rules.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

const KEY: &str = "k-of-at-least-thirty-two-bytes-length";
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://hub.example/.well-known/mercure";

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    command.args(arguments).env_clear().stdin(Stdio::null()).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn token(arguments: &[&str]) -> String {
    let output = run(&[&["token", "--key", KEY], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

const V1: [&str; 4] = ["--issuer", ISSUER, "--audience", AUDIENCE];

/// What `explain` says, and whether it found everything well.
fn explain(arguments: &[&str]) -> (bool, String) {
    let keys = [
        "explain".to_owned(),
        format!("--publisher-jwt-key={KEY}"),
        "--subscriber-jwt-key=another-key".to_owned(),
        format!("--trusted-issuers={ISSUER}"),
        format!("--resource-identifier={AUDIENCE}"),
        "--public-url=https://hub.example".to_owned(),
    ];
    let arguments: Vec<_> =
        keys.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
    let output = run(&arguments);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    (output.status.success(), text(&output.stdout))
}

fn says(arguments: &[&str], well: bool, words: &[&str]) {
    let (found, said) = explain(arguments);
    assert_eq!(found, well, "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} should say {word:?}: {said}");
    }
    assert!(!said.contains(KEY) && !said.contains("another-key"), "no key: {said}");
}

fn claims(token: &str) -> (Value, Value) {
    let decode = |part: &str| {
        let text = Command::new("sh")
            .args(["-c", "tr -- '-_' '+/' | sed 's/$/==/' | base64 -d 2>/dev/null; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .and_then(|mut process| {
                use std::io::Write as _;
                writeln!(process.stdin.take().expect("stdin"), "{part}")?;
                process.wait_with_output()
            })
            .expect("base64");
        serde_json::from_slice(&text.stdout).expect("JSON")
    };
    let mut parts = token.split('.');
    (decode(parts.next().expect("header")), decode(parts.next().expect("claims")))
}

#[test]
fn tokens_of_either_generation_and_of_both() {
    let (header, old) =
        claims(&token(&["--subscribe", "https://x/{id}", "--payload", r#"{"u": 1}"#]));
    assert_eq!(header["typ"], "JWT");
    assert_eq!(old["mercure"]["subscribe"][0], "https://x/{id}");
    assert_eq!(old["mercure"]["payload"]["u"], 1);
    let pure = [
        &["--form", "1.0", "--subscribe-urlpattern", "/b/:id", "--payload", r#"{"u": 1}"#][..],
        &V1,
    ]
    .concat();
    let (header, new) = claims(&token(&pure));
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(new.get("mercure"), None);
    let detail = &new["authorization_details"][0];
    assert_eq!(detail["topics"][0]["match_type"], "urlpattern");
    assert_eq!(detail["payload"]["u"], 1);
    for claim in ["iss", "aud", "sub", "client_id", "iat", "exp", "jti"] {
        assert!(new.get(claim).is_some(), "{claim}");
    }
    let (header, both) = claims(&token(&[&["--publish", "*"][..], &V1].concat()));
    assert_eq!(header["typ"], "at+jwt");
    assert!(both.get("mercure").is_some() && both.get("authorization_details").is_some());
}

#[test]
fn a_token_that_would_not_mean_the_same_is_not_made() {
    for (arguments, reason) in [
        (&[&["--publish", "https://x/{id}"][..], &V1].concat()[..], "1.0 has no URI templates"),
        (&["--publish-urlpattern", "/:id"][..], "0.x has no URL patterns"),
        (&["--form", "1.0", "--publish", "a"][..], "needs --issuer and --audience"),
        (&["--publish", "a", "--payload", "[1]"][..], "--payload"),
        (&["--publish", "a", "--alg", "ES256"][..], "is not a private key"),
    ] {
        let output = run(&[&["token", "--key", KEY], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(reason), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_valid_token_is_described() {
    let made = token(&[&["--publish", "a"][..], &V1].concat());
    says(
        &["--token", &made, "--topic", "a"],
        true,
        &["1.0 (typ at+jwt)", "the hub's publisher key (HS256)", "exactly \"a\"", "granted by"],
    );
}

#[test]
fn a_refused_token_is_explained() {
    let good = [&["--publish", "a"][..], &V1].concat();
    let mut parts: Vec<String> = token(&good).split('.').map(str::to_owned).collect();
    parts[2] = "AAAA".to_owned();
    let cases = [
        (parts.join("."), "another key has signed it"),
        (
            token(&["--publish", "a", "--issuer", "https://other.example", "--audience", AUDIENCE]),
            "add its iss to trusted_issuers",
        ),
        (
            token(&["--publish", "a", "--issuer", ISSUER, "--audience", "https://other.example"]),
            "its aud does not name https://hub.example",
        ),
        (token(&["--publish", "a", "--expires", "0s"]), "it has expired (exp)"),
        ("garbage".to_owned(), "three parts, joined by dots"),
        ("Bearer garbage".to_owned(), "without Bearer or spaces"),
    ];
    for (made, reason) in cases {
        says(&["--token", &made, "--topic", "a"], false, &[reason]);
    }
    let made = token(&["--subscribe", "a"]);
    says(&["--token", &made, "--query", "topic=a"], false, &["it is valid for a publisher"]);
}

#[test]
fn topics_and_subscriptions_are_explained() {
    says(&["--topic", "/.well-known/%6Dercure/x"], false, &["reserved for the hub"]);
    says(&["--topic", "a\u{1b}[31m"], false, &["topic a\\u{1b}[31m: refused"]);
    says(&["--query", "match_foo=a"], false, &["reserved \"match\" namespace"]);
    for (query, topic, hint) in [
        ("match=https://x/{id}", "https://x/1", "1.0 has no URI templates"),
        ("match=https://x/:id", "https://x/1", "needs match_urlpattern="),
        ("topic=https://x/:id", "https://x/1", "not URL patterns"),
        ("match=https://x/A", "https://x/a", "upper and lower case"),
        ("match=https://x/a/", "https://x/a", "slash at the end"),
        ("match=https://x/%2561", "https://x/a", "percent-encoding"),
        ("match_urlpattern=/a/:id", "https://elsewhere.example/a/1", "the pattern is relative"),
        ("match_urlpattern=*://*/a", "http://[", "no URL"),
    ] {
        says(&["--query", query, "--topic", topic], false, &["would not reach", hint]);
    }
    says(&["--query", "match_urlpattern=/a/:id", "--topic", "/a/1"], true, &["matches /a/1"]);
    says(&["--query", "match=a", "--topic", "a", "--private"], false, &["there is no valid token"]);
}

#[test]
fn nothing_to_explain_is_a_usage_error() {
    assert_eq!(run(&["explain", "--publisher-jwt-key=k"]).status.code(), Some(2));
}
