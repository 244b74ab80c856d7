//! Nodes are entries of a bucket, changed only by whoever saw them last; what they have noted are
//! messages of a stream, one for each subscriber.
//!
//! Whether a lease has expired is judged by the server's own times: that of a node's last renewal
//! against that of the judge's.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::kv::{Entry, Operation};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use mercure_engine::{Change, Claimed, RosterEntry, Standing, TransportError};
use mercure_protocol::SubscriberId;
use tokio::sync::Mutex;

use super::connection::{Session, next, unavailable};
use crate::store::Outcome;

/// What the entry of a node says.
const ALIVE: &[u8] = b"alive";
const CLAIMED: &[u8] = b"claimed";
/// Changes under way at once.
const AT_ONCE: usize = 64;
/// Entries read at once.
const PAGE: usize = 500;

/// Where this node's notes are, so that they can be removed without a search.
#[derive(Default)]
pub(super) struct Notes(Mutex<HashMap<SubscriberId, u64>>);

impl Notes {
    pub(super) async fn renew(
        &self,
        session: &Session,
        node: &str,
        _: Duration,
    ) -> Outcome<Option<Standing>> {
        match living(session, node).await? {
            Some(entry) if entry.value != ALIVE => Ok(None),
            Some(entry) => {
                let renewed = session.nodes.update(node, ALIVE.into(), entry.revision).await;
                renewed.map_err(unavailable)?;
                Ok(Some(Standing::Kept))
            }
            None => {
                session.nodes.create(node, ALIVE.into()).await.map_err(unavailable)?;
                self.0.lock().await.clear();
                Ok(Some(Standing::New))
            }
        }
    }

    pub(super) async fn note(
        &self,
        session: &Session,
        node: &str,
        changes: &[Change],
    ) -> Outcome<Standing> {
        if !is_alive(session, node).await? {
            return Ok(Standing::New);
        }
        stream::iter(changes.to_vec())
            .map(|change| self.apply(session, node, change))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        // Whoever claimed the node in the meantime may have read its entries before these came.
        if is_alive(session, node).await? {
            return Ok(Standing::Kept);
        }
        self.bury_entries(session, node).await?;
        Ok(Standing::New)
    }

    async fn apply(&self, session: &Session, node: &str, change: Change) -> Outcome<()> {
        match change {
            Change::Came(entry) => {
                let subject = subject(session, node, entry.subscriber);
                let (encoded, most) = (entry.encode(), session.jetstream.client().max_payload());
                if encoded.len() > most {
                    return Err(TransportError::TooLarge { most });
                }
                let message = PublishMessage::build().payload(Bytes::from(encoded));
                let sent = session.jetstream.send_publish(subject, message).await;
                let noted = sent.map_err(unavailable)?.await.map_err(unavailable)?;
                self.0.lock().await.insert(entry.subscriber, noted.sequence);
            }
            Change::Went(subscriber) => {
                let known = self.0.lock().await.remove(&subscriber);
                if let Some(sequence) = known
                    && session.roster.delete_message(sequence).await.is_ok()
                {
                    return Ok(());
                }
                let subject = subject(session, node, subscriber);
                session.roster.purge().filter(subject).await.map_err(unavailable)?;
            }
        }
        Ok(())
    }

    pub(super) async fn claim(
        &self,
        session: &Session,
        node: &str,
        lease: Duration,
    ) -> Outcome<Option<Claimed>> {
        let Some(own) = living(session, node).await? else { return Ok(None) };
        for other in names(session).await? {
            let Some(entry) = living(session, &other).await?.filter(|_| other != node) else {
                continue;
            };
            let silent_for = own.created - entry.created;
            if silent_for < lease {
                continue;
            }
            let claimed = session.nodes.update(&other, CLAIMED.into(), entry.revision).await;
            // It has just renewed its lease, or somebody else was quicker.
            if claimed.is_ok() {
                let entries = entries(session, std::slice::from_ref(&other)).await?;
                return Ok(Some(Claimed { node: other, entries }));
            }
        }
        Ok(None)
    }

    pub(super) async fn bury(&self, session: &Session, node: &str) -> Outcome<()> {
        self.bury_entries(session, node).await?;
        session.nodes.purge(node).await.map_err(unavailable)
    }

    async fn bury_entries(&self, session: &Session, node: &str) -> Outcome<()> {
        let all = session.names.subject_of_entry(node, "*");
        session.roster.purge().filter(all).await.map(drop).map_err(unavailable)
    }
}

/// What the other nodes have noted. Entries of nodes that are not known any more are left out.
pub(super) async fn others(session: &Session, node: &str) -> Outcome<(u64, Vec<RosterEntry>)> {
    let state = session.roster.get_info().await.map_err(unavailable)?.state;
    let others = names(session).await?;
    let others: Vec<_> = others.into_iter().filter(|other| other != node).collect();
    let found = entries(session, &others).await?;
    // Each note raises the sequence; each removal in between lowers the number.
    let version = (state.last_sequence << 24).wrapping_sub(state.messages);
    Ok((version, found))
}

async fn is_alive(session: &Session, node: &str) -> Outcome<bool> {
    Ok(living(session, node).await?.is_some_and(|entry| entry.value == ALIVE))
}

/// A node's entry, if it is there.
async fn living(session: &Session, node: &str) -> Outcome<Option<Entry>> {
    let entry = session.nodes.entry(node).await.map_err(unavailable)?;
    Ok(entry.filter(|entry| entry.operation == Operation::Put))
}

async fn names(session: &Session) -> Outcome<Vec<String>> {
    let keys = session.nodes.keys().await.map_err(unavailable)?;
    keys.try_collect().await.map_err(unavailable)
}

/// What some nodes have noted; once more if the entries of a dead node were removed meanwhile.
async fn entries(session: &Session, nodes: &[String]) -> Outcome<Vec<RosterEntry>> {
    for _ in 0..2 {
        if let Ok(found) = read_entries(session, nodes).await {
            return Ok(found);
        }
    }
    read_entries(session, nodes).await
}

/// Everything is read: a server looks for some subjects by trying each, anew for each message.
async fn read_entries(session: &Session, nodes: &[String]) -> Outcome<Vec<RosterEntry>> {
    let consumer = session.roster.create_consumer(pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(10),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    });
    let consumer = consumer.await.map_err(unavailable)?;
    let wanted: Vec<_> =
        nodes.iter().map(|node| session.names.subject_of_entry(node, "")).collect();
    let is_wanted = |subject: &str| wanted.iter().any(|prefix| subject.starts_with(prefix));
    let mut found = Vec::new();
    loop {
        let page = consumer.fetch().max_messages(PAGE).messages().await;
        let mut page = page.map_err(unavailable)?;
        let mut count = 0;
        while let Some(message) = next(&mut page).await? {
            count += 1;
            if is_wanted(&message.subject) {
                found.extend(RosterEntry::decode(&message.payload));
            }
        }
        if count < PAGE {
            return Ok(found);
        }
    }
}

fn subject(session: &Session, node: &str, subscriber: SubscriberId) -> String {
    let name: String = subscriber.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    session.names.subject_of_entry(node, &name)
}
