use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mercure_protocol::{EventId, Generation, Grants, HubUrl, LastEventId, Matcher, Update};

use tokio::sync::RwLock;

use crate::admission::{AttachError, Places};
use crate::clock::Clock;
use crate::departure::Departing;
use crate::event::{Position, Record};
use crate::follower::Follower;
use crate::memory::Retention;
use crate::presence::{Attendance, Presence, Present};
use crate::shard::{End, Notify, Shard};
use crate::shared::Shared;
use crate::stats::{Counters, Stats};
use crate::subscriber::NewSubscriber;
use crate::teller::Teller;
use crate::transport::{From, Head, Measure, State, Tail, Transport, TransportError};
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
    /// Subscribers at once that belong to one client.
    pub max_per_client: usize,
    /// Generations in which active subscriptions are told; none to tell nobody.
    pub subscriptions: Vec<Generation>,
    /// Told of every event before its publisher is; must return at once.
    pub observer: Option<Arc<dyn Tail>>,
    /// Changes of subscriptions that may wait for the transport before newcomers are turned away.
    pub max_untold: usize,
    /// How long a node's subscriptions outlive it, on a transport that several nodes share.
    pub lease: Duration,
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
            max_per_client: 1000,
            subscriptions: Vec::new(),
            observer: None,
            max_untold: 65_536,
            lease: Duration::from_secs(15),
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
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Vec<Notify>,
    pub(crate) threads: Mutex<Vec<JoinHandle<Vec<Departing>>>>,
    pub(crate) presence: Option<Arc<Presence>>,
    pub(crate) teller: Mutex<Option<tokio::task::JoinHandle<()>>>,
    next_shard: AtomicUsize,
    /// Whether updates are accepted; held for reading while one is.
    pub(crate) open: RwLock<bool>,
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

/// An update that the log has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What clients know it by.
    pub id: EventId,
    /// Its place in the log.
    pub position: Position,
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
            places: Places::default(),
            runtime: tokio::runtime::Handle::current(),
            options,
        });
        let follower = Arc::new(Follower::new(Arc::clone(&shared)));
        let tail: Arc<dyn Tail> = Arc::<Follower>::clone(&follower);
        let head = shared.transport.start(tail).await.map_err(io::Error::other)?;
        shared.window.begin_after(head);
        shared.preload(head).await;

        let mut shards = Vec::new();
        let mut threads = Vec::new();
        for number in 0..shared.options.shards.max(1) {
            let (shard, notify) = Shard::new(Arc::clone(&shared), head)?;
            let thread = std::thread::Builder::new().name(format!("shard-{number}"));
            threads.push(thread.spawn(move || shard.run())?);
            shards.push(notify);
        }
        follower.tells(shards.clone());
        let told = &shared.options.subscriptions;
        let presence =
            (!told.is_empty()).then(|| Presence::new(told.clone(), shared.options.max_untold));
        let teller = presence.clone().map(|presence| {
            let teller = Teller::new(presence, Arc::clone(&shared));
            tokio::spawn(teller.run())
        });
        Ok(Arc::new(Self {
            presence,
            teller: Mutex::new(teller),
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
    pub async fn publish(&self, update: &Update) -> Result<Published, PublishError> {
        let open = self.open.read().await;
        if !*open {
            return Err(PublishError::Stopping);
        }
        let begin = self.shared.clock.now();
        let id = match update.id() {
            Some(id) => id.clone(),
            None => EventId::from_random(*uuid::Uuid::new_v4().as_bytes()),
        };
        let position = self.shared.transport.append(Record::new(update, id.clone())).await?;
        let counters = &self.shared.counters;
        counters.published.fetch_add(1, Ordering::Relaxed);
        counters.acknowledging.took(self.shared.clock.now().saturating_sub(begin));
        Ok(Published { id, position })
    }

    /// Whether every shard has handed the event at this place, and all before it, to the sockets of its
    /// live subscribers.
    #[must_use]
    pub fn is_dispatched(&self, position: Position) -> bool {
        self.shards.iter().all(|shard| shard.listening().has_passed(position))
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

    /// Whether the log holds an event with an id.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn holds(&self, id: &EventId) -> Result<bool, TransportError> {
        Ok(self.shared.transport.locate(id.as_str()).await?.is_some())
    }

    /// The newest event of the log.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn head(&self) -> Result<Head, TransportError> {
        self.shared.transport.head().await
    }

    /// Where a subscriber begins that asks for what comes from now on: every update accepted before
    /// is left out, and every later one is delivered, however busy the shards are.
    #[must_use]
    pub fn now(&self) -> From {
        From::After(self.shared.window.head())
    }

    /// Prepares to tell others that somebody subscribes; `None` if nobody is told.
    ///
    /// # Errors
    /// If the log cannot keep up with telling.
    pub fn enter(
        &self,
        matchers: &[Matcher],
        grants: Option<&Grants>,
    ) -> Result<Option<Present>, AttachError> {
        let Some(presence) = &self.presence else { return Ok(None) };
        let present = presence.enter(matchers, grants, &self.shared.options.hub_url);
        present.map(Some).ok_or(AttachError::Busy)
    }

    /// Whether the hub tells who is subscribed.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.presence.is_some()
    }

    /// Everybody who is subscribed, at any node, and a number that differs whenever they do; `None`
    /// if the hub does not tell.
    ///
    /// # Errors
    /// If the transport cannot be asked for those of other nodes.
    pub async fn attendances(&self) -> Result<Option<(u64, Vec<Arc<Attendance>>)>, TransportError> {
        let Some(presence) = &self.presence else { return Ok(None) };
        let elsewhere = match self.shared.transport.roster() {
            Some(roster) => roster.others().await?,
            None => (0, Vec::new()),
        };
        let (version, mut all) = presence.snapshot();
        all.extend(elsewhere.1.into_iter().map(Attendance::elsewhere));
        Ok(Some((version.wrapping_add(elsewhere.0), all)))
    }

    /// What the log holds.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn measure(&self) -> Result<Measure, TransportError> {
        self.shared.transport.measure().await
    }

    /// Whether the transport's engine answers, as far as is known without asking it.
    #[must_use]
    pub fn transport_state(&self) -> State {
        self.shared.transport.state()
    }

    /// Place of the newest event that this node knows of.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.shared.window.head()
    }

    /// Goes the way of an event without leaving one: asks the log where it stands, waits until this node
    /// has been told everything up to there, and for an answer of each shard after its dispatch.
    ///
    /// # Errors
    /// If the transport cannot be asked, or a shard has ended. It may take as long as it likes: whoever
    /// waits has to know how long that is worth it.
    pub async fn make_the_round(&self) -> Result<(), TransportError> {
        const LOOK: Duration = Duration::from_millis(5);
        let head = self.head().await?;
        while self.tail() < head.position {
            tokio::time::sleep(LOOK).await;
        }
        for shard in &self.shards {
            let ended = |_| TransportError::Unavailable("a shard has ended".to_owned());
            shard.ping().await.map_err(ended)?;
        }
        Ok(())
    }

    /// Hands a subscriber to a shard. Its preamble is written, and it is live or catching up,
    /// shortly after.
    pub fn attach(&self, new: NewSubscriber) {
        let at = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.shards[at].attach(new);
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        shared.counters.snapshot(&shared.places, shared.window.bytes())
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

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn presence(&self) -> Option<&Arc<Presence>> {
        self.presence.as_ref()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            presence.close();
        }
        self.shards.iter().for_each(|shard| shard.end(End::Close));
    }
}
