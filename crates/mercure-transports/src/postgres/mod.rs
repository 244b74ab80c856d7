//! The log in PostgreSQL tables, in a schema of its own.
//!
//! **Durability**: an acknowledged event is committed: on disk with `synchronous_commit` on (the
//! default), on a replica as well where `synchronous_standby_names` asks for it. The hub warns at its
//! start if the server is set to lose what it commits.
//!
//! **Order**: every append raises one counter in one row, whose lock it holds until it has committed,
//! so places become visible in order and without holes. `LISTEN` only wakes a node up; what there is
//! to tell is always read from the table.

mod connection;
mod roster;
mod schema;
mod statements;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mercure_engine::{
    Change, Claimed, Measure, ReadLimit, Record, Retention, RosterEntry, Standing, TransportError,
};
use mercure_protocol::EventId;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use self::connection::{Connected, Connections, Role, explain};
use crate::address::{Address, ConnectError};
use crate::store::{Newest, Outcome, Place, Store, Stretch, damaged, signed};

/// How long to wait for news.
const WAIT: Duration = Duration::from_secs(4);
/// Events dropped by one statement, so that none runs for long.
const TRIM: i64 = 4096;

/// A log in PostgreSQL.
pub(crate) struct Postgres {
    connections: Connections,
    schema: String,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Postgres {
    pub(crate) fn new(address: &Address) -> Result<Self, ConnectError> {
        Ok(Self { connections: Connections::new(address)?, schema: address.namespace.clone() })
    }

    async fn read_from(
        &self,
        reader: &Connected,
        after: Option<Place>,
        limit: ReadLimit,
    ) -> Outcome<Stretch> {
        let (after, events, bytes) = (after.map(signed), signed(limit.events), signed(limit.bytes));
        let read = &reader.statements.read;
        let rows = reader.answer(reader.client.query(read, &[&after, &events, &bytes])).await?;
        let mut stretch = Stretch::default();
        for row in &rows {
            stretch.head = Some(place(row, 0));
            let Some(number) = row.get::<_, Option<i64>>(1) else { continue };
            let record = Record::decode(row.get(2)).ok_or_else(damaged)?;
            stretch.events.push((unsigned(number), record));
        }
        Ok(stretch)
    }
}

impl Store for Postgres {
    const NAME: &'static str = "PostgreSQL";

    async fn open(&self) -> Outcome<()> {
        let mut client = self.connections.bare().await?;
        schema::migrate(&mut client, &self.schema).await?;
        connection::warn_of_loss(&client).await;
        Ok(())
    }

    async fn append(&self, batch: &[Record]) -> Outcome<Vec<Outcome<Place>>> {
        let writer = self.connections.of(Role::Writer, &self.schema).await?;
        let ids: Vec<&str> = batch.iter().map(|record| record.id.as_str()).collect();
        let told: Vec<bool> = batch.iter().map(|record| record.of_subscription).collect();
        let sizes: Vec<i64> = batch.iter().map(|record| signed(record.size())).collect();
        let records = batch.iter().map(|record| {
            let mut encoded = Vec::new();
            record.encode(&mut encoded);
            encoded
        });
        let records: Vec<Vec<u8>> = records.collect();
        let append = &writer.statements.append;
        let values: [&(dyn ToSql + Sync); 4] = [&ids, &told, &sizes, &records];
        let row = writer.client.query_one(append, &values);
        let places: Vec<i64> = writer.answer(row).await?.get(0);
        Ok(places.into_iter().map(|place| Ok(unsigned(place))).collect())
    }

    async fn read(&self, after: Option<Place>, limit: ReadLimit) -> Outcome<Stretch> {
        let reader = self.connections.of(Role::Reader, &self.schema).await?;
        self.read_from(&reader, after, limit).await
    }

