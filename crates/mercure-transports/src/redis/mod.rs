//! The log in a Redis or Valkey stream.
//!
//! **Durability**: an acknowledged event is where Redis keeps what it has acknowledged. With
//! `appendonly yes` and `appendfsync always` that is the disk; with `everysec` up to a second may be
//! lost when the machine dies; without persistence, everything when the server restarts. With
//! `min_replicas=n` it is in the memory of n replicas as well. The hub says at its start what the
//! server is set to.
//!
//! Every change is one script, so it happens as a whole or not at all, in one order for all nodes.
//! Nothing is sent by Redis' publish and subscribe: nodes read the stream from their cursors.

mod connection;
mod scripts;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mercure_engine::{
    Change, Claimed, Measure, ReadLimit, Record, Retention, RosterEntry, Standing, TransportError,
};
use mercure_protocol::EventId;
use redis::Value;
use redis::streams::StreamReadReply;

use self::connection::{Connections, explain};
use self::scripts::Scripts;
use crate::address::{Address, ConnectError};
use crate::store::{Newest, Outcome, Place, Store, Stretch, damaged, milliseconds, newer};

/// The version of what is kept, in case it ever has to change.
const FORMAT: u32 = 1;
/// Events dropped by one script, so that no script runs for long.
const TRIM: usize = 2048;
/// How long to wait for news, in milliseconds.
const BLOCK: usize = 4000;
/// How long replicas may take, in milliseconds.
const REPLICAS: usize = 2000;

/// A log in Redis.
pub(crate) struct Redis {
    connections: Connections,
    scripts: Scripts,
    keys: Keys,
    min_replicas: u32,
}

/// The keys of a log; in braces what decides a key's place in a cluster, so that they stay together.
struct Keys {
    log: String,
    ids: String,
    duplicates: String,
    meta: String,
    nodes: String,
    claims: String,
    /// Followed by a node's name.
    node: String,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("log", &self.keys.log).finish_non_exhaustive()
    }
}

impl Redis {
    pub(crate) fn new(address: &Address) -> Result<Self, ConnectError> {
        let key = |name: &str| format!("{{{}}}:{name}", address.namespace);
        Ok(Self {
            connections: Connections::new(address)?,
            scripts: Scripts::new(),
            keys: Keys {
                log: key("log"),
                ids: key("ids"),
                duplicates: key("duplicates"),
                meta: key("meta"),
                nodes: key("nodes"),
                claims: key("claims"),
                node: key("node:"),
            },
            min_replicas: address.number("min_replicas")?.unwrap_or(0),
        })
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        invocation: &redis::ScriptInvocation<'_>,
    ) -> Outcome<T> {
        self.connections
            .commands(async |connection| invocation.invoke_async(connection).await)
            .await
    }

    fn log_script<'a>(&'a self, script: &'a redis::Script) -> redis::ScriptInvocation<'a> {
        let keys = &self.keys;
        let mut invocation = script.prepare_invoke();
        invocation.key(&keys.log).key(&keys.ids).key(&keys.duplicates).key(&keys.meta);
        invocation
    }

    fn roster_script<'a>(&'a self, script: &'a redis::Script) -> redis::ScriptInvocation<'a> {
        let keys = &self.keys;
        let mut invocation = script.prepare_invoke();
        invocation.key(&keys.nodes).key(&keys.claims).key(&keys.meta).arg(&keys.node);
        invocation
    }
}

impl Store for Redis {
    const NAME: &'static str = "Redis";

    async fn open(&self) -> Outcome<()> {
        let mut open = self.scripts.open.prepare_invoke();
        open.key(&self.keys.meta).arg(FORMAT);
        let format: u32 = self.run(&open).await?;
        if format > FORMAT {
            return Err(newer("the log", format, FORMAT));
        }
        self.connections.warn_of_loss().await;
        Ok(())
    }

    async fn append(&self, batch: &[Record]) -> Outcome<Vec<Outcome<Place>>> {
        let mut append = self.log_script(&self.scripts.append);
        append.arg(batch.len());
        let mut encoded = Vec::new();
        for record in batch {
            encoded.clear();
            record.encode(&mut encoded);
            let counted = u8::from(!record.of_subscription);
            append.arg(record.id.as_str()).arg(counted).arg(record.size()).arg(&encoded);
        }
        let wait = redis::cmd("WAIT").arg(self.min_replicas).arg(REPLICAS).to_owned();
        let asked = self.connections.commands(async |connection| {
            let places: Vec<Place> = append.invoke_async(connection).await?;
            // On the same connection: it is asked for what that has written.
            let confirmed: u32 = match self.min_replicas {
                0 => 0,
                _ => wait.query_async(connection).await?,
            };
            Ok((places, confirmed))
        });
        let (places, confirmed) = asked.await?;
        if confirmed < self.min_replicas {
            return Err(TransportError::Unavailable(format!(
                "{confirmed} of {} replicas have confirmed in time",
                self.min_replicas
            )));
        }
        Ok(places.into_iter().map(Ok).collect())
    }

