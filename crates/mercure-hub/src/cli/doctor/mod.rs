//! `mercure-hub doctor`: what a browser would meet on its way to a hub, through every proxy in between.

mod checks;
mod stream;
mod transport;

use std::io::Write as _;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use mercure_hub::config::parse_duration;

use super::{Usage, variable};

pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Look for what would break event streams between here and a hub")
        .long_about(
            "Look for what would break event streams between here and a hub.\n\n\
             Asks the hub as a browser would, through the same proxies, and says of each finding how to \
             mend it: TLS and HTTP version, the clock, buffering, compression, caching, connections \
             that are cut when idle, CORS, the token by header and by cookie, and whether what is missed \
             is sent again. With a token that may publish to and read the topic, an event makes the \
             round and is measured. The exit status is 1 if something is broken.",
        )
        .arg(Arg::new("url").required(true).help("URL of the hub, as browsers use it"))
        .arg(Arg::new("jwt").long("jwt").value_name("TOKEN").help(
            "Token that may publish to the topic and read it; prefer the variable, which other users cannot see \
             [env: MERCURE_JWT]",
        ))
        .arg(
            Arg::new("topic")
                .long("topic")
                .help("Topic of the event that makes the round [default: a random one]"),
        )
        .arg(Arg::new("origin").long("origin").help(
            "Origin of the pages that use the hub, as in https://app.example: checks CORS for it",
        ))
        .arg(
            Arg::new("idle")
                .long("idle")
                .value_name("DURATION")
                .default_value("20s")
                .help("How long to watch a silent stream"),
        )
}

/// What is to be looked at.
pub(super) struct Patient {
    url: url::Url,
    topic: String,
    token: Option<String>,
    origin: Option<String>,
    idle: Duration,
}

/// What was found, told as it is.
#[derive(Debug, Default)]
pub(super) struct Findings {
    broken: usize,
    doubtful: usize,
}

impl Findings {
    fn fine(&mut self, what: &str) {
        Self::tell("ok", what);
    }

    /// Works, but not everywhere or not for long.
    fn doubt(&mut self, what: &str) {
        self.doubtful += 1;
        Self::tell("!", what);
    }

    /// Does not work.
    fn broken(&mut self, what: &str) {
        self.broken += 1;
        Self::tell("FAILS", what);
    }

    fn tell(sign: &str, what: &str) {
        // Nobody may be reading any more; the exit status still tells.
        let _ = writeln!(std::io::stdout(), "{sign:>5}  {what}");
    }
}

pub(super) fn doctor(matches: &ArgMatches) -> anyhow::Result<()> {
    let patient = Patient::parse(matches)?;
    let mut findings = Findings::default();
    if transport::check(&patient, &mut findings) {
        checks::check(&patient, &mut findings);
    }
    let Findings { broken, doubtful } = findings;
    if broken > 0 {
        anyhow::bail!("{broken} thing(s) are broken, {doubtful} doubtful; see above");
    }
    let end = match doubtful {
        0 => "Everything is fine.".to_owned(),
        _ => format!("Nothing is broken, {doubtful} thing(s) are doubtful."),
    };
    writeln!(std::io::stdout(), "{end}")?;
    Ok(())
}

impl Patient {
    fn parse(matches: &ArgMatches) -> Result<Self, Usage> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let url = url::Url::parse(&text("url").unwrap_or_default())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            Usage("the URL must be one, as in https://hub.example/.well-known/mercure".to_owned())
        })?;
        let idle = parse_duration(&text("idle").unwrap_or_default())
            .map_err(|error| Usage(format!("--idle: {error}")))?;
        let token = match text("jwt") {
            Some(token) => Some(token),
            None => variable("MERCURE_JWT")?,
        };
        if token.as_deref().is_some_and(|token| http::HeaderValue::from_str(token).is_err()) {
            return Err(Usage(
                "the token holds what no header can: was it copied whole?".to_owned(),
            ));
        }
        let random = || uuid::Uuid::new_v4().urn().to_string();
        Ok(Self {
            url,
            topic: text("topic").unwrap_or_else(random),
            token,
            origin: text("origin"),
            idle,
        })
    }

    /// Where the topic is subscribed to.
    fn subscription(&self) -> String {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("topic", &self.topic);
        url.into()
    }
}
