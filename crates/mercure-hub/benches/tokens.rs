//! Verifying tokens: the first time, and from memory.

use std::sync::Arc;

use divan::{Bencher, black_box};
use jsonwebtoken::Algorithm;
use mercure_engine::Clock;
use mercure_hub::api::Request;
use mercure_hub::auth::{KeySet, Keys, Policy, Roles, SigningKey, Trust, VerifiedTokens};
use mercure_protocol::{HubUrl, Limits};
use serde_json::json;

fn main() {
    divan::main();
}

const KEY: &str = "a-key-of-at-least-thirty-two-bytes!";

/// A policy that trusts one key, and a request with a token of it that grants so many topics.
fn presented(topics: usize, pattern: bool, memory: bool) -> (Policy, Request) {
    let keys = KeySet::secret(KEY.as_bytes(), &[Algorithm::HS256]).expect("key");
    let publisher = Some(Keys::Fixed(Arc::new(keys)));
    let trust = Trust {
        shared: Roles { publisher, subscriber: None },
        trusted: vec!["https://issuer.example".to_owned()],
        issuers: Vec::new(),
    };
    let policy = Policy {
        trust,
        resource_identifier: "https://hub.example/x".to_owned(),
        verified: memory.then(|| Arc::new(VerifiedTokens::new())),
        ..Policy::closed()
    };
    let kind = if pattern { "urlpattern" } else { "exact" };
    let topic =
        |n: usize| json!({"match": format!("https://example.com/{n}/:id"), "match_type": kind});
    let claims = json!({
        "iss": "https://issuer.example", "aud": "https://hub.example/x", "exp": 4_000_000_000_u64,
        "authorization_details": [{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": ["publish"],
            "topics": (0..topics).map(topic).collect::<Vec<_>>(),
        }],
    });
    let key = SigningKey::parse(KEY, "HS256").expect("key");
    let token = key.sign("at+jwt", &claims).expect("token");
    let mut request = Request::default();
    request.headers.push("authorization", format!("Bearer {token}").as_bytes());
    (policy, request)
}

fn verify(bencher: Bencher<'_, '_>, topics: usize, pattern: bool, memory: bool) {
    let (policy, request) = presented(topics, pattern, memory);
    let hub = HubUrl::parse("https://hub.example/x").expect("hub URL");
    let (limits, clock) = (Limits::default(), Clock::system());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    bencher.bench_local(|| {
        let principal = policy.publisher(black_box(&request), &hub, &limits, &clock);
        runtime.block_on(principal).expect("valid")
    });
}

#[divan::bench(args = [1, 10, 100])]
fn first_time(bencher: Bencher<'_, '_>, topics: usize) {
    verify(bencher, topics, false, false);
}

#[divan::bench(args = [1, 10, 100])]
fn from_memory(bencher: Bencher<'_, '_>, topics: usize) {
    verify(bencher, topics, false, true);
}

#[divan::bench(args = [1, 10])]
fn first_time_with_patterns(bencher: Bencher<'_, '_>, topics: usize) {
    verify(bencher, topics, true, false);
}

#[divan::bench(args = [1, 10])]
fn from_memory_with_patterns(bencher: Bencher<'_, '_>, topics: usize) {
    verify(bencher, topics, true, true);
}
