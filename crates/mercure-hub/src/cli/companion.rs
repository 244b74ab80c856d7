use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use mercure_engine::Retention;
use mercure_hub::bus::{self, CompanionOptions};
use mercure_hub::logging;

use super::run;

/// Started by the Flask extension, never by hand: hence hidden.
pub(super) fn command() -> Command {
    let milliseconds = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("MILLISECONDS")
            .value_parser(value_parser!(u64))
            .default_value(default)
    };
    Command::new("companion")
        .hide(true)
        .about("Run as the companion of an application (started by its workers)")
        .arg(
            Arg::new("directory")
                .long("directory")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(milliseconds("grace", "30000"))
        .arg(milliseconds("heartbeat", "15000"))
        .arg(milliseconds("retry", "1000"))
        .arg(milliseconds("poll-interval", "2000"))
        .arg(Arg::new("settings").long("settings").value_name("NAME").default_value(""))
        .arg(milliseconds("since", "0"))
        .arg(Arg::new("replace").long("replace").action(ArgAction::SetTrue))
        .arg(Arg::new("subscriptions").long("subscriptions").action(ArgAction::SetTrue))
        .arg(
            Arg::new("history")
                .long("history")
                .value_name("EVENTS")
                .value_parser(value_parser!(usize))
                .default_value("100000"),
        )
}

pub(super) fn companion(matches: &ArgMatches) -> anyhow::Result<()> {
    let log = logging::init_shared("info");
    let duration = |name: &str| {
        Duration::from_millis(matches.get_one::<u64>(name).copied().unwrap_or_default())
    };
    let events = matches.get_one::<usize>("history").copied().unwrap_or_default();
    let options = CompanionOptions {
        log,
        directory: matches.get_one::<PathBuf>("directory").cloned().unwrap_or_default(),
        grace: duration("grace"),
        heartbeat: duration("heartbeat"),
        retry: duration("retry"),
        poll_interval: duration("poll-interval"),
        subscriptions: matches.get_flag("subscriptions"),
        settings: matches.get_one::<String>("settings").cloned().unwrap_or_default(),
        since: matches.get_one::<u64>("since").copied().unwrap_or_default(),
        replace: matches.get_flag("replace"),
        retention: Retention { events, ..Retention::default() },
    };
    run(async |stop| bus::run(options, stop).await)
}
