//! Log lines: to standard error, as text or JSON. No secret, token or payload is ever logged.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging.
pub fn init(json: bool, level: &str) {
    // The level is one of a list, so the filter is valid.
    let filter = EnvFilter::new(format!("warn,mercure_hub={level},mercure_engine={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // A log that nobody reads any more must not end the hub.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // A second subscriber in one process (tests) is not an error worth ending for.
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
}
