use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use mercure_protocol::{EventId, HubUrl, LastEventId, TopicView, Update, frame_cursor};

use tokio::sync::RwLock;

use crate::clock::Clock;
use crate::event::{Event, Record};
use crate::memory::Retention;
use crate::shard::{Notify, Shard};
use crate::stats::{Counters, Stats};
use crate::subscriber::{NewSubscriber, Subscriber};
use crate::transport::{Batch, From, Head, ReadLimit, Tail, Transport, TransportError};
use crate::window::Window;

/// What a hub is told when it starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub's own URL, against which relative topics are resolved.
    pub hub_url: HubUrl,
    /// Threads that own subscribers; at least one.
    pub shards: usize,
    /// Silence after which a comment is sent to keep a connection open; `None` for never.
    pub heartbeat: Option<Duration>,
    /// How long a subscriber may refuse what waits for it before it is closed.
    pub write_timeout: Duration,
    /// Subscribers at once.
    pub max_subscribers: usize,
    /// Newest events kept at hand for the shards, beside what the transport keeps.
    pub window_events: usize,
    /// Their size in bytes.
    pub window_bytes: usize,
}

impl Options {
    /// The defaults for a hub with this URL.
    #[must_use]
    pub fn new(hub_url: HubUrl) -> Self {
        Self {
            hub_url,
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            heartbeat: Some(Duration::from_secs(15)),
            write_timeout: Duration::from_secs(60),
            max_subscribers: 100_000,
            window_events: 65_536,
            window_bytes: 64 * 1024 * 1024,
        }
    }

    /// Keeps the window within what the log retains: whoever limits the history means it.
    #[must_use]
    pub fn within(mut self, retention: &Retention) -> Self {
        self.window_events = self.window_events.min(retention.events);
        self.window_bytes = self.window_bytes.min(retention.bytes);
        self
    }
}

/// One node: a transport, the shards that follow it, and the subscribers they serve.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    shards: Vec<Notify>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_shard: AtomicUsize,
    /// Whether updates are accepted; held for reading while one is.
    open: RwLock<bool>,
}

/// What the shards and the hub have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) window: Window,
    pub(crate) counters: Counters,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// Where a resuming subscriber begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Its cursor.
    pub from: From,
    /// Id of the event before the first one it will be sent; `None` stands for `earliest`: there
    /// is none, or it is not known any more.
    pub preceding: Option<Arc<str>>,
}

/// Why an update was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The transport could not say that it has the event.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The hub is stopping: its subscribers would not get the event any more.
    #[error("the hub is stopping")]
    Stopping,
}

/// Why a subscriber was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// As many subscribers as allowed are connected.
    #[error("the hub holds as many subscribers as it may")]
    Full,
}

/// A place for one subscriber, held as long as it is connected.
#[derive(Debug)]
pub struct Permit(Arc<Shared>);

