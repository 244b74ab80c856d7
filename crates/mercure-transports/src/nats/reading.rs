//! Reading: what comes first is asked for event by event, because most who come back have missed
//! little, and a server takes longer to make a consumer the longer the log is. Whoever reads on does
//! so with a consumer, which the server keeps for a while, and so does the follower.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{Consumer, pull};
use futures_util::{FutureExt, StreamExt, stream};
use mercure_engine::{ReadLimit, Record, TransportError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connection::{self, Session, unavailable};
use crate::store::{Outcome, Place, Stretch, damaged, lock};

/// Readers who are expected to read on, and for how long.
const KEPT: usize = 64;
const FRESH: Duration = Duration::from_secs(20);
/// Events asked for one by one, by one reader and by all.
const GETS: usize = 16;
const ALL_GETS: usize = 256;
/// Messages asked for at once: together they may be larger than the limit by as much.
const PAGE: usize = 64;
/// How long to wait for news.
const WAIT: Duration = Duration::from_secs(4);

pub(super) struct Readers {
    /// What is in use is not here, and comes back only if it was used to the end: if that is given up
    /// halfway, what it has brought is lost.
    kept: Mutex<VecDeque<Kept>>,
    follower: Mutex<Option<Follower>>,
    gets: Semaphore,
}

/// A reader who is expected to read on.
struct Kept {
    /// The place after which it goes on.
    after: Place,
    /// `None` after the first page.
    consumer: Option<Consumer<pull::Config>>,
    since: Instant,
}

impl Default for Readers {
    fn default() -> Self {
        let (kept, follower) = (Mutex::default(), Mutex::default());
        Self { kept, follower, gets: Semaphore::new(ALL_GETS) }
    }
}

struct Follower {
    news: pull::Stream,
    /// The place of what it brings next.
    next: Place,
}

impl Readers {
    /// Consumers may be gone, as the server may be another one.
    pub(super) fn forget(&self) {
        lock(&self.kept).clear();
        *lock(&self.follower) = None;
    }

    pub(super) async fn read(
        &self,
        session: &Session,
        after: Option<Place>,
        limit: ReadLimit,
    ) -> Outcome<Stretch> {
        let known = after.and_then(|after| self.take(after));
        if let Some(after) = after
            && let Some(Kept { consumer: Some(consumer), .. }) = &known
            && let Ok(events) = self.read_with(consumer, limit).await
            // Only a new one can tell that something is missing, or that nothing follows.
            && events.first().is_some_and(|(place, _)| *place == after + 1)
        {
            self.keep(&events, known.and_then(|kept| kept.consumer));
            return Ok(Stretch { head: None, events });
        }
        // Before the reading: what nothing follows must not look as if it had been dropped.
        let state = session.log.get_info().await.map_err(unavailable)?.state;
        let (last, head) = (state.last_sequence, Some(state.last_sequence));
        if state.messages == 0 || after.is_some_and(|after| after >= last) {
            return Ok(Stretch { head, events: Vec::new() });
        }
        let begin = after.map_or(state.first_sequence, |after| after + 1);
        if known.is_none() {
            let events = self.get(session, begin, last, limit).await?;
            // What is missing was dropped just now, or is not to be had like this.
            if let Some((through, _)) = events.last() {
                if *through < last {
                    self.keep(&events, None);
                }
                return Ok(Stretch { head, events });
            }
        }
        let anew = async || {
            let consumer = session.log.create_consumer(session.reading_from(begin)).await;
            let consumer = consumer.map_err(unavailable)?;
            Ok((self.read_with(&consumer, limit).await?, consumer))
        };
        // Once more if the log was trimmed meanwhile.
        let (events, consumer) = match anew().await {
            Ok(read) => read,
            Err(_) => anew().await?,
        };
        self.keep(&events, Some(consumer));
        Ok(Stretch { head, events })
    }

    /// The first page, event by event.
    async fn get(
        &self,
        session: &Session,
        begin: Place,
        last: Place,
        limit: ReadLimit,
    ) -> Outcome<Vec<(Place, Record)>> {
        let places = (begin..=last).take(PAGE.min(limit.events));
        let get = async |place| {
            // Never closed.
            let _turn = self.gets.acquire().await.map_err(unavailable)?;
            session.get(place).await
        };
        let mut found = pin!(stream::iter(places).map(get).buffered(GETS));
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < limit.bytes
            && let Some(event) = found.next().await
        {
            let Some((place, record)) = event? else { continue };
            bytes += record.frame.len();
            events.push((place, record));
        }
        Ok(events)
    }

    fn take(&self, after: Place) -> Option<Kept> {
        let mut kept = lock(&self.kept);
        kept.retain(|kept| kept.since.elapsed() < FRESH);
        let at = kept.iter().position(|kept| kept.after == after)?;
        kept.remove(at)
    }

    fn keep(&self, events: &[(Place, Record)], consumer: Option<Consumer<pull::Config>>) {
        let Some((after, _)) = events.last() else { return };
        let mut kept = lock(&self.kept);
        kept.push_back(Kept { after: *after, consumer, since: Instant::now() });
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    async fn read_with(
        &self,
        consumer: &Consumer<pull::Config>,
        limit: ReadLimit,
    ) -> Outcome<Vec<(Place, Record)>> {
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < limit.events && bytes < limit.bytes {
            // Small events in large pages.
            let page =
                if bytes / events.len().max(1) < 1024 && !events.is_empty() { 512 } else { PAGE };
            let wanted = page.min(limit.events - events.len());
            let mut page = consumer.fetch().max_messages(wanted).messages().await;
            let page = page.as_mut().map_err(unavailable)?;
            let before = events.len();
            while let Some(message) = connection::next(page).await? {
                let (place, record) = event(&message)?;
                bytes += record.frame.len();
                events.push((place, record));
            }
            if events.len() - before < wanted {
                break;
            }
        }
        Ok(events)
    }

    pub(super) async fn follow(&self, session: &Session, cursor: &AtomicU64) -> Outcome<Stretch> {
        let through = cursor.load(Ordering::Acquire);
        let kept = lock(&self.follower).take();
        let mut follower = match kept.filter(|follower| follower.next <= through + 1) {
            Some(follower) => follower,
            None => Follower::new(session, through + 1).await?,
        };
        let Ok(first) = tokio::time::timeout(WAIT, follower.news.next()).await else {
            *lock(&self.follower) = Some(follower);
            // Nothing new; or the log was made anew, and what is new comes before the cursor.
            let state = session.log.get_info().await.map_err(unavailable)?.state;
            let head = (state.last_sequence < through).then_some(state.last_sequence);
            return Ok(Stretch { head, events: Vec::new() });
        };
        let mut events = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message.ok_or_else(|| unavailable("the consumer has ended"))?;
            events.push(event(&message.map_err(unavailable)?)?);
            next = if events.len() < PAGE { follower.news.next().now_or_never() } else { None };
        }
        if let (Some((first, _)), Some((last, _))) = (events.first(), events.last()) {
            let is_whole = *first == follower.next && last - first + 1 == events.len() as Place;
            follower.next = last + 1;
            if is_whole {
                *lock(&self.follower) = Some(follower);
                return Ok(Stretch { head: None, events });
            }
        }
        // A message was lost on its way, or dropped from the log: a look tells.
        let limit = ReadLimit { events: 1024, bytes: 1 << 20 };
        self.read(session, Some(cursor.load(Ordering::Acquire)), limit).await
    }
}

impl Follower {
    async fn new(session: &Session, next: Place) -> Outcome<Self> {
        let consumer = session.log.create_consumer(session.reading_from(next)).await;
        let news = consumer
            .map_err(unavailable)?
            .stream()
            .expires(Duration::from_secs(10))
            .heartbeat(Duration::from_secs(2))
            .messages()
            .await
            .map_err(unavailable)?;
        Ok(Self { news, next })
    }
}

impl Session {
    /// The event at a place, if there is one (any more).
    async fn get(&self, place: Place) -> Outcome<Option<(Place, Record)>> {
        match self.log.get_raw_message(place).await {
            Ok(message) => Ok(Some((place, Record::decode(&message.payload).ok_or_else(damaged)?))),
            Err(error) if connection::is_missing(&error) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }
}

fn event(message: &Message) -> Result<(Place, Record), TransportError> {
    let info = message.info().map_err(unavailable)?;
    let record = Record::decode(&message.payload).ok_or_else(damaged)?;
    Ok((info.stream_sequence, record))
}
