//! A hostile pattern costs little, or is refused; it never stops a hub.

mod worst;

use std::time::{Duration, Instant};

use mercure_protocol::{HubUrl, Limits, Matcher, MatcherType, TopicView};

fn hub() -> HubUrl {
    HubUrl::parse("https://hub.example/.well-known/mercure").expect("hub URL")
}

#[expect(clippy::disallowed_methods, reason = "this measures time")]
fn now() -> Instant {
    Instant::now()
}

/// The fastest of some runs: what it costs without what else the machine does.
fn fastest(mut run: impl FnMut()) -> Duration {
    let once = |_| {
        let start = now();
        run();
        start.elapsed()
    };
    (0..20).map(once).min().unwrap_or_default()
}

/// The longest pattern of a shape that the hub accepts; none if it accepts no short one either.
fn longest(kind: MatcherType, shape: (&str, &str, &str)) -> Option<Matcher> {
    let (hub, limits) = (hub(), Limits::default());
    let parse = |parts| Matcher::parse(kind, &worst::pattern(shape, parts), &hub, &limits).ok();
    [2000, 1000, 500, 250, 100, 50, 25, 10, 5, 2, 1].into_iter().find_map(parse)
}

/// The longest pattern that is accepted against a topic of 4 KiB: under a millisecond. Builds
/// without optimization get more.
#[test]
fn the_worst_patterns_are_evaluated_in_less_than_a_millisecond() {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 30 } else { 1 });
    let hub = hub();
    let mut evaluated = 0;
    for shape in worst::SHAPES {
        for kind in [MatcherType::UrlPattern, MatcherType::Selector] {
            let Some(matcher) = longest(kind, shape) else { continue };
            for topic in worst::topics() {
                let view = TopicView::new(&topic, &hub);
                let _ = matcher.matches(&view);
                let took = fastest(|| {
                    let _ = matcher.matches(&view);
                });
                let length = matcher.as_str().len();
                println!("{length} bytes of {shape:?} as {kind:?}: {took:?}");
                assert!(took < limit, "{shape:?} as {kind:?}: {took:?}");
                evaluated += 1;
            }
        }
    }
    assert!(evaluated >= 30, "hardly any is refused: {evaluated}");
}

/// Accepted or refused, a pattern is built within milliseconds (in a bad moment of the machine, more).
#[test]
fn the_worst_patterns_are_built_or_refused_quickly() {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 2000 } else { 100 });
    let (hub, limits) = (hub(), Limits::default());
    for shape in worst::SHAPES {
        for kind in [MatcherType::UrlPattern, MatcherType::Selector] {
            for parts in [1, 2, 5, 10, 20, 40, 80, 160, 500] {
                let pattern = worst::pattern(shape, parts);
                let start = now();
                let built = Matcher::parse(kind, &pattern, &hub, &limits).is_ok();
                let took = now() - start;
                println!("{took:?} built {built} {parts} x {shape:?} as {kind:?}");
                assert!(took < limit, "{took:?}: {parts} x {shape:?} as {kind:?}");
            }
        }
    }
}
