use std::borrow::Cow;

/// Why a value from outside was refused. The text is safe to return to the client: it names the
/// rule and, at most, a field or parameter name, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The value breaks a character or form rule.
    #[error("{what}: {reason}")]
    Invalid {
        /// The field, parameter or claim.
        what: &'static str,
        /// The rule it breaks.
        reason: Cow<'static, str>,
    },
    /// The value, or the number of values, is over a limit of the hub.
    #[error("{what}: over the limit of {limit}")]
    TooLarge {
        /// What was counted or measured.
        what: &'static str,
        /// The limit, in bytes for lengths and in items for counts.
        limit: usize,
    },
}

impl Error {
    pub(crate) fn invalid(what: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }
}
