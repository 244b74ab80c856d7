//! Events that everybody gets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Figures, SIZE, of_one_topic};
use crate::crowd::{Crowd, Manner, Wanted};
use crate::dialect::{Dialect, Publication, Query};
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

/// Who gets how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fan {
    pub(crate) subscribers: usize,
    /// How many of them do not read.
    pub(crate) stalled: usize,
    pub(crate) events: u64,
}

pub(super) fn run(server: &Server, fan: Fan, pace: Pace) -> anyhow::Result<Figures> {
    let mut load = Load::new(server.address, &server.dialect, fan)?;
    let (cpu, begin) = (server.processes().cpu(), Instant::now());
    load.publish(fan.events, pace)?;
    let (cpu, took) = (server.processes().cpu() - cpu, begin.elapsed());
    let deliveries = (fan.events * load.reading) as f64;
    let latency = load.crowd.end()?.latency;
    Ok(Figures::from([
        ("cpu_us_per_delivery", cpu.as_secs_f64() * 1e6 / deliveries),
        ("deliveries_per_s", deliveries / took.as_secs_f64()),
        ("p50_us", latency.percentile(0.5)),
        ("p99_us", latency.percentile(0.99)),
    ]))
}

/// How long deliveries take at half the rate that can be had at most, which is measured first.
pub(super) fn half(server: &Server, fan: Fan) -> anyhow::Result<Figures> {
    const SECONDS: f64 = 3.0;
    let mut load = Load::new(server.address, &server.dialect, fan)?;
    let begin = Instant::now();
    load.publish(fan.events, Pace::FlatOut)?;
    let interval = begin.elapsed().as_secs_f64() / fan.events as f64 * 2.0;
    load.crowd.forget();
    let (cpu, begin) = (server.processes().cpu(), Instant::now());
    let events = (SECONDS / interval).clamp(4.0, 5000.0) as u64;
    for number in 0..events {
        let due = Duration::from_secs_f64(interval * number as f64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        load.send()?;
    }
    load.arrive()?;
    let cpu = server.processes().cpu() - cpu;
    let (deliveries, latency) = ((events * load.reading) as f64, load.crowd.end()?.latency);
    Ok(Figures::from([
        ("cpu_us_per_delivery", cpu.as_secs_f64() * 1e6 / deliveries),
        ("deliveries_per_s", load.reading as f64 / interval),
        ("p50_us", latency.percentile(0.5)),
        ("p99_us", latency.percentile(0.99)),
    ]))
}

/// Everything at once: each 20th event is private, and each 20th subscriber may read it; each 100th
/// reads slowly.
pub(super) fn mixed(server: &Server, subscribers: usize, events: u64) -> anyhow::Result<Figures> {
    const EACH: u64 = 20;
    let query = Query::Topics(vec!["t".to_owned()]);
    let subscriber = |number: usize| {
        let may_read = number.is_multiple_of(EACH as usize);
        Wanted {
            request: match may_read {
                true => server.dialect.subscribe_privately(&query),
                false => server.dialect.subscribe(&query, None),
            },
            manner: if number % 100 == 7 { Manner::Slowly } else { Manner::AtOnce },
            first: 1,
            all_but_each: if may_read { 0 } else { EACH },
        }
    };
    let wanted: Vec<_> = (0..subscribers).map(subscriber).collect();
    let at_once = wanted.iter().filter(|wanted| wanted.manner == Manner::AtOnce);
    let all = at_once.clone().count() as u64;
    let privileged = at_once.filter(|wanted| wanted.all_but_each == 0).count() as u64;
    let crowd = Crowd::connect(server.address, wanted)?;
    let mut publisher = Publisher::connect(server.address, &server.dialect)?;
    let (cpu, mut deliveries) = (server.processes().cpu(), 0);
    for number in 1..=events {
        let data = event::data(number, SIZE);
        let is_private = number.is_multiple_of(EACH);
        publisher.send(&Publication { is_private, ..Publication::new("t", &data) })?;
        deliveries += if is_private { privileged } else { all };
        crowd.received(deliveries)?;
    }
    let cpu = server.processes().cpu() - cpu;
    let latency = crowd.end()?.latency;
    Ok(Figures::from([
        ("cpu_us_per_delivery", cpu.as_secs_f64() * 1e6 / deliveries as f64),
        ("p99_us", latency.percentile(0.99)),
    ]))
}

/// Subscribers of one topic, and who publishes to them.
struct Load {
    crowd: Crowd,
    publisher: Publisher,
    /// How many subscribers read.
    reading: u64,
    published: u64,
}

impl Load {
    fn new(address: SocketAddr, dialect: &Dialect, fan: Fan) -> anyhow::Result<Self> {
        let mut wanted = of_one_topic(dialect, fan.subscribers, None);
        wanted.iter_mut().take(fan.stalled).for_each(|wanted| wanted.manner = Manner::Never);
        Ok(Self {
            crowd: Crowd::connect(address, wanted)?,
            publisher: Publisher::connect(address, dialect)?,
            reading: (fan.subscribers - fan.stalled) as u64,
            published: 0,
        })
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.published += 1;
        self.publisher.send(&Publication::new("t", &event::data(self.published, SIZE)))
    }

    /// Publishes so many events, and waits until they have arrived.
    fn publish(&mut self, events: u64, pace: Pace) -> anyhow::Result<()> {
        for _ in 0..events {
            self.send()?;
            match pace {
                Pace::Every(milliseconds) => {
                    self.publisher.settle()?;
                    std::thread::sleep(Duration::from_millis(milliseconds));
                }
                Pace::OneByOne => self.crowd.received(self.published * self.reading)?,
                Pace::FlatOut => {}
            }
        }
        self.arrive()
    }

    fn arrive(&mut self) -> anyhow::Result<()> {
        self.publisher.settle()?;
        self.crowd.received(self.published * self.reading)
    }
}
