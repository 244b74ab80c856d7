use std::collections::BTreeMap;
use std::time::Duration;

use super::{ConfigErrors, Layers, SETTINGS};

/// Turns raw values into typed ones and collects every error on the way.
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    errors: Vec<String>,
    advice: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self { layers, errors: layers.errors().to_vec(), advice: Vec::new() }
    }

    pub(super) fn finish(self) -> Result<(), ConfigErrors> {
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(self.errors)) }
    }

    /// Notes an error about a setting, under the name the user wrote. Never repeats the value: it
    /// may be a secret.
    pub(super) fn error(&mut self, name: &'static str, reason: &str) {
        self.errors.push(format!("{}: {reason}", self.spelling(name)));
    }

    /// Notes what is no error, but is to be said of a setting.
    pub(super) fn advise(&mut self, name: &'static str, advice: &str) {
        self.advice.push(format!("{}: {advice}", self.spelling(name)));
    }

    /// The same, of no setting in particular.
    pub(super) fn mention(&mut self, text: String) {
        self.advice.push(text);
    }

    pub(super) fn advice(&self) -> &[String] {
        &self.advice
    }

    /// The name as the user wrote it.
    fn spelling(&self, name: &'static str) -> &str {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let raw = setting.and_then(|setting| self.layers.get(setting));
        raw.map_or(name, |raw| raw.spelling.as_str())
    }

    /// Whether the file could not be understood, so that nothing it says is known.
    pub(super) fn is_file_lost(&self) -> bool {
        self.layers.is_file_lost()
    }

    /// How many errors were noted so far.
    pub(super) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Whether the user has set it.
    pub(super) fn is_given(&self, name: &'static str) -> bool {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        setting.is_some_and(|setting| self.layers.get(setting).is_some())
    }

    /// The `[[issuer]]` blocks.
    pub(super) fn issuers(&self) -> &'a [toml::Table] {
        self.layers.issuers()
    }

    /// Notes an error about no setting in particular.
    pub(super) fn problem(&mut self, text: &str) {
        self.errors.push(text.to_owned());
    }

    /// Every setting's values as they were written, or its default.
    pub(super) fn values(&self) -> BTreeMap<&'static str, Vec<String>> {
        SETTINGS.iter().map(|setting| (setting.name, self.raw(setting.name))).collect()
    }

    fn raw(&self, name: &'static str) -> Vec<String> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Vec::new();
        };
        match self.layers.get(setting) {
            Some(raw) => raw.values.clone(),
            None if setting.default.is_empty() => Vec::new(),
            None => vec![setting.default.to_owned()],
        }
    }

    /// A list; values that do not parse are errors and left out.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        for value in self.raw(name) {
            match parse(&value) {
                Ok(value) => parsed.push(value),
                Err(reason) => self.error(name, &reason),
            }
        }
        parsed
    }

    /// A text that may be absent. Spaces belong to it.
    pub(super) fn text(&self, name: &'static str) -> Option<String> {
        let values = self.raw(name);
        (!values.is_empty()).then(|| values.join(" "))
    }

    /// A single value.
    pub(super) fn one<T: Default>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let text = self.text(name).unwrap_or_default();
        parse(&text).unwrap_or_else(|reason| {
            self.error(name, &reason);
            T::default()
        })
    }

    pub(super) fn choice(&mut self, name: &'static str, choices: &[&str]) -> String {
        self.one(name, |text| match choices.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(format!("must be one of {}", choices.join(", "))),
        })
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.one(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
    }

    pub(super) fn duration(&mut self, name: &'static str) -> Duration {
        self.one(name, parse_duration)
    }

    pub(super) fn positive_duration(&mut self, name: &'static str) -> Duration {
        self.one(name, |text| match parse_duration(text)? {
            Duration::ZERO => Err("must be longer than nothing".to_owned()),
            duration => Ok(duration),
        })
    }

    pub(super) fn size(&mut self, name: &'static str) -> usize {
        self.one(name, parse_size)
    }

    /// A count, or zero for no bound.
    pub(super) fn bound(&mut self, name: &'static str) -> usize {
        self.one(name, |text| {
            text.parse().map_err(|_| "must be a whole number, or 0 for no bound".to_owned())
        })
    }

    pub(super) fn count(&mut self, name: &'static str) -> usize {
        self.one(name, |text| match text.parse() {
            Ok(count) if count > 0 => Ok(count),
            _ => Err("must be a whole number above 0".to_owned()),
        })
    }
}

/// A number and a unit: `250ms`, `15s`, `5m`, `1h`, `7d`.
///
/// # Errors
/// Says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000_u64)];
    let milliseconds = scaled(text, &units);
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a duration, as in 250ms, 15s, 5m, 1h, 7d".to_owned())
}

/// A number and a unit: `512B`, `64KiB`, `1MiB`, `2GiB`.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1_u64)];
    scaled(text, &units)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "must be a size above 0, as in 512B, 64KiB, 1MiB, 2GiB".to_owned())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?;
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| number.parse::<u64>().ok()?.checked_mul(*factor))?
    })
}
