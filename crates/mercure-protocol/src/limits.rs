use crate::Error;

/// Bounds on everything a client can send. Lengths are in bytes of UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `topic` fields of one update.
    pub topics: usize,
    /// Length of a topic.
    pub topic_length: usize,
    /// Length of an event id.
    pub id_length: usize,
    /// Length of an event type.
    pub type_length: usize,
    /// Topic matchers of one subscription request.
    pub matchers: usize,
    /// Of these, how many may be patterns or templates: each is compiled.
    pub patterns: usize,
    /// What the patterns of one subscription request, or of one token, take compiled, in bytes.
    pub compiled: usize,
    /// Length of a topic matcher.
    pub matcher_length: usize,
    /// Topic matchers in one token, all grants together.
    pub grants: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics: 100,
            topic_length: 4096,
            id_length: 1024,
            type_length: 256,
            matchers: 1000,
            patterns: 100,
            compiled: 2 * 1024 * 1024,
            matcher_length: 4096,
            grants: 10_000,
        }
    }
}

/// Refuses a length or count above its limit.
pub(crate) fn within(what: &'static str, value: usize, limit: usize) -> Result<(), Error> {
    if value > limit { Err(Error::TooLarge { what, limit }) } else { Ok(()) }
}
