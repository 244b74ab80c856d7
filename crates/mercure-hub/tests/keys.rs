//! Verification keys of every kind: how tokens are believed, and how they are not.

mod support;

use mercure_hub::config::{Config, Layers};
use serde_json::{Value, json};
use support::keys::*;
use support::*;

fn toml(text: &str) -> String {
    format!("\"\"\"\n{text}\"\"\"")
}

#[test]
fn every_algorithm_by_pem() {
    let rsa = pair_for("RS256");
    let algorithms =
        ["ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    for algorithm in algorithms {
        let own = pair_for(algorithm);
        let pair = if algorithm.contains('S') && !algorithm.starts_with('E') { &rsa } else { &own };
        let public = toml(&pair.public);
        let settings =
            format!("publisher_jwt_alg = [\"{algorithm}\"]\npublisher_jwt_key = {public}");
        let hub = TestHub::with(&settings);
        let token = signed(&pair.private, algorithm, None, &claims(ISSUER));
        assert_eq!(status(&hub, &token), 200, "{algorithm}");
        let forged = signed(&pair_for(algorithm).private, algorithm, None, &claims(ISSUER));
        assert_eq!(status(&hub, &forged), 401, "{algorithm} by another key");
    }
}

#[test]
fn every_length_of_secret_hashes() {
    for algorithm in ["HS256", "HS384", "HS512"] {
        let hub = TestHub::with(&format!("publisher_jwt_alg = [\"{algorithm}\"]"));
        for signed_with in ["HS256", "HS384", "HS512"] {
            let token = signed(PUBLISHER_KEY, signed_with, None, &claims(ISSUER));
            let expected = if signed_with == algorithm { 200 } else { 401 };
            assert_eq!(
                status(&hub, &token),
                expected,
                "{signed_with} where {algorithm} is allowed"
            );
        }
    }
}

/// The public key is no secret: a token "signed" with it by HMAC must not pass.
#[test]
fn a_public_key_is_never_a_secret() {
    let rsa = pair_for("RS256");
    let settings = format!(
        "publisher_jwt_alg = [\"RS256\", \"HS256\"]\npublisher_jwt_key = {}",
        toml(&rsa.public)
    );
    let hub = TestHub::with(&settings);
    assert_eq!(status(&hub, &signed(&rsa.private, "RS256", None, &claims(ISSUER))), 200);
    for secret in [rsa.public.as_str(), rsa.public.trim(), &format!("\n{}", rsa.public)] {
        let token = hmac(secret, &claims(ISSUER));
        assert_eq!(status(&hub, &token), 401, "alg confusion");
    }
    let other = signed(&rsa.private, "PS256", None, &claims(ISSUER));
    assert_eq!(status(&hub, &other), 401, "an algorithm that is not allowed");
}

/// An HMAC token with any text as its secret, PEM included.
fn hmac(secret: &str, claims: &Value) -> String {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.typ = Some("at+jwt".to_owned());
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).expect("token")
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let hub = TestHub::start();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.typ = Some("at+jwt".to_owned());
    header.crit = Some(vec!["b64".to_owned()]);
    let key = jsonwebtoken::EncodingKey::from_secret(PUBLISHER_KEY.as_bytes());
    let token = jsonwebtoken::encode(&header, &claims(ISSUER), &key).expect("token");
    assert_eq!(status(&hub, &token), 401);
}

#[test]
fn a_key_may_stand_in_a_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("key");
    std::fs::write(&path, "secret-of-a-file\n").expect("write");
    let hub = TestHub::with(&format!("publisher_jwt_key = \"file://{}\"", path.display()));
    assert_eq!(status(&hub, &signed("secret-of-a-file", "HS256", None, &claims(ISSUER))), 200);
}

const ONE: &str = "https://one.example";
const TWO: &str = "https://two.example";

/// Two issuers with keys of their own, beside the shared ones.
fn two_issuers() -> TestHub {
    TestHub::with(&format!(
        "[[issuer]]\nid = \"{ONE}\"\npublisher = {{ key = \"key-of-one\" }}\n\
         subscriber = {{ key = \"key-of-one\" }}\n\
         [[issuer]]\nid = \"{TWO}\"\nauthorization_server = true\n\
         publisher = {{ key = \"key-of-two\", alg = [\"HS512\"] }}\n"
    ))
}

