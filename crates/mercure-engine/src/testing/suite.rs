use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mercure_protocol::{EventId, HubUrl, Limits, Publication, Update};

use crate::event::{Event, Position, Record};
use crate::memory::Retention;
use crate::transport::{Batch, From, ReadLimit, Tail, Transport, TransportError};

const LIMIT: ReadLimit = ReadLimit { events: 1000, bytes: 1 << 20 };

/// An engine to judge: it makes logs, and nodes that share one.
pub trait Subject {
    /// Names a log that does not exist yet.
    fn fresh(&self) -> String;

    /// A node on a log.
    fn node(&self, log: &str, retention: Retention) -> Arc<dyn Transport>;

    /// Whether several nodes can share a log.
    fn is_shared(&self) -> bool;
}

/// Checks the contract of [`Transport`].
///
/// # Errors
/// What the transport reports.
///
/// # Panics
/// If the contract is broken, saying where.
pub async fn conformance(subject: &dyn Subject) -> Result<(), TransportError> {
    let twenty = Retention { events: 20, ..Retention::default() };
    let transport = subject.node(&subject.fresh(), twenty);
    let tail = Arc::new(Recorder::default());
    let start = transport.start(Arc::<Recorder>::clone(&tail)).await?;
    starts_empty(&*transport, start).await?;
    appends_in_order(&*transport, &tail).await?;
    reads_from_any_place(&*transport).await?;
    finds_the_earliest_duplicate(&*transport).await?;
    reports_what_is_gone(&*transport).await?;
    keeps_order_under_concurrency(subject).await?;
    tells_of_a_subscription_once(subject).await?;
    super::retention::conformance(subject).await?;
    if subject.is_shared() {
        super::nodes::conformance(subject).await?;
    }
    super::roster::conformance(subject).await
}

async fn starts_empty(transport: &dyn Transport, start: Position) -> Result<(), TransportError> {
    let head = answer(async || transport.head().await).await?;
    assert_eq!((head.position, head.id), (start, None), "an empty log has no newest event");
    assert_eq!(ids(transport, From::Oldest).await?, Some(Vec::new()));
    assert_eq!(place(transport, "a").await?, None);
    Ok(())
}

async fn appends_in_order(
    transport: &dyn Transport,
    tail: &Recorder,
) -> Result<(), TransportError> {
    let mut before = Position::START;
    for id in ["a", "b", "c"] {
        let position = accept(transport, id).await?;
        assert!(position > before, "positions grow");
        assert_eq!(answer(async || transport.head().await).await?.position, position);
        assert_eq!(place(transport, id).await?, Some(position));
        before = position;
    }
    assert_eq!(
        answer(async || transport.head().await).await?.id.map(|id| id.to_string()),
        Some("c".to_owned())
    );
    eventually("the tail hears every event, in order", async || Ok(tail.ids() == ["a", "b", "c"]))
        .await?;
    Ok(())
}

async fn reads_from_any_place(transport: &dyn Transport) -> Result<(), TransportError> {
    let all = ids(transport, From::Oldest).await?.expect("nothing is gone");
    assert_eq!(all, ["a", "b", "c"]);
    for (at, id) in all.iter().enumerate() {
        let position = place(transport, id).await?.expect("retained");
        assert_eq!(ids(transport, From::After(position)).await?.as_deref(), Some(&all[at + 1..]));
    }
    let one = ReadLimit { events: 1, bytes: 1 };
    let Batch::Events(events) = answer(async || transport.read(From::Oldest, one).await).await?
    else {
        panic!("nothing is gone")
    };
    assert_eq!(events.len(), 1, "at least one event, however small the limit");
    assert_eq!(events[0].record, record("a"), "what was accepted is what is read");
    Ok(())
}

async fn finds_the_earliest_duplicate(transport: &dyn Transport) -> Result<(), TransportError> {
    let first = accept_again(transport, "twice").await?;
    accept(transport, "between").await?;
    let second = accept_again(transport, "twice").await?;
    assert!(second > first);
    assert_eq!(place(transport, "twice").await?, Some(first));
    let after = ids(transport, From::After(first)).await?;
    assert_eq!(after, Some(vec!["between".to_owned(), "twice".to_owned()]));
    Ok(())
}

/// Whoever tells of a subscription what another one has told already changes nothing.
async fn tells_of_a_subscription_once(subject: &dyn Subject) -> Result<(), TransportError> {
    let transport = subject.node(&subject.fresh(), Retention::default());
    transport.start(Arc::new(Recorder::default())).await?;
    let told = Record { of_subscription: true, ..record("told") };
    let tell = async || transport.append(told.clone()).await;
    let first = answer(tell).await?;
    accept(&*transport, "between").await?;
    assert_eq!(answer(tell).await?, first, "it is where it was told first");
    let all = ids(&*transport, From::Oldest).await?;
    assert_eq!(all, Some(vec!["told".to_owned(), "between".to_owned()]));
    Ok(())
}

