//! What is dropped, and what is not.

use std::sync::Arc;
use std::time::Duration;

use mercure_protocol::{EventId, Limits};

use super::suite::{Recorder, Subject, accept, answer, eventually, ids, record};
use crate::event::Record;
use crate::memory::Retention;
use crate::transport::{From, Transport, TransportError};

pub(super) async fn conformance(subject: &dyn Subject) -> Result<(), TransportError> {
    by_age(subject).await?;
    by_bytes(subject).await?;
    not_by_subscriptions(subject).await?;
    what_is_measured(subject).await
}

async fn node(
    subject: &dyn Subject,
    retention: Retention,
) -> Result<Arc<dyn Transport>, TransportError> {
    let transport = subject.node(&subject.fresh(), retention);
    transport.start(Arc::new(Recorder::default())).await?;
    Ok(transport)
}

async fn by_age(subject: &dyn Subject) -> Result<(), TransportError> {
    let age = Some(Duration::from_secs(3));
    let transport = node(subject, Retention { age, ..Retention::default() }).await?;
    let position = accept(&*transport, "old").await?;
    eventually("an old event is dropped without anybody appending", async || {
        Ok(ids(&*transport, From::Oldest).await? == Some(Vec::new()))
    })
    .await?;
    let head = answer(async || transport.head().await).await?;
    assert_eq!(head.position, position, "the newest event ever accepted");
    assert_eq!(ids(&*transport, From::After(position)).await?, Some(Vec::new()));
    accept(&*transport, "new").await?;
    assert_eq!(ids(&*transport, From::After(position)).await?, Some(vec!["new".to_owned()]));
    Ok(())
}

async fn by_bytes(subject: &dyn Subject) -> Result<(), TransportError> {
    let bytes = record("n00").size() * 10;
    let transport = node(subject, Retention { bytes, ..Retention::default() }).await?;
    for number in 10..40 {
        accept(&*transport, &format!("n{number}")).await?;
    }
    eventually("the oldest are dropped", async || {
        let left = ids(&*transport, From::Oldest).await?.expect("always possible");
        assert_eq!(left.last().map(String::as_str), Some("n39"), "never the newest");
        assert!(left.len() >= 5, "no more than what the bound asks for, about: {left:?}");
        // What an event takes is each engine's own to say.
        Ok(left.len() <= 20)
    })
    .await
}

async fn not_by_subscriptions(subject: &dyn Subject) -> Result<(), TransportError> {
    let transport = node(subject, Retention { events: 5, ..Retention::default() }).await?;
    for number in 0..5 {
        accept(&*transport, &format!("p{number}")).await?;
    }
    for number in 0..20 {
        let id = EventId::parse(&format!("s{number}"), &Limits::default()).expect("id");
        let told = Record { id, of_subscription: true, ..record("x") };
        answer(async || transport.append(told.clone()).await).await?;
    }
    accept(&*transport, "p5").await?;
    eventually("the oldest update is dropped", async || {
        Ok(transport.locate("p0").await?.is_none())
    })
    .await?;
    let left = ids(&*transport, From::Oldest).await?.expect("always possible");
    let told = left.iter().filter(|id| id.starts_with('s')).count();
    assert!(told >= 20, "events that tell of subscriptions stay: {left:?}");
    assert_eq!(left.len() - told, 5, "and push nothing out: {left:?}");
    Ok(())
}

async fn what_is_measured(subject: &dyn Subject) -> Result<(), TransportError> {
    let transport = node(subject, Retention::default()).await?;
    assert_eq!(answer(async || transport.measure().await).await?.events, 0);
    for number in 0..7 {
        accept(&*transport, &format!("m{number}")).await?;
    }
    let measure = answer(async || transport.measure().await).await?;
    assert_eq!(measure.events, 7);
    assert!(measure.bytes > 0);
    Ok(())
}
