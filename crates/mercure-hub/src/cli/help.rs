//! What shells and `man` know of the command: made from what `--help` is made from.

use std::io::{self, Write as _};

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub(super) fn completions_command() -> Command {
    Command::new("completions").about("Write the completions for a shell").arg(
        Arg::new("shell")
            .required(true)
            .value_parser(value_parser!(Shell))
            .help("For bash: eval \"$(mercure-hub completions bash)\""),
    )
}

pub(super) fn man_command() -> Command {
    Command::new("man").about("Write the manual page, or that of a subcommand").arg(
        Arg::new("subcommand")
            .value_name("SUBCOMMAND")
            .help("As in mercure-hub man token | man -l -"),
    )
}

pub(super) fn completions(matches: &ArgMatches) -> anyhow::Result<()> {
    let shell = matches.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "mercure-hub", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

pub(super) fn man(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut command = super::command();
    command.build();
    let wanted = match matches.get_one::<String>("subcommand") {
        None => command,
        Some(name) => command
            .find_subcommand(name)
            .ok_or_else(|| super::Usage(format!("there is no subcommand {name}; see --help")))?
            .clone(),
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(wanted).render(&mut page)?;
    Ok(io::stdout().write_all(&page)?)
}
