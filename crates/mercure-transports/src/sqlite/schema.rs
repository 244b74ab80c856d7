use mercure_engine::TransportError;
use rusqlite::Connection;

use super::explain;
use crate::store::{Outcome, newer};

/// Marks the file as ours ("Merc"), for `file` and for a look at a strange one.
const APPLICATION: i64 = 0x4d65_7263;

/// How to get from each version to the next one; the version is how many were applied.
const MIGRATIONS: &[&str] = &[
    // `published` and `bytes` add up over the whole log, so that a stretch is measured by its ends.
    "CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        head INTEGER NOT NULL,
        head_id TEXT,
        published INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    );
    INSERT INTO log VALUES (1, 0, NULL, 0, 0);
    CREATE TABLE events (
        place INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        at INTEGER NOT NULL,
        published_before INTEGER NOT NULL,
        bytes_before INTEGER NOT NULL,
        record BLOB NOT NULL
    );
    CREATE INDEX events_by_id ON events (id, place);",
    "CREATE TABLE nodes (node TEXT PRIMARY KEY);
    CREATE TABLE attendances (
        node TEXT NOT NULL,
        subscriber BLOB NOT NULL,
        entry TEXT NOT NULL,
        PRIMARY KEY (node, subscriber)
    ) WITHOUT ROWID;
    ALTER TABLE log ADD COLUMN roster INTEGER NOT NULL DEFAULT 0;",
    // What is in `ids` already: every event through `indexed`.
    "DROP INDEX events_by_id;
    CREATE TABLE ids (
        hash INTEGER NOT NULL,
        place INTEGER NOT NULL,
        PRIMARY KEY (hash, place)
    ) WITHOUT ROWID;
    ALTER TABLE log ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;",
];

/// How every connection works.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Of a new file: a batch is fewer writes than with smaller ones.
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // 16 MiB: pages that every batch writes are copied into the file the less often.
    connection.pragma_update(None, "wal_autocheckpoint", 2000)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Whether the file has to be migrated.
pub(super) fn is_old(connection: &Connection) -> Outcome<bool> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let version = version.map_err(|error| explain(&error))?;
    Ok((1..MIGRATIONS.len() as i64).contains(&version))
}

/// Brings the file to this version.
pub(super) fn migrate(connection: &mut Connection) -> Outcome<()> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (
        number("user_version").map_err(|error| explain(&error))?,
        number("application_id").map_err(|error| explain(&error))?,
    );
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| explain(&error))?;
    if application != APPLICATION && tables > 0 {
        let reason = "the file is a database of something else; choose another one";
        return Err(TransportError::Refused(reason.to_owned()));
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(newer("the file", version, known));
    }
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        let change = connection.transaction().map_err(|error| explain(&error))?;
        change.execute_batch(migration).map_err(|error| explain(&error))?;
        change
            .pragma_update(None, "application_id", APPLICATION)
            .map_err(|error| explain(&error))?;
        change
            .pragma_update(None, "user_version", step as i64 + 1)
            .map_err(|error| explain(&error))?;
        change.commit().map_err(|error| explain(&error))?;
    }
    Ok(())
}
