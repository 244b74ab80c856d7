use std::io::{IsTerminal as _, Read as _, Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command};
use mercure_engine::Clock;
use mercure_hub::auth::{ALGORITHMS, SigningKey};
use mercure_hub::config::{SETTINGS, parse_duration, read_key};
use serde_json::{Map, Value, json};

use super::{Usage, variable};

pub(super) fn command() -> Command {
    let topics = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TOPIC").action(ArgAction::Append).help(help)
    };
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    Command::new("token")
        .about("Make a token, signed with a key that you give")
        .long_about(
            "Make a token, signed with a key that you give.\n\n\
             The key is read from --key, from MERCURE_PUBLISHER_JWT_KEY (with --publish) or \
             MERCURE_SUBSCRIBER_JWT_KEY (without), or from standard input: a secret for HS256 to \
             HS512, a private key in PEM for the other algorithms.\n\n\
             With --issuer and --audience the token satisfies both generations of the protocol; \
             without them it is a 0.x token. --form makes one of a single generation.",
        )
        .arg(topics("publish", "Topic, URI template (0.x) or * that may be published to"))
        .arg(topics("subscribe", "Topic, URI template (0.x) or * that may be read if private"))
        .arg(topics("publish-urlpattern", "URL pattern (1.0) of topics that may be published to"))
        .arg(topics("subscribe-urlpattern", "URL pattern (1.0) of topics that may be read"))
        .arg(text("form", "Generation of the token").value_parser(["both", "1.0", "0.x"]))
        .arg(text("payload", "JSON object to attach to its subscriptions").value_name("JSON"))
        .arg(
            text("key", "Key to sign with; or file:///path of a file that holds it")
                .value_name("KEY")
                .allow_hyphen_values(true),
        )
        .arg(text("kid", "Name of the key, for a hub that knows several"))
        .arg(
            text("alg", "Algorithm")
                .default_value("HS256")
                .value_parser(clap::builder::PossibleValuesParser::new(ALGORITHMS)),
        )
        .arg(text("expires", "Life of the token").value_name("DURATION").default_value("1h"))
        .arg(text("issuer", "iss claim: one that the hub trusts"))
        .arg(text("audience", "aud claim: the hub's resource_identifier, by default its URL"))
        .arg(text("subject", "sub claim [default: a random one]"))
}

pub(super) fn token(matches: &ArgMatches) -> anyhow::Result<()> {
    let wanted = Wanted::parse(matches)?;
    let claims = wanted.claims(Clock::system().unix_time())?;
    let text = |name: &str| matches.get_one::<String>(name);
    let secret = secret(text("key"), !wanted.publish.is_empty())?;
    let secret = read_key(&secret).map_err(|error| Usage(format!("the key {error}")))?;
    let key = SigningKey::parse(&secret, text("alg").map_or("", String::as_str))
        .map_err(|error| Usage(format!("the key {error}")))?
        .named(text("kid").cloned());
    writeln!(std::io::stdout(), "{}", key.sign(wanted.typ(), &claims)?)?;
    Ok(())
}

/// A topic matcher, and whether it is a URL pattern.
type Matcher<'a> = (&'a str, bool);

/// What the token is to say.
struct Wanted<'a> {
    publish: Vec<Matcher<'a>>,
    subscribe: Vec<Matcher<'a>>,
    v0: bool,
    v1: Option<Identity<'a>>,
    payload: Option<Value>,
    life: std::time::Duration,
}

