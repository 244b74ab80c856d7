//! `mercure-hub import-config`: a configuration of the Mercure.rocks hub as one of this hub.

mod caddyfile;
mod directives;
mod variables;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::{Arg, ArgMatches, Command};
use mercure_hub::config::{Config, Layers, SETTINGS, Setting};

use self::caddyfile::Directive;
use super::Usage;

pub(super) fn command() -> Command {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").help(help)
    };
    Command::new("import-config")
        .about("Make a configuration file from that of a Mercure.rocks hub")
        .long_about(
            "Make a configuration file from that of a Mercure.rocks hub.\n\n\
             Reads a Caddyfile, a file of variables (NAME=value, as docker --env-file takes it), or both; \
             without either, this process's environment. Writes TOML to standard output. What has no \
             counterpart here, or needs a decision, is a comment in it and is counted on standard error. \
             The result holds the keys that it was made from: keep it as safe as those.",
        )
        .arg(file("caddyfile", "Caddyfile with a mercure block"))
        .arg(file("env-file", "Variables, also for what a Caddyfile takes from the environment"))
}

/// What is known of the new configuration.
#[derive(Debug, Default)]
struct Draft {
    values: BTreeMap<&'static str, Vec<String>>,
    issuers: Vec<toml::Table>,
    /// What has no counterpart, or needs a decision.
    notes: Vec<String>,
}

impl Draft {
    fn set(&mut self, name: &'static str, values: impl IntoIterator<Item = String>) {
        self.values.insert(name, values.into_iter().collect());
    }

    fn one(&mut self, name: &'static str, value: &str) {
        self.set(name, [value.to_owned()]);
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// As TOML, in the order of the reference.
    fn render(&self) -> Result<String, toml::ser::Error> {
        let mut text =
            "# Made by mercure-hub import-config from the configuration of another hub.\n"
                .to_owned();
        // Writing to memory cannot fail.
        for note in &self.notes {
            // A quoted word may hold a line's end, and what follows it would be a setting.
            let note = note.replace(char::is_control, " ");
            let _ = writeln!(text, "# NOTE: {note}");
        }
        let set = SETTINGS.iter().filter_map(|s| Some((s, self.values.get(s.name)?)));
        for (setting, values) in set {
            let _ = writeln!(text, "{} = {}", setting.name, value_of(setting, values));
        }
        if !self.issuers.is_empty() {
            let issuers = self.issuers.iter().cloned().map(toml::Value::Table).collect();
            let table =
                toml::Table::from_iter([("issuer".to_owned(), toml::Value::Array(issuers))]);
            let _ = write!(text, "\n{}", toml::to_string(&table)?);
        }
        Ok(text)
    }
}

fn value_of(setting: &Setting, values: &[String]) -> toml::Value {
    let text = |value: &String| toml::Value::String(value.clone());
    match values {
        values if setting.is_list() => toml::Value::Array(values.iter().map(text).collect()),
        [value] if value == "true" || value == "false" => toml::Value::Boolean(value == "true"),
        values => text(&values.concat()),
    }
}

pub(super) fn import(matches: &ArgMatches) -> anyhow::Result<()> {
    let text = |name: &str| match matches.get_one::<String>(name) {
        None => Ok(None),
        Some(path) => std::fs::read_to_string(path)
            .map(Some)
            .map_err(|error| Usage(format!("cannot read --{name} {path}: {error}"))),
    };
    let (caddyfile, file) = (text("caddyfile")?, text("env-file")?);
    let variables = match file {
        Some(file) => variables::parse(&file),
        None => super::variables()?.into_iter().collect(),
    };
    let mut draft = Draft::default();
    let is_told = caddyfile.is_some() || matches.contains_id("env-file");
    match caddyfile {
        Some(caddyfile) => from_caddyfile(&caddyfile, &variables, &mut draft)?,
        None => variables::import(&variables, &mut draft)?,
    }
    if !is_told && draft.values.len() < 2 {
        let reason = "nothing in the environment configures a Mercure.rocks hub: name a file with --caddyfile or \
                      --env-file";
        return Err(Usage(reason.to_owned()).into());
    }
    let toml = draft.render()?;
    std::io::stdout().write_all(toml.as_bytes())?;
    tell(&draft, &toml)
}

fn from_caddyfile(
    text: &str,
    variables: &BTreeMap<String, String>,
    draft: &mut Draft,
) -> Result<(), Usage> {
    let directives = caddyfile::parse(text, variables)
        .map_err(|reason| Usage(format!("the Caddyfile cannot be read: {reason}")))?;
    let count = count(&directives);
    if count > 1 {
        draft.note(format!("of {count} mercure blocks only the first is imported: a hub for each"));
    }
    let Some((site, hub)) = find(&directives, None) else {
        return Err(Usage("the Caddyfile has no mercure block".to_owned()));
    };
    directives::site(site, draft);
    directives::hub(hub, draft);
    Ok(())
}

/// The mercure block, and the site that it stands in.
fn find<'a>(
    directives: &'a [Directive],
    site: Option<&'a Directive>,
) -> Option<(Option<&'a Directive>, &'a Directive)> {
    directives.iter().find_map(|directive| match directive.name.as_str() {
        "mercure" => Some((site, directive)),
        // Global options order directives by name.
        "order" => None,
        _ => find(&directive.block, site.or(Some(directive))),
    })
}

/// How many mercure blocks there are.
fn count(directives: &[Directive]) -> usize {
    let of = |directive: &Directive| match directive.name.as_str() {
        "mercure" => 1,
        _ => count(&directive.block),
    };
    directives.iter().map(of).sum()
}

/// Whether it can be served with as it is; an error if not, as the file is written all the same.
fn tell(draft: &Draft, toml: &str) -> anyhow::Result<()> {
    let mut layers = Layers::default();
    layers.file(toml);
    let mut out = std::io::stderr();
    if !draft.notes.is_empty() {
        writeln!(out, "{} note(s) stand at the beginning of the file", draft.notes.len())?;
    }
    match Config::parse(&layers) {
        Ok(_) => writeln!(out, "the result is a valid configuration; it holds your keys")?,
        Err(errors) => anyhow::bail!("the result still needs a hand: {errors}"),
    }
    Ok(())
}
