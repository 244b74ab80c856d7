use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::within;
use crate::{Error, Limits, text};

/// The identifier of an event, as clients see it and send it back in `Last-Event-ID`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Parses an `id` supplied by a publisher (section "Publication").
    ///
    /// # Errors
    /// Refuses an empty id, forbidden characters, a leading `#`, the reserved word `earliest` and
    /// one over the length limit.
    pub fn parse(value: &str, limits: &Limits) -> Result<Self, Error> {
        within("id", value.len(), limits.id_length)?;
        if value.is_empty() {
            return Err(Error::invalid("id", "is empty"));
        }
        text::check("id", value)?;
        if value.starts_with('#') {
            return Err(Error::invalid("id", "must not start with \"#\""));
        }
        if value == LastEventId::EARLIEST {
            return Err(Error::invalid("id", "\"earliest\" is reserved"));
        }
        Ok(Self(value.into()))
    }

    /// An id made by the hub from 16 random bytes: a `urn:uuid:` of version 4.
    ///
    /// Random rather than ordered, because a cursor may name an event that its reader is not
    /// allowed to read, and must then tell neither its time nor its place ("Authorization on
    /// Event Replay").
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(text::urn_uuid(bytes).into())
    }

    /// An id that a log has kept: it was checked when it was published.
    #[must_use]
    pub fn from_log(value: &str) -> Self {
        Self(value.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lets an index keyed by ids be asked for any text a client sends.
impl Borrow<str> for EventId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The type of an event: the SSE `event` field (section "Publication").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType(Arc<str>);

impl EventType {
    /// The type of the events that the hub makes itself (section "Subscription Events").
    const MERCURE: &str = "mercure";

    /// The reserved type, for events of the hub.
    pub(crate) fn of_hub() -> Self {
        Self(Self::MERCURE.into())
    }

    /// Parses a `type` supplied by a publisher.
    ///
    /// # Errors
    /// Refuses forbidden characters, the reserved value `mercure` and one over the length limit.
    pub fn parse(value: &str, limits: &Limits) -> Result<Self, Error> {
        within("type", value.len(), limits.type_length)?;
        text::check("type", value)?;
        if value == Self::MERCURE {
            return Err(Error::invalid("type", "\"mercure\" is reserved for events of the hub"));
        }
        Ok(Self(value.into()))
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a subscriber wants to resume (section "Reconciliation").
///
/// Any text is acceptable here: what no retained event bears is simply unknown to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastEventId {
    /// Everything that the log still holds.
    Earliest,
    /// Everything after the event with this id.
    After(Arc<str>),
}

impl LastEventId {
    /// The reserved word for "the beginning".
    pub const EARLIEST: &'static str = "earliest";

    /// Reads a header or parameter value; an empty one means "not given".
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "" => None,
            Self::EARLIEST => Some(Self::Earliest),
            id => Some(Self::After(id.into())),
        }
    }
}
