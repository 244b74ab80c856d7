//! What is measured, of one server at a time. Every scenario fails if an event is lost, repeated or
//! out of order.

mod fan_out;
mod publishing;
mod reading;

use std::collections::BTreeMap;

use self::fan_out::Pace;
use self::publishing::Own;
use crate::crowd::Wanted;
use crate::dialect::Query;
use crate::servers::{Kind, Server};

/// Bytes of data of an event.
const SIZE: usize = 256;

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
    /// Subscribers of one topic, of whom some do not read, and so many events.
    FanOut { subscribers: usize, stalled: usize, events: u64, pace: Pace },
    /// Subscribers who get nothing.
    Idle(usize),
    /// Subscribers with a topic, template or pattern each, and publications for each in its turn.
    OwnEach(usize, u64, Own),
    /// No subscribers.
    PublishOnly(u64),
    /// One publisher, then so many, who each wait for their acknowledgement.
    Durable(usize, u64),
    /// So many events, read by one subscriber, then by so many at once.
    Replay(u64, usize),
    /// Clients that come back at once, each having missed so many events.
    Storm(usize, u64),
}

const HUBS: &[Kind] = &[Kind::Hub, Kind::Nchan];
const OURS: &[Kind] = &[Kind::Hub];

/// All of them; the short ones show that it works, not how fast.
pub(crate) fn all(is_short: bool) -> Vec<Scenario> {
    let some = |full: usize| if is_short { full.div_ceil(50) } else { full };
    let count = |full: u64| if is_short { full.div_ceil(50) } else { full };
    let scenario =
        |name, title, kinds, measure| Scenario { name, title, kinds, arguments: &[], measure };
    let fan_out = |subscribers, stalled, events, pace| Measure::FanOut {
        subscribers: some(subscribers),
        stalled: some(stalled),
        events: count(events),
        pace,
    };
    let own = |own| Measure::OwnEach(some(10_000), count(20_000), own);
    let durable = Scenario {
        arguments: &["--transport=sqlite://{folder}/hub.db"],
        ..scenario("durable", "64 publishers, SQLite", OURS, Measure::Durable(64, count(50_000)))
    };
    vec![
        scenario(
            "paced-1k",
            "1,000 subscribers, 100 events/s",
            &Kind::ALL,
            fan_out(1000, 0, 300, Pace::Every(10)),
        ),
        scenario(
            "paced-10k",
            "10,000 subscribers, one event at a time",
            &Kind::ALL,
            fan_out(10_000, 0, 30, Pace::OneByOne),
        ),
        scenario(
            "flat-1k",
            "1,000 subscribers, flat out",
            &Kind::ALL,
            fan_out(1000, 0, 2000, Pace::FlatOut),
        ),
        scenario(
            "flat-10k",
            "10,000 subscribers, flat out",
            &Kind::ALL,
            fan_out(10_000, 0, 200, Pace::FlatOut),
        ),
        scenario(
            "stalled",
            "10,000 subscribers, one event at a time, 100 do not read",
            HUBS,
            fan_out(10_000, 100, 30, Pace::OneByOne),
        ),
        scenario("idle", "10,000 idle subscribers", &Kind::ALL, Measure::Idle(some(10_000))),
        scenario("own-topic", "10,000 subscribers, a topic each", HUBS, own(Own::Topic)),
        scenario(
            "own-template",
            "10,000 subscribers, a URI template each",
            OURS,
            own(Own::Template),
        ),
        scenario("own-pattern", "10,000 subscribers, a URL pattern each", OURS, own(Own::Pattern)),
        scenario("publish", "no subscribers", HUBS, Measure::PublishOnly(count(50_000))),
        durable,
        scenario("replay", "100,000 events read again", OURS, Measure::Replay(count(100_000), 100)),
        scenario(
            "storm",
            "10,000 subscribers come back at once",
            OURS,
            Measure::Storm(some(10_000), 20),
        ),
    ]
}

impl Scenario {
    /// Measures a server that was started for it.
    pub(crate) fn run(&self, server: &Server) -> anyhow::Result<Figures> {
        match self.measure {
            Measure::FanOut { subscribers, stalled, events, pace } => {
                fan_out::run(server, subscribers, stalled, events, pace)
            }
            Measure::Idle(subscribers) => reading::idle(server, subscribers),
            Measure::OwnEach(subscribers, events, own) => {
                publishing::own_each(server, subscribers, events, own)
            }
            Measure::PublishOnly(events) => publishing::alone(server, events),
            Measure::Durable(publishers, events) => publishing::durable(server, publishers, events),
            Measure::Replay(events, subscribers) => reading::replay(server, events, subscribers),
            Measure::Storm(subscribers, missed) => reading::storm(server, subscribers, missed),
        }
    }
}

/// A subscriber that gets every event from the first one on.
fn wanted(server: &Server, query: &Query, cursor: Option<&str>) -> Wanted {
    Wanted { request: server.dialect.subscribe(query, cursor), stalls: false }
}

/// So many subscribers of one topic.
fn of_one_topic(server: &Server, count: usize, cursor: Option<&str>) -> Vec<Wanted> {
    let query = Query::Topics(vec!["t".to_owned()]);
    (0..count).map(|_| wanted(server, &query, cursor)).collect()
}
