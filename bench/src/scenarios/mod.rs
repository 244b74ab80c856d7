//! What is measured, of one server at a time. Every scenario fails if an event is lost, repeated or
//! out of order.

mod fan_out;
mod publishing;
mod reading;

use std::collections::BTreeMap;

pub(crate) use self::fan_out::Fan;
use self::fan_out::Pace;
use self::publishing::Own;
use crate::crowd::{Manner, Wanted};
use crate::dialect::{Dialect, Query};
use crate::servers::{Kind, Server};

/// Bytes of data of an event.
pub(crate) const SIZE: usize = 256;

/// Figures of one server, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// Something to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it is, for tables.
    pub(crate) title: &'static str,
    /// Which servers can do it.
    pub(crate) kinds: &'static [Kind],
    /// What our hub is told beside the usual.
    pub(crate) arguments: &'static [&'static str],
    measure: Measure,
}

#[derive(Debug, Clone, Copy)]
enum Measure {
    FanOut(Fan, Pace),
    /// The same at half the rate that can be had at most.
    Half(Fan),
    /// Private events, slow readers: so many subscribers and events.
    Mixed(usize, u64),
    /// Subscribers who get nothing.
    Idle(usize),
    /// Subscribers over HTTP/2, and events that all get.
    Streams(usize, u64),
    /// Subscribers with a topic, template or pattern each, and publications for each in its turn.
    OwnEach(usize, u64, Own),
    /// Groups of so many, each with a hundred topics, and publications for each in its turn.
    ManyTopics(usize, usize, u64),
    /// Subscribers who listen to something else.
    Unheard(usize, u64),
    /// One publisher, then so many, who each wait for their acknowledgement.
    Durable(usize, u64),
    /// So many events, read by one subscriber, then by so many at once.
    Replay(u64, usize),
    /// Clients that come back at once, each having missed so many events.
    Storm(usize, u64),
}

const HUBS: &[Kind] = &[Kind::Hub, Kind::Nchan];
const OURS: &[Kind] = &[Kind::Hub];

/// How large they are: full, or so small that they show that it works, not how fast.
#[derive(Debug, Clone, Copy)]
struct Scale(u64);

impl Scale {
    fn count(self, full: u64) -> u64 {
        full.div_ceil(self.0)
    }

    fn some(self, full: u64) -> usize {
        self.count(full) as usize
    }

    fn fan(self, subscribers: u64, stalled: u64, events: u64) -> Fan {
        Fan {
            subscribers: self.some(subscribers),
            stalled: self.some(stalled),
            events: self.count(events),
        }
    }
}

/// All of them.
pub(crate) fn all(is_short: bool) -> Vec<Scenario> {
    let scale = Scale(if is_short { 50 } else { 1 });
    let mut scenarios = fan_outs(scale);
    scenarios.extend(publications(scale));
    scenarios.extend(readers(scale));
    scenarios
}

const fn scenario(
    name: &'static str,
    title: &'static str,
    kinds: &'static [Kind],
    measure: Measure,
) -> Scenario {
    Scenario { name, title, kinds, arguments: &[], measure }
}

fn fan_outs(scale: Scale) -> Vec<Scenario> {
    let fan_out =
        |name, title, kinds, fan, pace| scenario(name, title, kinds, Measure::FanOut(fan, pace));
    vec![
        fan_out(
            "paced-1k",
            "1,000 subscribers, 100 events/s",
            &Kind::ALL,
            scale.fan(1000, 0, 300),
            Pace::Every(10),
        ),
        fan_out(
            "paced-10k",
            "10,000 subscribers, one event at a time",
            &Kind::ALL,
            scale.fan(10_000, 0, 30),
            Pace::OneByOne,
        ),
        fan_out(
            "flat-1k",
            "1,000 subscribers, flat out",
            &Kind::ALL,
            scale.fan(1000, 0, 2000),
            Pace::FlatOut,
        ),
        fan_out(
            "flat-10k",
            "10,000 subscribers, flat out",
            &Kind::ALL,
            scale.fan(10_000, 0, 200),
            Pace::FlatOut,
        ),
        fan_out(
            "stalled",
            "10,000 subscribers, one event at a time, 100 do not read",
            HUBS,
            scale.fan(10_000, 100, 30),
            Pace::OneByOne,
        ),
        scenario(
            "half-10k",
            "10,000 subscribers, half of flat out",
            &Kind::ALL,
            Measure::Half(scale.fan(10_000, 0, 100)),
        ),
        scenario(
            "half-stalled",
            "10,000 subscribers, half of flat out, 100 do not read",
            HUBS,
            Measure::Half(scale.fan(10_000, 100, 100)),
        ),
        scenario(
            "mixed",
            "10,000 subscribers, 5 % private, 1 % slow",
            OURS,
            Measure::Mixed(scale.some(10_000), 40),
        ),
    ]
}

