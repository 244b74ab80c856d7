use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mercure_protocol::{HubUrl, Limits, Matcher, MatcherType, TopicView};

use super::{micros, row};
use crate::usage::Processes;

/// Patterns that bring an engine with captures and backtracking to its knees: a name, and the text.
fn patterns() -> Vec<(&'static str, String)> {
    let long = |part: &str, length: usize| {
        format!("https://example.com/{}", part.repeat(length / part.len()))
    };
    vec![
        ("1 KB of wildcards", long("*a", 1024)),
        ("8 KB of wildcards", long("*a", 8192)),
        ("1 KB of nested repetition", long("((?:a*)*)", 1024)),
        ("90 wildcards", long("*a", 180)),
        ("15 nested repetitions", long("((?:a*)*)", 135)),
        ("\\w{500}", "https://example.com/(\\w{500})".to_owned()),
        ("a choice that doubles", "https://example.com/([ab]*a[ab]{20})".to_owned()),
    ]
}

/// Prints what each takes to be built or refused, and to be matched against a topic of 4 KiB.
pub(super) fn run() -> anyhow::Result<()> {
    println!("\n| hostile URL patterns | figure | |\n|---|---|---|");
    let hub = HubUrl::parse("https://example.com/.well-known/mercure")?;
    let topic = format!("https://example.com/{}", "a".repeat(4076));
    for (name, text) in patterns() {
        let parse = || Matcher::parse(MatcherType::UrlPattern, &text, &hub, &Limits::default());
        let peak = peak(|| drop(parse()))?;
        let verb = if parse().is_ok() { "be built" } else { "be refused" };
        row(name, &format!("us to {verb}"), fastest(|| drop(parse())));
        row(name, "KiB at the peak", peak as f64 / 1024.0);
        let Ok(matcher) = parse() else { continue };
        let matches = || {
            let _ = matcher.matches(&TopicView::new(&topic, &hub));
        };
        row(name, "us to be matched against 4 KiB", fastest(matches));
    }
    Ok(())
}

/// The shortest of some runs, in microseconds.
fn fastest(mut run: impl FnMut()) -> f64 {
    let once = |_| {
        let begin = Instant::now();
        run();
        begin.elapsed()
    };
    micros((0..20).map(once).min().unwrap_or(Duration::ZERO))
}

/// How much more memory is resident at most during a run, in bytes.
fn peak(run: impl FnOnce()) -> anyhow::Result<u64> {
    // Resets the peak (proc(5)).
    fs::write("/proc/self/clear_refs", "5").context("the peak cannot be reset")?;
    let this = Processes::of(std::process::id());
    let before = this.peak_memory();
    run();
    Ok(this.peak_memory().saturating_sub(before))
}
