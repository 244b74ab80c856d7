//! The log in a file: SQLite in WAL mode, every batch of publications one transaction and one sync.
//!
//! **Durability**: an acknowledged event has been synced to disk (`synchronous=FULL`); it survives
//! the death of the process and of the machine, as far as the disk keeps what it has synced.
//!
//! One hub at a time: a second one is refused by a lock beside the file.

mod ids;
mod log;
mod roster;
mod schema;

use std::fmt;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mercure_engine::{
    Change, Claimed, Clock, Measure, ReadLimit, Record, Retention, RosterEntry, Standing,
    TransportError,
};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use self::ids::Ids;
use crate::Purpose;
use crate::store::{Newest, Outcome, Place, Store, Stretch, lock, milliseconds};

/// How long a statement waits for a tool that writes to the same file.
const BUSY: Duration = Duration::from_secs(3);
/// How often, and how long after each other, the file's lock is asked for.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Connections for reading that are kept.
const READERS: usize = 8;
/// How often the follower makes sure that it has told what was written.
const LOOK: Duration = Duration::from_millis(200);
/// Looks before it reports that there is nothing.
const LOOKS: u32 = 20;

/// A file with a log.
#[derive(Clone)]
pub(crate) struct Sqlite(Arc<Shared>);

struct Shared {
    path: PathBuf,
    purpose: Purpose,
    clock: Clock,
    /// Held as long as the store lives.
    lock: Mutex<Option<File>>,
    writer: Mutex<Option<Connection>>,
    /// Device and inode of the file that was opened.
    identity: OnceLock<(u64, u64)>,
    readers: Mutex<Vec<Connection>>,
    /// Filled when the file is opened.
    ids: Mutex<Ids>,
    /// Place of the newest event, also of one whose publisher did not wait for it.
    written: AtomicU64,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.0.path).finish()
    }
}

impl Sqlite {
    pub(crate) fn new(path: PathBuf, purpose: Purpose, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            path,
            purpose,
            clock,
            lock: Mutex::default(),
            writer: Mutex::default(),
            identity: OnceLock::new(),
            readers: Mutex::default(),
            ids: Mutex::default(),
            written: AtomicU64::new(0),
        }))
    }

    /// Runs something with the connection for writing, on a thread that may wait for the disk.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Shared) -> rusqlite::Result<T> + Send + 'static,
    ) -> Outcome<T> {
        self.off_the_runtime(move |shared| {
            shared.is_in_place()?;
            let mut writer = lock(&shared.writer);
            let mut connection = match writer.take() {
                Some(connection) => connection,
                None => shared.connect()?,
            };
            let result = work(&mut connection, shared).map_err(|error| explain(&error));
            // After a failure, what the connection believes of the file may be wrong.
            *writer = result.is_ok().then_some(connection);
            result
        })
        .await
    }

    /// Runs something with a connection for reading.
    async fn query<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Outcome<T> {
        self.off_the_runtime(move |shared| {
            shared.is_in_place()?;
            let kept = lock(&shared.readers).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => shared.connect()?,
            };
            let result = work(&connection).map_err(|error| explain(&error))?;
            let mut readers = lock(&shared.readers);
            if readers.len() < READERS {
                readers.push(connection);
            }
            Ok(result)
        })
        .await
    }

    async fn off_the_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let shared = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|_| Err(TransportError::Unavailable("the hub is stopping".to_owned())))
    }
}

