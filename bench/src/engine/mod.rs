//! The engine alone, in this process: more subscribers than a machine has descriptors, each with a
//! place in memory instead of a socket.

mod hostile;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mercure_engine::{
    BodyReader, Clock, Hub, MemoryTransport, NewSubscriber, Options, Retention, body,
};
use mercure_protocol::{HubUrl, Limits, Matcher, MatcherType, Publication, Update};
use rustix::time::{ClockId, clock_gettime};

use crate::usage::Processes;

/// Who gets what is for one.
const RECEIVER: usize = 7;
/// Subscribers that there must be for it.
pub(crate) const FEWEST: u64 = RECEIVER as u64 + 1;
/// Publications that an average is taken of.
const PUBLICATIONS: u32 = 200_000;

/// Measures so many subscribers, and prints what they take.
pub(crate) fn run(subscribers: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("| {subscribers} subscribers in memory | figure | |\n|---|---|---|");
        let mut empty = Crowd::attach(0, Listens::OneTopic).await?;
        let without = empty.publish_to("https://example.com/nobody", 0).await?;
        row("nobody is there", "CPU us per publication", without.cpu);
        for listens in [Listens::OneTopic, Listens::OwnTopic, Listens::OwnTemplate] {
            listening(subscribers, listens, without.cpu).await?;
        }
        anyhow::Ok(())
    })?;
    hostile::run()
}

async fn listening(subscribers: usize, listens: Listens, without: f64) -> anyhow::Result<()> {
    let title = listens.title();
    let mut crowd = Crowd::attach(subscribers, listens).await?;
    row(title, "bytes each", crowd.bytes_each);
    row(title, "CPU us to attach", crowd.cpu_each);
    if listens == Listens::OneTopic {
        let all = crowd.publish_once("https://example.com/all", subscribers as u64).await?;
        row(title, "ms until all have an event", all.wall / 1000.0);
        row(title, "CPU us per delivery", all.cpu / subscribers as f64);
    } else {
        let one =
            crowd.publish_to(&format!("https://example.com/users/{RECEIVER}/news"), 1).await?;
        row(title, "CPU us per publication for one", one.cpu);
    }
    let none = crowd.publish_to("https://example.com/users/none", 0).await?;
    row(title, "CPU us per publication for nobody", none.cpu);
    row(title, "times as much as if nobody were there", none.cpu / without);
    let (cpu, begin) = (cpu(), Instant::now());
    crowd.leave().await?;
    row(title, "ms until all have left", begin.elapsed().as_secs_f64() * 1000.0);
    row(title, "CPU us to leave", micros(self::cpu() - cpu) / subscribers as f64);
    Ok(())
}

fn row(what: &str, figure: &str, value: f64) {
    println!("| {what} | {figure} | {value:.2} |");
}

/// What subscribers listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listens {
    /// One topic, all the same.
    OneTopic,
    /// A topic each.
    OwnTopic,
    /// A URI template each.
    OwnTemplate,
}

impl Listens {
    fn title(self) -> &'static str {
        match self {
            Self::OneTopic => "one topic for all",
            Self::OwnTopic => "a topic each",
            Self::OwnTemplate => "a URI template each",
        }
    }

    fn matcher(self, number: usize, hub: &Hub) -> anyhow::Result<Matcher> {
        let text = match self {
            Self::OneTopic => "https://example.com/all".to_owned(),
            Self::OwnTopic => format!("https://example.com/users/{number}/news"),
            Self::OwnTemplate => format!("https://example.com/users/{number}/{{kind}}"),
        };
        Ok(Matcher::parse(MatcherType::Selector, &text, hub.url(), &Limits::default())?)
    }
}

/// What something took, in microseconds.
struct Took {
    wall: f64,
    cpu: f64,
}

/// A hub and its subscribers.
struct Crowd {
    hub: Arc<Hub>,
    readers: Vec<BodyReader>,
    bytes_each: f64,
    cpu_each: f64,
}