async fn reports_what_is_gone(transport: &dyn Transport) -> Result<(), TransportError> {
    let early = place(transport, "b").await?.expect("retained");
    let first = place(transport, "twice").await?.expect("retained");
    // 20 are retained: "twice", "between" and "twice" are the oldest, the first one just dropped.
    for number in 0..18 {
        accept(transport, &format!("n{number}")).await?;
    }
    eventually("the oldest is dropped", async || {
        Ok(place(transport, "b").await?.is_none()
            && place(transport, "twice").await?.is_some_and(|place| place > first))
    })
    .await?;
    assert_eq!(ids(transport, From::After(early)).await?, None, "a dropped stretch is Gone");
    let second = place(transport, "twice").await?.expect("its later occurrence is retained");
    assert!(second > first, "the earliest occurrence that is retained");
    let oldest = ids(transport, From::Oldest).await?.expect("always possible");
    assert_eq!(oldest.len(), 20);
    assert_eq!(oldest[0], "between");
    assert_eq!(
        ids(transport, From::After(first)).await?.map(|ids| ids.len()),
        Some(20),
        "a reader that has seen all that was dropped has missed nothing"
    );
    Ok(())
}

async fn keeps_order_under_concurrency(subject: &dyn Subject) -> Result<(), TransportError> {
    let transport = subject.node(&subject.fresh(), Retention::default());
    let tail = Arc::new(Recorder::default());
    transport.start(Arc::<Recorder>::clone(&tail)).await?;
    // At once, but in one task: each waits for its own answers only.
    let writers = (0..8).map(async |writer| {
        for number in 0..50 {
            accept(&*transport, &format!("w{writer}-{number}")).await?;
        }
        Ok::<_, TransportError>(())
    });
    futures_util::future::try_join_all(writers).await?;
    eventually("the tail hears every event", async || Ok(tail.ids().len() >= 400)).await?;
    let heard = tail.ids();
    assert_eq!(heard.len(), 400, "every event once");
    for writer in 0..8 {
        let prefix = format!("w{writer}-");
        let mine: Vec<_> = heard.iter().filter(|id| id.starts_with(&prefix)).collect();
        let expected: Vec<_> = (0..50).map(|number| format!("{prefix}{number}")).collect();
        assert!(mine.into_iter().eq(&expected), "one publisher's events keep their order");
    }
    let retained = ids(&*transport, From::Oldest).await?.expect("always possible");
    assert_eq!(retained, heard, "the tail's order is the log's");
    Ok(())
}

/// Appends, again if that fails and the log does not have it: the id makes that safe.
pub(super) async fn accept(
    transport: &dyn Transport,
    id: &str,
) -> Result<Position, TransportError> {
    loop {
        if let Ok(position) = transport.append(record(id)).await {
            return Ok(position);
        }
        tokio::time::sleep(MOMENT).await;
        if let Some(position) = answer(async || transport.locate(id).await).await? {
            return Ok(position);
        }
    }
}

/// The same for an id that the log may hold already.
async fn accept_again(transport: &dyn Transport, id: &str) -> Result<Position, TransportError> {
    let before = answer(async || transport.head().await).await?.position;
    loop {
        if let Ok(position) = transport.append(record(id)).await {
            return Ok(position);
        }
        tokio::time::sleep(MOMENT).await;
        let head = answer(async || transport.head().await).await?.position;
        if head > before {
            return Ok(head);
        }
    }
}

/// Where the log has an id.
async fn place(transport: &dyn Transport, id: &str) -> Result<Option<Position>, TransportError> {
    answer(async || transport.locate(id).await).await
}

/// Asks until there is an answer: a fault is followed by an attempt that works.
pub(super) async fn answer<T>(
    ask: impl AsyncFn() -> Result<T, TransportError>,
) -> Result<T, TransportError> {
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    loop {
        match ask().await {
            Err(TransportError::Unavailable(_)) if !deadline.is_elapsed() => {
                tokio::time::sleep(MOMENT).await;
            }
            answer => return answer,
        }
    }
}

/// Waits until something holds.
pub(super) async fn eventually(
    what: &str,
    holds: impl AsyncFn() -> Result<bool, TransportError>,
) -> Result<(), TransportError> {
    let wait = async {
        while !answer(&holds).await? {
            tokio::time::sleep(MOMENT).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

const PATIENCE: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(5);

/// The ids of what follows; `None` if it is gone.
pub(super) async fn ids(
    transport: &dyn Transport,
    mut from: From,
) -> Result<Option<Vec<String>>, TransportError> {
    let mut ids = Vec::new();
    loop {
        let batch = answer(async || transport.read(from, LIMIT).await).await?;
        let Batch::Events(events) = batch else { return Ok(None) };
        let Some(last) = events.last() else { return Ok(Some(ids)) };
        from = From::After(last.position);
        ids.extend(events.iter().map(|event| event.record.id.to_string()));
    }
}

pub(super) fn record(id: &str) -> Record {
    let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
    let limits = Limits::default();
    let raw = Publication { topics: vec!["t", "u"], data: "x", ..Publication::default() };
    let update = Update::new(&raw, &hub, &limits).expect("update");
    Record::new(&update, EventId::parse(id, &limits).expect("id"))
}

#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    pub(super) fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tail for Recorder {
    fn on_event(&self, event: Arc<Event>) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.push(event.record.id.to_string());
    }

    fn on_gap(&self, through: Position) {
        panic!("nothing was lost, but a gap is told through {through:?}");
    }
}
