//! Events that everybody gets.

use std::time::Duration;

use super::{Figures, SIZE, of_one_topic};
use crate::crowd::Crowd;
use crate::event;
use crate::publisher::Publisher;
use crate::servers::Server;

/// When the next event is published.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Some milliseconds after the last one.
    Every(u64),
    /// When the last one has arrived everywhere.
    OneByOne,
    /// As fast as publications are acknowledged.
    FlatOut,
}

pub(super) fn run(
    server: &Server,
    subscribers: usize,
    stalled: usize,
    events: u64,
    pace: Pace,
) -> anyhow::Result<Figures> {
    let mut wanted = of_one_topic(server, subscribers, None);
    wanted.iter_mut().take(stalled).for_each(|wanted| wanted.stalls = true);
    let reading = (subscribers - stalled) as u64;
    let crowd = Crowd::connect(server.address, wanted)?;
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let (processes, begin) = (server.processes(), event::now());
    let before = processes.cpu();
    for number in 1..=events {
        publisher.send(&[("t", &event::data(number, SIZE))])?;
        match pace {
            Pace::Every(milliseconds) => {
                publisher.settle()?;
                std::thread::sleep(Duration::from_millis(milliseconds));
            }
            Pace::OneByOne => crowd.received(number * reading)?,
            Pace::FlatOut => {}
        }
    }
    publisher.settle()?;
    let deliveries = events * reading;
    crowd.received(deliveries)?;
    let (cpu, took) = (processes.cpu() - before, event::now() - begin);
    let latency = crowd.end()?;
    Ok(Figures::from([
        ("cpu_us_per_delivery", cpu.as_secs_f64() * 1e6 / deliveries as f64),
        ("deliveries_per_s", deliveries as f64 / (took as f64 / 1e9)),
        ("p50_us", latency.percentile(0.5)),
        ("p99_us", latency.percentile(0.99)),
    ]))
}
