use std::time::Duration;

use mercure_engine::{Change, Claimed, RosterEntry, Standing};
use tokio_postgres::Error;

use super::connection::Connected;
use super::unsigned;

pub(super) async fn renew(
    writer: &Connected,
    node: &str,
    lease: Duration,
) -> Result<Option<Standing>, Error> {
    let renew = &writer.statements.renew;
    let row = writer.client.query_opt(renew, &[&node, &lease.as_secs_f64()]).await?;
    Ok(row.map(|row| if row.get(0) { Standing::New } else { Standing::Kept }))
}

pub(super) async fn note(
    writer: &Connected,
    node: &str,
    changes: &[Change],
) -> Result<Standing, Error> {
    let (mut went, mut came, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Came(entry) => {
                came.push(&entry.subscriber.as_bytes()[..]);
                entries.push(entry.encode());
            }
            Change::Went(subscriber) => went.push(&subscriber.as_bytes()[..]),
        }
    }
    let note = &writer.statements.note;
    let row = writer.client.query_one(note, &[&node, &went, &came, &entries]).await?;
    Ok(if row.get(0) { Standing::Kept } else { Standing::New })
}

pub(super) async fn others(
    reader: &Connected,
    node: &str,
) -> Result<(u64, Vec<RosterEntry>), Error> {
    let rows = reader.client.query(&reader.statements.others, &[&node]).await?;
    let version = rows.first().map_or(0, |row| unsigned(row.get(0)));
    let texts = rows.iter().filter_map(|row| row.get::<_, Option<&str>>(1));
    Ok((version, texts.filter_map(|text| RosterEntry::decode(text.as_bytes())).collect()))
}

pub(super) async fn claim(
    writer: &Connected,
    node: &str,
    lease: Duration,
) -> Result<Option<Claimed>, Error> {
    let claim = &writer.statements.claim;
    let Some(row) = writer.client.query_opt(claim, &[&node, &lease.as_secs_f64()]).await? else {
        return Ok(None);
    };
    let dead: String = row.get(0);
    let rows = writer.client.query(&writer.statements.entries, &[&dead]).await?;
    let entries =
        rows.iter().filter_map(|row| RosterEntry::decode(row.get::<_, &str>(0).as_bytes()));
    Ok(Some(Claimed { node: dead, entries: entries.collect() }))
}

pub(super) async fn bury(writer: &Connected, node: &str) -> Result<(), Error> {
    writer.client.execute(&writer.statements.bury, &[&node]).await.map(drop)
}
