use bytes::Bytes;
use mercure_protocol::{EventId, Topic, Update, frame};

/// A place in the log. Internal and ordered; clients see an [`EventId`] instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// Before every event.
    pub const START: Self = Self(0);
}

/// What a transport stores of an update: everything that delivering it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The id that clients see.
    pub id: EventId,
    /// The canonical topic and the alternate ones.
    pub topics: Box<[Topic]>,
    /// Whether only subscribers with a grant may receive it.
    pub private: bool,
    /// Whether the hub itself tells of a subscription; retention does not count such events.
    pub of_subscription: bool,
    /// The server-sent event, framed once.
    pub frame: Bytes,
}

impl Record {
    /// Frames an update under an id.
    #[must_use]
    pub fn new(update: &Update, id: EventId) -> Self {
        Self {
            frame: frame(update, &id),
            topics: update.topics().into(),
            private: update.is_private(),
            of_subscription: false,
            id,
        }
    }

    /// The same for an update by which the hub tells of a subscription.
    #[must_use]
    pub fn of_subscription(update: &Update, id: EventId) -> Self {
        Self { of_subscription: true, ..Self::new(update, id) }
    }

    /// What the record costs in memory and on disk, about, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.as_str().len() + 32).sum();
        self.frame.len() + self.id.as_str().len() + topics + 96
    }
}

/// An update that the log accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log.
    pub position: Position,
    /// What was accepted.
    pub record: Record,
}
