//! What is told at the end: as text, as JSON, and as a page with plots.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Plan;
use super::tally::{Counts, Tally};

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Report {
    url: String,
    subscribers: usize,
    rate: u32,
    connecting: Duration,
    seconds: Vec<Second>,
    last: Counts,
    usage: Option<Usage>,
    failure: Option<String>,
}

/// One second of it.
#[derive(Debug, Clone, Default)]
struct Second {
    at: f64,
    published: u64,
    received: u64,
    /// In milliseconds: half of the deliveries, and 99 of 100, took no longer.
    p50: f64,
    p99: f64,
    /// Of the hub's process: resident bytes, and CPU time in seconds since it began.
    usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    bytes: u64,
    cpu: f64,
}

impl Usage {
    /// What the kernel says of a process (proc(5)).
    fn of(pid: u32) -> Option<Self> {
        /// Ticks of the kernel's accounting in a second: a constant of its interface.
        const TICKS: f64 = 100.0;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces; what follows does not.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(Self { bytes: kilobytes * 1024, cpu: ticks / TICKS })
    }
}

/// Whether it can be told what a process costs.
pub(super) fn is_measurable(pid: u32) -> bool {
    Usage::of(pid).is_some()
}

impl Report {
    pub(super) fn new(plan: &Plan, connecting: Duration) -> Self {
        let mut url = plan.target.url.clone();
        // A token may stand in it (0.x).
        url.set_query(None);
        Self {
            url: url.into(),
            subscribers: plan.subscribers,
            rate: plan.rate,
            connecting,
            seconds: Vec::new(),
            last: Counts::default(),
            usage: plan.pid.and_then(Usage::of),
            failure: None,
        }
    }

    /// Notes a second; the line that tells of it.
    pub(super) fn second(&mut self, pid: Option<u32>, tally: &Tally) -> String {
        let counts = tally.counts();
        let second = Second {
            at: tally.elapsed().saturating_sub(self.connecting).as_secs_f64(),
            published: counts.published - self.last.published,
            received: counts.received - self.last.received,
            p50: counts.percentile(&self.last, 0.5),
            p99: counts.percentile(&self.last, 0.99),
            usage: pid.and_then(Usage::of),
        };
        self.last = counts;
        let line = format!(
            "{:>5.0} s  {:>6} published  {:>8} delivered  p50 {:.1} ms  p99 {:.1} ms",
            second.at, second.published, second.received, second.p50, second.p99
        );
        self.seconds.push(second);
        line
    }

    /// Whether nothing happened in the last second.
    pub(super) fn is_quiet(&self) -> bool {
        self.seconds.last().is_some_and(|second| second.published + second.received == 0)
    }

    pub(super) fn finish(&mut self, tally: &Tally) {
        self.last = tally.counts();
        self.failure = tally.failure();
    }

    fn expected(&self) -> u64 {
        self.last.published * self.subscribers as u64
    }

    /// What never arrived, whether or not a later event has shown it.
    fn missing(&self) -> u64 {
        self.expected().saturating_sub(self.last.received)
    }

    fn percentile(&self, part: f64) -> f64 {
        self.last.percentile(&Counts::default(), part)
    }

    /// Deliveries a second while there were any.
    fn pace(&self) -> f64 {
        let busy = self.seconds.iter().filter(|second| second.received > 0).count();
        self.last.received as f64 / busy.max(1) as f64
    }