impl Crowd {
    async fn attach(count: usize, listens: Listens) -> anyhow::Result<Self> {
        let url = HubUrl::parse("https://example.com/.well-known/mercure")?;
        let clock = Clock::system();
        let transport = Arc::new(MemoryTransport::new(Retention::default(), clock.clone()));
        let options = Options { max_subscribers: count, heartbeat: None, ..Options::new(url) };
        let hub = Hub::start(transport, options, clock).await?;
        let mut readers = Vec::with_capacity(count);
        let (memory, cpu) = (memory(), cpu());
        for number in 0..count {
            let (outlet, reader) = body();
            readers.push(reader);
            hub.attach(NewSubscriber {
                outlet,
                matchers: vec![listens.matcher(number, &hub)?],
                grants: None,
                from: hub.now(),
                preamble: Default::default(),
                permit: hub.admit(None)?,
                present: None,
                deadline: None,
            });
        }
        let crowd = Self { hub, readers, bytes_each: 0.0, cpu_each: 0.0 };
        // What is delivered comes after what was attached.
        crowd.settle().await;
        Ok(Self {
            bytes_each: self::memory().saturating_sub(memory) as f64 / count.max(1) as f64,
            cpu_each: micros(self::cpu() - cpu) / count.max(1) as f64,
            ..crowd
        })
    }

    /// Waits until the shards have nothing to do.
    async fn settle(&self) {
        loop {
            let before = cpu();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if cpu() - before < Duration::from_millis(2) {
                return;
            }
        }
    }

    async fn publish_once(&mut self, topic: &str, receivers: u64) -> anyhow::Result<Took> {
        self.publish(topic, receivers, 1).await
    }

    /// The average of many publications.
    async fn publish_to(&mut self, topic: &str, receivers: u64) -> anyhow::Result<Took> {
        self.publish(topic, receivers, PUBLICATIONS).await
    }

    async fn publish(&mut self, topic: &str, receivers: u64, times: u32) -> anyhow::Result<Took> {
        let data = "x".repeat(256);
        let raw = Publication { topics: vec![topic], data: &data, ..Publication::default() };
        let update = Update::new(&raw, self.hub.url(), &Limits::default())?;
        let goal = self.hub.stats().delivered + receivers * u64::from(times);
        let (cpu, begin) = (cpu(), Instant::now());
        for number in 0..times {
            self.hub.publish(&update).await?;
            if number % 100 == 99 {
                self.read();
            }
        }
        self.delivered(goal).await?;
        let (cpu, wall) = (self::cpu() - cpu, begin.elapsed());
        Ok(Took { wall: micros(wall) / f64::from(times), cpu: micros(cpu) / f64::from(times) })
    }

    /// Takes what has arrived where events for one arrive, so that it does not wait there.
    fn read(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if let Some(reader) = self.readers.get_mut(RECEIVER) {
            while let Poll::Ready(Some(_)) = reader.poll_next(&mut context) {}
        }
    }

    async fn delivered(&mut self, goal: u64) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.hub.stats().delivered < goal {
            if begin.elapsed() > Duration::from_secs(60) {
                bail!(
                    "{} of {goal} deliveries, and nothing more comes",
                    self.hub.stats().delivered
                );
            }
            self.read();
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    /// Ends all at their clients' side, and waits until the hub knows.
    async fn leave(self) -> anyhow::Result<()> {
        drop(self.readers);
        let begin = Instant::now();
        while self.hub.stats().subscribers > 0 {
            if begin.elapsed() > Duration::from_secs(600) {
                bail!("{} are still there", self.hub.stats().subscribers);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::spawn_blocking(move || self.hub.shutdown()).await.context("shutting down")
    }
}

/// Processor time of this process, also of threads that have ended.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn memory() -> u64 {
    Processes::of(std::process::id()).memory()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
