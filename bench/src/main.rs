//! Compares our hub with a bare loop and with Nchan, in turns, on this machine.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints figures")]
#![allow(clippy::disallowed_methods, reason = "load is made by threads that wait")]

mod bare;
mod crowd;
mod dialect;
mod engine;
mod event;
mod fleet;
mod latency;
mod plot;
mod press;
mod progress;
mod publisher;
mod report;
mod scenarios;
mod servers;
mod streams;
mod usage;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::report::Report;
use crate::servers::{Kind, Server};

fn command() -> Command {
    let port = Arg::new("port").required(true).value_parser(value_parser!(u16));
    Command::new("compare")
        .about("Measures our hub beside a bare loop and nginx with Nchan, in turns")
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .default_value("5")
                .value_parser(value_parser!(u64).range(1..))
                .help("How often each is measured; the medians are told"),
        )
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("SCENARIO")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(PossibleValuesParser::new(
                    scenarios::all(true).iter().map(|s| s.name),
                ))
                .help("Only these scenarios"),
        )
        .arg(
            Arg::new("servers")
                .long("servers")
                .value_delimiter(',')
                .default_value("bare,hub,nchan")
                .value_parser(PossibleValuesParser::new(Kind::ALL.map(Kind::name)))
                .help("Only these servers"),
        )
        .arg(
            Arg::new("short")
                .long("short")
                .action(ArgAction::SetTrue)
                .help("Few subscribers and events: whether it works, not how fast"),
        )
        .arg(Arg::new("json").long("json").value_name("FILE").help("Every figure, to this file"))
        .arg(Arg::new("plot").long("plot").value_name("FILE").help("Bars (SVG), to this file"))
        .subcommand(Command::new("bare").hide(true).arg(port))
        .subcommand(fleet_command())
        .subcommand(
            Command::new("engine")
                .about(
                    "Measures the engine alone, with subscribers in memory, and hostile patterns",
                )
                .arg(
                    Arg::new("subscribers")
                        .long("subscribers")
                        .default_value("1000000")
                        .value_parser(value_parser!(u64).range(engine::FEWEST..)),
                ),
        )
}

fn fleet_command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).value_parser(positive).help(help)
    };
    Command::new("fleet").about("Tells what nodes hold together, by simulation").args([
        number("cores", "2", "Cores of a node"),
        number("delivery", "5", "CPU of one delivery, in microseconds"),
        number("event", "6", "CPU of one event, in microseconds"),
        number("connection", "4096", "Memory of one connection, in bytes"),
        number("memory", "4", "Memory of a node for connections, in GiB"),
    ])
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    let is_possible = number.is_finite() && number > 0.0;
    is_possible.then_some(number).ok_or_else(|| "must be a number above 0".to_owned())
}

fn main() -> anyhow::Result<()> {
    raise_limit()?;
    let matches = command().get_matches();
    if let Some(("bare", matches)) = matches.subcommand() {
        let port = *matches.get_one::<u16>("port").context("required")?;
        return bare::serve(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    if let Some(("engine", matches)) = matches.subcommand() {
        let subscribers = *matches.get_one::<u64>("subscribers").context("has a default")?;
        return engine::run(usize::try_from(subscribers)?);
    }
    if let Some(("fleet", matches)) = matches.subcommand() {
        let value = |name| matches.get_one::<f64>(name).copied().context("has a default");
        fleet::run(fleet::Node {
            cores: value("cores")?,
            delivery: value("delivery")?,
            event: value("event")?,
            connection: value("connection")?,
            memory: value("memory")? * f64::from(1 << 30),
        });
        return Ok(());
    }
    compare(&matches)
}

/// As many descriptors as this user may have.
fn raise_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

fn compare(matches: &ArgMatches) -> anyhow::Result<()> {
    let rounds = *matches.get_one::<u64>("rounds").context("has a default")?;
    // Said before the work, not after it.
    let file = |name| matches.get_one::<String>(name).map(|path| create(path)).transpose();
    let (plot, json) = (file("plot")?, file("json")?);
    let only: Vec<_> = matches.get_many::<String>("only").into_iter().flatten().collect();
    let servers: Vec<_> = matches.get_many::<String>("servers").into_iter().flatten().collect();
    let mut scenarios = scenarios::all(matches.get_flag("short"));
    scenarios.retain(|scenario| only.is_empty() || only.iter().any(|name| *name == scenario.name));
    let is_chosen = |kind: &Kind| servers.iter().any(|server| *server == kind.name());
    let mut kinds: Vec<_> = Kind::ALL.into_iter().filter(is_chosen).collect();
    if kinds.contains(&Kind::Nchan) && !Kind::Nchan.is_here() {
        eprintln!("Nchan is missing (Debian: libnginx-mod-nchan): it is left out");
        kinds.retain(|kind| *kind != Kind::Nchan);
    }
    let mut report = Report::default();
    for round in 1..=rounds {
        for scenario in &scenarios {
            for kind in kinds.iter().copied().filter(|kind| scenario.kinds.contains(kind)) {
                let what = || format!("{} at {}", scenario.name, kind.name());
                let server = Server::start(kind, scenario.arguments).with_context(what)?;
                let figures = scenario.run(&server).with_context(what)?;
                eprintln!("round {round}: {}: {figures:.1?}", what());
                report.add(scenario, kind, figures);
            }
        }
    }
    println!("{}", report.table(&scenarios));
    if let Some(mut file) = json {
        file.write_all(serde_json::to_string_pretty(&report.json())?.as_bytes())?;
    }
    if let Some(mut file) = plot {
        file.write_all(plot::plot(&report, &scenarios).as_bytes())?;
    }
    Ok(())
}

fn create(path: &str) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("{path} cannot be written"))
}
