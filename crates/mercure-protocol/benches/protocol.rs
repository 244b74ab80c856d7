//! Framing and matching: what every event costs before it reaches a socket.

use divan::{Bencher, black_box};
use mercure_protocol::{
    EventId, HubUrl, Limits, Matcher, MatcherType, Publication, TopicView, Update, frame,
};

fn main() {
    divan::main();
}

fn hub() -> HubUrl {
    HubUrl::parse("https://hub.example/.well-known/mercure").expect("hub URL")
}

fn matcher(kind: MatcherType, text: &str) -> Matcher {
    Matcher::parse(kind, text, &hub(), &Limits::default()).expect("matcher")
}

/// A payload of this many bytes, with a line break each 80.
#[divan::bench(args = [0, 256, 4096, 65_536])]
fn framing(bencher: Bencher<'_, '_>, size: usize) {
    let data: String = (0..size).map(|at| if at % 80 == 79 { '\n' } else { 'x' }).collect();
    let raw = Publication { topics: vec!["t"], data: &data, ..Publication::default() };
    let update = Update::new(&raw, &hub(), &Limits::default()).expect("update");
    let id = EventId::from_random([7; 16]);
    bencher.counter(divan::counter::BytesCount::new(size)).bench(|| frame(black_box(&update), &id));
}

#[divan::bench]
fn parsing_a_publication(bencher: Bencher<'_, '_>) {
    let body = format!("topic=https%3A%2F%2Fexample.com%2Fbooks%2F1&data={}", "x".repeat(256));
    let (hub, limits) = (hub(), Limits::default());
    bencher.bench(|| Update::from_form(black_box(body.as_bytes()), &hub, &limits));
}

fn evaluate(bencher: Bencher<'_, '_>, kind: MatcherType, text: &str, topic: &str) {
    let (matcher, hub) = (matcher(kind, text), hub());
    bencher.bench(|| matcher.matches(&TopicView::new(black_box(topic), &hub)));
}

#[divan::bench]
fn matching_exact(bencher: Bencher<'_, '_>) {
    evaluate(bencher, MatcherType::Exact, "https://example.com/1", "https://example.com/1");
}

/// With the topic parsed as a URL, which happens once per event.
#[divan::bench]
fn matching_a_url_pattern(bencher: Bencher<'_, '_>) {
    evaluate(bencher, MatcherType::UrlPattern, "https://example.com/:id", "https://example.com/1");
}

#[divan::bench]
fn matching_a_template(bencher: Bencher<'_, '_>) {
    evaluate(bencher, MatcherType::Selector, "https://example.com/{id}", "https://example.com/1");
}

/// Patterns that are made to be slow, by number, against a topic of 4 KiB.
#[divan::bench(args = [0, 1, 2, 4, 5])]
fn matching_the_worst_url_pattern(bencher: Bencher<'_, '_>, shape: usize) {
    let matcher = matcher(MatcherType::UrlPattern, &worst::pattern(worst::SHAPES[shape], 5));
    let ([topic, ..], hub) = (worst::topics(), hub());
    let view = TopicView::new(&topic, &hub);
    bencher.bench_local(|| matcher.matches(black_box(&view)));
}

/// Compiling one pattern: what a subscription costs once.
#[divan::bench(args = ["https://example.com/:id", "/books/:id(\\d+)/*"])]
fn compiling_a_url_pattern(bencher: Bencher<'_, '_>, text: &str) {
    bencher.bench(|| matcher(MatcherType::UrlPattern, black_box(text)));
}

#[path = "../tests/worst/mod.rs"]
mod worst;
