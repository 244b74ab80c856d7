//! What drills are made of: hubs as processes, real engines, clients that note what they see, and a
//! checker that is told everything.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::print_stdout, reason = "a drill tells what it does")]

pub mod checker;
pub mod client;
pub mod crowd;
pub mod engine;
pub mod nginx;
pub mod node;
pub mod proxy;
#[cfg(test)]
mod seeded;

use serde_json::json;

use crate::support::{PUBLISHER_KEY, SUBSCRIBER_KEY, v0};

/// Whether the long form is to be run.
pub fn is_long() -> bool {
    std::env::vars().any(|(name, value)| name == "MERCURE_DRILL" && value == "long")
}

/// A random seed, or the one that is given to repeat a run; printed, so that it can be.
pub fn seed() -> u64 {
    let given = std::env::vars().find(|(name, _)| name == "MERCURE_DRILL_SEED");
    let seed = given.and_then(|(_, seed)| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("repeat with MERCURE_DRILL_SEED={seed}");
    seed
}

/// A token that publishes everything.
pub fn publisher() -> String {
    v0(PUBLISHER_KEY, &json!({"publish": ["*"]}))
}

/// A token that may read what these selectors select.
pub fn reader(selectors: &[&str]) -> String {
    v0(SUBSCRIBER_KEY, &json!({"subscribe": selectors}))
}