    async fn read(&self, after: Option<Place>, limit: ReadLimit) -> Outcome<Stretch> {
        let mut read = self.log_script(&self.scripts.read);
        let begin = after.map_or_else(|| "-".to_owned(), |place| format!("{}-0", place + 1));
        read.arg(begin).arg(limit.events).arg(limit.bytes);
        let (head, events): (Place, Vec<(String, Vec<u8>)>) = self.run(&read).await?;
        let events = events.into_iter().map(|(place, record)| event(&place, &record));
        Ok(Stretch { head: Some(head), events: events.collect::<Outcome<_>>()? })
    }

    async fn follow(&self, cursor: &AtomicU64) -> Outcome<Stretch> {
        let through = cursor.load(Ordering::Acquire);
        let mut read = redis::cmd("XREAD");
        read.arg("BLOCK").arg(BLOCK).arg("COUNT").arg(64);
        read.arg("STREAMS").arg(&self.keys.log).arg(format!("{through}-0"));
        let reply: Option<StreamReadReply> = self
            .connections
            .follower(async |connection| read.query_async(connection).await)
            .await?;
        let Some(stream) = reply.and_then(|reply| reply.keys.into_iter().next()) else {
            // Nothing new; or the log was emptied, and what is new comes before the cursor.
            let head = self.newest().await?.place;
            return Ok(Stretch { head: (head < through).then_some(head), events: Vec::new() });
        };
        let events = stream.ids.iter().map(|entry| {
            let record: Vec<u8> = entry.get("r").ok_or_else(damaged)?;
            event(&entry.id, &record)
        });
        Ok(Stretch { head: None, events: events.collect::<Outcome<_>>()? })
    }

    async fn locate(&self, id: &str) -> Outcome<Option<Place>> {
        let get = redis::cmd("HGET").arg(&self.keys.ids).arg(id).to_owned();
        self.connections.commands(async |connection| get.query_async(connection).await).await
    }

    async fn newest(&self) -> Outcome<Newest> {
        let get = redis::cmd("HMGET").arg(&self.keys.meta).arg("head").arg("head_id").to_owned();
        let (place, id): (Option<Place>, Option<String>) =
            self.connections.commands(async |connection| get.query_async(connection).await).await?;
        Ok(Newest {
            place: place.unwrap_or_default(),
            id: id.filter(|id| !id.is_empty()).as_deref().map(EventId::from_log),
        })
    }

    async fn trim(&self, retention: &Retention) -> Outcome<(u64, Measure)> {
        let age = retention.age.map_or(-1, milliseconds);
        loop {
            let mut trim = self.log_script(&self.scripts.trim);
            trim.arg(retention.events).arg(retention.bytes).arg(age).arg(TRIM);
            let (dropped, counted, events, bytes): (usize, u64, u64, u64) = self.run(&trim).await?;
            if dropped < TRIM {
                return Ok((counted, Measure { events, bytes }));
            }
        }
    }

    async fn measure(&self) -> Outcome<Measure> {
        let measure = self.log_script(&self.scripts.measure);
        let (_, _, events, bytes): (usize, u64, u64, u64) = self.run(&measure).await?;
        Ok(Measure { events, bytes })
    }

    async fn renew(&self, node: &str, lease: Duration) -> Outcome<Option<Standing>> {
        let mut renew = self.roster_script(&self.scripts.renew);
        renew.arg(node).arg(milliseconds(lease));
        let kept: Option<bool> = self.run(&renew).await?;
        Ok(kept.map(standing))
    }

    async fn note(&self, node: &str, changes: &[Change]) -> Outcome<Standing> {
        let mut note = self.roster_script(&self.scripts.note);
        note.arg(node);
        for change in changes {
            match change {
                Change::Came(entry) => {
                    note.arg(&entry.subscriber.as_bytes()[..]).arg(entry.encode());
                }
                Change::Went(subscriber) => {
                    note.arg(&subscriber.as_bytes()[..]).arg("");
                }
            }
        }
        Ok(standing(self.run(&note).await?))
    }

    async fn others(&self, node: &str) -> Outcome<(u64, Vec<RosterEntry>)> {
        let mut others = self.roster_script(&self.scripts.others);
        others.arg(node);
        let (version, entries): (u64, Vec<Vec<u8>>) = self.run(&others).await?;
        Ok((version, decode(&entries)))
    }

    async fn claim(&self, node: &str, lease: Duration) -> Outcome<Option<Claimed>> {
        let mut claim = self.roster_script(&self.scripts.claim);
        claim.arg(node).arg(milliseconds(lease));
        let claimed: Value = self.run(&claim).await?;
        if claimed == Value::Nil {
            return Ok(None);
        }
        let (dead, entries): (String, Vec<Vec<u8>>) =
            redis::from_redis_value(claimed).map_err(|error| explain(&error.into()))?;
        Ok(Some(Claimed { node: dead, entries: decode(&entries) }))
    }

    async fn bury(&self, node: &str) -> Outcome<()> {
        let mut bury = self.roster_script(&self.scripts.bury);
        bury.arg(node);
        self.run(&bury).await
    }
}

fn event(place: &str, record: &[u8]) -> Outcome<(Place, Record)> {
    let number = place.split('-').next().and_then(|number| number.parse().ok());
    number.zip(Record::decode(record)).ok_or_else(damaged)
}

fn standing(kept: bool) -> Standing {
    if kept { Standing::Kept } else { Standing::New }
}

fn decode(entries: &[Vec<u8>]) -> Vec<RosterEntry> {
    entries.iter().filter_map(|entry| RosterEntry::decode(entry)).collect()
}
