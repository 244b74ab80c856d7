//! Key pairs of every kind, and tokens signed with them.

use std::io::Write;
use std::process::Command;

use mercure_hub::auth::SigningKey;
use serde_json::{Value, json};

use super::{AUDIENCE, TestHub, bearer};

/// A key pair in PEM, made by OpenSSL.
pub struct Pair {
    pub private: String,
    pub public: String,
}

pub fn openssl(arguments: &[&str], input: &str) -> String {
    let mut process = Command::new("openssl")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl is installed");
    process.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
    let output = process.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).expect("PEM")
}

pub fn pair(options: &[&str]) -> Pair {
    let private = openssl(&[&["genpkey"], options].concat(), "");
    let public = openssl(&["pkey", "-pubout"], &private);
    Pair { private, public }
}

pub fn pair_for(algorithm: &str) -> Pair {
    match algorithm {
        "ES256" => pair(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        "ES384" => pair(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        "EdDSA" => pair(&["-algorithm", "ED25519"]),
        _ => pair(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    }
}

/// The claims of a 1.0 publisher's token.
pub fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": AUDIENCE, "exp": 4_000_000_000_u64,
        "authorization_details": [{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": ["publish", "subscribe"],
            "topics": [{"match": "*"}],
        }],
    })
}

pub fn signed(key: &str, algorithm: &str, kid: Option<&str>, claims: &Value) -> String {
    let key = SigningKey::parse(key, algorithm).expect("key").named(kid.map(str::to_owned));
    key.sign("at+jwt", claims).expect("token")
}

pub fn status(hub: &TestHub, token: &str) -> u16 {
    hub.post("topic=a", &[&bearer(token)]).0
}

/// Waits until a token is judged so: sets are fetched in the background at first.
#[expect(clippy::disallowed_methods, reason = "what is fetched in the background tells nobody")]
pub fn until(hub: &TestHub, token: &str, expected: u16) {
    for _ in 0..800 {
        if status(hub, token) == expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("the token is never answered {expected}");
}