#[test]
fn a_key_vouches_for_its_own_issuer_only() {
    let hub = two_issuers();
    let cases = [
        ("key-of-one", "HS256", ONE, 200),
        ("key-of-two", "HS512", TWO, 200),
        (PUBLISHER_KEY, "HS256", ISSUER, 200),
        ("key-of-one", "HS256", TWO, 401),
        ("key-of-two", "HS512", ONE, 401),
        ("key-of-one", "HS256", ISSUER, 401),
        (PUBLISHER_KEY, "HS256", ONE, 401),
        ("key-of-two", "HS256", TWO, 401),
        (PUBLISHER_KEY, "HS256", "https://three.example", 401),
    ];
    for (key, algorithm, issuer, expected) in cases {
        let token = signed(key, algorithm, None, &claims(issuer));
        assert_eq!(status(&hub, &token), expected, "{key} as {issuer}");
    }
    let token = signed("key-of-two", "HS512", None, &claims(TWO));
    assert_eq!(hub.get("match=a", &[&bearer(&token)]).0.status, 401, "it has no subscribers' key");
}

#[test]
fn a_0x_token_that_names_an_issuer_is_judged_by_that_issuers_keys() {
    let hub = two_issuers();
    let mercure = |issuer: &str| json!({"iss": issuer, "mercure": {"publish": ["*"]}});
    assert_eq!(status(&hub, &sign("key-of-one", "JWT", &mercure(ONE))), 200);
    assert_eq!(status(&hub, &sign(PUBLISHER_KEY, "JWT", &mercure(ONE))), 401);
    assert_eq!(status(&hub, &sign(PUBLISHER_KEY, "JWT", &mercure("https://any.example"))), 200);
    assert_eq!(status(&hub, &sign("key-of-one", "JWT", &json!({"mercure": {}}))), 401);
}

#[test]
fn authorization_servers_are_named_in_the_metadata() {
    let hub = two_issuers();
    let path = format!("/.well-known/oauth-protected-resource{PATH}");
    let (response, mut client) = hub.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let document: Value = serde_json::from_str(&client.body(&response)).expect("JSON");
    assert_eq!(document["authorization_servers"], json!([TWO]));
    assert_eq!(document["resource"], AUDIENCE);
}

#[test]
fn a_remembered_token_is_not_remembered_longer_than_it_lives() {
    let hub = TestHub::start();
    let now = std::process::Command::new("date").arg("+%s").output().expect("date").stdout;
    let now: u64 = String::from_utf8_lossy(&now).trim().parse().expect("seconds");
    let mut mortal = claims(ISSUER);
    mortal["exp"] = json!(now + 5);
    let token = signed(PUBLISHER_KEY, "HS256", None, &mortal);
    assert_eq!(status(&hub, &token), 200);
    assert_eq!(status(&hub, &token), 200, "from memory");
    until(&hub, &token, 401);
    let subscriber =
        hub.get("match=a", &[&bearer(&signed(PUBLISHER_KEY, "HS256", None, &claims(ISSUER)))]).0;
    assert_eq!(subscriber.status, 401, "remembered for one role is not known in the other");
}

#[test]
fn one_subject_cannot_take_every_place() {
    let hub = TestHub::with("max_connections_per_subject = 2");
    let of = |subject: &str| {
        let mut claims = claims(ISSUER);
        claims["sub"] = json!(subject);
        bearer(&signed(SUBSCRIBER_KEY, "HS256", None, &claims))
    };
    let _held = [hub.subscribe("match=a", &[&of("one")]), hub.subscribe("match=a", &[&of("one")])];
    let (response, _) = hub.get("match=a", &[&of("one")]);
    assert_eq!(response.status, 429);
    assert!(response.header("retry-after").is_some());
    let _other = hub.subscribe("match=a", &[&of("two")]);
    let _anonymous = hub.subscribe("match=a", &[]);
}