impl Hub {
    /// Starts the shards and begins to follow the transport. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the transport cannot be reached or a shard cannot be set up.
    pub async fn start(
        transport: Arc<dyn Transport>,
        options: Options,
        clock: Clock,
    ) -> io::Result<Arc<Self>> {
        let window = Window::new(Default::default(), options.window_events, options.window_bytes);
        let shared = Arc::new(Shared {
            window,
            clock,
            transport,
            counters: Counters::default(),
            runtime: tokio::runtime::Handle::current(),
            options,
        });
        let follower = Arc::new(Follower { shared: Arc::clone(&shared), shards: Mutex::default() });
        let tail: Arc<dyn Tail> = Arc::<Follower>::clone(&follower);
        let head = shared.transport.start(tail).await.map_err(io::Error::other)?;
        shared.window.begin_after(head);

        let mut shards = Vec::new();
        let mut threads = Vec::new();
        for number in 0..shared.options.shards.max(1) {
            let (shard, notify) = Shard::new(Arc::clone(&shared), head)?;
            let thread = std::thread::Builder::new().name(format!("shard-{number}"));
            threads.push(thread.spawn(move || shard.run())?);
            shards.push(notify);
        }
        follower.shards.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&shards);
        // What arrived before the shards could be woken.
        shards.iter().for_each(Notify::wake);
        Ok(Arc::new(Self {
            shared,
            shards,
            threads: Mutex::new(threads),
            next_shard: AtomicUsize::new(0),
            open: RwLock::new(true),
        }))
    }

    /// Accepts an update. When this returns, the event is in the log, as durable as the transport
    /// makes it, and on its way to the subscribers.
    ///
    /// # Errors
    /// If the transport cannot acknowledge it; it may have been accepted all the same.
    pub async fn publish(&self, update: &Update) -> Result<EventId, PublishError> {
        let open = self.open.read().await;
        if !*open {
            return Err(PublishError::Stopping);
        }
        let id = match update.id() {
            Some(id) => id.clone(),
            None => EventId::from_random(*uuid::Uuid::new_v4().as_bytes()),
        };
        self.shared.transport.append(Record::new(update, id.clone())).await?;
        self.shared.counters.published.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    /// Finds where a subscriber that names its last event begins.
    ///
    /// An id that the log does not hold (any more) begins at the oldest event retained, and says
    /// so: the subscriber gets everything there is, and knows that something may be missing.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn resume(&self, last: &LastEventId) -> Result<Resume, TransportError> {
        let id = match last {
            LastEventId::Earliest => None,
            LastEventId::After(id) => Some(id),
        };
        let found = match id {
            None => None,
            Some(id) => self.shared.transport.locate(id).await?,
        };
        Ok(match found {
            Some(position) => Resume { from: From::After(position), preceding: id.cloned() },
            None => Resume { from: From::Oldest, preceding: None },
        })
    }

    /// The newest event of the log.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn head(&self) -> Result<Head, TransportError> {
        self.shared.transport.head().await
    }

    /// Reserves a place for a subscriber.
    ///
    /// # Errors
    /// If all places are taken.
    pub fn admit(&self) -> Result<Permit, AttachError> {
        let max = self.shared.options.max_subscribers;
        let take = |count: usize| (count < max).then_some(count + 1);
        self.shared
            .counters
            .subscribers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map(|_| Permit(Arc::clone(&self.shared)))
            .map_err(|_| AttachError::Full)
    }

    /// Hands a subscriber to a shard. Its preamble is written, and it is live or catching up,
    /// shortly after.
    pub fn attach(&self, new: NewSubscriber) {
        let at = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.shards[at].attach(new);
    }

    /// Reads what a subscriber has missed, for clients that poll instead of streaming: frames
    /// that it wants, then a frame that moves its cursor to where the reading ended.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn poll(
        &self,
        subscriber: &Interest<'_>,
        from: From,
    ) -> Result<Vec<Bytes>, TransportError> {
        let mut from = from;
        let mut frames = Vec::new();
        let mut size = 0;
        let mut newest: Option<Arc<Event>> = None;
        while size < POLL_BYTES {
            let batch = self.shared.transport.read(from, self.shared.read_limit()).await?;
            // Dropped while we were reading: what is left is still in order.
            let Batch::Events(events) = batch else {
                from = From::Oldest;
                continue;
            };
            let Some(last) = events.last() else { break };
            from = From::After(last.position);
            for event in &events {
                if subscriber.wants(event, &self.shared.options.hub_url) {
                    size += event.record.frame.len();
                    frames.push(Bytes::clone(&event.record.frame));
                }
            }
            newest = Some(Arc::clone(last));
        }
        frames.extend(newest.map(|event| frame_cursor(event.record.id.as_str())));
        Ok(frames)
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// The hub's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The hub's own URL.
    #[must_use]
    pub fn url(&self) -> &HubUrl {
        &self.shared.options.hub_url
    }

    /// Accepts no more updates. What was acknowledged before this returns is in the log, and leaves
    /// for the subscribers before [`Hub::shutdown`] ends their streams.
    pub async fn refuse_updates(&self) {
        *self.open.write().await = false;
    }

    /// Ends every stream in the orderly way and stops the shards. Returns when they have ended.
    pub fn shutdown(&self) {
        self.shards.iter().for_each(Notify::shutdown);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard ended by a panic");
            }
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shards.iter().for_each(Notify::shutdown);
    }
}

/// What a polling client reads, without a connection to keep.
#[derive(Debug)]
pub struct Interest<'a> {
    /// What it listens to.
    pub matchers: &'a [mercure_protocol::Matcher],
    /// What private updates it may read.
    pub grants: Option<&'a mercure_protocol::Grants>,
}

impl Interest<'_> {
    fn wants(&self, event: &Event, hub_url: &HubUrl) -> bool {
        let topics = event.record.topics.iter();
        let topics: Vec<_> = topics.map(|topic| TopicView::new(topic.as_str(), hub_url)).collect();
        Subscriber::selects(self.matchers, self.grants, event, &topics)
    }
}

/// What one answer to a polling client holds at most, in bytes; one batch may exceed it.
const POLL_BYTES: usize = 1024 * 1024;

impl Shared {
    /// What is read from the transport at once.
    pub(crate) fn read_limit(&self) -> ReadLimit {
        ReadLimit { events: 1024, bytes: 1024 * 1024 }
    }

    /// How long to wait before a failed read is tried again; jittered, so that the subscribers of
    /// a node do not ask in step.
    pub(crate) fn retry_delay(&self) -> Duration {
        Duration::from_millis(fastrand::u64(250..750))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.counters.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts what the transport tells into the window and wakes the shards.
#[derive(Debug)]
struct Follower {
    shared: Arc<Shared>,
    shards: Mutex<Vec<Notify>>,
}

impl Tail for Follower {
    fn on_event(&self, event: Arc<Event>) {
        self.shared.window.push(event);
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Notify::wake);
    }
}
