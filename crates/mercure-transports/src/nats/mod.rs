//! The log in a NATS JetStream stream.
//!
//! **Durability**: an acknowledged event is where JetStream keeps what it has acknowledged: in a file
//! that the server syncs now and then (`sync_interval`, two minutes unless set otherwise; `always` is
//! possible), on `replicas` servers of a cluster. One server that dies with its machine can lose what
//! it had not synced; a cluster of three does not.
//!
//! **Order**: a place is the stream's own sequence number. An event's subject holds a digest of its
//! id, which is how an id is found.

mod connection;
mod reading;
mod roster;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::State;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use mercure_engine::{
    Change, Claimed, Clock, Measure, ReadLimit, Record, Retention, RosterEntry, Standing,
    TransportError,
};
use mercure_protocol::EventId;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use self::connection::{Connections, Session, unavailable};
use self::reading::Readers;
use self::roster::Notes;
use crate::Purpose;
use crate::address::{Address, ConnectError};
use crate::store::{Newest, Outcome, Place, Store, Stretch, milliseconds};

/// What is found of events that tell of subscriptions at once.
const SCAN: usize = 1000;

/// A log in JetStream.
pub(crate) struct Nats {
    connections: Connections,
    readers: Readers,
    notes: Notes,
    told: Mutex<OfSubscriptions>,
    clock: Clock,
}

/// Where the events are that tell of subscriptions: all others count for the retention.
#[derive(Debug, Default)]
struct OfSubscriptions {
    places: VecDeque<Place>,
    /// Up to where they are known.
    through: Place,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.connections.names.log();
        f.debug_struct("Nats").field("stream", &stream).finish_non_exhaustive()
    }
}

impl Nats {
    pub(crate) fn new(
        address: &Address,
        purpose: Purpose,
        retention: Option<&Retention>,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        Ok(Self {
            connections: Connections::new(address, purpose, retention)?,
            readers: Readers::default(),
            notes: Notes::default(),
            told: Mutex::default(),
            clock,
        })
    }

    async fn session(&self) -> Outcome<Session> {
        self.connections.session().await
    }

    /// After a failure, what is known of the server is found out anew. Boxed, because the driver's
    /// futures are large, and would be in those of everybody who asks.
    async fn checked<T>(&self, asked: BoxFuture<'_, Outcome<T>>) -> Outcome<T> {
        let answer = asked.await;
        if answer.is_err() {
            self.connections.forget().await;
            self.readers.forget();
        }
        answer
    }

    /// Learns which of the events up to a place tell of subscriptions, and how many of those from
    /// `first` on do not. What was learned stays known if this is given up halfway.
    async fn count(&self, session: &Session, first: Place, last: Place) -> Outcome<u64> {
        let mut told = self.told.lock().await;
        if last < told.through {
            *told = OfSubscriptions::default();
        }
        let begin = first.max(told.through + 1);
        if begin <= last {
            told.learn(session, begin, last).await?;
        }
        while told.places.front().is_some_and(|place| *place < first) {
            told.places.pop_front();
        }
        let all = (last + 1).saturating_sub(first);
        Ok(all.saturating_sub(told.places.len() as u64))
    }

