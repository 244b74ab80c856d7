//! What is valid and most likely not wanted is said, and what is fine is not.

use mercure_hub::config::{Config, Layers};
use tempfile::TempDir;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut layers = Layers::default();
    layers.file(text);
    match Config::parse(&layers) {
        Ok(config) => Ok(config.advice),
        Err(errors) => Err(errors.to_string()),
    }
}

fn keyed(text: &str) -> Result<Vec<String>, String> {
    parse(&format!("publisher_jwt_key = \"{KEY}\"\n{text}"))
}

#[test]
fn keys_that_can_be_guessed() {
    for (text, advice) in [
        (format!("publisher_jwt_key = \"{KEY}\""), None),
        (
            "publisher_jwt_key = \"short\"".to_owned(),
            Some("publisher_jwt_key: has fewer than 32 bytes"),
        ),
        (
            format!(
                "publisher_jwt_key = \"{KEY}\"\nsubscriber_jwt_key = \"!ChangeThisMercureHubJWTSecretKey!\""
            ),
            Some("subscriber_jwt_key: is a sample"),
        ),
        (
            "[[issuer]]\nid = \"https://a.example\"\npublisher = { key = \"short\" }".to_owned(),
            Some("issuer 1: the key has fewer than 32 bytes"),
        ),
    ] {
        let found = parse(&text).expect("valid");
        assert_eq!(found.is_empty(), advice.is_none(), "{text}: {found:?}");
        assert!(advice.is_none_or(|advice| found[0].starts_with(advice)), "{text}: {found:?}");
        assert!(!found.concat().contains("!ChangeThis"), "no key is shown");
    }
}

#[test]
fn keys_that_are_none() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).expect("write");
    for (value, reason) in [
        ("12345678".to_owned(), "publisher_jwt_key: needs a text in quotes"),
        ("true".to_owned(), "publisher_jwt_key: needs a text in quotes"),
        (format!("\"{}\"", file.display()), "write file:// before it"),
        ("'{\"keys\":[]}'".to_owned(), "holds no key"),
    ] {
        let errors = parse(&format!("publisher_jwt_key = {value}")).expect_err("refused");
        assert!(errors.contains(reason), "{value}: {errors}");
    }
    assert_eq!(parse(&format!("publisher_jwt_key = \"file://{}\"", file.display())), Ok(vec![]));
    let errors = parse("publisher_jwt_key = \"a").expect_err("no TOML");
    assert!(!errors.contains("no key is configured"), "what is lost is not missing: {errors}");
}

#[test]
fn places() {
    for (text, advice) in [
        ("listen = [\"127.0.0.1:1\", \"[::1]:1\", \"localhost:2\"]", None),
        (
            "listen = [\"0.0.0.0:1\"]",
            Some("plain HTTP is served beyond this machine, at 0.0.0.0:1"),
        ),
        ("listen = [\"http://192.0.2.1:1\"]", Some("plain HTTP is served beyond this machine")),
        (
            "listen = [\"unix:/run/hub.sock\"]\npublish_rate_per_address = 5",
            Some("publish_rate_per_address: does not"),
        ),
        ("listen = [\"unix:/run/hub.sock\"]", None),
        ("trusted_issuers = [\"https://a.example\"]", None),
    ] {
        let found = keyed(text).expect("valid");
        assert_eq!(found.is_empty(), advice.is_none(), "{text}: {found:?}");
        assert!(advice.is_none_or(|advice| found[0].starts_with(advice)), "{text}: {found:?}");
    }
    let anywhere = "listen = [\"0.0.0.0:1\"]\ntrusted_issuers = [\"https://a.example\"]\n";
    let found = keyed(anywhere).expect("valid").concat();
    assert!(found.contains("1.0 tokens must name http://0.0.0.0:1/.well-known/mercure"), "{found}");
    for told in ["public_url = [\"https://h.example\"]", "resource_identifier = \"urn:hub\""] {
        let found = keyed(&format!("{anywhere}{told}")).expect("valid").concat();
        assert!(!found.contains("1.0 tokens"), "{found}");
    }
    for (text, reason) in [
        ("listen = []", "listen: needs an address"),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "127.0.0.1:1 is listened on twice"),
        ("listen = [\"127.0.0.1:1\"]\nops_listen = \"127.0.0.1:1\"", "is listened on twice"),
        ("cors_origins = [\"https://*.example.com\"]", "cors_origins: needs whole origins"),
    ] {
        let errors = keyed(text).expect_err("refused");
        assert!(errors.contains(reason), "{text}: {errors}");
    }
}

#[test]
fn certificates_that_end_or_are_for_others() {
    let folder = TempDir::new().expect("folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let settings = |years: i32| {
        let mut parameters =
            rcgen::CertificateParams::new(["hub.example".to_owned()]).expect("names");
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(years, 1, 1);
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = parameters.self_signed(&key).expect("certificate");
        std::fs::write(file("key.pem"), key.serialize_pem()).expect("write");
        std::fs::write(file("cert.pem"), certificate.pem()).expect("write");
        format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", file("cert.pem"), file("key.pem"))
    };
    let ours = "public_url = [\"https://hub.example\"]";
    assert_eq!(keyed(&(settings(2200) + ours)), Ok(vec![]));
    let expired = keyed(&(settings(2020) + ours)).expect("valid");
    assert!(expired[0].starts_with("tls_cert: the certificate has expired (Jan  1"), "{expired:?}");
    let others = keyed(&(settings(2200) + "public_url = [\"https://a.example\"]")).expect("valid");
    assert_eq!(others, ["tls_cert: the certificate is not for a.example (public_url)"]);
}
