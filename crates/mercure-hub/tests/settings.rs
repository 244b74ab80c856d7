//! Every setting in its three spellings: each is understood, differs from the default, and its error
//! names what the user wrote.

use std::path::Path;

use mercure_hub::config::{Config, Layers, SETTINGS, Setting};
use tempfile::TempDir;

/// Of each setting a value that is not the default, and one that is wrong (empty: any text is right).
const VALUES: &[(&str, &str, &str)] = &[
    ("listen", "127.0.0.1:1234", "nonsense"),
    ("tls_cert", "CERT", "/nowhere.pem"),
    ("tls_key", "KEY", "/nowhere.pem"),
    ("acme_domains", "hub.example.com", "*.example.com"),
    ("acme_email", "admin@example.com", "nobody"),
    ("acme_directory", "https://ca.example/dir", "ftp://ca.example"),
    ("acme_cache", "/tmp/acme", ""),
    ("acme_challenge", "http-01", "dns-01"),
    ("acme_ca", "CERT", "/nowhere.pem"),
    ("redirect_listen", "127.0.0.1:8080", "8080"),
    ("hub_path", "/hub", "hub"),
    ("public_url", "https://hub.example", "hub.example"),
    ("resource_identifier", "urn:hub", ""),
    ("protocol", "1.0", "2.0"),
    ("publisher_jwt_key", "another key", "file:///nowhere.key"),
    ("publisher_jwks_uri", "https://keys.example/p.json", "keys.example"),
    ("publisher_jwt_alg", "HS512", "none"),
    ("subscriber_jwt_key", "another key", "file:///nowhere.key"),
    ("subscriber_jwks_uri", "https://keys.example/s.json", "keys.example"),
    ("subscriber_jwt_alg", "HS384", "none"),
    ("trusted_issuers", "https://issuer.example", ""),
    ("jwks_refresh", "1m", "soon"),
    ("jwks_cooldown", "1m", "0s"),
    ("anonymous", "false", "perhaps"),
    ("cors_origins", "https://app.example", "app.example"),
    ("publish_origins", "https://app.example", "app.example"),
    ("cookie_name", "token", "a b=c;"),
    ("subscriptions", "true", "2"),
    ("heartbeat", "3s", "3"),
    ("retry", "3s", "-1s"),
    ("max_connection_age", "3h", "old"),
    ("write_timeout", "3s", "0s"),
    ("max_connections", "7", "0"),
    ("max_connections_per_address", "7", "-7"),
    ("max_http_connections", "7", "0"),
    ("publish_rate_per_address", "7", "7/s"),
    ("publish_rate_per_subject", "7", "7.5"),
    ("trusted_proxies", "10.0.0.0/8", "10.0.0.0/33"),
    ("proxy_protocol", "true", "maybe"),
    ("max_connections_per_subject", "7", "0"),
    ("max_request_body", "7KiB", "7"),
    ("max_topics", "7", "0"),
    ("max_topic_length", "7B", "0B"),
    ("max_id_length", "7B", "7b"),
    ("max_type_length", "7B", "7KB"),
    ("max_matchers", "7", "seven"),
    ("max_patterns", "7", "0"),
    ("max_patterns_size", "7MiB", "7M"),
    ("max_matcher_length", "7B", "x"),
    ("max_grants", "7", "0"),
    ("transport", "sqlite:///tmp/log.db", "kafka://host"),
    ("history_size", "7", "0"),
    ("history_age", "7d", "7w"),
    ("history_bytes", "7MiB", "7"),
    ("lease", "7s", "1ms"),
    ("drain", "7s", "7"),
    ("drain_delay", "7s", "x"),
    ("ops_listen", "none", "nowhere"),
    ("otlp_endpoint", "http://collector.example:4318", "collector:4318"),
    ("trace_ratio", "0.5", "1.5"),
    ("debugger", "true", "perhaps"),
    ("playground", "true", "perhaps"),
    ("log_format", "json", "xml"),
    ("log_level", "warn", "loud"),
];

/// What a setting needs beside itself.
fn company(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "tls_cert" => &[("tls_key", "KEY")],
        "tls_key" => &[("tls_cert", "CERT")],
        "proxy_protocol" => &[("trusted_proxies", "10.0.0.0/8")],
        "acme_domains" | "acme_email" => &[("acme_cache", "/tmp/acme")],
        "redirect_listen" => &[("tls_cert", "CERT"), ("tls_key", "KEY")],
        "publisher_jwks_uri" | "playground" => &[("publisher_jwt_key", "")],
        _ => &[],
    }
}

/// A certificate and its key.
fn certify(folder: &Path) {
    let key = rcgen::KeyPair::generate().expect("key");
    let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("names");
    let certificate = parameters.self_signed(&key).expect("certificate");
    std::fs::write(folder.join("KEY"), key.serialize_pem()).expect("write");
    std::fs::write(folder.join("CERT"), certificate.pem()).expect("write");
}