    async fn follow(&self, cursor: &AtomicU64) -> Outcome<Stretch> {
        let reader = self.connections.of(Role::Reader, &self.schema).await?;
        let mut heads = reader.heads.clone();
        let has_news = |head: &Place| *head > cursor.load(Ordering::Acquire);
        match tokio::time::timeout(WAIT, heads.wait_for(has_news)).await {
            // There are news; or there was no word of any, which is no proof.
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(_)) => {
                return Err(TransportError::Unavailable("the connection was lost".to_owned()));
            }
        }
        let limit = ReadLimit { events: 1024, bytes: 1 << 20 };
        self.read_from(&reader, Some(cursor.load(Ordering::Acquire)), limit).await
    }

    async fn locate(&self, id: &str) -> Outcome<Option<Place>> {
        let reader = self.connections.of(Role::Reader, &self.schema).await?;
        let values: [&(dyn ToSql + Sync); 1] = [&id];
        let found = reader.client.query_opt(&reader.statements.locate, &values);
        Ok(reader.answer(found).await?.map(|row| place(&row, 0)))
    }

    async fn newest(&self) -> Outcome<Newest> {
        let reader = self.connections.of(Role::Reader, &self.schema).await?;
        let row = reader.client.query_one(&reader.statements.newest, &[]);
        let row = reader.answer(row).await?;
        let id: Option<&str> = row.get(1);
        Ok(Newest { place: place(&row, 0), id: id.map(EventId::from_log) })
    }

    async fn trim(&self, retention: &Retention) -> Outcome<(u64, Measure)> {
        let writer = self.connections.of(Role::Writer, &self.schema).await?;
        let (events, bytes) = (signed(retention.events), signed(retention.bytes));
        let age = retention.age.map(|age| age.as_secs_f64());
        loop {
            let dropped = writer
                .client
                .query_one(&writer.statements.trim, &[&events, &bytes, &age, &TRIM])
                .await
                .map_err(|error| explain(&error))?;
            let (count, through): (i64, Option<i64>) = (dropped.get(0), dropped.get(1));
            if let Some(through) = through {
                let raise = &writer.statements.raise_floor;
                let raised = writer.client.execute(raise, &[&through]).await;
                raised.map_err(|error| explain(&error))?;
            }
            if count < TRIM {
                let row = writer.client.query_one(&writer.statements.measure, &[]).await;
                return row.map(|row| measured(&row)).map_err(|error| explain(&error));
            }
        }
    }

    async fn measure(&self) -> Outcome<Measure> {
        let reader = self.connections.of(Role::Reader, &self.schema).await?;
        let row = reader.client.query_one(&reader.statements.measure, &[]).await;
        row.map(|row| measured(&row).1).map_err(|error| explain(&error))
    }

    async fn renew(&self, node: &str, lease: Duration) -> Outcome<Option<Standing>> {
        let writer = self.connections.of(Role::Writer, &self.schema).await?;
        roster::renew(&writer, node, lease).await.map_err(|error| explain(&error))
    }

    async fn note(&self, node: &str, changes: &[Change]) -> Outcome<Standing> {
        let writer = self.connections.of(Role::Writer, &self.schema).await?;
        roster::note(&writer, node, changes).await.map_err(|error| explain(&error))
    }

    async fn others(&self, node: &str) -> Outcome<(u64, Vec<RosterEntry>)> {
        let reader = self.connections.of(Role::Reader, &self.schema).await?;
        roster::others(&reader, node).await.map_err(|error| explain(&error))
    }

    async fn claim(&self, node: &str, lease: Duration) -> Outcome<Option<Claimed>> {
        let writer = self.connections.of(Role::Writer, &self.schema).await?;
        roster::claim(&writer, node, lease).await.map_err(|error| explain(&error))
    }

    async fn bury(&self, node: &str) -> Outcome<()> {
        let writer = self.connections.of(Role::Writer, &self.schema).await?;
        roster::bury(&writer, node).await.map_err(|error| explain(&error))
    }
}

fn measured(row: &Row) -> (u64, Measure) {
    (place(row, 0), Measure { events: place(row, 1), bytes: place(row, 2) })
}

/// PostgreSQL's numbers have a sign; ours are never negative, and far from the largest.
fn place(row: &Row, column: usize) -> u64 {
    unsigned(row.get(column))
}

fn unsigned(number: i64) -> u64 {
    number.unsigned_abs()
}
