//! Where the event with an id is.
//!
//! Ids are random, so an index of them that is written with each event costs a page of its own for
//! nearly every event: most of what an append would write. Therefore the newest ids are kept in
//! memory, and older ones in a table. Whenever enough new ones have come together, they are moved
//! in the order of their hashes, as many with each batch as it has events: one page takes many.
//!
//! Nothing of it is needed to be sure: memory is filled again from the events themselves, and an
//! entry whose event was dropped is recognized, because the event is asked for its id.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::store::lock;

/// What comes together in memory, as a part of the log, before it is moved. This is also how many
/// entries of the table are looked at for each that is added, to drop those that are stale.
const PART: i64 = 16;
/// Ids that come together at least.
const FEWEST: i64 = 4096;
/// Ids that are read, and moved, in one go when a file is opened.
const CHUNK: i64 = 500_000;
/// Ids that are moved at once at least: less often for a publisher that comes alone.
const STEP: usize = 64;

/// A hash and a place in the log.
type Entry = (i64, i64);

/// The beginning of the id's SHA-256: nobody can find many ids that have it in common.
fn hash(id: &str) -> i64 {
    let mut beginning = [0; 8];
    beginning.copy_from_slice(&Sha256::digest(id)[..8]);
    i64::from_be_bytes(beginning)
}

/// Those of the newest events.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// What comes together.
    fresh: BTreeSet<Entry>,
    /// What is left to move.
    moving: BTreeSet<Entry>,
    /// Newest event of what is moved.
    moving_through: i64,
    /// Oldest event when the move began, and when the one before began: what was dropped between them
    /// has left stale entries.
    oldest: (i64, i64),
    /// Hash up to which it was moved.
    moved: i64,
    /// How many may be moved now.
    due: usize,
    /// Newest event that is known here.
    through: i64,
}

/// Some ids that are moved.
#[derive(Debug)]
pub(super) struct Step {
    entries: Vec<Entry>,
    /// The last of their hashes, or of all if nothing is left.
    last: i64,
    /// Hashes whose stale entries are dropped.
    stale: Option<RangeInclusive<i64>>,
    /// Every event through this place is in the table then.
    indexed: Option<i64>,
}

/// Ids that a batch adds.
#[derive(Debug, Default)]
pub(super) struct Added(BTreeSet<Entry>);

impl Added {
    pub(super) fn add(&mut self, id: &str, place: i64) {
        self.0.insert((hash(id), place));
    }
}