    /// The first place to keep.
    async fn floor(&self, first: Place, last: Place, keep: u64) -> Place {
        let told = self.told.lock().await;
        // How many count from a place on; falls as the place grows.
        let counted = |from: Place| {
            let before = told.places.partition_point(|place| *place < from);
            (last + 1 - from) - (told.places.len() - before) as u64
        };
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if counted(middle) > keep { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl OfSubscriptions {
    /// Looks at the subjects of a stretch. All of them: a server looks for some by trying each, anew
    /// for each message.
    async fn learn(&mut self, session: &Session, first: Place, last: Place) -> Outcome<()> {
        let config = pull::Config { headers_only: true, ..session.reading_from(first) };
        let consumer = session.log.create_consumer(config).await.map_err(unavailable)?;
        let sign = session.names.subject_of_told("");
        while self.through < last {
            let page = consumer.fetch().max_messages(SCAN).messages().await;
            let mut page = page.map_err(unavailable)?;
            let before = self.through;
            while let Some(message) = connection::next(&mut page).await? {
                let place = message.info().map_err(unavailable)?.stream_sequence;
                if place <= last && message.subject.starts_with(&sign) {
                    self.places.push_back(place);
                }
                self.through = place.min(last);
            }
            if self.through == before {
                // The rest was dropped.
                self.through = last;
            }
        }
        Ok(())
    }
}

impl Session {
    /// A reader that begins at a place and is forgotten when nobody asks it any more.
    fn reading_from(&self, place: Place) -> pull::Config {
        pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: place.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        }
    }

    /// The first place of an event that came later, in milliseconds since the epoch.
    async fn first_after(&self, time: i64, state: &State) -> Outcome<Place> {
        let (mut low, mut high) = (state.first_sequence, state.last_sequence + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.log.get_raw_message(middle).await {
                Ok(message) if message.time.unix_timestamp() * 1000 >= time => high = middle,
                Ok(_) => low = middle + 1,
                Err(error) if connection::is_missing(&error) => low = middle + 1,
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(low)
    }

    async fn earliest(&self, subject: String) -> Outcome<Option<Place>> {
        let found =
            self.log.raw_message_builder().sequence(1).next_by_subject(subject).send().await;
        match found {
            Ok(message) => Ok(Some(message.sequence)),
            Err(error) if connection::is_missing(&error) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl Store for Nats {
    const NAME: &'static str = "NATS";

    async fn open(&self) -> Outcome<()> {
        let session = self.session().await?;
        if session.replicas() < 2 {
            tracing::info!(
                "NATS keeps one copy of the log (replicas=1): it lasts as long as that server's disk"
            );
        }
        Ok(())
    }

    async fn append(&self, batch: &[Record]) -> Outcome<Vec<Outcome<Place>>> {
        self.checked(Box::pin(async {
            let session = self.session().await?;
            let most = session.jetstream.client().max_payload();
            let mut sent = Vec::with_capacity(batch.len());
            // All are under way before the first confirmation is waited for.
            for record in batch {
                sent.push(send(&session, record, most).await);
            }
            let confirmed = sent.into_iter().zip(batch);
            let confirmed = confirmed.map(|(sent, record)| confirmed_as(&session, sent, record));
            let confirmed = join_all(confirmed).await;
            if batch.is_empty() {
                session.log.get_info().await.map_err(unavailable)?;
            }
            // What the server does not answer to anybody says more of it than of a record.
            let away =
                |answer: &&Outcome<Place>| matches!(answer, Err(TransportError::Unavailable(_)));
            match confirmed.iter().find(away) {
                Some(Err(error)) if confirmed.iter().all(|answer| away(&answer)) => {
                    Err(error.clone())
                }
                _ => Ok(confirmed),
            }
        }))
        .await
    }

    async fn read(&self, after: Option<Place>, limit: ReadLimit) -> Outcome<Stretch> {
        self.checked(Box::pin(async {
            self.readers.read(&self.session().await?, after, limit).await
        }))
        .await
    }

    async fn follow(&self, cursor: &AtomicU64) -> Outcome<Stretch> {
        self.checked(Box::pin(async { self.readers.follow(&self.session().await?, cursor).await }))
            .await
    }

    async fn locate(&self, id: &str) -> Outcome<Option<Place>> {
        self.checked(Box::pin(async {
            let (session, digest) = (self.session().await?, digest(id));
            let (update, told) = tokio::try_join!(
                session.earliest(session.names.subject_of_update(&digest)),
                session.earliest(session.names.subject_of_told(&digest)),
            )?;
            Ok(update.into_iter().chain(told).min())
        }))
        .await
    }

    async fn newest(&self) -> Outcome<Newest> {
        self.checked(Box::pin(async {
            let session = self.session().await?;
            let state = session.log.get_info().await.map_err(unavailable)?.state;
            let place = state.last_sequence;
            if state.messages == 0 {
                return Ok(Newest { place, id: None });
            }
            let id = match session.log.get_raw_message(place).await {
                Ok(message) => Record::decode(&message.payload).map(|record| record.id),
                Err(error) if connection::is_missing(&error) => None,
                Err(error) => return Err(unavailable(error)),
            };
            Ok(Newest { place, id: id.map(|id| EventId::from_log(id.as_str())) })
        }))
        .await
    }

    /// Age and size are applied by the server itself as well; the number is not, because it counts
    /// updates only.
    async fn trim(&self, retention: &Retention) -> Outcome<(u64, Measure)> {
        self.checked(Box::pin(async {
            let session = self.session().await?;
            let state = session.log.get_info().await.map_err(unavailable)?.state;
            let (first, last) = (state.first_sequence, state.last_sequence);
            let counted = self.count(&session, first, last).await?;
            let keep = retention.events as u64;
            let mut floor = first;
            if counted > keep {
                floor = self.floor(first, last, keep).await;
            }
            if let Some(age) = retention.age.filter(|_| state.messages > 0) {
                let time = milliseconds(self.clock.unix_time().saturating_sub(age));
                floor = floor.max(session.first_after(time, &state).await?);
            }
            if floor == first {
                let measure = Measure { events: state.messages, bytes: state.bytes };
                return Ok((counted, measure));
            }
            session.log.purge().sequence(floor).await.map_err(unavailable)?;
            let state = session.log.get_info().await.map_err(unavailable)?.state;
            let counted = self.count(&session, state.first_sequence, state.last_sequence).await?;
            Ok((counted, Measure { events: state.messages, bytes: state.bytes }))
        }))
        .await
    }

    async fn measure(&self) -> Outcome<Measure> {
        self.checked(Box::pin(async {
            let info = self.session().await?.log.get_info().await.map_err(unavailable)?;
            Ok(Measure { events: info.state.messages, bytes: info.state.bytes })
        }))
        .await
    }

    async fn renew(&self, node: &str, lease: Duration) -> Outcome<Option<Standing>> {
        let session = self.session().await?;
        self.checked(Box::pin(self.notes.renew(&session, node, lease))).await
    }

    async fn note(&self, node: &str, changes: &[Change]) -> Outcome<Standing> {
        let session = self.session().await?;
        self.checked(Box::pin(self.notes.note(&session, node, changes))).await
    }

    async fn others(&self, node: &str) -> Outcome<(u64, Vec<RosterEntry>)> {
        let session = self.session().await?;
        self.checked(Box::pin(roster::others(&session, node))).await
    }

    async fn claim(&self, node: &str, lease: Duration) -> Outcome<Option<Claimed>> {
        let session = self.session().await?;
        self.checked(Box::pin(self.notes.claim(&session, node, lease))).await
    }

    async fn bury(&self, node: &str) -> Outcome<()> {
        let session = self.session().await?;
        self.checked(Box::pin(self.notes.bury(&session, node))).await
    }
}

/// Sends a record; its confirmation is to be waited for.
async fn send(session: &Session, record: &Record, most: usize) -> Outcome<PublishAckFuture> {
    let mut encoded = Vec::new();
    record.encode(&mut encoded);
    if encoded.len() > most {
        return Err(TransportError::TooLarge { most });
    }
    let digest = digest(record.id.as_str());
    let mut message = PublishMessage::build().payload(Bytes::from(encoded));
    let subject = match record.of_subscription {
        true => {
            // Told once, whoever tells it: the server takes it if nothing has this subject yet.
            message = message.expected_last_subject_sequence(0);
            session.names.subject_of_told(&digest)
        }
        false => session.names.subject_of_update(&digest),
    };
    session.jetstream.send_publish(subject, message).await.map_err(unavailable)
}

async fn confirmed_as(
    session: &Session,
    sent: Outcome<PublishAckFuture>,
    record: &Record,
) -> Outcome<Place> {
    match sent?.await {
        Ok(confirmation) => Ok(confirmation.sequence),
        // It was told already.
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
            let subject = session.names.subject_of_told(&digest(record.id.as_str()));
            session.earliest(subject).await?.ok_or_else(|| unavailable(error))
        }
        Err(error) => Err(unavailable(error)),
    }
}

/// What stands for an id in a subject, which could not hold all of its signs.
fn digest(id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
