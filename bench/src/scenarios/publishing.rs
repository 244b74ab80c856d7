//! Publications that few or none get.

use super::{Figures, SIZE, wanted};
use crate::crowd::Crowd;
use crate::dialect::Query;
use crate::event;
use crate::latency::Latency;
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
    let subscribers = (0..count).map(|number| wanted(server, &query(number), None)).collect();
    let crowd = Crowd::connect(server.address, subscribers)?;
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let processes = server.processes();
    let before = processes.cpu();
    for at in 0..events {
        // Each in its turn, so that all get equally many.
        let (number, who) = (at / count as u64 + 1, (at % count as u64) as usize);
        publisher.send(&[(&topic(who), &event::data(number, SIZE))])?;
    }
    publisher.settle()?;
    crowd.received(events)?;
    let cpu = processes.cpu() - before;
    let latency = crowd.end()?;
    Ok(Figures::from([
        ("cpu_us_per_publish", cpu.as_secs_f64() * 1e6 / events as f64),
        ("p99_us", latency.percentile(0.99)),
    ]))
}

/// Events that nobody gets.
pub(super) fn alone(server: &Server, events: u64) -> anyhow::Result<Figures> {
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let (processes, begin) = (server.processes(), event::now());
    let before = processes.cpu();
    for number in 1..=events {
        publisher.send(&[("t", &event::data(number, SIZE))])?;
    }
    publisher.settle()?;
    let (cpu, took) = (processes.cpu() - before, event::now() - begin);
    Ok(Figures::from([
        ("cpu_us_per_publish", cpu.as_secs_f64() * 1e6 / events as f64),
        ("publishes_per_s", events as f64 / (took as f64 / 1e9)),
    ]))
}

/// One publisher, who has a sync for each event, and many, who share them.
pub(super) fn durable(server: &Server, publishers: usize, events: u64) -> anyhow::Result<Figures> {
    let (one, one_at_a_time) = at_once(server, 1, events.div_ceil(20))?;
    let (many, shared) = at_once(server, publishers, events)?;
    Ok(Figures::from([
        ("publishes_per_s_of_one", one),
        ("publishes_per_s", many),
        ("times_one", many / one),
        ("p50_us_of_one", one_at_a_time.percentile(0.5)),
        ("p50_us", shared.percentile(0.5)),
    ]))
}

/// Events a second, and how long acknowledgements took.
fn at_once(server: &Server, publishers: usize, events: u64) -> anyhow::Result<(f64, Latency)> {
    let each = events.div_ceil(publishers as u64);
    let begin = event::now();
    let latencies = std::thread::scope(|scope| {
        let publish = || -> anyhow::Result<Latency> {
            let mut publisher = Publisher::connect(server.address, &server.dialect)?;
            let mut latency = Latency::default();
            for number in 1..=each {
                let data = event::data(number, SIZE);
                let sent = event::now();
                publisher.publish("t", &data)?;
                latency.add(event::now() - sent);
            }
            Ok(latency)
        };
        let threads: Vec<_> = (0..publishers).map(|_| scope.spawn(publish)).collect();
        let results = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a publisher panicked")))
        });
        results.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let took = (event::now() - begin) as f64 / 1e9;
    let all = latencies.into_iter().fold(Latency::default(), Latency::with);
    Ok(((each * publishers as u64) as f64 / took, all))
}
