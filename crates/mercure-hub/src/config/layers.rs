use std::collections::BTreeMap;

use super::{ConfigErrors, SETTINGS, Setting};

/// Variables with our prefix that belong to publishers and to the Flask extension.
const FOREIGN: &[&str] = &[
    "MERCURE_AUTHZ_COOKIE_NAME",
    "MERCURE_HUB_ALLOW_ANONYMOUS",
    "MERCURE_HUB_ALLOW_PUBLISH",
    "MERCURE_HUB_BINARY",
    "MERCURE_HUB_URL",
    "MERCURE_JWT",
    "MERCURE_JWT_SECRET",
    "MERCURE_PUBLIC_HUB_URL",
    "MERCURE_PUBLISHER_JWT",
    "MERCURE_PUBLISHER_SECRET_KEY",
    "MERCURE_SUBSCRIBER_SECRET_KEY",
    "MERCURE_URL",
];

/// A value as it was written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The values; one, or several of a list.
    pub values: Vec<String>,
    /// How the user spelled the name: `hub_path`, `MERCURE_HUB_PATH` or `--hub-path`.
    pub spelling: String,
}

/// What was read from the file, the environment and the flags, the later over the earlier.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, Raw>,
    /// The `[[issuer]]` blocks of the file.
    issuers: Vec<toml::Table>,
    errors: Vec<String>,
    /// The file is no TOML.
    is_file_lost: bool,
}

impl Layers {
    /// Reads the text of a TOML file.
    pub fn file(&mut self, text: &str) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // The library's message quotes the line, which may hold a key.
                let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
                let line = line.map_or(String::new(), |line| format!(", line {line}"));
                self.errors.push(format!("the file is not valid TOML{line}: {}", error.message()));
                self.is_file_lost = true;
                return;
            }
        };
        for (key, value) in table {
            if key == "issuer" {
                self.issuer_blocks(value);
                continue;
            }
            let Some(setting) = find(|setting| setting.name == key) else {
                self.unknown(&key, |setting| setting.name.to_owned());
                continue;
            };
            if setting.value == "KEY" && !value.is_str() {
                self.errors.push(format!("{key}: needs a text in quotes"));
                continue;
            }
            match texts(&value) {
                Some(values) if values.len() == 1 || setting.is_list() => {
                    self.set(setting, values, key);
                }
                Some(_) => self.errors.push(format!("{key}: takes one value, not a list")),
                None => self.errors.push(format!(
                    "{key}: needs a text, a number, true or false, or a list of texts"
                )),
            }
        }
    }

    fn issuer_blocks(&mut self, value: toml::Value) {
        let blocks = match value {
            toml::Value::Array(blocks) => blocks,
            other => vec![other],
        };
        let tables = blocks.into_iter().map(|block| match block {
            toml::Value::Table(table) => Some(table),
            _ => None,
        });
        match tables.collect::<Option<Vec<_>>>() {
            Some(tables) => self.issuers = tables,
            None => {
                self.errors.push("issuer: is written as [[issuer]], once per issuer".to_owned())
            }
        }
    }

    pub(super) fn issuers(&self) -> &[toml::Table] {
        &self.issuers
    }

    /// Reads environment variables; those without our prefix are not looked at.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            let is_ours = name.starts_with("MERCURE_") && !is_service_link(&name);
            if !is_ours || FOREIGN.contains(&name.as_str()) {
                continue;
            }
            match find(|setting| setting.variable() == name) {
                Some(setting) => self.set(setting, split(setting, &value), name),
                None => self.unknown(&name, Setting::variable),
            }
        }
    }

    /// Takes a flag's values.
    pub fn flag(&mut self, setting: &'static Setting, values: &[String]) {
        let spelling = format!("--{}", setting.flag());
        if values.len() > 1 && !setting.is_list() {
            self.errors.push(format!("{spelling}: was given more than once"));
        }
        let values = values.iter().flat_map(|value| split(setting, value)).collect();
        self.set(setting, values, spelling);
    }

    pub(super) fn is_file_lost(&self) -> bool {
        self.is_file_lost
    }

    pub(super) fn get(&self, setting: &Setting) -> Option<&Raw> {
        self.values.get(setting.name)
    }

    pub(super) fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The errors found so far, if any.
    ///
    /// # Errors
    /// All of them.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(self.errors.clone())) }
    }

    fn set(&mut self, setting: &'static Setting, values: Vec<String>, spelling: String) {
        self.values.insert(setting.name, Raw { values, spelling });
    }

    fn unknown(&mut self, name: &str, spell: impl Fn(&Setting) -> String) {
        let likeness = |spelled: &String| strsim::jaro_winkler(spelled, name);
        let nearest = SETTINGS
            .iter()
            .map(spell)
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .filter(|spelled| likeness(spelled) > 0.8);
        let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
        self.errors.push(format!("{name}: unknown setting{hint}"));
    }
}

/// What Kubernetes tells of a service that is called mercure, or mercure-something; no setting has such a
/// name.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

fn find(predicate: impl Fn(&Setting) -> bool) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| predicate(setting))
}

/// Lists are separated by spaces or commas in the environment and in flags; everything else, a key
/// above all, is taken as it is. An empty value is none.
fn split(setting: &Setting, value: &str) -> Vec<String> {
    if !setting.is_list() {
        return if value.is_empty() { Vec::new() } else { vec![value.to_owned()] };
    }
    let parts = value.split([' ', ',', '\t', '\n']).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Some(vec![flag.to_string()]),
        toml::Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
