use mercure_engine::{Change, Claimed, RosterEntry, Standing};
use rusqlite::{Connection, params};

/// The hub that holds the file's lock is the only one there is.
pub(super) fn renew(connection: &Connection, node: &str) -> rusqlite::Result<Standing> {
    let new = connection
        .prepare_cached("INSERT INTO nodes VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([node])?;
    Ok(if new == 0 { Standing::Kept } else { Standing::New })
}

pub(super) fn note(
    connection: &mut Connection,
    node: &str,
    changes: &[Change],
) -> rusqlite::Result<()> {
    let all = connection.transaction()?;
    for change in changes {
        match change {
            Change::Came(entry) => all
                .prepare_cached("INSERT OR REPLACE INTO attendances VALUES (?1, ?2, ?3)")?
                .execute(params![node, entry.subscriber.as_bytes(), entry.encode()])?,
            Change::Went(subscriber) => all
                .prepare_cached("DELETE FROM attendances WHERE node = ?1 AND subscriber = ?2")?
                .execute(params![node, subscriber.as_bytes()])?,
        };
    }
    all.prepare_cached("UPDATE log SET roster = roster + 1")?.execute([])?;
    all.commit()
}

pub(super) fn others(
    connection: &Connection,
    node: &str,
) -> rusqlite::Result<(u64, Vec<RosterEntry>)> {
    let version: i64 =
        connection.prepare_cached("SELECT roster FROM log")?.query_row([], |row| row.get(0))?;
    Ok((
        version as u64,
        entries(connection, "SELECT entry FROM attendances WHERE node <> ?1", node)?,
    ))
}

/// Any other node is one that has died: its lock was free.
pub(super) fn claim(connection: &Connection, node: &str) -> rusqlite::Result<Option<Claimed>> {
    let mut others =
        connection.prepare_cached("SELECT node FROM nodes WHERE node <> ?1 LIMIT 1")?;
    let mut found = others.query([node])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let dead: String = row.get(0)?;
    let entries = entries(connection, "SELECT entry FROM attendances WHERE node = ?1", &dead)?;
    Ok(Some(Claimed { node: dead, entries }))
}

pub(super) fn bury(connection: &mut Connection, node: &str) -> rusqlite::Result<()> {
    let all = connection.transaction()?;
    all.execute("DELETE FROM attendances WHERE node = ?1", [node])?;
    all.execute("DELETE FROM nodes WHERE node = ?1", [node])?;
    all.execute("UPDATE log SET roster = roster + 1", [])?;
    all.commit()
}

fn entries(
    connection: &Connection,
    select: &str,
    node: &str,
) -> rusqlite::Result<Vec<RosterEntry>> {
    let mut statement = connection.prepare_cached(select)?;
    let texts = statement.query_map([node], |row| row.get::<_, String>(0))?;
    let entries = texts.map(|text| Ok(RosterEntry::decode(text?.as_bytes())));
    // What cannot be read was not written by a hub; nobody could tell its end either.
    entries.filter_map(Result::transpose).collect()
}