impl Shared {
    fn connect(&self) -> Outcome<Connection> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // Whoever wants to look at a log wants one that is there.
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, self.purpose != Purpose::Inspect);
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(|error| explain(&error))?;
        connection.busy_timeout(BUSY).map_err(|error| explain(&error))?;
        schema::configure(&connection).map_err(|error| explain(&error))?;
        Ok(connection)
    }

    /// One attempt at a time; one that comes late, because nobody waited for it any more, changes
    /// nothing.
    fn open(&self) -> Outcome<()> {
        let mut held = lock(&self.lock);
        if lock(&self.writer).is_some() {
            return Ok(());
        }
        if self.purpose == Purpose::Inspect {
            self.is_there()?;
        } else if held.is_none() {
            *held = Some(take_lock(&self.path)?);
        }
        let mut connection = self.connect()?;
        self.migrate(&mut connection)?;
        let newest = log::newest(&connection).map_err(|error| explain(&error))?;
        self.written.store(newest.place, Ordering::Release);
        let may_move = self.purpose != Purpose::Inspect;
        let ids = Ids::load(&mut connection, may_move).map_err(|error| explain(&error))?;
        *lock(&self.ids) = ids;
        *lock(&self.writer) = Some(connection);
        if let Ok(found) = std::fs::metadata(&self.path) {
            // Only the first one is the log that this store has opened.
            let _ = self.identity.set((found.dev(), found.ino()));
        }
        Ok(())
    }

    /// Whoever looks at a log has mistyped its path rather than wants to wait for it.
    fn is_there(&self) -> Outcome<()> {
        File::open(&self.path).map(drop).map_err(|error| {
            TransportError::Refused(format!("{} cannot be opened: {error}", self.path.display()))
        })
    }

    /// What is written to a file that is deleted, or that another one has replaced, is lost with the
    /// process: better to refuse it.
    fn is_in_place(&self) -> Outcome<()> {
        let Some(opened) = self.identity.get() else { return Ok(()) };
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == *opened => Ok(()),
            _ => {
                let path = self.path.display();
                let reason =
                    format!("{path} is not the file any more that was opened; restart the hub");
                Err(TransportError::Unavailable(reason))
            }
        }
    }

    /// Brings the file to this version, unless a hub of an older one is at work on it.
    fn migrate(&self, connection: &mut Connection) -> Outcome<()> {
        if self.purpose == Purpose::Inspect && schema::is_old(connection)? {
            let _alone = take_lock(&self.path).map_err(|_| {
                let reason = "the hub that uses the file is of an older version: look at it with \
                    that version, or stop the hub first";
                TransportError::Refused(reason.to_owned())
            })?;
            return schema::migrate(connection);
        }
        schema::migrate(connection)
    }
}

impl Store for Sqlite {
    const NAME: &'static str = "SQLite";

    async fn open(&self) -> Outcome<()> {
        self.off_the_runtime(Shared::open).await
    }

    async fn append(&self, batch: &[Record]) -> Outcome<Vec<Outcome<Place>>> {
        let (batch, at) = (batch.to_vec(), milliseconds(self.0.clock.unix_time()));
        self.write(move |connection, shared| {
            let places = log::append(connection, &shared.ids, &batch, at)?;
            let last = places.iter().copied().max().unwrap_or_default();
            shared.written.fetch_max(last, Ordering::AcqRel);
            Ok(places.into_iter().map(Ok).collect())
        })
        .await
    }

    async fn read(&self, after: Option<Place>, limit: ReadLimit) -> Outcome<Stretch> {
        self.query(move |connection| log::read(connection, after, limit)).await
    }

