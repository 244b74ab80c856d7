//! Who is subscribed, at every node that shares a log.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use mercure_protocol::{MatcherName, SubscriberId};
use serde_json::{Value, json};

use crate::transport::{Future, TransportError};

/// The part of a transport that knows the subscriptions of all nodes.
///
/// Each node holds a lease that it renews. What a node has noted outlives it; when its lease has
/// expired, one other node claims it, tells that its subscriptions have ended, and buries it.
pub trait Roster: Debug + Send + Sync {
    /// Renews this node's lease, or takes one.
    fn renew(&self, lease: Duration) -> Future<'_, Result<Standing, TransportError>>;

    /// Notes who has come and gone at this node; all of it, or nothing if the node has no lease.
    fn note(&self, changes: Vec<Change>) -> Future<'_, Result<Standing, TransportError>>;

    /// What the other nodes have noted, and a number that differs whenever it does.
    fn others(&self) -> Future<'_, Result<(u64, Vec<RosterEntry>), TransportError>>;

    /// Claims a node whose lease has expired, for as long as a lease. No two nodes hold the same claim at once.
    fn claim(&self, lease: Duration) -> Future<'_, Result<Option<Claimed>, TransportError>>;

    /// Removes a claimed node.
    fn bury<'a>(&'a self, node: &'a str) -> Future<'a, Result<(), TransportError>>;

    /// Removes this node, which has nothing noted any more.
    fn leave(&self) -> Future<'_, Result<(), TransportError>>;
}

/// A node that is dead, and whose subscriptions are to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its name.
    pub node: String,
    /// What it had noted.
    pub entries: Vec<RosterEntry>,
}

/// How a node stands with its roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The lease goes on; what was noted is there.
    Kept,
    /// The lease is a new one, under a new name: nothing is noted, and what was noted before has
    /// been ended, or is being ended, by somebody else.
    New,
}

/// What has changed at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A subscriber has come.
    Came(RosterEntry),
    /// A subscriber has gone.
    Went(SubscriberId),
}

/// A subscriber, as a roster keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterEntry {
    /// Its name.
    pub subscriber: SubscriberId,
    /// Random; the ids of the events that tell of it follow from it, so that they are the same events
    /// whoever tells them.
    pub seed: [u8; 16],
    /// Whether it was told before, under another seed, and that it has ended: then its next end is
    /// one only after its next beginning, which its node may not have come to.
    pub is_anew: bool,
    /// What it listens to, and what is told of it.
    pub subscriptions: Box<[(MatcherName, Option<Arc<Value>>)]>,
}

impl RosterEntry {
    /// The entry as text, for engines to keep.
    #[must_use]
    pub fn encode(&self) -> String {
        let one = |(name, payload): &(MatcherName, Option<Arc<Value>>)| {
            json!([name.as_str(), name.v1_name(), name.is_selector(), payload.as_deref()])
        };
        let subscriptions: Vec<_> = self.subscriptions.iter().map(one).collect();
        json!([self.subscriber.as_bytes(), self.seed, subscriptions, self.is_anew]).to_string()
    }

    /// Reads what [`RosterEntry::encode`] has written; `None` if this is no such text.
    #[must_use]
    pub fn decode(text: &[u8]) -> Option<Self> {
        type One = (String, Option<String>, bool, Option<Value>);
        type Entry = ([u8; 16], [u8; 16], Vec<One>, bool);
        // Entries of a node of an earlier version do not say whether they are anew.
        let earlier = || {
            let (subscriber, seed, subscriptions) = serde_json::from_slice(text)?;
            Ok::<Entry, serde_json::Error>((subscriber, seed, subscriptions, false))
        };
        let (subscriber, seed, subscriptions, is_anew) =
            serde_json::from_slice(text).or_else(|_| earlier()).ok()?;
        let one = |(text, v1, is_selector, payload): One| {
            let name = MatcherName::from_log(&text, v1.as_deref(), is_selector);
            (name, payload.map(Arc::new))
        };
        Some(Self {
            subscriber: SubscriberId::from_random(subscriber),
            seed,
            is_anew,
            subscriptions: subscriptions.into_iter().map(one).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use mercure_protocol::{HubUrl, Limits, Matcher, MatcherType};

    use super::*;

    #[test]
    fn an_entry_is_what_was_encoded() {
        let hub = HubUrl::parse("http://localhost/hub").expect("hub URL");
        let name = |kind, text| {
            Matcher::parse(kind, text, &hub, &Limits::default()).expect("matcher").name()
        };
        let entry = RosterEntry {
            subscriber: SubscriberId::from_random([1; 16]),
            seed: [2; 16],
            is_anew: true,
            subscriptions: Box::new([
                (name(MatcherType::Exact, "a \"b\""), Some(Arc::new(json!({"who": "ä"})))),
                (name(MatcherType::UrlPattern, "/:id"), None),
                (name(MatcherType::Selector, "https://x/{id}"), Some(Arc::new(json!(null)))),
            ]),
        };
        let read = RosterEntry::decode(entry.encode().as_bytes()).expect("an entry");
        assert_eq!(read.subscriptions.len(), 3);
        assert_eq!(read.subscriptions[..2], entry.subscriptions[..2]);
        assert_eq!(read.subscriptions[2].0, entry.subscriptions[2].0);
        assert_eq!((read.subscriber, read.seed), (entry.subscriber, entry.seed));
        assert!(read.is_anew);
        let earlier = entry.encode().replace(",true]", "]");
        let read = RosterEntry::decode(earlier.as_bytes()).expect("an entry");
        assert_eq!((read.seed, read.is_anew), (entry.seed, false));
        assert_eq!(RosterEntry::decode(b"[]"), None);
    }
}
