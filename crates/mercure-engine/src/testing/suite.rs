use std::sync::{Arc, Mutex, PoisonError};

use mercure_protocol::{EventId, HubUrl, Limits, Publication, Update};

use crate::event::{Event, Position, Record};
use crate::transport::{Batch, From, ReadLimit, Tail, Transport, TransportError};

const LIMIT: ReadLimit = ReadLimit { events: 1000, bytes: 1 << 20 };

/// Checks the contract of [`Transport`] on a fresh, empty one that retains the newest 20 events.
///
/// # Errors
/// What the transport reports.
///
/// # Panics
/// If the contract is broken, saying where.
pub async fn conformance(transport: Arc<dyn Transport>) -> Result<(), TransportError> {
    let tail = Arc::new(Recorder::default());
    let start = transport.start(Arc::<Recorder>::clone(&tail)).await?;
    starts_empty(&*transport, start).await?;
    appends_in_order(&*transport, &tail).await?;
    reads_from_any_place(&*transport).await?;
    finds_the_earliest_duplicate(&*transport).await?;
    reports_what_is_gone(&*transport).await?;
    keeps_order_under_concurrency(transport, &tail).await
}

async fn starts_empty(transport: &dyn Transport, start: Position) -> Result<(), TransportError> {
    let head = transport.head().await?;
    assert_eq!((head.position, head.id), (start, None), "an empty log has no newest event");
    assert_eq!(ids(transport, From::Oldest).await?, Some(Vec::new()));
    assert_eq!(transport.locate("a").await?, None);
    Ok(())
}

async fn appends_in_order(
    transport: &dyn Transport,
    tail: &Recorder,
) -> Result<(), TransportError> {
    let mut before = Position::START;
    for id in ["a", "b", "c"] {
        let position = transport.append(record(id)).await?;
        assert!(position > before, "positions grow");
        assert_eq!(transport.head().await?.position, position);
        assert_eq!(transport.locate(id).await?, Some(position));
        before = position;
    }
    assert_eq!(transport.head().await?.id.map(|id| id.to_string()), Some("c".to_owned()));
    assert_eq!(tail.ids(), ["a", "b", "c"], "the tail hears every event, in order");
    Ok(())
}

async fn reads_from_any_place(transport: &dyn Transport) -> Result<(), TransportError> {
    let all = ids(transport, From::Oldest).await?.expect("nothing is gone");
    assert_eq!(all, ["a", "b", "c"]);
    for (at, id) in all.iter().enumerate() {
        let position = transport.locate(id).await?.expect("retained");
        assert_eq!(ids(transport, From::After(position)).await?.as_deref(), Some(&all[at + 1..]));
    }
    let one = ReadLimit { events: 1, bytes: 1 };
    let Batch::Events(events) = transport.read(From::Oldest, one).await? else {
        panic!("nothing is gone")
    };
    assert_eq!(events.len(), 1, "at least one event, however small the limit");
    assert_eq!(events[0].record, record("a"), "what was accepted is what is read");
    Ok(())
}

async fn finds_the_earliest_duplicate(transport: &dyn Transport) -> Result<(), TransportError> {
    let first = transport.append(record("twice")).await?;
    transport.append(record("between")).await?;
    let second = transport.append(record("twice")).await?;
    assert!(second > first);
    assert_eq!(transport.locate("twice").await?, Some(first));
    let after = ids(transport, From::After(first)).await?;
    assert_eq!(after, Some(vec!["between".to_owned(), "twice".to_owned()]));
    Ok(())
}

async fn reports_what_is_gone(transport: &dyn Transport) -> Result<(), TransportError> {
    let early = transport.locate("b").await?.expect("retained");
    let first = transport.locate("twice").await?.expect("retained");
    // 20 are retained: "twice", "between" and "twice" are the oldest, the first one just dropped.
    for number in 0..18 {
        transport.append(record(&format!("n{number}"))).await?;
    }
    assert_eq!(transport.locate("b").await?, None);
    assert_eq!(ids(transport, From::After(early)).await?, None, "a dropped stretch is Gone");
    let second = transport.locate("twice").await?.expect("its later occurrence is retained");
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

async fn keeps_order_under_concurrency(
    transport: Arc<dyn Transport>,
    tail: &Recorder,
) -> Result<(), TransportError> {
    let before = tail.ids().len();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                for number in 0..50 {
                    transport.append(record(&format!("w{writer}-{number}"))).await?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, TransportError>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic")?;
    }
    let heard = tail.ids().split_off(before);
    assert_eq!(heard.len(), 400, "every event once");
    for writer in 0..8 {
        let prefix = format!("w{writer}-");
        let mine: Vec<_> = heard.iter().filter(|id| id.starts_with(&prefix)).collect();
        let expected: Vec<_> = (0..50).map(|number| format!("{prefix}{number}")).collect();
        assert!(mine.into_iter().eq(&expected), "one publisher's events keep their order");
    }
    let retained = ids(&*transport, From::Oldest).await?.expect("always possible");
    assert_eq!(retained, heard[heard.len() - 20..], "the tail's order is the log's");
    Ok(())
}

/// The ids of a stretch; `None` if it is gone.
async fn ids(transport: &dyn Transport, from: From) -> Result<Option<Vec<String>>, TransportError> {
    Ok(match transport.read(from, LIMIT).await? {
        Batch::Gone => None,
        Batch::Events(events) => {
            Some(events.iter().map(|event| event.record.id.to_string()).collect())
        }
    })
}

fn record(id: &str) -> Record {
    let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
    let limits = Limits::default();
    let raw = Publication { topics: vec!["t", "u"], data: "x", ..Publication::default() };
    let update = Update::new(&raw, &hub, &limits).expect("update");
    Record::new(&update, EventId::parse(id, &limits).expect("id"))
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tail for Recorder {
    fn on_event(&self, event: Arc<Event>) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.push(event.record.id.to_string());
    }
}