/// What a 1.0 token says of its origin.
struct Identity<'a> {
    issuer: &'a str,
    audience: &'a str,
    subject: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn parse(matches: &'a ArgMatches) -> Result<Self, Usage> {
        let usage = |reason: &str| Usage(reason.to_owned());
        let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
        let list = |name: &str, is_pattern: bool| {
            let values = matches.get_many::<String>(name).unwrap_or_default();
            values.map(|value| (value.as_str(), is_pattern)).collect::<Vec<_>>()
        };
        let both = |name: &str, patterns: &str| [list(name, false), list(patterns, true)].concat();
        let publish = both("publish", "publish-urlpattern");
        let subscribe = both("subscribe", "subscribe-urlpattern");
        if publish.is_empty() && subscribe.is_empty() {
            return Err(usage("name at least one topic with --publish or --subscribe"));
        }
        let identity = match (text("issuer"), text("audience")) {
            (Some(issuer), Some(audience)) => {
                Some(Identity { issuer, audience, subject: text("subject") })
            }
            (None, None) => None,
            _ => return Err(usage("--issuer and --audience belong together: 1.0 needs both")),
        };
        let (v0, v1) = match text("form") {
            Some("0.x") => (true, None),
            Some(_) if identity.is_none() => {
                return Err(usage("a 1.0 token needs --issuer and --audience"));
            }
            Some("1.0") => (false, identity),
            _ => (true, identity),
        };
        let payload = text("payload").map(|payload| {
            let value = serde_json::from_str::<Map<String, Value>>(payload);
            value.map(Value::Object).map_err(|error| Usage(format!("--payload: {error}")))
        });
        let life = parse_duration(text("expires").unwrap_or_default())
            .map_err(|error| Usage(format!("--expires: {error}")))?;
        let wanted = Self { publish, subscribe, v0, v1, payload: payload.transpose()?, life };
        wanted.check()?;
        Ok(wanted)
    }

    /// What one generation cannot express would be granted by the other only.
    fn check(&self) -> Result<(), Usage> {
        let all = || self.publish.iter().chain(&self.subscribe);
        if self.v0 && all().any(|(_, is_pattern)| *is_pattern) {
            let reason = "0.x has no URL patterns: use --form 1.0, or a URI template for 0.x";
            return Err(Usage(reason.to_owned()));
        }
        if self.v1.is_some() && all().any(|(text, is_pattern)| !is_pattern && text.contains('{')) {
            let reason = "1.0 has no URI templates, it would take this for the name of a topic: \
                          use --subscribe-urlpattern or --publish-urlpattern with --form 1.0, or \
                          --form 0.x";
            return Err(Usage(reason.to_owned()));
        }
        Ok(())
    }

    /// 1.0 wants its type; 0.x takes any.
    fn typ(&self) -> &'static str {
        if self.v1.is_some() { "at+jwt" } else { "JWT" }
    }

    fn claims(&self, now: std::time::Duration) -> Result<Value, Usage> {
        let random = || uuid::Uuid::new_v4().urn().to_string();
        let expires = now.checked_add(self.life);
        let expires = expires.ok_or(Usage("--expires: is too long".to_owned()))?;
        let mut claims = json!({"iat": now.as_secs(), "exp": expires.as_secs(), "jti": random()});
        if self.v0 {
            let texts = |matchers: &[Matcher<'_>]| {
                matchers.iter().map(|(text, _)| json!(text)).collect::<Vec<_>>()
            };
            let mercure = json!({
                "publish": texts(&self.publish),
                "subscribe": texts(&self.subscribe),
            });
            claims["mercure"] = mercure;
            if let Some(payload) = &self.payload {
                claims["mercure"]["payload"] = payload.clone();
            }
        }
        if let Some(identity) = &self.v1 {
            claims["iss"] = json!(identity.issuer);
            claims["aud"] = json!(identity.audience);
            claims["client_id"] = json!(identity.issuer);
            claims["sub"] = json!(identity.subject.map_or_else(random, str::to_owned));
            claims["authorization_details"] = self.details();
        }
        Ok(claims)
    }

    fn details(&self) -> Value {
        let publish = detail("publish", &self.publish, None);
        let subscribe = detail("subscribe", &self.subscribe, self.payload.as_ref());
        Value::Array(publish.into_iter().chain(subscribe).collect())
    }
}

fn detail(action: &str, matchers: &[Matcher<'_>], payload: Option<&Value>) -> Option<Value> {
    let topic = |(text, is_pattern): &Matcher<'_>| match is_pattern {
        true => json!({"match": text, "match_type": "urlpattern"}),
        false => json!({"match": text}),
    };
    let topics: Vec<_> = matchers.iter().map(topic).collect();
    let mut detail = json!({
        "type": "https://mercure.rocks/authorization-detail",
        "actions": [action],
        "topics": topics,
    });
    if let Some(payload) = payload {
        detail["payload"] = payload.clone();
    }
    (!matchers.is_empty()).then_some(detail)
}

fn secret(flag: Option<&String>, publishes: bool) -> anyhow::Result<String> {
    if let Some(secret) = flag {
        return Ok(secret.clone());
    }
    let name = if publishes { "publisher_jwt_key" } else { "subscriber_jwt_key" };
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    let name = setting.map(|setting| setting.variable()).unwrap_or_default();
    if let Some(secret) = variable(&name)? {
        return Ok(secret);
    }
    if std::io::stdin().is_terminal() {
        return Err(Usage(format!("no key: set {name}, or give --key")).into());
    }
    let mut secret = String::new();
    std::io::stdin().read_to_string(&mut secret)?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}
