//! Upgrade in place: another program, most likely a newer one at the same path, takes the listeners and the
//! plain streams of this one, and no client notices.
//!
//! In two phases, as between companions: until the new program has said that it has everything, and that its
//! log is open, this one can go on as if nothing had happened; until this one has said that it does not go on,
//! the new one serves nobody.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mercure_engine::{Departing, Handover, Head, Held, Position};
use mercure_protocol::EventId;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::accepting::end_of;
use crate::auth::{FetchedKeys, Trust};
use crate::bus::{Messages, send};
use crate::config::{Config, Listen, parse_listen};
use crate::estate::{Receiver, TAKEN, Told, YOURS, send_events, send_streams};
use crate::http::Bound;
use crate::listeners::{Door, Listeners, own};
use crate::server::{Closed, Server};

/// How long either side waits for the other's next message.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the new program may take to understand its configuration.
const START: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long requests under way may hold it up.
const SETTLE: Duration = Duration::from_secs(2);
/// Tells a program that its standard input is the one that it takes the place of.
const VARIABLE: &str = "HUB_TAKES_OVER";
/// The new program has understood its configuration.
const ABLE: &[u8] = b"able";

/// What a server leaves to another one.
struct Estate {
    doors: Vec<Door>,
    /// Files of Unix sockets that go with their listeners, once these are this process's.
    files: Vec<PathBuf>,
    head: Head,
    log: Handover,
    streams: Vec<Departing>,
}

/// What follows; a message for each door comes first, with its socket.
#[derive(Serialize, Deserialize)]
struct Inventory {
    doors: Vec<DoorTold>,
    position: u64,
    newest: Option<String>,
    history: Option<Told>,
    node: Option<String>,
    streams: usize,
}

#[derive(Serialize, Deserialize)]
struct DoorTold {
    listen: String,
    /// Of a Unix socket, and whether the file goes with the listener.
    path: Option<(PathBuf, bool)>,
}

/// How an upgrade went.
#[derive(Debug)]
pub enum Upgraded {
    /// Another process, with this id, serves now.
    To(u32),
    /// This one goes on.
    Not(Box<Server>, anyhow::Error),
}

