//! Ids are found in a file whatever was done to it: also after repetitions, trimming and restarts.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mercure_engine::{Clock, Event, Position, Record, Retention, Tail, Transport, TransportError};
use mercure_protocol::{EventId, Topic};
use mercure_transports::{Purpose, connect, connect_for};
use tempfile::TempDir;

/// Nobody listens.
#[derive(Debug)]
struct Deaf;

impl Tail for Deaf {
    fn on_event(&self, _: Arc<Event>) {}

    fn on_gap(&self, through: Position) {
        panic!("a gap through {through:?}");
    }
}

fn record(id: &str, of_subscription: bool) -> Record {
    Record {
        id: EventId::from_log(id),
        topics: [Topic::from_log("t")].into(),
        private: false,
        of_subscription,
        frame: Bytes::from_static(b"data: x\n\n"),
    }
}

async fn open(path: &Path) -> Arc<dyn Transport> {
    let all = Retention { events: usize::MAX, age: None, bytes: usize::MAX };
    let url = format!("sqlite://{}", path.display());
    // What was under way when the one before was dropped may hold the file for a moment longer.
    for _ in 0..200 {
        let transport = connect(&url, all.clone(), Clock::system()).expect("a valid URL");
        match transport.start(Arc::new(Deaf)).await {
            Err(TransportError::Refused(reason)) if reason.starts_with("another hub") => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            started => return started.map(|_| transport).expect("started"),
        }
    }
    panic!("the file is never let go");
}

fn ask(path: &Path, query: &str) -> i64 {
    let file = rusqlite::Connection::open(path).expect("opened");
    file.query_row(query, [], |row| row.get(0)).expect("a number")
}

/// A log, and what it must hold: the ids with their places, oldest first.
struct Checked {
    log: Arc<dyn Transport>,
    held: VecDeque<(String, Position)>,
    random: fastrand::Rng,
}

impl Checked {
    /// Some of the ids come again and again.
    async fn append(&mut self, count: usize) {
        let ids: Vec<_> = (0..count).map(|_| format!("n{}", self.random.u32(..40_000))).collect();
        for ids in ids.chunks(1000) {
            let under_way: Vec<_> =
                ids.iter().map(|id| self.log.append(record(id, false))).collect();
            for (id, accepted) in ids.iter().zip(under_way) {
                self.held.push_back((id.clone(), accepted.await.expect("accepted")));
            }
        }
    }

    async fn trim(&mut self, events: usize) {
        let left = Retention { events, age: None, bytes: usize::MAX };
        let left = self.log.trim(&left).await.expect("trimmed");
        self.held.drain(..self.held.len() - left.events as usize);
    }

    /// Looks for some of the ids, and for every kind of place they may have.
    async fn check(&mut self) {
        for _ in 0..300 {
            let id = format!("n{}", self.random.u32(..40_000));
            let expected = self.held.iter().find(|(held, _)| *held == id).map(|held| held.1);
            assert_eq!(self.log.locate(&id).await.expect("asked"), expected, "{id}");
        }
        for at in [0, self.held.len() / 2, self.held.len() - 1] {
            let id = self.held[at].0.clone();
            let expected = self.held.iter().find(|(held, _)| *held == id).map(|held| held.1);
            assert_eq!(self.log.locate(&id).await.expect("asked"), expected, "{id}");
            // What tells of a subscription is accepted once.
            let again = self.log.append(record(&id, true)).await.expect("accepted");
            assert_eq!(Some(again), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earliest_event_with_an_id_is_found() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("hub.db");
    let random = fastrand::Rng::with_seed(7);
    let mut checked = Checked { log: open(&path).await, held: VecDeque::new(), random };
    for round in 0..24 {
        let (count, left) = (checked.random.usize(1..6000), checked.random.usize(500..30_000));
        checked.append(count).await;
        checked.check().await;
        if round % 3 == 2 {
            checked.trim(left).await;
            checked.check().await;
        }
        if round % 5 == 4 {
            drop(checked.log);
            checked.log = open(&path).await;
            checked.check().await;
        }
    }
    // Most were moved out of memory, and what was dropped is not kept for ever.
    let (moved, head) = (ask(&path, "SELECT indexed FROM log"), ask(&path, "SELECT head FROM log"));
    assert!(moved > head - 20_000, "{moved} of {head}");
    checked.trim(1000).await;
    checked.append(20_000).await;
    checked.check().await;
    let entries = ask(&path, "SELECT count(*) FROM ids");
    assert!(entries <= 21_000, "{entries} of 21000 events");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_of_an_older_version_is_indexed_when_it_is_opened() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("hub.db");
    let random = fastrand::Rng::with_seed(8);
    let mut checked = Checked { log: open(&path).await, held: VecDeque::new(), random };
    checked.append(30_000).await;
    drop(std::mem::replace(&mut checked.log, open(&folder.path().join("other")).await));
    let back = "DROP TABLE ids; ALTER TABLE log DROP COLUMN indexed;
        CREATE INDEX events_by_id ON events (id, place); PRAGMA user_version = 2;";
    rusqlite::Connection::open(&path).expect("opened").execute_batch(back).expect("done");
    // The hub that uses it would not know what became of its file.
    let lock = File::create(folder.path().join("hub.db.lock")).expect("the lock of a hub");
    lock.lock().expect("locked");
    let url = format!("sqlite://{}", path.display());
    let tool = connect_for(Purpose::Inspect, &url, Clock::system()).expect("a valid URL");
    let refused = tool.start(Arc::new(Deaf)).await.expect_err("refused").to_string();
    assert!(refused.contains("older version"), "{refused}");
    drop(lock);
    checked.log = open(&path).await;
    assert_eq!(ask(&path, "SELECT indexed FROM log"), 30_000);
    checked.check().await;
}
