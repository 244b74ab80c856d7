//! From a URL to the keeper of the log.
//!
//! A driver's types never leave this crate: what comes out is a [`Transport`].

use std::sync::Arc;

use mercure_engine::{Clock, MemoryTransport, Retention, Transport};

/// Why no transport could be made of a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL names an engine that this build does not know.
    #[error("unknown transport \"{scheme}\"; this build knows: memory://")]
    Unknown {
        /// What stands before `://`. The rest may hold a password and is not repeated.
        scheme: String,
    },
}

/// Checks a transport's URL without connecting.
///
/// # Errors
/// If no transport can be made of it.
pub fn check(url: &str) -> Result<(), ConnectError> {
    match url.split_once("://").map_or(url, |(scheme, _)| scheme) {
        "memory" => Ok(()),
        other => Err(ConnectError::Unknown { scheme: other.to_owned() }),
    }
}

/// Makes the transport that a URL names.
///
/// # Errors
/// If no transport can be made of it.
pub fn connect(
    url: &str,
    retention: Retention,
    clock: Clock,
) -> Result<Arc<dyn Transport>, ConnectError> {
    check(url)?;
    Ok(Arc::new(MemoryTransport::new(retention, clock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_engine_is_named_and_its_password_is_not() {
        let error = check("redis://user:secret@host").expect_err("unknown");
        assert_eq!(error.to_string(), "unknown transport \"redis\"; this build knows: memory://");
        assert!(check("memory://").is_ok());
    }
}
