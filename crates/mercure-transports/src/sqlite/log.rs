use std::sync::Mutex;
use std::time::Duration;

use mercure_engine::{Measure, ReadLimit, Record, Retention};
use mercure_protocol::EventId;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::ids::{self, Added, Ids};
use crate::store::{Newest, Place, Stretch, lock, milliseconds, signed};

/// Events looked at, and dropped, by one statement at most.
const TRIM: usize = 2048;

pub(super) fn append(
    connection: &mut Connection,
    ids: &Mutex<Ids>,
    batch: &[Record],
    at: i64,
) -> rusqlite::Result<Vec<Place>> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (head, mut published, mut bytes): (i64, i64, i64) = change
        .prepare_cached("SELECT head, published, bytes FROM log")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let oldest = ids::oldest(&change)?;
    let step = {
        let mut ids = lock(ids);
        ids.catch_up(&change, head)?;
        ids.step(batch.len(), oldest)
    };
    let mut insert = change.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut place = head;
    let (mut encoded, mut places) = (Vec::new(), Vec::with_capacity(batch.len()));
    let (mut newest, mut added) = (None, Added::default());
    for record in batch {
        if record.of_subscription
            && let Some(known) = ids::locate(&change, ids, Some(&added), record.id.as_str())?
        {
            places.push(known as Place);
            continue;
        }
        place += 1;
        places.push(place as Place);
        newest = Some(record.id.as_str());
        added.add(record.id.as_str(), place);
        encoded.clear();
        record.encode(&mut encoded);
        insert.execute(params![place, record.id.as_str(), at, published, bytes, encoded])?;
        published += i64::from(!record.of_subscription);
        bytes += record.size() as i64;
    }
    drop(insert);
    // Also for no record at all: whether the file can be written is found out so.
    change
        .prepare_cached(
            "UPDATE log SET head = ?1, head_id = coalesce(?2, head_id), published = ?3, bytes = ?4",
        )?
        .execute(params![place, newest, published, bytes])?;
    step.write(&change, oldest)?;
    change.commit()?;
    lock(ids).wrote(&step, added);
    Ok(places)
}

pub(super) fn read(
    connection: &Connection,
    after: Option<Place>,
    limit: ReadLimit,
) -> rusqlite::Result<Stretch> {
    // One view of the file for both.
    let view = connection.unchecked_transaction()?;
    let head = newest(&view)?.place;
    let mut statement = view.prepare_cached(
        "SELECT place, record FROM events WHERE place > ?1 ORDER BY place LIMIT ?2",
    )?;
    let mut rows = statement.query(params![signed(after.unwrap_or(0)), signed(limit.events)])?;
    let mut stretch = Stretch { head: Some(head), events: Vec::new() };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let record = row.get_ref(1)?.as_blob()?;
        let record = Record::decode(record).ok_or(rusqlite::Error::InvalidQuery)?;
        bytes += record.frame.len();
        if bytes > limit.bytes && !stretch.events.is_empty() {
            break;
        }
        stretch.events.push((place(row, 0)?, record));
    }
    Ok(stretch)
}

pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Newest> {
    connection.prepare_cached("SELECT head, head_id FROM log")?.query_row([], |row| {
        let id: Option<String> = row.get(1)?;
        Ok(Newest { place: place(row, 0)?, id: id.as_deref().map(EventId::from_log) })
    })
}

/// What is left, from the difference between both ends; first how many updates.
pub(super) fn measure(connection: &Connection) -> rusqlite::Result<(u64, Measure)> {
    let difference = connection
        .prepare_cached(
            "SELECT log.head + 1 - place, log.published - published_before,
                log.bytes - bytes_before FROM events, log ORDER BY place LIMIT 1",
        )?
        .query_row([], |row| {
            let measure = Measure { events: place(row, 0)?, bytes: place(row, 2)? };
            Ok((place(row, 1)?, measure))
        });
    Ok(difference.optional()?.unwrap_or_default())
}

/// Drops some of what is past the retention; whether there may be more, and what is left.
pub(super) fn trim(
    connection: &Connection,
    retention: &Retention,
    now: Duration,
) -> rusqlite::Result<(bool, (u64, Measure))> {
    let oldest = retention.age.map_or(0, |age| milliseconds(now.saturating_sub(age)));
    let (events, bytes) = (signed(retention.events), signed(retention.bytes));
    // The sums grow with the place, so what is past the retention is at the beginning.
    let dropped = connection
        .prepare_cached(
            "DELETE FROM events WHERE place <= (
                SELECT max(place) FROM
                    (SELECT place, published_before, bytes_before, at FROM events
                        ORDER BY place LIMIT ?4),
                    (SELECT published, bytes FROM log)
                WHERE published - published_before > ?1 OR bytes - bytes_before > ?2
                    OR at < ?3
            )",
        )?
        .execute(params![events, bytes, oldest, TRIM as i64])?;
    Ok((dropped == TRIM, measure(connection)?))
}

/// A number that is never negative.
fn place(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number as u64)
}