impl Ids {
    /// Reads what the table does not hold; what is much of it is moved at once, if it may be. If that
    /// fails, it is all the same here.
    pub(super) fn load(connection: &mut Connection, may_move: bool) -> rusqlite::Result<Self> {
        let (indexed, head): (i64, i64) =
            connection.query_row("SELECT indexed, head FROM log", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let mut ids = Self { through: indexed, ..Self::default() };
        for begin in (indexed..head).step_by(CHUNK as usize) {
            ids.catch_up(connection, begin.saturating_add(CHUNK))?;
            if may_move && let Err(error) = ids.settle(connection) {
                tracing::warn!(%error, "the index of the log is written later");
            }
        }
        Ok(ids)
    }

    /// Reads what was written, up to a place, without being added: by a batch that failed, as it
    /// seemed.
    pub(super) fn catch_up(
        &mut self,
        connection: &Connection,
        through: i64,
    ) -> rusqlite::Result<()> {
        let mut statement = connection
            .prepare_cached("SELECT place, id FROM events WHERE place > ?1 AND place <= ?2")?;
        let mut rows = statement.query([self.through, through])?;
        while let Some(row) = rows.next()? {
            self.through = row.get(0)?;
            self.fresh.insert((hash(row.get_ref(1)?.as_str()?), self.through));
        }
        Ok(())
    }

    /// Moves what has come together by now.
    fn settle(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        let change = connection.transaction()?;
        let oldest = oldest(&change)?;
        let step = self.step(usize::MAX, oldest);
        self.due = 0;
        step.write(&change, oldest)?;
        change.commit()?;
        self.wrote(&step, Added::default());
        Ok(())
    }

    /// How many come together before they are moved.
    fn enough(&self, oldest: i64) -> i64 {
        ((self.through - oldest) / PART).max(FEWEST)
    }

    /// What is moved with a batch of some events.
    pub(super) fn step(&mut self, events: usize, oldest: i64) -> Step {
        if self.moving.is_empty() && self.fresh.len() as i64 >= self.enough(oldest) {
            self.moving = std::mem::take(&mut self.fresh);
            (self.moving_through, self.moved) = (self.through, i64::MIN);
            self.oldest = (self.oldest.1, oldest);
        }
        self.due = self.due.saturating_add(events);
        let count = if self.due < STEP { 0 } else { self.due };
        let entries: Vec<_> = self.moving.iter().take(count).copied().collect();
        let ends = !entries.is_empty() && entries.len() == self.moving.len();
        let last = if ends { i64::MAX } else { entries.last().map_or(self.moved, |last| last.0) };
        let stale = (self.oldest.0 < self.oldest.1).then_some(self.moved..=last);
        Step { stale, indexed: ends.then_some(self.moving_through), last, entries }
    }

    /// A step has been committed, with the batch that added these.
    pub(super) fn wrote(&mut self, step: &Step, added: Added) {
        self.through = added.0.iter().map(|entry| entry.1).fold(self.through, i64::max);
        self.fresh.extend(added.0);
        if self.due >= STEP {
            self.due = 0;
        }
        if !step.entries.is_empty() {
            self.moved = step.last;
        }
        for entry in &step.entries {
            self.moving.remove(entry);
        }
    }
}

impl Step {
    /// Writes the entries of events from the oldest on.
    pub(super) fn write(&self, change: &Connection, oldest: i64) -> rusqlite::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        if let Some(hashes) = &self.stale {
            // Before the others are added: they need not be looked at.
            change
                .prepare_cached("DELETE FROM ids WHERE hash BETWEEN ?1 AND ?2 AND place < ?3")?
                .execute(params![hashes.start(), hashes.end(), oldest])?;
        }
        let mut insert = change.prepare_cached("INSERT OR IGNORE INTO ids VALUES (?1, ?2)")?;
        for (hash, place) in self.entries.iter().filter(|entry| entry.1 >= oldest) {
            insert.execute([hash, place])?;
        }
        if let Some(indexed) = self.indexed {
            change.execute("UPDATE log SET indexed = ?1", [indexed])?;
        }
        Ok(())
    }
}

/// Place of the oldest event, or of the next one if there is none.
pub(super) fn oldest(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce((SELECT min(place) FROM events), head + 1) FROM log")?
        .query_row([], |row| row.get(0))
}

/// Earliest place of an id in the log, and among those that a batch has just added.
pub(super) fn locate(
    connection: &Connection,
    ids: &Mutex<Ids>,
    added: Option<&Added>,
    id: &str,
) -> rusqlite::Result<Option<i64>> {
    let (hash, oldest) = (hash(id), oldest(connection)?);
    let of_hash = |set: &BTreeSet<Entry>| -> Vec<_> {
        set.range((hash, oldest)..=(hash, i64::MAX)).map(|entry| entry.1).collect()
    };
    // Memory first: what is moved in between is found in both rather than in none.
    let (mut newest, through) = {
        let ids = lock(ids);
        ([of_hash(&ids.fresh), of_hash(&ids.moving)].concat(), ids.through)
    };
    newest.extend(added.map(|added| of_hash(&added.0)).unwrap_or_default());
    newest.sort_unstable();
    let mut moved = connection
        .prepare_cached("SELECT place FROM ids WHERE hash = ?1 AND place >= ?2 ORDER BY place")?;
    let moved = moved.query_map([hash, oldest], |row| row.get(0))?;
    let moved = first(connection, id, moved)?;
    let newest = first(connection, id, newest.into_iter().map(Ok))?;
    let found = moved.into_iter().chain(newest).min();
    if found.is_some() || added.is_some() {
        return Ok(found);
    }
    // What another process, or this one just now, has written.
    connection
        .prepare_cached("SELECT min(place) FROM events WHERE place > ?1 AND id = ?2")?
        .query_row(params![through, id], |row| row.get(0))
}

/// The first of some places whose event has an id, and not just its hash.
fn first(
    connection: &Connection,
    id: &str,
    places: impl Iterator<Item = rusqlite::Result<i64>>,
) -> rusqlite::Result<Option<i64>> {
    let mut id_of = connection.prepare_cached("SELECT id = ?1 FROM events WHERE place = ?2")?;
    for place in places {
        let place = place?;
        let is_it = id_of.query_row(params![id, place], |row| row.get(0)).optional()?;
        if is_it == Some(true) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}
