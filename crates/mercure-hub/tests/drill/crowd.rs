//! Clients that come back, and what they have seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Stream, Wire, publish};
use super::{publisher, reader};

const PATIENCE: Duration = Duration::from_secs(60);

/// What one client has seen, and when it had to come back.
#[derive(Debug, Default)]
pub struct Seen {
    pub data: Vec<String>,
    last: String,
    pub returned: Vec<Instant>,
}

/// Listens, and comes back where it was whenever its stream ends, until told to stop.
async fn listen(address: String, seen: Arc<Mutex<Seen>>, over: Arc<AtomicBool>) {
    let token = reader(&["*"]);
    while !over.load(Ordering::Relaxed) {
        let cursor = match seen.lock().expect("seen").last.as_str() {
            "" => "earliest".to_owned(),
            last => last.to_owned(),
        };
        match Stream::open(&address, "topic=t", &token, &cursor).await {
            Ok(Ok(mut stream)) => {
                while let Ok(event) = stream.next().await {
                    let mut seen = seen.lock().expect("seen");
                    seen.last = event.id;
                    seen.data.push(event.data);
                }
            }
            Ok(Err(gap)) => panic!("{gap}"),
            // Not there for a moment: the balancer has not noticed yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        seen.lock().expect("seen").returned.push(Instant::now());
    }
}

/// Clients that listen until they are dropped.
pub struct Crowd {
    pub seen: Vec<Arc<Mutex<Seen>>>,
    pub over: Arc<AtomicBool>,
    pub tasks: JoinSet<()>,
}

impl Crowd {
    pub fn gather(address: &str, count: usize) -> Self {
        let (over, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let seen: Vec<_> = (0..count).map(|_| Arc::<Mutex<Seen>>::default()).collect();
        for one in &seen {
            tasks.spawn(listen(address.to_owned(), Arc::clone(one), Arc::clone(&over)));
        }
        Self { seen, over, tasks }
    }

    /// Waits until everybody has seen so many events.
    pub async fn have(&self, count: usize) {
        let begin = Instant::now();
        let is_behind = |seen: &&Arc<Mutex<Seen>>| seen.lock().expect("seen").data.len() < count;
        while let Some(one) = self.seen.iter().find(is_behind) {
            let late = begin.elapsed() > PATIENCE;
            let behind = self.seen.iter().filter(is_behind).count();
            assert!(!late, "{behind} have not seen {count} events, as this one: {one:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everybody has seen these events, each once and in order. Returns when streams had ended.
    pub fn check(&mut self, events: &[String]) -> Vec<Instant> {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.abort_all();
        let mut returned = Vec::new();
        for seen in &self.seen {
            let seen = seen.lock().expect("seen");
            assert_eq!(seen.data, events);
            returned.extend(&seen.returned);
        }
        returned
    }
}

/// Publishes numbers on a kept connection, one every `pace`, until told to stop; returns them.
pub async fn count(address: String, pace: Duration, over: Arc<AtomicBool>) -> Vec<String> {
    let (token, mut sent) = (publisher(), Vec::new());
    let mut wire = Wire::connect(&address).await.expect("connect");
    while !over.load(Ordering::Relaxed) {
        let number = sent.len().to_string();
        let form = format!("topic=t&data={number}");
        assert!(publish(&mut wire, &token, &form).await.expect("an answer"));
        sent.push(number);
        tokio::time::sleep(pace).await;
    }
    sent
}
