//! The figure of each scenario that matters most, as bars, in SVG.

use std::fmt::Write as _;

use crate::report::Report;
use crate::scenarios::Scenario;
use crate::servers::Kind;

/// Figures that are worth a bar, the most telling first.
const FIGURES: [(&str, &str); 4] = [
    ("cpu_us_per_delivery", "CPU µs per delivery"),
    ("cpu_us_per_publish", "CPU µs per publication"),
    ("cpu_us_per_connect", "CPU µs per connection"),
    ("bytes_per_subscriber", "bytes per subscriber"),
];
const LEFT: usize = 400;
const WIDTH: usize = 400;
const BAR: usize = 14;

/// Bars for every scenario that more than one server was measured in; each scenario has a scale of
/// its own.
pub(crate) fn plot(report: &Report, scenarios: &[Scenario]) -> String {
    let mut out = String::new();
    let mut y = 20;
    for scenario in scenarios {
        for (name, title) in FIGURES {
            let bars: Vec<_> = Kind::ALL
                .into_iter()
                .filter_map(|kind| Some((kind, *report.medians(scenario, kind)?.get(name)?)))
                .collect();
            if bars.len() < 2 {
                continue;
            }
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "<text x='{}' y='{}' text-anchor='end'>{}</text>\n\
                 <text x='{}' y='{}' text-anchor='end' class='what'>{title}</text>",
                LEFT - 10,
                y + 11,
                scenario.title,
                LEFT - 10,
                y + 25
            );
            y = group(&mut out, &bars, y) + 14;
        }
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {y}' font-family='sans-serif' \
         font-size='12'>\n<style>.what {{ fill: #666 }}</style>\n\
         <rect width='100%' height='100%' fill='white'/>\n{out}</svg>\n",
        LEFT + WIDTH + 150
    )
}

/// The bars of one scenario, from this height; the height below them.
fn group(out: &mut String, bars: &[(Kind, f64)], top: usize) -> usize {
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut y = top;
    for (kind, value) in bars {
        let color = match kind {
            Kind::Bare => "#bbbbbb",
            Kind::Hub => "#2a7de1",
            Kind::Nchan => "#e08a2a",
        };
        let length = (value / most * WIDTH as f64).max(1.0);
        let shown = if *value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        let _ = writeln!(
            out,
            "<rect x='{LEFT}' y='{y}' width='{length:.1}' height='{}' fill='{color}'/>\n\
             <text x='{:.1}' y='{}'>{} {shown}</text>",
            BAR - 2,
            LEFT as f64 + length + 6.0,
            y + 10,
            kind.name()
        );
        y += BAR;
    }
    y
}