/// Starts a program with this one's arguments and gives everything to it, unless this one is `stopped` before
/// the other one has understood its configuration.
///
/// # Errors
/// If the other program failed halfway, and this one cannot go on either.
pub async fn upgrade(
    server: Server,
    program: &Path,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<Upgraded> {
    tracing::info!(program = %program.display(), "another program is to take this one's place");
    if std::process::id() == 1 {
        let error = anyhow::anyhow!(
            "process 1 cannot give its place to another: its container ends with it; start a new container"
        );
        return Ok(Upgraded::Not(Box::new(server), error));
    }
    // What keeps it from ending is found out before it begins.
    let head = match server.hub.head().await.context("asking the log where it stands") {
        Ok(head) => head,
        Err(error) => return Ok(Upgraded::Not(Box::new(server), error)),
    };
    let successor = match start(program, stopped).await {
        Ok(successor) => successor,
        Err(error) => return Ok(Upgraded::Not(Box::new(server), error)),
    };
    let config = server.config.clone();
    let estate = server.leave(head).await?;
    let given = tokio::task::spawn_blocking(move || successor.give(estate)).await?;
    match given {
        Ok(process) => Ok(Upgraded::To(process)),
        Err((estate, error)) => {
            let server = Server::take_up(config, *estate, || Ok(())).await;
            let server = server.context("going on after the other program has failed")?;
            Ok(Upgraded::Not(Box::new(server), error))
        }
    }
}

/// The program that is to take this one's place.
struct Successor {
    process: Child,
    to: UnixStream,
}

async fn start(program: &Path, stopped: impl Future<Output = ()>) -> anyhow::Result<Successor> {
    let successor = Successor::spawn(program)?;
    let line = successor.to.try_clone()?;
    let mut starting = tokio::task::spawn_blocking(move || successor.starts());
    tokio::select! {
        started = &mut starting => return started?,
        () = stopped => {}
    }
    // Whoever waits at it, here and there, waits no longer.
    line.shutdown(Shutdown::Both)?;
    if let Ok(successor) = starting.await? {
        tokio::task::spawn_blocking(move || successor.end()).await?;
    }
    bail!("this program is told to stop")
}

impl Successor {
    fn spawn(program: &Path) -> anyhow::Result<Self> {
        let (to, theirs) = UnixStream::pair()?;
        to.set_read_timeout(Some(START))?;
        to.set_write_timeout(Some(PATIENCE))?;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, "1");
        let process = command.stdin(std::os::fd::OwnedFd::from(theirs)).spawn();
        let process = process.with_context(|| format!("starting {}", program.display()))?;
        // The other end is the other program's alone when the command is gone, so its death is seen.
        Ok(Self { process, to })
    }

    /// Waits until it has understood its configuration.
    fn starts(self) -> anyhow::Result<Self> {
        match Messages::default().wait(&self.to) {
            Ok(Some(word)) if word == ABLE => {
                self.to.set_read_timeout(Some(PATIENCE))?;
                Ok(self)
            }
            Err(error) => {
                self.end();
                bail!("the new program did not start within {START:?}: {error}")
            }
            Ok(_) => {
                self.end();
                bail!("the new program did not start; it has said why")
            }
        }
    }

    /// Ends it, so that it touches nothing any more; but not before it could say what is wrong.
    fn end(mut self) {
        const LAST_WORDS: u32 = 100;
        for _ in 0..LAST_WORDS {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            tokio::runtime::Handle::current().block_on(tokio::time::sleep(LOOK));
        }
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn give(self, mut estate: Estate) -> Result<u32, (Box<Estate>, anyhow::Error)> {
        let told =
            estate.tell(&self.to).and_then(|()| match Messages::default().wait(&self.to)? {
                Some(word) if word == TAKEN => send(&self.to, YOURS, &[]),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            });
        match told {
            Ok(()) => {
                estate.doors.iter_mut().for_each(|door| door.bound.own(false));
                Ok(self.process.id())
            }
            Err(error) => {
                self.end();
                let error =
                    anyhow::Error::new(error).context("the new program failed; it has said why");
                Err((Box::new(estate), error))
            }
        }
    }
}

impl Estate {
    fn tell(&self, to: &UnixStream) -> io::Result<()> {
        let door = |door: &Door| DoorTold {
            listen: door.listen.to_string(),
            path: door.bound.file().map(|(path, is_ours)| (path.to_owned(), is_ours)),
        };
        let inventory = Inventory {
            doors: self.doors.iter().map(door).collect(),
            position: self.head.position.0,
            newest: self.head.id.as_ref().map(EventId::to_string),
            history: self.log.history.as_ref().map(Told::of),
            node: self.log.node.clone(),
            streams: self.streams.len(),
        };
        send(to, &serde_json::to_vec(&inventory)?, &[])?;
        for door in &self.doors {
            send(to, b"door", &[door.bound.as_fd()])?;
        }
        if let Some(history) = &self.log.history {
            send_events(to, history)?;
        }
        send_streams(to, &self.streams)
    }
}

impl Server {
    /// Ends, keeping everything that another process can go on with. Clients that connect in the meantime
    /// wait at the listeners. Streams over TLS or HTTP/2 cannot be passed on; they end and come back.
    async fn leave(mut self, head: Head) -> anyhow::Result<Estate> {
        self.close.send_replace(true);
        let (mut doors, mut connections) = (Vec::new(), Vec::new());
        take_doors(&mut self.accepting, &mut doors, &mut connections).await;
        self.stop.send_replace(true);
        take_doors(&mut self.answering, &mut doors, &mut connections).await;
        self.hub.refuse_updates().await;
        let departing = Arc::clone(&self.hub);
        let streams = tokio::task::spawn_blocking(move || departing.depart()).await?;
        self.hub.fall_silent().await;
        // What was accepted in the meantime may have been the first of all, or have driven the last one out.
        let head = self.hub.head().await.unwrap_or(head);
        end_of(connections, SETTLE).await;
        let log = self.hub.close_log();
        if let Some(traces) = self.traces.take() {
            // What is left of them leaves while the other process begins.
            tokio::task::spawn_blocking(move || traces.stop());
        }
        Ok(Estate { doors, files: Vec::new(), head, log, streams })
    }

    /// Goes on with what another server has left. `confirm` says whether it is this one's now.
    async fn take_up(
        config: Config,
        estate: Estate,
        confirm: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let Estate { mut doors, files, head, log, streams } = estate;
        let mut listeners = Listeners::bind_but(&config, &mut doors).await?;
        let mut server = Self::prepare(config, log).await?;
        let is_same =
            server.hub.goes_on_from(&head).await.context("asking the log where it stands")?;
        tokio::task::block_in_place(confirm)?;
        listeners.own(&files);
        // Where nobody listens any more, no file stays.
        own(doors.iter_mut(), &files);
        drop(doors);
        if !is_same {
            tracing::warn!("the log is another one now: streams end, and their clients come back");
        }
        for stream in streams.into_iter().filter(|_| is_same) {
            let held = stream.note.as_ref().and_then(|note| server.site.gate.keep(note));
            let held = held.map(|permit| Box::new(permit) as Box<dyn Held>);
            if let Err(error) = server.hub.welcome(stream, held) {
                tracing::warn!(%error, "a stream could not be kept");
            }
        }
        server.open(listeners);
        Ok(server)
    }
}

async fn take_doors(
    accepting: &mut JoinSet<Closed>,
    doors: &mut Vec<Door>,
    connections: &mut Vec<JoinSet<()>>,
) {
    while let Some(closed) = accepting.join_next().await {
        let Ok((listen, stopped)) = closed else { continue };
        doors.push(Door { bound: stopped.bound, listen });
        connections.push(stopped.connections);
    }
}

/// The program that this one is to take the place of.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Whoever has started this program to take its place, if that is so.
    ///
    /// # Errors
    /// If its socket cannot be used.
    pub fn find() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        socket.set_read_timeout(Some(PATIENCE)).context("no program is at the other end")?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Some(Self(socket)))
    }

    /// Takes its place.
    ///
    /// # Errors
    /// Why that is not possible; then the other one goes on.
    pub async fn succeed(self, config: Config) -> anyhow::Result<Server> {
        let from = self.0.try_clone()?;
        let (url, trust) = (config.hub_url.clone(), config.policy.trust.clone());
        let receiving = move || {
            // The program before has them, and would be missed.
            fetch_all(&trust)?;
            send(&from, ABLE, &[])?;
            Receiver { from, messages: Messages::default() }.server_estate(url)
        };
        let estate = tokio::task::spawn_blocking(receiving).await??;
        let confirm = || {
            send(&self.0, TAKEN, &[])?;
            match Messages::default().wait(&self.0)? {
                Some(word) if word == YOURS => Ok(()),
                _ => bail!("the program before did not let go"),
            }
        };
        Server::take_up(config, estate, confirm).await
    }
}

