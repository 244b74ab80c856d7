//! Publications that few or none get.

use std::fs::File;
use std::io::Write as _;

use super::{Figures, SIZE, wanted};
use crate::crowd::Crowd;
use crate::dialect::{Publication, Query};
use crate::event;
use crate::latency::Latency;
use crate::press::Press;
use crate::publisher::Publisher;
use crate::servers::Server;

/// How a subscriber names its own topic.
#[derive(Debug, Clone, Copy)]
pub(super) enum Own {
    Topic,
    Template,
    Pattern,
}

/// Events that one subscriber gets.
pub(super) fn own_each(
    server: &Server,
    count: usize,
    events: u64,
    own: Own,
) -> anyhow::Result<Figures> {
    let topic = |number: usize| format!("https://example.com/users/{number}/news");
    let query = |number: usize| match own {
        Own::Topic => Query::Topics(vec![topic(number)]),
        Own::Template => {
            Query::Topics(vec![format!("https://example.com/users/{number}/%7Bkind%7D")])
        }
        Own::Pattern => Query::Pattern(format!("https://example.com/users/{number}/:kind")),
    };
    let subscribers =
        (0..count).map(|number| wanted(&server.dialect, &query(number), None)).collect();
    let crowd = Crowd::connect(server.address, subscribers)?;
    // Each in its turn, so that all get equally many.
    in_turns(server, crowd, events, 1, |at| (topic(at as usize % count), at / count as u64 + 1))
}

/// Groups of subscribers who share a hundred topics, each event for one topic of one group.
pub(super) fn many_topics(
    server: &Server,
    groups: usize,
    each: usize,
    events: u64,
) -> anyhow::Result<Figures> {
    const TOPICS: u64 = 100;
    let topic = |group: usize, number: u64| format!("https://example.com/groups/{group}/{number}");
    let query = |group| Query::Topics((0..TOPICS).map(|number| topic(group, number)).collect());
    let subscribers = (0..groups * each)
        .map(|number| wanted(&server.dialect, &query(number % groups), None))
        .collect();
    let crowd = Crowd::connect(server.address, subscribers)?;
    in_turns(server, crowd, events, each as u64, |at| {
        let (group, number) = (at as usize % groups, at / groups as u64);
        (topic(group, number % TOPICS), number + 1)
    })
}

/// Publishes events, each to a topic and with a number that its place tells, of which each has so
/// many receivers.
fn in_turns(
    server: &Server,
    crowd: Crowd,
    events: u64,
    receivers: u64,
    turn: impl Fn(u64) -> (String, u64),
) -> anyhow::Result<Figures> {
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let processes = server.processes();
    let before = processes.cpu();
    for at in 0..events {
        let (topic, number) = turn(at);
        publisher.send(&Publication::new(&topic, &event::data(number, SIZE)))?;
    }
    publisher.settle()?;
    crowd.received(events * receivers)?;
    let cpu = processes.cpu() - before;
    let latency = crowd.end()?.latency;
    Ok(Figures::from([
        ("cpu_us_per_publish", cpu.as_secs_f64() * 1e6 / events as f64),
        ("p99_us", latency.percentile(0.99)),
    ]))
}

/// Events that nobody gets, though so many are there.
pub(super) fn unheard(server: &Server, subscribers: usize, events: u64) -> anyhow::Result<Figures> {
    let query = |number| Query::Topics(vec![format!("https://example.com/users/{number}/news")]);
    let wanted =
        (0..subscribers).map(|number| wanted(&server.dialect, &query(number), None)).collect();
    let crowd = Crowd::connect(server.address, wanted)?;
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let (processes, begin) = (server.processes(), event::now());
    let before = processes.cpu();
    for number in 1..=events {
        publisher.send(&Publication::new("t", &event::data(number, SIZE)))?;
    }
    publisher.settle()?;
    let (cpu, took) = (processes.cpu() - before, event::now() - begin);
    anyhow::ensure!(crowd.count() == 0, "somebody got an event that was for nobody");
    crowd.end()?;
    Ok(Figures::from([
        ("cpu_us_per_publish", cpu.as_secs_f64() * 1e6 / events as f64),
        ("publishes_per_s", events as f64 / (took as f64 / 1e9)),
    ]))
}

/// One publisher, who has a sync for each event, and many, who share them.
pub(super) fn durable(server: &Server, publishers: usize, events: u64) -> anyhow::Result<Figures> {
    let sync = sync(server, events.div_ceil(50))?;
    let (one, one_at_a_time) = at_once(server, 1, events.div_ceil(20))?;
    let (many, shared) = at_once(server, publishers, events)?;
    Ok(Figures::from([
        ("sync_p50_us", sync.percentile(0.5)),
        ("publishes_per_s_of_one", one),
        ("publishes_per_s", many),
        ("times_one", many / one),
        ("p50_us_of_one", one_at_a_time.percentile(0.5)),
        ("p50_us", shared.percentile(0.5)),
    ]))
}

/// How long the disk takes for what one event needs: a page that is written and synced.
fn sync(server: &Server, count: u64) -> anyhow::Result<Latency> {
    let mut file = File::create(server.folder.path().join("sync"))?;
    let mut latency = Latency::default();
    for _ in 0..count {
        let begin = event::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        latency.add(event::now() - begin);
    }
    Ok(latency)
}

/// Events a second, and how long acknowledgements took.
fn at_once(server: &Server, publishers: usize, events: u64) -> anyhow::Result<(f64, Latency)> {
    let begin = event::now();
    let latency = Press::connect(server.address, &server.dialect, publishers)?.publish(events)?;
    let took = (event::now() - begin) as f64 / 1e9;
    Ok((events as f64 / took, latency))
}
