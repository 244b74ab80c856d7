use std::io::{IsTerminal as _, Read as _, Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command};
use mercure_engine::Clock;
use mercure_hub::auth::Key;
use mercure_hub::config::{SETTINGS, parse_duration};
use serde_json::{Value, json};

use super::Usage;

pub(super) fn command() -> Command {
    let topics = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TOPIC").action(ArgAction::Append).help(help)
    };
    Command::new("token")
        .about("Make a token, signed with a key that you give")
        .long_about(
            "Make a token, signed with a key that you give.\n\n\
             The key is read from --key, from MERCURE_PUBLISHER_JWT_KEY (with --publish) or \
             MERCURE_SUBSCRIBER_JWT_KEY (without), or from standard input. With --issuer and \
             --audience the token satisfies both generations of the protocol; without them it is \
             a 0.x token.",
        )
        .arg(topics("publish", "Topic, URI template or * that may be published to"))
        .arg(topics("subscribe", "Topic, URI template or * of private updates that may be read"))
        .arg(Arg::new("key").long("key").value_name("SECRET").help("Key to sign with"))
        .arg(
            Arg::new("alg")
                .long("alg")
                .default_value("HS256")
                .help("Algorithm: HS256, HS384 or HS512"),
        )
        .arg(
            Arg::new("expires")
                .long("expires")
                .value_name("DURATION")
                .default_value("1h")
                .help("Life of the token"),
        )
        .arg(Arg::new("issuer").long("issuer").help("iss claim: one of the hub's trusted_issuers"))
        .arg(
            Arg::new("audience")
                .long("audience")
                .help("aud claim: the hub's resource_identifier, by default its URL"),
        )
        .arg(Arg::new("subject").long("subject").help("sub claim [default: a random one]"))
}

pub(super) fn token(matches: &ArgMatches) -> anyhow::Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let list = |name: &str| -> Vec<&str> {
        matches.get_many::<String>(name).unwrap_or_default().map(String::as_str).collect()
    };
    let (publish, subscribe) = (list("publish"), list("subscribe"));
    if publish.is_empty() && subscribe.is_empty() {
        return Err(
            Usage("name at least one topic with --publish or --subscribe".to_owned()).into()
        );
    }
    let life = parse_duration(text("expires").unwrap_or_default())
        .map_err(|error| Usage(format!("--expires: {error}")))?;
    let now = Clock::system().unix_time();
    let mut claims = json!({
        "iat": now.as_secs(),
        "exp": (now + life).as_secs(),
        "jti": uuid::Uuid::new_v4().urn().to_string(),
        "mercure": {"publish": publish, "subscribe": subscribe},
    });
    let typ = match (text("issuer"), text("audience")) {
        (None, None) => "JWT",
        (Some(issuer), Some(audience)) => {
            let random = || uuid::Uuid::new_v4().urn().to_string();
            claims["iss"] = json!(issuer);
            claims["aud"] = json!(audience);
            claims["client_id"] = json!(issuer);
            claims["sub"] = json!(text("subject").map_or_else(random, str::to_owned));
            claims["authorization_details"] = details(&publish, &subscribe);
            "at+jwt"
        }
        _ => {
            let reason = "--issuer and --audience belong together: a 1.0 token needs both";
            return Err(Usage(reason.to_owned()).into());
        }
    };
    let secret = secret(text("key"), !publish.is_empty())?;
    let key = Key::new(secret.as_bytes(), text("alg").unwrap_or_default())
        .map_err(|error| Usage(format!("the key: {error}")))?;
    writeln!(std::io::stdout(), "{}", key.sign(typ, &claims)?)?;
    Ok(())
}

fn details(publish: &[&str], subscribe: &[&str]) -> Value {
    let detail = |action: &str, topics: &[&str]| {
        let topics: Vec<_> = topics.iter().map(|topic| json!({"match": topic})).collect();
        (!topics.is_empty()).then(|| {
            json!({
                "type": "https://mercure.rocks/authorization-detail",
                "actions": [action],
                "topics": topics,
            })
        })
    };
    let details = [detail("publish", publish), detail("subscribe", subscribe)];
    Value::Array(details.into_iter().flatten().collect())
}

fn secret(flag: Option<&str>, publishes: bool) -> anyhow::Result<String> {
    if let Some(secret) = flag {
        return Ok(secret.to_owned());
    }
    let name = if publishes { "publisher_jwt_key" } else { "subscriber_jwt_key" };
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    let variable = setting.map(|setting| setting.variable()).unwrap_or_default();
    if let Some((_, secret)) = std::env::vars().find(|(name, _)| *name == variable) {
        return Ok(secret);
    }
    if std::io::stdin().is_terminal() {
        return Err(Usage(format!("no key: set {variable}, or give --key")).into());
    }
    let mut secret = String::new();
    std::io::stdin().read_to_string(&mut secret)?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}
