//! Subcommands. What a user types is understood here; what it does is in the library.

mod client;
mod companion;
mod doctor;
mod explain;
mod help;
mod history;
mod import;
mod load;
mod manager;
mod serve;
mod signals;
mod token;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use mercure_hub::bus::AlreadyRunning;
use mercure_hub::config::{ConfigErrors, Layers, SETTINGS};

/// Exit status: the command line or the configuration is wrong.
const USAGE: u8 = 2;
/// Exit status: another companion is running already.
const ALREADY_RUNNING: u8 = 3;

pub(crate) fn main() -> ExitCode {
    signals::unblock();
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        None => serve::serve(&matches),
        Some(("serve", arguments)) => serve::serve(arguments),
        Some(("check-config", arguments)) => serve::check_config(arguments),
        Some(("doctor", arguments)) => doctor::doctor(arguments),
        Some(("load", arguments)) => load::load(arguments),
        Some(("import-config", arguments)) => import::import(arguments),
        Some(("explain", arguments)) => explain::explain(arguments),
        Some(("token", arguments)) => token::token(arguments),
        Some(("completions", arguments)) => help::completions(arguments),
        Some(("man", arguments)) => help::man(arguments),
        Some(("history", arguments)) => history::history(arguments),
        Some(("publish", arguments)) => client::publish(arguments),
        Some(("subscribe", arguments)) => client::subscribe(arguments),
        Some((_, arguments)) => companion::companion(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Told>() {
                // Nobody may be listening any more.
                let _ = writeln!(std::io::stderr(), "mercure-hub: {error:#}");
            }
            if error.is::<AlreadyRunning>() {
                ExitCode::from(ALREADY_RUNNING)
            } else if error.is::<ConfigErrors>() || error.is::<Usage>() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The log has said it already.
#[derive(Debug, thiserror::Error)]
#[error("see the log")]
struct Told;

/// The command line asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

fn command() -> Command {
    let about = "A Mercure hub: pushes updates to browsers over server-sent events";
    with_settings(Command::new("mercure-hub"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .after_help("Without a subcommand, mercure-hub serves.")
        .args_conflicts_with_subcommands(true)
        .subcommand(with_settings(Command::new("serve").about("Run the hub (the default)")))
        .subcommand(with_settings(
            Command::new("check-config").about("Check the configuration and show what it means"),
        ))
        .subcommand(explain::command())
        .subcommand(doctor::command())
        .subcommand(load::command())
        .subcommand(import::command())
        .subcommand(token::command())
        .subcommand(history::command())
        .subcommand(client::publish_command())
        .subcommand(client::subscribe_command())
        .subcommand(help::completions_command())
        .subcommand(help::man_command())
        .subcommand(companion::command())
}

/// Adds a flag for every setting.
fn with_settings(command: Command) -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("TOML file to read");
    SETTINGS.iter().fold(command.arg(file), |command, setting| {
        let default = match setting.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        command.arg(
            Arg::new(setting.name)
                .long(setting.flag())
                .value_name(setting.value.trim_end_matches("..."))
                .action(ArgAction::Append)
                // A key in PEM begins with them.
                .allow_hyphen_values(setting.name.ends_with("_jwt_key"))
                .help(format!("{}{default} [env: {}]", setting.help, setting.variable())),
        )
    })
}

/// Reads file, environment and flags, in this order. A subcommand need not have every flag.
fn layers(matches: &ArgMatches) -> anyhow::Result<Layers> {
    let mut layers = Layers::default();
    if let Some(path) = matches.get_one::<String>("config") {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Usage(format!("cannot read --config {path}: {error}")))?;
        layers.file(&text);
    }
    layers.environment(variables()?);
    for setting in SETTINGS {
        if let Ok(Some(values)) = matches.try_get_many::<String>(setting.name) {
            // Where a key was forgotten, what follows it would be a key that anybody can guess.
            if setting.name.ends_with("_jwt_key") && values.clone().any(|value| is_flag(value)) {
                anyhow::bail!(Usage(format!("--{}: needs a value", setting.flag())));
            }
            layers.flag(setting, &values.cloned().collect::<Vec<_>>());
        }
    }
    Ok(layers)
}

fn is_flag(value: &str) -> bool {
    let long = value.strip_prefix("--").and_then(|name| name.chars().next());
    long.is_some_and(char::is_alphabetic) || (value.starts_with('-') && value.len() <= 2)
}

/// A text of somebody's as a terminal may be shown it.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => shown.extend(char.escape_debug()),
            false => shown.push(char),
        }
    }
    shown
}

/// The environment. Variables of others may hold anything; ours must be text, and are named, never
/// shown, if they are not.
fn variables() -> Result<Vec<(String, String)>, Usage> {
    let mut found = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => found.push((name, value)),
            Err(_) if name.starts_with("MERCURE_") => {
                return Err(Usage(format!("the variable {name} is not UTF-8")));
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The value of a variable, if it is there and not empty.
fn variable(name: &str) -> Result<Option<String>, Usage> {
    let found = variables()?.into_iter().find(|(found, _)| found == name);
    Ok(found.map(|(_, value)| value).filter(|value| !value.is_empty()))
}

/// Runs a future that may be told to stop by SIGTERM or SIGINT.
fn run<F>(program: impl FnOnce(Stop) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    runtime()?.block_on(async {
        let mut signals = signals::Signals::new()?;
        let stop = async move {
            signals.hurry().await;
        };
        program(Box::pin(stop)).await
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Lets this process open as many files and connections as it may at all; how many that are. Where even
/// that is forbidden, it is as many as before.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
