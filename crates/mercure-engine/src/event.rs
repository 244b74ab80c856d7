use bytes::Bytes;
use mercure_protocol::{EventId, HubUrl, Topic, TopicView, Update, frame};

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

    /// Appends the record in the form in which logs keep it and hubs pass it on.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.private) | u8::from(self.of_subscription) << 1;
        out.push(flags);
        put(out, self.id.as_str());
        // Bounded by the limits on topics, far below.
        out.extend_from_slice(&(self.topics.len() as u32).to_be_bytes());
        self.topics.iter().for_each(|topic| put(out, topic.as_str()));
        out.extend_from_slice(&self.frame);
    }

    /// Reads what [`Record::encode`] has written; `None` if these are no such bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, mut rest) = bytes.split_first()?;
        let id = EventId::from_log(take(&mut rest)?);
        let count = take_number(&mut rest)?;
        let mut topics = Vec::new();
        for _ in 0..count {
            topics.push(Topic::from_log(take(&mut rest)?));
        }
        Some(Self {
            id,
            topics: topics.into(),
            private: flags & 1 != 0,
            of_subscription: flags & 2 != 0,
            frame: Bytes::copy_from_slice(rest),
        })
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

impl Event {
    /// Its topics, to be matched at a hub with this URL.
    pub(crate) fn topics<'a>(&'a self, hub_url: &'a HubUrl) -> Vec<TopicView<'a>> {
        let topics = self.record.topics.iter();
        topics.map(|topic| TopicView::new(topic.as_str(), hub_url)).collect()
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    // Bounded by the limits on ids and topics, far below.
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_number(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use mercure_protocol::{HubUrl, Limits, Publication};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_what_was_encoded(
            topics in prop::collection::vec("[a-z/:{}.]{1,20}", 1..4),
            data in "\\PC{0,40}",
            private: bool,
            told: bool,
        ) {
            let hub = HubUrl::parse("http://localhost/hub").expect("hub URL");
            let raw = Publication {
                topics: topics.iter().map(String::as_str).collect(),
                data: &data,
                private,
                ..Publication::default()
            };
            let update = Update::new(&raw, &hub, &Limits::default());
            prop_assume!(update.is_ok());
            let id = EventId::from_random([7; 16]);
            let record = Record { of_subscription: told, ..Record::new(&update.expect("valid"), id) };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
