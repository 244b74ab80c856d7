//! Subscribers who wait, and those who come back.

use super::{Figures, SIZE, of_one_topic, wanted};
use crate::crowd::{Crowd, Wanted};
use crate::dialect::{Publication, Query};
use crate::event;
use crate::publisher::Publisher;
use crate::servers::Server;
use crate::streams::Streams;

/// Subscribers who get nothing.
pub(super) fn idle(server: &Server, count: usize) -> anyhow::Result<Figures> {
    let processes = server.processes();
    let (memory, cpu) = (processes.memory(), processes.cpu());
    let crowd = Crowd::connect(server.address, of_one_topic(&server.dialect, count, None))?;
    let cpu = processes.cpu() - cpu;
    let memory = processes.memory().saturating_sub(memory);
    crowd.end()?;
    Ok(Figures::from([
        ("bytes_per_subscriber", memory as f64 / count as f64),
        ("cpu_us_per_connect", cpu.as_secs_f64() * 1e6 / count as f64),
    ]))
}

/// Subscribers over HTTP/2, many to a connection: first idle, then one event to all.
pub(super) fn streams(server: &Server, count: usize, events: u64) -> anyhow::Result<Figures> {
    let processes = server.processes();
    let (memory, cpu) = (processes.memory(), processes.cpu());
    let target = server.dialect.target(&Query::Topics(vec!["t".to_owned()]));
    let streams = Streams::open(server.address, &target, count)?;
    let connect = processes.cpu() - cpu;
    let memory = processes.memory().saturating_sub(memory);
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let cpu = processes.cpu();
    for number in 1..=events {
        publisher.send(&Publication::new("t", &event::data(number, SIZE)))?;
        streams.received(number * count as u64)?;
    }
    let cpu = processes.cpu() - cpu;
    Ok(Figures::from([
        ("bytes_per_subscriber", memory as f64 / count as f64),
        ("cpu_us_per_connect", connect.as_secs_f64() * 1e6 / count as f64),
        ("cpu_us_per_delivery", cpu.as_secs_f64() * 1e6 / (count as u64 * events) as f64),
    ]))
}

/// A log that is read from its beginning, by one subscriber and by many.
pub(super) fn replay(server: &Server, events: u64, many: usize) -> anyhow::Result<Figures> {
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    fill(&mut publisher, 1, events)?;
    let (processes, idle) = (server.processes(), server.processes().memory());
    let rate = |count: usize| -> anyhow::Result<(f64, u64)> {
        let begin = event::now();
        let crowd =
            Crowd::connect(server.address, of_one_topic(&server.dialect, count, Some("earliest")))?;
        crowd.received(events * count as u64)?;
        let took = (event::now() - begin) as f64 / 1e9;
        let memory = processes.memory();
        crowd.end()?;
        Ok(((events * count as u64) as f64 / took, memory.saturating_sub(idle)))
    };
    let (one, many) = (rate(1)?, rate(many)?);
    Ok(Figures::from([
        ("events_per_s_to_one", one.0),
        ("events_per_s_to_many", many.0),
        ("bytes_more_for_many", many.1 as f64),
    ]))
}

/// Many who were cut off after some events, and come back at once with the id of the last one.
pub(super) fn storm(server: &Server, count: usize, missed: u64) -> anyhow::Result<Figures> {
    const BEFORE: u64 = 5;
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let crowd = Crowd::connect(server.address, of_one_topic(&server.dialect, count, None))?;
    fill(&mut publisher, 1, BEFORE)?;
    crowd.received(BEFORE * count as u64)?;
    let last_id = crowd.end()?.last_id;
    fill(&mut publisher, BEFORE + 1, missed)?;
    let query = Query::Topics(vec!["t".to_owned()]);
    let back =
        |_| Wanted { first: BEFORE + 1, ..wanted(&server.dialect, &query, last_id.as_deref()) };
    let (processes, begin) = (server.processes(), event::now());
    let before = processes.cpu();
    let crowd = Crowd::connect(server.address, (0..count).map(back).collect())?;
    crowd.received(missed * count as u64)?;
    let (cpu, took) = (processes.cpu() - before, event::now() - begin);
    let peak = processes.peak_memory();
    crowd.end()?;
    Ok(Figures::from([
        ("cpu_us_per_connect", cpu.as_secs_f64() * 1e6 / count as f64),
        ("connects_per_s", count as f64 / (took as f64 / 1e9)),
        ("peak_bytes", peak as f64),
    ]))
}

fn fill(publisher: &mut Publisher, first: u64, events: u64) -> anyhow::Result<()> {
    for number in first..first + events {
        publisher.send(&Publication::new("t", &event::data(number, SIZE)))?;
    }
    publisher.settle()
}
