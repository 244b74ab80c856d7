//! `mercure-hub explain`: why a token, a topic or a subscription is refused or never matches.

use std::io::Write as _;

use clap::{Arg, ArgAction, ArgMatches, Command};
use mercure_engine::Clock;
use mercure_hub::auth::{Role, TokenReport, explain_token};
use mercure_hub::config::Config;
use mercure_protocol::{Matcher, MatcherType, SubscribeQuery, Topic, TopicView};

use super::{Usage, layers, printable, variable, with_settings};

pub(super) fn command() -> Command {
    let about = "Say why a token, a topic or a subscription is refused, or would never match";
    with_settings(Command::new("explain").about(about))
        .long_about(
            "Say why a token, a topic or a subscription is refused, or would never match.\n\n\
             Judges by the same configuration and the same code as the hub, without connecting \
             to one. Name what you have: the token, the topics of an update, the query of a \
             subscription. The exit status is 1 if something is refused or does not match.",
        )
        .arg(
            Arg::new("token")
                .long("token")
                .help("Token to judge; prefer the variable [env: MERCURE_JWT]"),
        )
        .arg(
            Arg::new("topic")
                .long("topic")
                .action(ArgAction::Append)
                .help("Topic of an update; repeat it for alternate topics"),
        )
        .arg(
            Arg::new("private")
                .long("private")
                .action(ArgAction::SetTrue)
                .help("The update is private"),
        )
        .arg(
            Arg::new("query")
                .long("query")
                .value_name("QUERY")
                .help("What a subscriber asks for, as in 'match=a&match_urlpattern=/b/:id'"),
        )
}

pub(super) fn explain(matches: &ArgMatches) -> anyhow::Result<()> {
    let config = Config::parse(&layers(matches)?)?;
    let asked = Asked::parse(matches)?;
    let mut report = Report { config: &config, lines: Vec::new(), refused: false };
    fetch_keys(&config, &mut report);
    report.topics(&asked.topics);
    let publisher = report.token(&asked, Role::Publisher);
    let subscriber = report.token(&asked, Role::Subscriber);
    let valid = |report: &Option<TokenReport>| report.as_ref().is_some_and(|r| r.grants.is_some());
    report.refused |= asked.token.is_some() && !valid(&publisher) && !valid(&subscriber);
    if let Some(token) = &publisher {
        report.publication(token, &asked.topics);
    }
    if let Some(query) = &asked.query {
        report.subscription(query, &asked, subscriber.as_ref());
    }
    for line in &report.lines {
        writeln!(std::io::stdout(), "{line}")?;
    }
    match report.refused {
        true => anyhow::bail!("something is refused or does not match; see above"),
        false => Ok(()),
    }
}

/// What the user wants explained.
struct Asked {
    token: Option<String>,
    topics: Vec<String>,
    private: bool,
    query: Option<String>,
}

impl Asked {
    fn parse(matches: &ArgMatches) -> Result<Self, Usage> {
        let token = matches.get_one::<String>("token").cloned();
        let asked = Self {
            token: token.or(variable("MERCURE_JWT")?).filter(|token| !token.is_empty()),
            topics: matches.get_many("topic").unwrap_or_default().cloned().collect(),
            private: matches.get_flag("private"),
            query: matches.get_one("query").cloned(),
        };
        if asked.token.is_none() && asked.topics.is_empty() && asked.query.is_none() {
            return Err(Usage("name a --token, a --topic or a --query to explain".to_owned()));
        }
        Ok(asked)
    }
}

fn fetch_keys(config: &Config, report: &mut Report<'_>) {
    for keys in config.policy.trust.fetched() {
        if let Err(error) = keys.fetch() {
            report.refuse(format!("keys of {}: could not be fetched: {error}", keys.source()));
        }
    }
}

struct Report<'a> {
    config: &'a Config,
    lines: Vec<String>,
    refused: bool,
}

