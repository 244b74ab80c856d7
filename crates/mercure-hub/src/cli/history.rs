//! `mercure-hub history`: a look at the log, and what an operator does with it.

use std::collections::HashSet;
use std::io::{self, BufRead as _, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Arg, ArgMatches, Command};
use mercure_engine::{
    Batch, Clock, Event, From, Position, ReadLimit, Record, Retention, Tail, Transport,
};
use mercure_hub::config::{self, parse_duration};
use mercure_protocol::{EventId, Topic};
use mercure_transports::{Purpose, connect_for};
use serde::{Deserialize, Serialize};

use super::{Usage, layers, run};

/// What is read from the log at once.
const PAGE: ReadLimit = ReadLimit { events: 1024, bytes: 4 << 20 };
/// Events that are appended at once.
const AT_ONCE: usize = 256;
/// One in so many ids is looked up by `verify`.
const SAMPLE: u64 = 101;

pub(super) fn command() -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("TOML file to read");
    let transport = Arg::new("transport")
        .long("transport")
        .value_name("URL")
        .action(clap::ArgAction::Append)
        .help("Keeper of the log [env: MERCURE_TRANSPORT]");
    let sub = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args([file.clone(), transport.clone()])
    };
    let last = Arg::new("last").long("last").value_name("COUNT").default_value("20");
    let keep = Arg::new("keep").long("keep").value_name("COUNT");
    let age = Arg::new("older-than").long("older-than").value_name("DURATION");
    Command::new("history")
        .about("Look at the log of a hub, copy it, trim it, check it")
        .subcommand_required(true)
        .subcommand(
            sub("list", "Show the newest events, a line each")
                .arg(last.help("How many of the newest events")),
        )
        .subcommand(sub("export", "Write every event to standard output, as JSON lines"))
        .subcommand(
            sub("import", "Append events from standard input, as `export` writes them").after_help(
                "For a move to another engine, with both hubs stopped:\n  \
                 mercure-hub history export --transport sqlite:///old.db \\\n    \
                 | mercure-hub history import --transport redis://localhost",
            ),
        )
        .subcommand(
            sub("trim", "Drop the oldest events")
                .arg(keep.help("Updates to keep"))
                .arg(age.help("Age from which events are dropped, as in 7d")),
        )
        .subcommand(sub("verify", "Read the whole log and check that it is sound"))
}

pub(super) fn history(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        bail!(Usage("history needs a subcommand".to_owned()));
    };
    let url = config::transport(&layers(matches)?)?;
    let purpose = if name == "import" { Purpose::Import } else { Purpose::Inspect };
    if url.starts_with("memory:") {
        let reason = "the log of memory:// is in its hub's process alone; choose a --transport";
        bail!(Usage(reason.to_owned()));
    }
    let transport = connect_for(purpose, &url, Clock::system())?;
    run(async |_| {
        transport.start(Arc::new(Nobody)).await.context("opening the log")?;
        match name {
            "list" => list(&*transport, number(matches, "last")?.unwrap_or(20)).await,
            "export" => export(&*transport).await,
            "import" => import(&*transport).await,
            "trim" => trim(&*transport, matches).await,
            _ => verify(&*transport).await,
        }
    })
}

/// Nobody follows the log here.
#[derive(Debug)]
struct Nobody;

impl Tail for Nobody {
    fn on_event(&self, _: Arc<Event>) {}

    fn on_gap(&self, _: Position) {}
}

/// An event as a line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    position: u64,
    id: String,
    topics: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    private: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    subscription: bool,
    /// The server-sent event as subscribers get it.
    event: String,
}

impl Line {
    fn of(event: &Event) -> anyhow::Result<Self> {
        let record = &event.record;
        Ok(Self {
            position: event.position.0,
            id: record.id.to_string(),
            topics: record.topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
            private: record.private,
            subscription: record.of_subscription,
            event: String::from_utf8(record.frame.to_vec()).context("an event is not UTF-8")?,
        })
    }

    /// What could not have been exported is refused: it would be written to streams as it is.
    fn record(&self) -> anyhow::Result<Record> {
        let body = self.event.strip_suffix("\n\n").context("the event does not end")?;
        let one_line = |text: &str| !text.is_empty() && !text.contains(['\n', '\r', '\0']);
        if body.contains("\n\n") || body.contains(['\r', '\0']) {
            bail!("the event is more than one");
        }
        if !one_line(&self.id) || !body.lines().any(|line| line == format!("id: {}", self.id)) {
            bail!("the event does not bear its id");
        }
        if self.topics.is_empty() || !self.topics.iter().all(|topic| one_line(topic)) {
            bail!("the topics are not valid");
        }
        Ok(Record {
            id: EventId::from_log(&self.id),
            topics: self.topics.iter().map(|topic| Topic::from_log(topic)).collect(),
            private: self.private,
            of_subscription: self.subscription,
            frame: Bytes::from(self.event.clone()),
        })
    }
}

/// Reads the whole log, page by page.
async fn each(
    transport: &dyn Transport,
    mut from: From,
    mut see: impl AsyncFnMut(&Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        match transport.read(from, PAGE).await? {
            Batch::Gone => bail!("events were dropped while they were to be read; try again"),
            Batch::Events(events) if events.is_empty() => return Ok(()),
            Batch::Events(events) => {
                for event in &events {
                    see(event).await?;
                    from = From::After(event.position);
                }
            }
        }
    }
}

