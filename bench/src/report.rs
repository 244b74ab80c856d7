//! Medians of all rounds, as a table of ratios and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::scenarios::{Figures, Scenario};
use crate::servers::Kind;

/// What was measured in all rounds.
#[derive(Debug, Default)]
pub(crate) struct Report(BTreeMap<(&'static str, Kind), Vec<Figures>>);

impl Report {
    pub(crate) fn add(&mut self, scenario: &Scenario, kind: Kind, figures: Figures) {
        self.0.entry((scenario.name, kind)).or_default().push(figures);
    }

    /// Medians of one server in one scenario.
    pub(crate) fn medians(&self, scenario: &Scenario, kind: Kind) -> Option<Figures> {
        let rounds = self.0.get(&(scenario.name, kind))?;
        let names = rounds.first()?.keys();
        let median = |name| {
            let mut all: Vec<_> = rounds.iter().filter_map(|figures| figures.get(name)).collect();
            all.sort_by(|a, b| a.total_cmp(b));
            all.get(all.len() / 2).copied().copied().unwrap_or_default()
        };
        Some(names.map(|name| (*name, median(name))).collect())
    }

    /// A table in Markdown: what our hub takes, and how many times what the others take.
    pub(crate) fn table(&self, scenarios: &[Scenario]) -> String {
        let mut table = "| | figure | bare | hub | nchan | hub/bare | hub/nchan |\n\
            |---|---|---|---|---|---|---|\n"
            .to_owned();
        for scenario in scenarios {
            let of: BTreeMap<_, _> = Kind::ALL
                .into_iter()
                .filter_map(|kind| Some((kind, self.medians(scenario, kind)?)))
                .collect();
            let Some(first) = of.values().next() else { continue };
            for name in first.keys() {
                let value = |kind| of.get(&kind).and_then(|figures| figures.get(name)).copied();
                let cell = |value: Option<f64>| value.map_or("-".to_owned(), figure);
                let ratio = |other| match (value(Kind::Hub), value(other)) {
                    (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}", ours / other),
                    _ => "-".to_owned(),
                };
                let [bare, hub, nchan] = Kind::ALL.map(|kind| cell(value(kind)));
                let (to_bare, to_nchan) = (ratio(Kind::Bare), ratio(Kind::Nchan));
                let _ = writeln!(
                    table,
                    "| {} | {name} | {bare} | {hub} | {nchan} | {to_bare} | {to_nchan} |",
                    scenario.title
                );
            }
        }
        table
    }

    /// Every figure of every round.
    pub(crate) fn json(&self) -> Value {
        let rounds = self.0.iter().map(|((scenario, kind), rounds)| {
            json!({"scenario": scenario, "server": kind.name(), "rounds": rounds})
        });
        rounds.collect()
    }
}

fn figure(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
