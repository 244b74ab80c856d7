//! A hostile pattern costs little, or is refused; it never stops a hub.

mod worst;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mercure_protocol::{
    Error, Grants, HubUrl, Limits, Matcher, MatcherType, Protocol, SubscribeQuery, TopicView,
};

fn hub() -> HubUrl {
    HubUrl::parse("https://hub.example/.well-known/mercure").expect("hub URL")
}

/// What this thread has had of a processor so far, so that what else the machine does counts for
/// nothing; where the system does not tell, the time.
fn spent() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|line| line.split(' ').next()?.parse().ok());
    #[expect(clippy::disallowed_methods, reason = "this measures time")]
    let clock = || START.get_or_init(Instant::now).elapsed();
    told.map_or_else(clock, Duration::from_nanos)
}

static START: OnceLock<Instant> = OnceLock::new();

/// The fastest of some runs.
fn fastest(runs: u32, mut run: impl FnMut()) -> Duration {
    let once = |_| {
        let before = spent();
        run();
        spent() - before
    };
    (0..runs).map(once).min().unwrap_or_default()
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
                let took = fastest(20, || {
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

/// Accepted or refused, a pattern is built within milliseconds.
#[test]
fn the_worst_patterns_are_built_or_refused_quickly() {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 2000 } else { 100 });
    let (hub, limits) = (hub(), Limits::default());
    for shape in worst::SHAPES {
        for kind in [MatcherType::UrlPattern, MatcherType::Selector] {
            for parts in [1, 2, 5, 10, 20, 40, 80, 160, 500] {
                let pattern = worst::pattern(shape, parts);
                let mut built = false;
                let took = fastest(2, || {
                    built = Matcher::parse(kind, &pattern, &hub, &limits).is_ok();
                });
                println!("{took:?} built {built} {parts} x {shape:?} as {kind:?}");
                assert!(took < limit, "{took:?}: {parts} x {shape:?} as {kind:?}");
            }
        }
    }
}

/// Each of these is small enough, and a hundred of them are not: neither in a request, nor in a
/// token of either generation.
#[test]
fn patterns_are_bounded_together_as_well() {
    let (hub, limits) = (hub(), Limits::default());
    let large = |n: usize| format!("https://hub.example/{{x}}-{n}-{}{{y}}", "long-".repeat(20));
    let patterns: Vec<_> = (0..100).map(large).collect();
    let one = Matcher::parse(MatcherType::Selector, &patterns[0], &hub, &limits).expect("accepted");
    assert!(one.size() * patterns.len() > limits.compiled, "{}", one.size());
    let refused = |result: Result<(), Error>| {
        let error = result.expect_err("refused");
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    };
    let query = patterns.iter().map(|p| format!("topic={p}")).collect::<Vec<_>>().join("&");
    let parse = |query: &str| {
        SubscribeQuery::parse(query.as_bytes(), b"", Protocol::Both, &hub, &limits).map(drop)
    };
    refused(parse(&query));
    parse(&query[..query.find('&').expect("several")]).expect("one is fine");
    let claims = serde_json::json!({"mercure": {"subscribe": patterns}});
    refused(Grants::from_v0_claims(&claims, &hub, &limits).map(drop));
    let greedy = |n: usize| format!("https://hub.example/{n}/([^/]{{90}}a[^/]{{9}})");
    let topic = |n| serde_json::json!({"match": greedy(n), "match_type": "urlpattern"});
    let details: Vec<_> = (0..2000)
        .map(|n| {
            let kind = "https://mercure.rocks/authorization-detail";
            serde_json::json!({"type": kind, "actions": ["subscribe"], "topics": [topic(n)]})
        })
        .collect();
    let claims = serde_json::json!({"authorization_details": details});
    refused(Grants::from_v1_claims(&claims, &hub, &limits).map(drop));
}