async fn list(transport: &dyn Transport, last: u64) -> anyhow::Result<()> {
    let head = transport.head().await?.position;
    let begin = From::After(Position(head.0.saturating_sub(last)));
    // Fewer may be left than are asked for.
    let begin = match transport.read(begin, ReadLimit { events: 1, bytes: 1 }).await? {
        Batch::Gone => From::Oldest,
        Batch::Events(_) => begin,
    };
    let mut out = io::stdout().lock();
    each(transport, begin, async |event| {
        let record = &event.record;
        let kind = if record.private { "private" } else { "public" };
        let topics: Vec<_> = record.topics.iter().map(Topic::as_str).collect();
        let (place, size) = (event.position.0, record.frame.len());
        writeln!(out, "{place}\t{}\t{kind}\t{size} B\t{}", record.id, topics.join(" "))?;
        Ok(())
    })
    .await?;
    let held = transport.measure().await?;
    writeln!(io::stderr(), "The log holds {} events, about {} bytes.", held.events, held.bytes)?;
    Ok(())
}

async fn export(transport: &dyn Transport) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut count = 0_u64;
    each(transport, From::Oldest, async |event| {
        serde_json::to_writer(&mut out, &Line::of(event)?)?;
        out.write_all(b"\n")?;
        count += 1;
        progress(count, "exported");
        Ok(())
    })
    .await?;
    out.flush()?;
    writeln!(io::stderr(), "exported {count} events")?;
    Ok(())
}

async fn import(transport: &dyn Transport) -> anyhow::Result<()> {
    if transport.measure().await?.events > 0 {
        bail!("the log holds events already; import into an empty one");
    }
    let mut count = 0_u64;
    let (mut batch, mut before) = (Vec::new(), None);
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let at = || format!("line {}", number + 1);
        let line: Line = serde_json::from_str(&line.with_context(at)?).with_context(at)?;
        if let Some(before) = before.replace(line.position)
            && before.checked_add(1) != Some(line.position)
        {
            let position = line.position;
            bail!("{}: position {position} follows {before}: an event is missing or moved", at());
        }
        batch.push(line.record().with_context(at)?);
        if batch.len() == AT_ONCE {
            count += append(transport, &mut batch).await?;
            progress(count, "imported");
        }
    }
    count += append(transport, &mut batch).await?;
    writeln!(io::stderr(), "imported {count} events")?;
    Ok(())
}

async fn append(transport: &dyn Transport, batch: &mut Vec<Record>) -> anyhow::Result<u64> {
    // Each is on its way, in order, before the first one is waited for.
    let under_way: Vec<_> = batch.drain(..).map(|record| transport.append(record)).collect();
    let count = under_way.len() as u64;
    for accepted in under_way {
        accepted.await.context("an event was not accepted; what follows it was not tried")?;
    }
    Ok(count)
}

async fn trim(transport: &dyn Transport, matches: &ArgMatches) -> anyhow::Result<()> {
    let age = matches.get_one::<String>("older-than").map(|text| parse_duration(text));
    let age = age.transpose().map_err(|reason| Usage(format!("--older-than: {reason}")))?;
    let keep = number(matches, "keep")?;
    if age.is_none() && keep.is_none() {
        bail!(Usage("say what to drop: --keep COUNT, or --older-than DURATION".to_owned()));
    }
    let events = keep.map_or(usize::MAX, |keep| usize::try_from(keep).unwrap_or(usize::MAX));
    let before = transport.measure().await?.events;
    let left = transport.trim(&Retention { events, age, bytes: usize::MAX }).await?;
    let dropped = before.saturating_sub(left.events);
    writeln!(io::stderr(), "dropped {dropped} events, {} are left", left.events)?;
    Ok(())
}

async fn verify(transport: &dyn Transport) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    let (mut count, mut repeated) = (0_u64, 0_u64);
    each(transport, From::Oldest, async |event| {
        Line::of(event)?.record().with_context(|| format!("event {}", event.position.0))?;
        count += 1;
        progress(count, "verified");
        if !seen.insert(event.record.id.clone()) {
            repeated += 1;
        } else if count % SAMPLE == 1 {
            let found = transport.locate(event.record.id.as_str()).await?;
            if found != Some(event.position) {
                bail!("event {} is not found by its id", event.position.0);
            }
        }
        Ok(())
    })
    .await?;
    let head = transport.head().await?;
    writeln!(
        io::stdout(),
        "{count} events, in order and without a hole; {repeated} repeat an id; the newest is {}",
        head.id.as_ref().map_or("none", EventId::as_str)
    )?;
    Ok(())
}

/// A sign of life now and then, for whoever watches.
fn progress(count: u64, done: &str) {
    if count.is_multiple_of(100_000) {
        // Nobody may be watching any more.
        let _ = writeln!(io::stderr(), "{done} {count} events ...");
    }
}

fn number(matches: &ArgMatches, name: &str) -> Result<Option<u64>, Usage> {
    let parse = |text: &String| {
        text.parse().map_err(|_| Usage(format!("--{name}: must be a whole number")))
    };
    matches.get_one::<String>(name).map(parse).transpose()
}