    /// What this hub appends is told without being read. Only what was written after its publisher
    /// had given up waiting is found here.
    async fn follow(&self, cursor: &AtomicU64) -> Outcome<Stretch> {
        let is_behind = || self.0.written.load(Ordering::Acquire) > cursor.load(Ordering::Acquire);
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK).await;
            // What was just written may be about to be told: only what stays untold is read.
            if is_behind() {
                tokio::time::sleep(LOOK).await;
            }
            if is_behind() {
                let limit = ReadLimit { events: 1024, bytes: 1 << 20 };
                return self.read(Some(cursor.load(Ordering::Acquire)), limit).await;
            }
        }
        Ok(Stretch::default())
    }

    async fn locate(&self, id: &str) -> Outcome<Option<Place>> {
        let id = id.to_owned();
        let shared = Arc::clone(&self.0);
        let found = self.query(move |connection| ids::locate(connection, &shared.ids, None, &id));
        Ok(found.await?.map(|place| place as Place))
    }

    async fn newest(&self) -> Outcome<Newest> {
        self.query(log::newest).await
    }

    async fn trim(&self, retention: &Retention) -> Outcome<(u64, Measure)> {
        loop {
            // Publications have their turn in between.
            let (retention, now) = (retention.clone(), self.0.clock.unix_time());
            let trim = self.write(move |connection, _| log::trim(connection, &retention, now));
            if let (false, left) = trim.await? {
                return Ok(left);
            }
        }
    }

    async fn measure(&self) -> Outcome<Measure> {
        self.query(|connection| Ok(log::measure(connection)?.1)).await
    }

    async fn renew(&self, node: &str, _: Duration) -> Outcome<Option<Standing>> {
        let node = node.to_owned();
        self.write(move |connection, _| roster::renew(connection, &node)).await.map(Some)
    }

    async fn note(&self, node: &str, changes: &[Change]) -> Outcome<Standing> {
        let (node, changes) = (node.to_owned(), changes.to_vec());
        self.write(move |connection, _| roster::note(connection, &node, &changes)).await?;
        Ok(Standing::Kept)
    }

    async fn others(&self, node: &str) -> Outcome<(u64, Vec<RosterEntry>)> {
        let node = node.to_owned();
        self.query(move |connection| roster::others(connection, &node)).await
    }

    async fn claim(&self, node: &str, _: Duration) -> Outcome<Option<Claimed>> {
        let node = node.to_owned();
        self.query(move |connection| roster::claim(connection, &node)).await
    }

    async fn bury(&self, node: &str) -> Outcome<()> {
        let node = node.to_owned();
        self.write(move |connection, _| roster::bury(connection, &node)).await
    }
}

/// Keeps a second hub away from the file, under whatever name it knows it.
fn take_lock(path: &Path) -> Outcome<File> {
    // One that is not there yet has no other name.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut beside = real.clone().into_os_string();
    beside.push(".lock");
    let refused = |reason: String| TransportError::Refused(reason);
    if std::fs::metadata(&real).is_ok_and(|found| !found.is_file()) {
        return Err(refused(format!("{} is no ordinary file", path.display())));
    }
    // SQLite keeps what is under way beside the name that it was given.
    if std::fs::metadata(&real).is_ok_and(|file| file.nlink() > 1) {
        return Err(refused(format!(
            "{} has another name (a hard link), under which another hub could use it; remove one of \
             them",
            path.display()
        )));
    }
    let file = File::options().create(true).truncate(false).write(true).open(&beside);
    let file = file.map_err(|error| {
        refused(format!(
            "{} cannot be opened for writing ({error}); does its folder exist, and may this user \
             write there?",
            path.display()
        ))
    })?;
    // A hub whose place this one takes may hold it for another moment.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, which outlives the runtime"
    )]
    let pause = || std::thread::sleep(LOCK_PAUSE);
    let mut locked = file.try_lock();
    for _ in 0..LOCK_TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        pause();
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(refused(format!(
            "another hub uses {}; several nodes need redis://, postgres:// or nats://",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => {
            Err(refused(format!("{} cannot be locked: {error}", path.display())))
        }
    }
}

/// Who must react to an error of SQLite, and how.
fn explain(error: &rusqlite::Error) -> TransportError {
    let code = error.sqlite_error_code();
    let unavailable = |reason: &str| TransportError::Unavailable(format!("{reason} ({error})"));
    match code {
        Some(ErrorCode::DiskFull) => unavailable("the disk is full"),
        Some(ErrorCode::ReadOnly) => unavailable("the file or its file system is read-only"),
        Some(ErrorCode::SystemIoFailure) => unavailable("the disk fails"),
        Some(ErrorCode::NotADatabase) => {
            TransportError::Refused("the file is not a log of a hub".to_owned())
        }
        Some(ErrorCode::DatabaseCorrupt) => TransportError::Refused(format!(
            "the file is damaged; restore it from a backup, or move it away ({error})"
        )),
        _ => TransportError::Unavailable(error.to_string()),
    }
}
