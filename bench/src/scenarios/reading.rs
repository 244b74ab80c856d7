//! Subscribers who wait, and those who come back.

use super::{Figures, SIZE, of_one_topic};
use crate::crowd::Crowd;
use crate::event;
use crate::publisher::Publisher;
use crate::servers::Server;

/// Subscribers who get nothing.
pub(super) fn idle(server: &Server, count: usize) -> anyhow::Result<Figures> {
    let processes = server.processes();
    let (memory, cpu) = (processes.memory(), processes.cpu());
    let crowd = Crowd::connect(server.address, of_one_topic(server, count, None))?;
    let cpu = processes.cpu() - cpu;
    let memory = processes.memory().saturating_sub(memory);
    crowd.end()?;
    Ok(Figures::from([
        ("bytes_per_subscriber", memory as f64 / count as f64),
        ("cpu_us_per_connect", cpu.as_secs_f64() * 1e6 / count as f64),
    ]))
}

/// A log that is read from its beginning, by one subscriber and by many.
pub(super) fn replay(server: &Server, events: u64, many: usize) -> anyhow::Result<Figures> {
    fill(server, events)?;
    let (processes, idle) = (server.processes(), server.processes().memory());
    let rate = |count: usize| -> anyhow::Result<(f64, u64)> {
        let begin = event::now();
        let crowd = Crowd::connect(server.address, of_one_topic(server, count, Some("earliest")))?;
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

/// Many who come back at once.
pub(super) fn storm(server: &Server, count: usize, missed: u64) -> anyhow::Result<Figures> {
    fill(server, missed)?;
    let (processes, begin) = (server.processes(), event::now());
    let before = processes.cpu();
    let crowd = Crowd::connect(server.address, of_one_topic(server, count, Some("earliest")))?;
    crowd.received(missed * count as u64)?;
    let (cpu, took) = (processes.cpu() - before, event::now() - begin);
    crowd.end()?;
    Ok(Figures::from([
        ("cpu_us_per_connect", cpu.as_secs_f64() * 1e6 / count as f64),
        ("connects_per_s", count as f64 / (took as f64 / 1e9)),
    ]))
}

fn fill(server: &Server, events: u64) -> anyhow::Result<()> {
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    for number in 1..=events {
        publisher.send(&[("t", &event::data(number, SIZE))])?;
    }
    publisher.settle()
}
