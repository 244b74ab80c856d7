//! Configurations of the Mercure.rocks hub become ones of this hub, which it understands.

mod drill;
mod support;

use std::path::Path;
use std::process::{Command, Output};

use drill::node::without_settings;
use mercure_hub::config::{Config, Layers};
use tempfile::TempDir;

fn import(folder: &Path, files: &[(&str, &str)], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mercure-hub"));
    without_settings(&mut command).arg("import-config").envs(variables.iter().copied());
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("write");
        command.arg(format!("--{name}")).arg(path);
    }
    command.output().expect("it runs")
}

fn imported(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (String, toml::Table, String) {
    let folder = TempDir::new().expect("folder");
    let output = import(folder.path(), files, variables);
    let (text, said) = (
        String::from_utf8(output.stdout).expect("UTF-8"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    );
    assert!(output.status.success(), "{said}");
    let table = text.parse().expect("TOML");
    (text, table, said)
}

const CADDYFILE: &str = r#"
{
    order mercure after encode
}
hub.example.com {
    encode zstd gzip
    mercure {
        # Keys
        issuer {$MERCURE_TRUSTED_ISSUERS:https://localhost} {
            authorization_server
            publisher {
                jwt {env.PUBLISHER_KEY} {env.PUBLISHER_ALG}
            }
            subscriber {
                jwks_uri https://issuer.example/jwks.json
            }
        }
        publisher_jwt "a shared secret" HS512
        subscriber_jwt another-secret
        cors_origins https://app.example/ https://admin.example
        publish_origins *
        subscriptions
        heartbeat 30s
        write_timeout 1m30s
        dispatch_timeout 500ms
        max_request_body_size 2MB
        transport bolt {
            path /data/mercure.db
            size 1000
            cleanup_frequency 0.3
        }
        topic_matcher_cache 1000
        something_new 1
    }
    {$MORE_OF_THE_SITE}
    respond "Not Found" 404
    reverse_proxy app:80
}
"#;

#[test]
fn a_caddyfile_is_understood() {
    let variables = "PUBLISHER_KEY='k'\nPUBLISHER_ALG=HS256\n# a comment\n";
    let (text, table, said) = imported(&[("caddyfile", CADDYFILE), ("env-file", variables)], &[]);
    let expected: toml::Table = r#"
        listen = ["0.0.0.0:443"]
        redirect_listen = ["0.0.0.0:80"]
        acme_domains = ["hub.example.com"]
        acme_cache = "/var/lib/mercure-hub/acme"
        anonymous = false
        publisher_jwt_key = "a shared secret"
        publisher_jwt_alg = ["HS512"]
        subscriber_jwt_key = "another-secret"
        cors_origins = ["https://app.example", "https://admin.example"]
        subscriptions = true
        heartbeat = "30s"
        max_connection_age = "90s"
        write_timeout = "500ms"
        max_request_body = "2000000B"
        transport = "sqlite:///data/mercure.sqlite"
        history_size = "1000"
        [[issuer]]
        id = "https://localhost"
        authorization_server = true
        publisher = { key = "k", alg = "HS256" }
        subscriber = { jwks_uri = "https://issuer.example/jwks.json" }
    "#
    .parse()
    .expect("TOML");
    assert_eq!(table, expected, "{text}");
    for note in [
        "publish_origins *",
        "topic_matcher_cache",
        "something_new",
        "reverse_proxy",
        "told of the gap",
    ] {
        assert!(text.contains(note), "{note}: {text}");
    }
    assert!(said.contains("a valid configuration"), "{said}");
    let mut layers = Layers::default();
    layers.file(&text);
    assert!(Config::parse(&layers).is_ok());
}

#[test]
fn variables_are_understood() {
    let (text, table, said) = imported(
        &[],
        &[
            ("SERVER_NAME", ":8080"),
            ("MERCURE_PUBLISHER_JWT_KEY", "p"),
            ("MERCURE_SUBSCRIBER_JWT_KEY", "s"),
            ("MERCURE_TRUSTED_ISSUERS", "https://issuer.example"),
            ("MERCURE_EXTRA_DIRECTIVES", "anonymous\ncors_origins https://app.example"),
        ],
    );
    let expected: toml::Table = r#"
        listen = ["0.0.0.0:8080"]
        anonymous = true
        publisher_jwt_key = "p"
        subscriber_jwt_key = "s"
        trusted_issuers = ["https://issuer.example"]
        cors_origins = ["https://app.example"]
    "#
    .parse()
    .expect("TOML");
    assert_eq!(table, expected, "{text}");
    assert!(said.contains("a valid configuration"), "{said}");
}

#[test]
fn variables_of_old_releases_are_understood() {
    let (text, table, _) = imported(
        &[],
        &[
            ("ADDR", ":3000"),
            ("JWT_KEY", "both"),
            ("ALLOW_ANONYMOUS", "1"),
            ("CORS_ALLOWED_ORIGINS", "*"),
            ("TRANSPORT_URL", "bolt://updates.db?size=50"),
            ("USE_FORWARDED_HEADERS", "1"),
        ],
    );
    let expected: toml::Table = r#"
        listen = ["0.0.0.0:3000"]
        anonymous = true
        publisher_jwt_key = "both"
        subscriber_jwt_key = "both"
        cors_origins = ["*"]
        transport = "sqlite:///var/lib/mercure-hub/updates.sqlite"
        history_size = "50"
    "#
    .parse()
    .expect("TOML");
    assert_eq!(table, expected, "{text}");
    assert!(text.contains("trusted_proxies"), "{text}");
}

#[test]
fn a_variable_that_is_not_set_is_never_another_ones_value() {
    let folder = TempDir::new().expect("folder");
    let text = "hub.example {\n mercure {\n publisher_jwt {$NO_KEY} HS256\n subscriber_jwt s {env.NO_ALG}\n \
                {$NOTHING}\n }\n}";
    let output = import(folder.path(), &[("caddyfile", text)], &[]);
    let (toml, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let table: toml::Table = toml.parse().expect("TOML");
    assert!(!table.contains_key("publisher_jwt_key"), "{toml}");
    assert_eq!(table["subscriber_jwt_key"].as_str(), Some("s"));
    assert!(toml.contains("NO_KEY is not set") && !toml.contains("NOTHING"), "{toml}");
    assert!(output.status.success(), "subscribers' tokens can be judged: {said}");
}

/// Sites as Caddy lets one write them, around the same hub.
#[test]
fn every_way_to_write_a_site_is_understood() {
    for (site, expected, note) in [
        (
            "hub.example:443 {\n tls /c.pem /k.pem\n HUB\n}",
            "listen = ['0.0.0.0:443']\npublic_url = ['https://hub.example']\ntls_cert = '/c.pem'\ntls_key = '/k.pem'",
            "",
        ),
        (
            "hub.example {\n tls me@mail.example\n HUB\n}",
            "listen = ['0.0.0.0:443']\nacme_domains = ['hub.example']\nacme_email = 'me@mail.example'",
            "from an authority",
        ),
        (
            "a.example,b.example:8443,c.example {\n tls {\n ca x\n }\n HUB\n}",
            "listen = ['0.0.0.0:443', '0.0.0.0:8443']\nacme_domains = ['a.example', 'b.example', 'c.example']",
            "the options of tls",
        ),
        (
            "\u{feff}hub.example\n\nHUB\n",
            "listen = ['0.0.0.0:443']\nacme_domains = ['hub.example']",
            "from an authority",
        ),
        ("(snip) {\n HUB\n}\nhub.example {\n import snip\n}", "", "(snip) is imported by sites"),
    ] {
        let hub = "mercure {\n publisher_jwt <<EOT\n    the secret\n    EOT\n }";
        let folder = TempDir::new().expect("folder");
        let text = site.replace("HUB", hub);
        let output = import(folder.path(), &[("caddyfile", &text)], &[]);
        let toml = String::from_utf8_lossy(&output.stdout);
        let mut table: toml::Table = toml.parse().expect("TOML");
        assert!(toml.contains(note), "{toml}");
        for (name, usual) in [
            ("anonymous", false.into()),
            ("publisher_jwt_key", "the secret".into()),
            ("redirect_listen", toml::Value::Array(vec!["0.0.0.0:80".into()])),
            ("acme_cache", "/var/lib/mercure-hub/acme".into()),
        ] {
            let found = table.remove(name);
            assert!(found.is_none() || found == Some(usual), "{name}: {toml}");
        }
        assert_eq!(table, expected.parse().expect("TOML"), "{toml}");
    }
}

#[test]
fn a_note_is_one_line_whatever_it_quotes() {
    let text = "hub.example {\n mercure {\n publisher_jwt k\n `new\nanonymous = true` x\n }\n}";
    let (toml, table, _) = imported(&[("caddyfile", text)], &[]);
    assert_eq!(table["anonymous"].as_bool(), Some(false), "{toml}");
}

#[test]
fn what_is_no_configuration_is_refused_with_a_reason() {
    let folder = TempDir::new().expect("folder");
    for (text, reason) in [
        ("example.com {\n respond ok\n}", "no mercure block"),
        ("example.com {\n mercure {", "ends within a block"),
        ("example.com {\n \"mercure {\n}", "a quote that is not closed"),
    ] {
        let output = import(folder.path(), &[("caddyfile", text)], &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(reason), "{said}");
    }
}