impl Report<'_> {
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn refuse(&mut self, line: impl Into<String>) {
        self.refused = true;
        self.say(line);
    }

    fn topics(&mut self, topics: &[String]) {
        for topic in topics {
            let shown = printable(topic);
            match Topic::parse(topic, &self.config.hub_url, &self.config.limits) {
                Ok(_) => self.say(format!("topic {shown}: may be published")),
                Err(error) => self.refuse(format!("topic {shown}: refused: {error}")),
            }
        }
    }

    /// Judges the token in a role that matters for the question.
    fn token(&mut self, asked: &Asked, role: Role) -> Option<TokenReport> {
        let token = asked.token.as_deref()?;
        let only_token = asked.topics.is_empty() && asked.query.is_none();
        let matters = match role {
            Role::Publisher => asked.query.is_none(),
            Role::Subscriber => asked.query.is_some() || only_token,
        };
        if !matters {
            return None;
        }
        let Config { policy, hub_url, limits, .. } = self.config;
        let report = explain_token(policy, role, token, hub_url, limits, &Clock::system());
        self.say(format!("token, as a {}:", role.name()));
        self.lines.extend(report.lines.iter().map(|line| format!("  {line}")));
        // A token is for one role, as a rule: only the one that is needed has to accept it.
        self.refused |= report.grants.is_none() && !only_token;
        Some(report)
    }

    fn publication(&mut self, token: &TokenReport, topics: &[String]) {
        let Some(grants) = &token.grants else { return };
        for topic in topics {
            let view = TopicView::new(topic, &self.config.hub_url);
            match grants.publish().iter().find(|matcher| matcher.matches(&view)) {
                Some(matcher) => self.say(format!("publishing to {topic}: granted by {matcher}")),
                None => {
                    self.refuse(format!("publishing to {topic}: no grant of the token matches it"));
                    for matcher in grants.publish() {
                        self.hints(matcher, topic);
                    }
                }
            }
        }
    }

    fn subscription(&mut self, query: &str, asked: &Asked, token: Option<&TokenReport>) {
        let Config { policy, hub_url, limits, .. } = self.config;
        let query = query.trim_start_matches('?').as_bytes();
        let parsed = SubscribeQuery::parse(query, b"", policy.protocol, hub_url, limits);
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(format!("subscription: refused: {error}")),
        };
        if token.is_none() && !policy.anonymous {
            self.refuse("subscription: refused: this hub serves nobody without a token");
        }
        let mut reached = asked.topics.is_empty();
        for matcher in &parsed.matchers {
            self.say(format!("subscription {matcher}: valid"));
            for topic in &asked.topics {
                if matcher.matches(&TopicView::new(topic, hub_url)) {
                    reached = true;
                    self.say(format!("  matches {topic}"));
                } else {
                    self.say(format!("  does not match {topic}"));
                    self.hints(matcher, topic);
                }
            }
        }
        if !reached {
            self.refuse("the update would not reach this subscription");
        }
        self.reading(asked, token);
    }

    /// Whether the token lets a private update through.
    fn reading(&mut self, asked: &Asked, token: Option<&TokenReport>) {
        if !asked.private || asked.topics.is_empty() {
            return;
        }
        let grants = token.and_then(|token| token.grants.as_ref());
        let hub = &self.config.hub_url;
        let views: Vec<_> = asked.topics.iter().map(|topic| TopicView::new(topic, hub)).collect();
        if grants.is_some_and(|grants| grants.allow_read(&views)) {
            return self.say("the token may read the private update");
        }
        self.refuse(match grants {
            None => "the private update is withheld: there is no valid token",
            Some(_) => "the private update is withheld: no grant of the token matches its topics",
        });
    }

    fn hints(&mut self, matcher: &Matcher, topic: &str) {
        let found = hints(matcher, topic, self.config);
        self.lines.extend(found.into_iter().map(|hint| format!("    hint: {hint}")));
    }
}

/// What may have been meant by a matcher that does not match.
fn hints(matcher: &Matcher, topic: &str, config: &Config) -> Vec<String> {
    let text = matcher.as_str();
    let mut hints = Vec::new();
    let looks_like_pattern = text.contains("/:") || text.contains("/*");
    match matcher.kind() {
        MatcherType::Exact if text.contains('{') => hints.push(
            "1.0 has no URI templates and compares this byte by byte; write it as a URL pattern \
             (/books/:id), or use topic= of 0.x"
                .to_owned(),
        ),
        MatcherType::Exact if looks_like_pattern => hints.push(
            "this is compared byte by byte; a URL pattern needs match_urlpattern= \
             (\"match_type\": \"urlpattern\" in a token)"
                .to_owned(),
        ),
        MatcherType::Selector if looks_like_pattern => hints.push(
            "0.x knows URI templates ({id}), not URL patterns (:id); those are match_urlpattern="
                .to_owned(),
        ),
        MatcherType::Selector if text.contains('{') && !matcher.is_pattern() => {
            hints.push("this is no valid URI template, so it is compared as it is".to_owned());
        }
        MatcherType::UrlPattern if TopicView::new(topic, &config.hub_url).url_key().is_none() => {
            hints.push("the topic is no URL, and URL patterns match nothing else".to_owned());
        }
        MatcherType::UrlPattern if !text.contains("://") => hints.push(format!(
            "the pattern is relative: it stands for topics below {}",
            config.hub_url.as_str()
        )),
        _ => {}
    }
    let alike = [
        (text.eq_ignore_ascii_case(topic), "they differ in upper and lower case only"),
        (
            text.trim_end_matches('/') == topic.trim_end_matches('/'),
            "they differ in the slash at the end only",
        ),
        (decoded(text) == decoded(topic), "they differ in percent-encoding only"),
    ];
    hints.extend(alike.iter().filter(|(is, _)| *is).map(|(_, hint)| (*hint).to_owned()));
    hints
}

fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}
