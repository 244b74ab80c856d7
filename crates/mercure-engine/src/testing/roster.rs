//! Who is subscribed, at all nodes of a log.

use std::sync::Arc;
use std::time::Duration;

use mercure_protocol::{MatcherName, SubscriberId};

use super::suite::{Recorder, Subject, answer, eventually};
use crate::memory::Retention;
use crate::roster::{Change, Claimed, Roster, RosterEntry, Standing};
use crate::transport::{Transport, TransportError};

const LEASE: Duration = Duration::from_secs(2);
/// Longer than it takes, on a busy machine, to look at a claim again; short enough to wait for its end
/// where the answer to the first one is lost.
const CLAIM: Duration = Duration::from_secs(8);

pub(super) async fn conformance(subject: &dyn Subject) -> Result<(), TransportError> {
    let log = subject.fresh();
    let first = node(subject, &log).await?;
    let Some(roster) = first.roster() else {
        assert!(!subject.is_shared(), "nodes that share a log share a roster");
        return Ok(());
    };
    assert_eq!(renew(roster).await?, Standing::New);
    assert_eq!(renew(roster).await?, Standing::Kept);
    note(roster, vec![came(1), came(2)]).await?;
    note(roster, vec![Change::Went(who(2)), came(3)]).await?;
    assert_eq!(others(roster).await?.1, [], "a node's own are not others'");
    if !subject.is_shared() {
        return Ok(());
    }
    let second = node(subject, &log).await?;
    let other = second.roster().expect("like the first");
    renew(other).await?;
    both_know_of_each_other(roster, other).await?;
    the_dead_are_ended_once(roster, other).await
}

async fn both_know_of_each_other(
    first: &dyn Roster,
    second: &dyn Roster,
) -> Result<(), TransportError> {
    let (version, entries) = others(second).await?;
    assert_eq!(sorted(entries), [entry(1), entry(3)]);
    note(second, vec![came(4)]).await?;
    assert_eq!(others(first).await?.1, [entry(4)]);
    note(first, vec![Change::Went(who(3))]).await?;
    let (later, entries) = others(second).await?;
    assert_eq!(entries, [entry(1)]);
    assert_ne!(version, later, "the version tells that something has changed");
    Ok(())
}

/// The first node falls silent; the second one ends what it had noted.
async fn the_dead_are_ended_once(
    first: &dyn Roster,
    second: &dyn Roster,
) -> Result<(), TransportError> {
    let claim = async || answer(async || second.claim(CLAIM).await).await;
    renew(first).await?;
    assert_eq!(claim().await?, None, "nobody is dead yet");
    let claimed = std::sync::Mutex::new(None);
    eventually("a lease expires", async || {
        renew(second).await?;
        let found = second.claim(CLAIM).await?;
        let found_one = found.is_some();
        *claimed.lock().expect("one thread") = found;
        Ok(found_one)
    })
    .await?;
    let Claimed { node: dead, entries } =
        claimed.lock().expect("one thread").take().expect("claimed");
    assert_eq!(entries, [entry(1)]);
    assert_eq!(claim().await?, None, "claimed once for the time of a lease");
    let lost = answer(async || first.note(vec![came(5)]).await).await?;
    assert_eq!(lost, Standing::New, "nothing is noted of a node that was claimed");
    assert_eq!(renew(first).await?, Standing::New, "who was claimed begins anew");
    answer(async || second.bury(&dead).await).await?;
    assert_eq!(others(second).await?.1, []);
    note(first, vec![came(1)]).await?;
    assert_eq!(others(second).await?.1, [entry(1)]);
    answer(async || first.leave().await).await?;
    assert_eq!(others(second).await?.1, []);
    Ok(())
}

async fn node(subject: &dyn Subject, log: &str) -> Result<Arc<dyn Transport>, TransportError> {
    let transport = subject.node(log, Retention::default());
    transport.start(Arc::new(Recorder::default())).await?;
    Ok(transport)
}

async fn renew(roster: &dyn Roster) -> Result<Standing, TransportError> {
    answer(async || roster.renew(LEASE).await).await
}

async fn note(roster: &dyn Roster, changes: Vec<Change>) -> Result<(), TransportError> {
    assert_eq!(answer(async || roster.note(changes.clone()).await).await?, Standing::Kept);
    Ok(())
}

async fn others(roster: &dyn Roster) -> Result<(u64, Vec<RosterEntry>), TransportError> {
    answer(async || roster.others().await).await
}

fn who(number: u8) -> SubscriberId {
    SubscriberId::from_random([number; 16])
}

fn entry(number: u8) -> RosterEntry {
    let name = MatcherName::from_log(&format!("topic {number}"), Some("exact"), true);
    let subscriptions = Box::new([(name, None)]);
    RosterEntry { subscriber: who(number), seed: [number + 100; 16], is_anew: false, subscriptions }
}

fn came(number: u8) -> Change {
    Change::Came(entry(number))
}

fn sorted(mut entries: Vec<RosterEntry>) -> Vec<RosterEntry> {
    entries.sort_by_key(|entry| *entry.subscriber.as_bytes());
    entries
}
