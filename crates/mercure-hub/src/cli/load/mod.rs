//! `mercure-hub load`: subscribers and publications in number, and every event looked at.

mod publisher;
mod report;
mod subscriber;
mod tally;
mod target;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command, value_parser};
use mercure_hub::config::parse_duration;

use self::report::Report;
use self::tally::Tally;
use self::target::Target;
use super::{Stop, Usage, raise_open_files, run, variable};

/// How long may pass without an event while some are still missing.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).help(help)
    };
    Command::new("load")
        .about("Put load on a hub, and look at every event")
        .long_about(
            "Put load on a hub, and look at every event.\n\n\
             Connects subscribers to one topic, publishes to it at a rate, and checks that each subscriber gets each \
             event once and in order. Tells deliveries a second and how long they took, live and at the end; \
             --json and --html write it down. The exit status is 1 if an event was lost, repeated or out of order. \
             Works with any Mercure hub. For what it costs the hub, name its process (--pid) if it runs here.",
        )
        .arg(Arg::new("url").required(true).help("URL of the hub"))
        .arg(Arg::new("jwt").long("jwt").value_name("TOKEN").help(
            "Token that may publish to the topic; prefer the variable, which other users cannot see \
             [env: MERCURE_JWT]",
        ))
        .arg(
            Arg::new("subscriber-jwt")
                .long("subscriber-jwt")
                .value_name("TOKEN")
                .help("Token that subscribers present, where they need one"),
        )
        .arg(Arg::new("topic").long("topic").help("Topic [default: a random one]"))
        .arg(
            number("subscribers", "1000", "Subscribers, connected before the first event")
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(
            number("rate", "10", "Publications a second")
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(
            number("publishers", "4", "Connections that share the publications")
                .value_parser(value_parser!(u16).range(1..=1000)),
        )
        .arg(number("duration", "30s", "How long to publish").value_name("DURATION"))
        .arg(
            number("size", "256", "Bytes of data of an event, at least")
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(
            Arg::new("pid")
                .long("pid")
                .value_parser(value_parser!(u32).range(1..))
                .help("The hub's process on this machine: tells its memory and CPU"),
        )
        .arg(Arg::new("json").long("json").value_name("FILE").help("Write every figure here"))
        .arg(Arg::new("html").long("html").value_name("FILE").help("Write a page with plots here"))
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    target: Target,
    token: Option<String>,
    subscriber_token: Option<String>,
    subscribers: usize,
    rate: u32,
    publishers: u16,
    duration: Duration,
    size: usize,
    pid: Option<u32>,
}

impl Plan {
    fn parse(matches: &ArgMatches) -> Result<Self, Usage> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let number = |name| matches.get_one::<u32>(name).copied().unwrap_or_default();
        let random = || uuid::Uuid::new_v4().urn().to_string();
        let duration = parse_duration(&text("duration").unwrap_or_default())
            .map_err(|error| Usage(format!("--duration: {error}")))?;
        let token = match text("jwt") {
            Some(token) => Some(token),
            None => variable("MERCURE_JWT")?,
        };
        let topic = text("topic").unwrap_or_else(random);
        let pid = matches.get_one::<u32>("pid").copied();
        if let Some(pid) = pid.filter(|pid| !report::is_measurable(*pid)) {
            let reason = format!("--pid: no process {pid} can be looked at here (in /proc)");
            return Err(Usage(reason));
        }
        Ok(Self {
            target: Target::parse(&text("url").unwrap_or_default(), &topic)?,
            token,
            subscriber_token: text("subscriber-jwt"),
            subscribers: number("subscribers") as usize,
            rate: number("rate"),
            publishers: matches.get_one::<u16>("publishers").copied().unwrap_or(1),
            duration,
            size: number("size") as usize,
            pid,
        })
    }

    fn publications(&self) -> u64 {
        let count = self.duration.as_secs_f64() * f64::from(self.rate);
        (count.round() as u64).max(1)
    }
}

pub(super) fn load(matches: &ArgMatches) -> anyhow::Result<()> {
    let plan = Plan::parse(matches)?;
    // Said before the work, not after it.
    let create = |name: &str| {
        let path = matches.get_one::<String>(name).map(PathBuf::from);
        path.map(|path| {
            let file = std::fs::File::create(&path);
            file.with_context(|| format!("{} cannot be written", path.display()))
        })
    };
    let (json, html) = (create("json").transpose()?, create("html").transpose()?);
    check_open_files(plan.subscribers)?;
    run(|stop| async move {
        let report = work(plan, stop).await?;
        writeln!(std::io::stdout(), "{}", report.text())?;
        if let Some(mut file) = json {
            file.write_all(serde_json::to_string_pretty(&report.json())?.as_bytes())?;
        }
        if let Some(mut file) = html {
            file.write_all(report.html().as_bytes())?;
        }
        report.verdict()
    })
}

/// A descriptor for each subscriber, and some more.
fn check_open_files(subscribers: usize) -> Result<(), Usage> {
    let most = raise_open_files();
    let needed = subscribers as u64 + 100;
    if needed > most {
        let reason = format!(
            "--subscribers: this user may open {most} connections and files here (ulimit -n); ask for fewer, or \
             load from several machines"
        );
        return Err(Usage(reason));
    }
    Ok(())
}

async fn work(plan: Plan, mut stop: Stop) -> anyhow::Result<Report> {
    let tally = Arc::new(Tally::new(plan.subscribers as u64));
    let mut out = std::io::stderr();
    writeln!(out, "connecting {} subscribers …", plan.subscribers)?;
    let mut subscribers = tokio::task::JoinSet::new();
    let connected = subscriber::connect_all(&plan, &tally, &mut subscribers);
    tokio::select! {
        connected = connected => connected?,
        () = &mut stop => anyhow::bail!("stopped while connecting"),
    }
    let mut report = Report::new(&plan, tally.elapsed());
    let plan = Arc::new(plan);
    let publishing = tokio::spawn(publisher::publish_all(Arc::clone(&plan), Arc::clone(&tally)));
    let watching = watch(&plan, &tally, &mut report);
    tokio::select! {
        () = watching => {}
        () = &mut stop => writeln!(out, "stopped; what is known so far:")?,
    }
    publishing.abort();
    subscribers.abort_all();
    report.finish(&tally);
    Ok(report)
}

/// Notes and tells a second at a time until everything has arrived, or nothing comes any more.
async fn watch(plan: &Plan, tally: &Tally, report: &mut Report) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    let mut quiet = Duration::ZERO;
    while quiet < PATIENCE {
        seconds.tick().await;
        // Asked first: what arrives from here on belongs to the next second.
        let is_complete = tally.is_complete();
        let line = report.second(plan.pid, tally);
        // Nobody may be watching.
        let _ = writeln!(std::io::stderr(), "{line}");
        if is_complete {
            return;
        }
        quiet = if report.is_quiet() { quiet + Duration::from_secs(1) } else { Duration::ZERO };
    }
}