#[derive(Debug, Clone, Copy)]
enum Spelling {
    File,
    Environment,
    Flag,
}

impl Spelling {
    const ALL: [Self; 3] = [Self::File, Self::Environment, Self::Flag];

    fn name(self, setting: &Setting) -> String {
        match self {
            Self::File => setting.name.to_owned(),
            Self::Environment => setting.variable(),
            Self::Flag => format!("--{}", setting.flag()),
        }
    }

    fn give(self, layers: &mut Layers, setting: &'static Setting, value: &str) {
        match self {
            Self::File => layers.file(&format!("{} = {value:?}\n", setting.name)),
            Self::Environment => layers.environment([(setting.variable(), value.to_owned())]),
            Self::Flag => layers.flag(setting, &[value.to_owned()]),
        }
    }
}

fn find(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).expect("a setting")
}

/// A configuration with one setting, and what that needs.
fn with(folder: &Path, setting: &'static Setting, given: Option<(Spelling, &str)>) -> Layers {
    let path = |value: &str| match value {
        "CERT" | "KEY" => folder.join(value).display().to_string(),
        other => other.to_owned(),
    };
    let mut layers = Layers::default();
    layers.file("publisher_jwt_key = \"k\"\n");
    for (name, value) in company(setting.name) {
        layers.flag(find(name), &[path(value)]);
    }
    if let Some((spelling, value)) = given {
        spelling.give(&mut layers, setting, &path(value));
    }
    layers
}

#[test]
fn every_setting_is_in_the_table() {
    let tested: Vec<_> = VALUES.iter().map(|(name, ..)| *name).collect();
    let all: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    for name in &all {
        assert!(tested.contains(name), "{name} is not tested");
    }
    assert_eq!(tested.len(), all.len());
}

/// What it does is the business of the tests that use it, here or from Python.
#[test]
fn every_setting_is_tried_for_its_effect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("tests"), root.join("../../tests/python")];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let texts: String = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.is_file() && !path.ends_with("settings.rs"))
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    for setting in SETTINGS {
        let spellings = [
            format!("--{}", setting.flag()),
            format!("{} = ", setting.name),
            format!("{}=\"", setting.name),
            setting.variable(),
        ];
        let is_tried = spellings.iter().any(|spelling| texts.contains(spelling));
        assert!(is_tried, "no test uses {}", setting.name);
    }
}

#[test]
fn every_spelling_is_understood() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    for (name, good, _) in VALUES {
        let setting = find(name);
        let parse = |spelling| {
            let layers = with(folder.path(), setting, Some((spelling, good)));
            Config::parse(&layers).unwrap_or_else(|errors| panic!("{name} {spelling:?}: {errors}"))
        };
        let [file, environment, flag] = Spelling::ALL.map(parse);
        for other in [&environment, &flag] {
            assert_eq!(file.changes(other).0, [""; 0], "{name} means the same in every spelling");
        }
        let mut bare = Layers::default();
        bare.file("publisher_jwt_key = \"k\"\n");
        let (changed, later) = Config::parse(&bare).expect("valid").changes(&file);
        assert!(changed.contains(name), "{name} makes a difference");
        assert_eq!(
            later.contains(name),
            !setting.is_live,
            "{name}: whether it waits for a restart"
        );
    }
}

#[test]
fn every_wrong_value_is_named_as_the_user_wrote_it() {
    let folder = TempDir::new().expect("folder");
    certify(folder.path());
    for (name, _, bad) in VALUES.iter().filter(|(.., bad)| !bad.is_empty()) {
        let setting = find(name);
        for spelling in Spelling::ALL {
            let layers = with(folder.path(), setting, Some((spelling, bad)));
            let errors = Config::parse(&layers).expect_err(name).0;
            let written = spelling.name(setting);
            // What is wrong with a key file is said of the pair.
            let written = if *name == "tls_key" { "--tls-cert".to_owned() } else { written };
            assert!(
                errors.iter().any(|error| error.starts_with(&format!("{written}: "))),
                "{errors:?}"
            );
        }
    }
}

#[test]
fn what_kubernetes_says_of_a_service_is_no_setting() {
    let mut layers = Layers::default();
    layers.environment(
        [
            ("MERCURE_SERVICE_HOST", "10.0.0.1"),
            ("MERCURE_SERVICE_PORT_HTTP", "80"),
            ("MERCURE_HUB_PORT", "tcp://10.0.0.1:80"),
            ("MERCURE_HUB_PORT_80_TCP_ADDR", "10.0.0.1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    layers.file("publisher_jwt_key = \"k\"\ntrace_ratio = 0.25\n");
    assert!(Config::parse(&layers).is_ok());
}