/// What is wrong with a configuration, or nothing.
fn complaints(settings: &str) -> String {
    let mut layers = Layers::default();
    layers.file(settings);
    Config::parse(&layers).err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn unsuitable_keys_are_explained_at_the_start() {
    let rsa = pair_for("RS256");
    let short = pair(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let curve = pair(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]);
    let key = |pem: &str, alg: &str| {
        format!("publisher_jwt_key = {}\npublisher_jwt_alg = {alg}\n", toml(pem))
    };
    let issuer = |rest: &str| format!("publisher_jwt_key = \"k\"\n[[issuer]]\n{rest}");
    let cases = [
        (key(&rsa.private, "\"RS256\""), "is a private key"),
        (key(&rsa.public, "\"HS256\""), "is a key for RS256 to RS512"),
        (key(&rsa.public, "\"ES256\""), "is a key for RS256 to RS512"),
        (key(&short.public, "\"RS256\""), "less than 2048 bits"),
        (key(&curve.public, "\"ES256\""), "another curve"),
        (key(&rsa.public, "\"none\""), "publisher_jwt_alg: the algorithm is not supported"),
        (key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\"RS256\""), "is PEM, but not"),
        ("publisher_jwt_key = '{\"kty\": \"oct\"}'\n".to_owned(), "is a JWK of a kind"),
        ("publisher_jwt_key = \"file:///does/not/exist\"\n".to_owned(), "cannot be read"),
        ("publisher_jwt_key = \"k\"\npublisher_jwks_uri = \"https://x/y\"\n".to_owned(), "together"),
        ("publisher_jwks_uri = \"http://keys.example/jwks\"\n".to_owned(), "must be https"),
        ("publisher_jwks_uri = \"ftp://keys.example/jwks\"\n".to_owned(), "must start with https://"),
        (issuer("publisher = { key = \"k\" }\n"), "issuer 1: needs an id"),
        (issuer("id = \"a\"\n"), "issuer 1: needs keys"),
        (issuer("id = \"a\"\npublisher = { kee = \"k\" }\n"), "unknown setting kee"),
        (issuer("id = \"a\"\npublisher = { }\n"), "needs either key or jwks_uri"),
        (issuer("id = \"a\"\npublisher = \"k\"\n"), "publisher must be a table"),
        ("publisher_jwt_key = \"k\"\ntrusted_issuers = [\"a\"]\n[[issuer]]\nid = \"a\"\npublisher = { key = \"k\" }\n".to_owned(), "named twice"),
        ("publisher_jwt_key = \"k\"\nissuer = 1\n".to_owned(), "is written as [[issuer]]"),
    ];
    for (settings, expected) in cases {
        let found = complaints(&settings);
        assert!(found.contains(expected), "{expected:?} in {found:?}");
        assert!(!found.contains("BEGIN") && !found.contains("no key is configured"), "{found}");
    }
}

/// An ID token of an authorization server must not pass as a 0.x token.
#[test]
fn a_token_that_an_issuer_made_for_others_is_refused() {
    let hub = TestHub::with(&format!(
        "anonymous = false\n[[issuer]]\nid = \"{ONE}\"\nsubscriber = {{ key = \"key-of-one\" }}\n"
    ));
    let for_others = json!({"iss": ONE, "aud": "another-client", "nonce": "n"});
    let id_token = sign("key-of-one", "JWT", &for_others);
    assert_eq!(hub.get("topic=a", &[&bearer(&id_token)]).0.status, 401);
    let ours = sign("key-of-one", "JWT", &json!({"iss": ONE, "mercure": {"subscribe": ["a"]}}));
    assert_eq!(hub.get("topic=a", &[&bearer(&ours)]).0.status, 200);
}

#[test]
fn an_authorization_that_cannot_be_read_is_not_replaced_by_a_cookie() {
    let hub = TestHub::start();
    let good = signed(SUBSCRIBER_KEY, "HS256", None, &claims(ISSUER));
    let cookie = format!("Cookie: __Secure-mercure_access_token={good}");
    assert_eq!(hub.get("match=a", &[&cookie]).0.status, 200);
    for field in ["Authorization:", "Authorization: Bearer"] {
        assert_eq!(hub.get("match=a", &[field, &cookie]).0.status, 400, "{field}");
    }
}

#[test]
fn any_resource_identifier_can_be_served() {
    for identifier in
        ["https://hub.example/:x", "https://hub.example/*x", "https://hub.example/{x}", "urn:x"]
    {
        let hub = TestHub::with(&format!("resource_identifier = \"{identifier}\""));
        assert_eq!(hub.get("match=a", &[]).0.status, 200, "{identifier}");
    }
}