/// Fetches all sets of keys at once: the program before waits.
fn fetch_all(trust: &Trust) -> anyhow::Result<()> {
    let fetch = |keys: &Arc<FetchedKeys>| {
        keys.fetch().with_context(|| format!("fetching the keys of {}", keys.source()))
    };
    std::thread::scope(|scope| {
        let fetches: Vec<_> =
            trust.fetched().map(|keys| scope.spawn(move || fetch(keys))).collect();
        let panicked = |_| Err(anyhow::anyhow!("fetching keys has panicked"));
        fetches.into_iter().try_for_each(|fetch| fetch.join().unwrap_or_else(panicked))
    })
}

impl Receiver {
    fn server_estate(&mut self, url: mercure_protocol::HubUrl) -> anyhow::Result<Estate> {
        let inventory: Inventory = serde_json::from_slice(&self.next()?)?;
        let (mut doors, mut files) = (Vec::new(), Vec::new());
        for told in inventory.doors {
            ensure!(self.next()? == b"door"[..], "a listener is missing");
            let path = told.path.as_ref().map(|(path, _)| path.as_path());
            let bound = Bound::taken(self.descriptor()?, path)?;
            files.extend(told.path.filter(|(_, is_ours)| *is_ours).map(|(path, _)| path));
            let listen: Listen = parse_listen(&told.listen).map_err(anyhow::Error::msg)?;
            doors.push(Door { bound, listen });
        }
        let history = inventory.history.as_ref().map(|told| self.history(told)).transpose()?;
        let log = Handover { history, node: inventory.node };
        let streams = self.streams(inventory.streams, url)?;
        let head = Head {
            position: Position(inventory.position),
            id: inventory.newest.as_deref().map(EventId::from_log),
        };
        Ok(Estate { doors, files, head, log, streams })
    }
}
