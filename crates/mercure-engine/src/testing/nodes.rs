//! Several nodes on one log.

use std::collections::HashSet;
use std::sync::Arc;

use super::suite::{Recorder, Subject, accept, answer, eventually, ids};
use crate::memory::Retention;
use crate::transport::{From, Transport, TransportError};

pub(super) async fn conformance(subject: &dyn Subject) -> Result<(), TransportError> {
    let log = subject.fresh();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let (transport, tail) =
            (subject.node(&log, Retention::default()), Arc::new(Recorder::default()));
        transport.start(Arc::<Recorder>::clone(&tail)).await?;
        nodes.push((transport, tail));
    }
    one_order_for_all(&nodes).await?;
    late_comers_begin_at_the_head(subject, &log, &nodes).await?;
    logs_are_apart(subject).await
}

type Node = (Arc<dyn Transport>, Arc<Recorder>);

async fn one_order_for_all(nodes: &[Node]) -> Result<(), TransportError> {
    let writers = (0..nodes.len() * 3).map(async |writer| {
        for number in 0..40 {
            accept(&*nodes[writer % nodes.len()].0, &format!("w{writer}-{number}")).await?;
        }
        Ok::<_, TransportError>(())
    });
    futures_util::future::try_join_all(writers).await?;
    let total = nodes.len() * 3 * 40;
    for (_, tail) in nodes {
        eventually("every node hears of every event", async || Ok(tail.ids().len() >= total))
            .await?;
    }
    let order = ids(&*nodes[0].0, From::Oldest).await?.expect("nothing is gone");
    assert_eq!(order.iter().collect::<HashSet<_>>().len(), total, "every event once");
    for (transport, tail) in nodes {
        assert_eq!(tail.ids(), order, "every node hears the log's order");
        for id in order.iter().step_by(37) {
            let place = answer(async || transport.locate(id).await).await?;
            let place = place.expect("known at every node");
            let after = ids(&**transport, From::After(place)).await?.expect("nothing is gone");
            assert!(order.ends_with(&after) && !after.contains(id), "a cursor holds everywhere");
        }
    }
    Ok(())
}

async fn late_comers_begin_at_the_head(
    subject: &dyn Subject,
    log: &str,
    nodes: &[Node],
) -> Result<(), TransportError> {
    let (transport, tail) =
        (subject.node(log, Retention::default()), Arc::new(Recorder::default()));
    let start = transport.start(Arc::<Recorder>::clone(&tail)).await?;
    assert_eq!(answer(async || transport.head().await).await?.position, start);
    accept(&*nodes[1].0, "late").await?;
    eventually("a new node hears what comes", async || Ok(tail.ids() == ["late"])).await
}

async fn logs_are_apart(subject: &dyn Subject) -> Result<(), TransportError> {
    let other = subject.node(&subject.fresh(), Retention::default());
    other.start(Arc::new(Recorder::default())).await?;
    assert_eq!(ids(&*other, From::Oldest).await?, Some(Vec::new()));
    assert_eq!(answer(async || other.locate("late").await).await?, None);
    Ok(())
}