fn publications(scale: Scale) -> Vec<Scenario> {
    let own = |own| Measure::OwnEach(scale.some(10_000), scale.count(20_000), own);
    vec![
        scenario("own-topic", "10,000 subscribers, a topic each", HUBS, own(Own::Topic)),
        scenario(
            "own-template",
            "10,000 subscribers, a URI template each",
            OURS,
            own(Own::Template),
        ),
        scenario("own-pattern", "10,000 subscribers, a URL pattern each", OURS, own(Own::Pattern)),
        scenario(
            "many-topics",
            "1,000 subscribers, 100 topics each",
            OURS,
            Measure::ManyTopics(10, scale.some(100), scale.count(20_000)),
        ),
        scenario("publish", "no subscribers", HUBS, Measure::Unheard(0, scale.count(50_000))),
        scenario(
            "unheard",
            "10,000 subscribers of something else",
            HUBS,
            Measure::Unheard(scale.some(10_000), scale.count(50_000)),
        ),
        Scenario {
            arguments: &["--transport=sqlite://{folder}/hub.db"],
            ..scenario(
                "durable",
                "64 publishers, SQLite",
                OURS,
                Measure::Durable(64, scale.count(100_000)),
            )
        },
    ]
}

fn readers(scale: Scale) -> Vec<Scenario> {
    vec![
        // The crowd's own limit of descriptors is 20,000 on many machines.
        scenario("idle", "19,000 idle subscribers", &Kind::ALL, Measure::Idle(scale.some(19_000))),
        scenario(
            "http2",
            "100,000 subscribers over HTTP/2",
            OURS,
            Measure::Streams(scale.some(100_000), 3),
        ),
        scenario(
            "replay",
            "100,000 events read again",
            OURS,
            Measure::Replay(scale.count(100_000), 100),
        ),
        scenario(
            "storm",
            "10,000 subscribers come back at once",
            HUBS,
            Measure::Storm(scale.some(10_000), 20),
        ),
    ]
}

impl Scenario {
    /// Measures a server that was started for it.
    pub(crate) fn run(&self, server: &Server) -> anyhow::Result<Figures> {
        match self.measure {
            Measure::FanOut(fan, pace) => fan_out::run(server, fan, pace),
            Measure::Half(fan) => fan_out::half(server, fan),
            Measure::Mixed(subscribers, events) => fan_out::mixed(server, subscribers, events),
            Measure::Idle(subscribers) => reading::idle(server, subscribers),
            Measure::Streams(subscribers, events) => reading::streams(server, subscribers, events),
            Measure::OwnEach(subscribers, events, own) => {
                publishing::own_each(server, subscribers, events, own)
            }
            Measure::ManyTopics(groups, each, events) => {
                publishing::many_topics(server, groups, each, events)
            }
            Measure::Unheard(subscribers, events) => {
                publishing::unheard(server, subscribers, events)
            }
            Measure::Durable(publishers, events) => publishing::durable(server, publishers, events),
            Measure::Replay(events, subscribers) => reading::replay(server, events, subscribers),
            Measure::Storm(subscribers, missed) => reading::storm(server, subscribers, missed),
        }
    }
}

/// A subscriber that gets every event from the first one on.
fn wanted(dialect: &Dialect, query: &Query, cursor: Option<&str>) -> Wanted {
    Wanted {
        request: dialect.subscribe(query, cursor),
        manner: Manner::AtOnce,
        first: 1,
        all_but_each: 0,
    }
}

/// So many subscribers of one topic.
fn of_one_topic(dialect: &Dialect, count: usize, cursor: Option<&str>) -> Vec<Wanted> {
    let query = Query::Topics(vec!["t".to_owned()]);
    (0..count).map(|_| wanted(dialect, &query, cursor)).collect()
}