    /// CPU time of the hub for a delivery, in microseconds.
    fn cpu_per_delivery(&self) -> Option<f64> {
        let last = self.seconds.iter().rev().find_map(|second| second.usage)?;
        let spent = last.cpu - self.usage?.cpu;
        Some(spent * 1e6 / self.last.received.max(1) as f64)
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} subscribers connected in {:.1} s\n{} publications, {} of {} deliveries, {:.0} a second\n\
             latency: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, at most {:.1} ms\n\
             lost {}, repeated or out of order {}, streams ended {}",
            self.subscribers,
            self.connecting.as_secs_f64(),
            self.last.published,
            self.last.received,
            self.expected(),
            self.pace(),
            self.percentile(0.5),
            self.percentile(0.9),
            self.percentile(0.99),
            self.percentile(0.999),
            self.percentile(1.0),
            self.missing(),
            self.last.repeated,
            self.last.ended,
        );
        if let Some(cpu) = self.cpu_per_delivery() {
            let most = self.seconds.iter().filter_map(|s| s.usage).map(|usage| usage.bytes).max();
            // Writing to memory cannot fail, here and below.
            let _ = write!(
                text,
                "\nhub: {cpu:.1} us of CPU for each delivery, {} MiB of memory at most",
                most.unwrap_or_default() >> 20
            );
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let seconds = self.seconds.iter().map(|second| {
            json!({
                "at_s": second.at,
                "published": second.published,
                "delivered": second.received,
                "p50_ms": second.p50,
                "p99_ms": second.p99,
                "hub_bytes": second.usage.map(|usage| usage.bytes),
                "hub_cpu_s": second.usage.map(|usage| usage.cpu),
            })
        });
        json!({
            "url": self.url,
            "subscribers": self.subscribers,
            "rate_per_s": self.rate,
            "connecting_s": self.connecting.as_secs_f64(),
            "published": self.last.published,
            "expected": self.expected(),
            "delivered": self.last.received,
            "deliveries_per_s": self.pace(),
            "lost": self.missing(),
            "repeated": self.last.repeated,
            "streams_ended": self.last.ended,
            "latency_ms": {
                "p50": self.percentile(0.5),
                "p90": self.percentile(0.9),
                "p99": self.percentile(0.99),
                "p99.9": self.percentile(0.999),
                "max": self.percentile(1.0),
            },
            "hub_cpu_us_per_delivery": self.cpu_per_delivery(),
            "failure": self.failure,
            "seconds": seconds.collect::<Vec<_>>(),
        })
    }

    /// A page that needs nothing else.
    pub(super) fn html(&self) -> String {
        let of = |get: fn(&Second) -> f64| self.seconds.iter().map(get).collect::<Vec<_>>();
        let mut plots = plot("Deliveries a second", &[("delivered", of(|s| s.received as f64))]);
        plots += &plot("Latency (ms)", &[("p99", of(|s| s.p99)), ("p50", of(|s| s.p50))]);
        if self.usage.is_some() {
            let mebibytes = of(|s| s.usage.map_or(0.0, |usage| (usage.bytes >> 20) as f64));
            plots += &plot("Memory of the hub (MiB)", &[("resident", mebibytes)]);
        }
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>Load on a Mercure hub</title>\n\
             <style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui;max-width:50rem;margin:2rem auto;\
             padding:0 1rem}}svg{{width:100%;border:1px solid #8888}}polyline{{fill:none;stroke-width:2}}\
             pre{{white-space:pre-wrap}}</style>\n<h1>Load on {}</h1>\n<pre>{}</pre>\n{plots}</html>\n",
            escape(&self.url),
            escape(&self.text()),
        )
    }

    /// Everything has arrived, once and in order.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        if let Some(failure) = &self.failure {
            anyhow::bail!("{failure}");
        }
        let wrong = self.missing() + self.last.repeated;
        anyhow::ensure!(wrong == 0, "{wrong} deliveries were lost, repeated or out of order");
        Ok(())
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Lines over the seconds, with their highest value.
fn plot(title: &str, lines: &[(&str, Vec<f64>)]) -> String {
    const COLOURS: [&str; 2] = ["#c2410c", "#2563eb"];
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 160.0;
    let most = lines.iter().flat_map(|(_, values)| values).fold(0.0_f64, |a, b| a.max(*b));
    let mut svg = format!(
        "<h2>{title}</h2>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}, at most {most:.1}\">\n"
    );
    for ((name, values), colour) in lines.iter().zip(COLOURS) {
        let step = WIDTH / values.len().saturating_sub(1).max(1) as f64;
        let points: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, value)| {
                let height = value / most.max(f64::MIN_POSITIVE) * (HEIGHT - 20.0);
                format!("{:.1},{:.1}", at as f64 * step, HEIGHT - 5.0 - height)
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline stroke=\"{colour}\" points=\"{}\"><title>{name}</title></polyline>",
            points.join(" ")
        );
    }
    svg + &format!(
        "</svg>\n<p>{}: at most {most:.1}</p>\n",
        lines.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    )
}
