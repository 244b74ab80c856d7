"""Updates kept on disk until their hub takes them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MercureError
from ..updates import Update

if sys.platform != "win32":
    import fcntl

_SCHEMA = """
CREATE TABLE IF NOT EXISTS updates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    form BLOB NOT NULL,
    attempted INTEGER NOT NULL,  -- whether the hub may have it already
    not_before REAL NOT NULL     -- Unix time until which another attempt is under way
)
"""
_INSERT = "INSERT INTO updates (id, form, attempted, not_before) VALUES (?, ?, ?, ?)"
_OLDEST = "SELECT number, id, form, attempted, not_before FROM updates ORDER BY number LIMIT 1"
_PAGES = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), "
    "pragma_freelist_count(), pragma_page_size()"
)
_ANY = "SELECT 1 FROM updates LIMIT 1"
#: How long a request waits for another process that writes, in seconds.
_LOCK_TIMEOUT = 0.1


class SpoolError(MercureError):
    """The spool cannot be read or written."""


@dataclass(frozen=True)
class Spooled:
    """An update in the spool."""

    number: int
    update: Update
    attempted: bool


class Spool:
    """A file of updates that several processes share, oldest first.

    What is in it survives the end of every process; after a power failure the newest updates may
    be missing (SQLite, WAL, ``synchronous=NORMAL``). Every method but :meth:`close` raises
    :class:`SpoolError` if the file cannot be used.

    :param path: of the file; its folder must exist.
    :param limit: size of what it holds, in bytes on disk.
    :param prepare: makes the folder that the file is in, when it is needed.
    """

    def __init__(self, path: str, limit: int, prepare: Callable[[], object] | None = None) -> None:
        self._path = path
        self._limit = limit
        self._prepare = prepare
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        _spools.add(self)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """This process's connection, for one thread at a time."""
        with self._lock:
            try:
                if self._connection is None:
                    if self._prepare is not None:
                        self._prepare()
                    self._connection = _connect(self._path)
                yield self._connection
            except (OSError, sqlite3.Error, MercureError) as error:
                raise SpoolError(f"the spool {self._path} cannot be used: {error}") from error

    def _execute(self, statement: str, *values: Any) -> Any:
        with self._database() as database:
            return database.execute(statement, values).fetchone()

    def add(self, update: Update, *, pause: float = 0.0) -> int | None:
        """Adds an update; returns its number, or ``None`` if there is no room.

        :param pause: seconds for which an attempt to send it may still be under way.
        """
        row = (update.id, update.form, bool(pause), time.time() + pause if pause else 0.0)
        with self._database() as database:
            (size,) = database.execute(_PAGES).fetchone()
            if size + len(update.form) > self._limit:
                return None
            return database.execute(_INSERT, row).lastrowid

    def release(self, number: int) -> None:
        """The attempt that was under way has failed: the next one may begin."""
        self._execute("UPDATE updates SET not_before = 0 WHERE number = ?", number)

    def attempt(self, number: int) -> None:
        """From now on the hub may have the update."""
        self._execute("UPDATE updates SET attempted = 1 WHERE number = ?", number)

    def remove(self, number: int) -> None:
        """The update has arrived, or never will."""
        self._execute("DELETE FROM updates WHERE number = ?", number)

    def is_empty(self) -> bool:
        """Whether no update waits."""
        # A file that nobody has needed yet is not made for the question.
        return not os.path.exists(self._path) or self._execute(_ANY) is None

    def next(self) -> Spooled | None:
        """The oldest update; ``None`` as well while an attempt to send it is under way."""
        row = self._execute(_OLDEST)
        if row is None or row[4] > time.time():
            return None
        return Spooled(row[0], Update(row[1], row[2]), bool(row[3]))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Of all processes, one sends: whether it is this one."""
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"the spool {self._path} cannot be used: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            yield False
            return
        try:
            yield True
        finally:
            # Closing would not do: a child forked meanwhile has the descriptor as well.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def before_fork(self) -> None:
        """SQLite must not be open across a fork: nobody uses it until the fork has happened."""
        self._lock.acquire()
        self._disconnect()

    def after_fork(self) -> None:
        """The fork has happened, in either process."""
        self._lock.release()


def _connect(path: str) -> sqlite3.Connection:
    Path(path).touch(mode=0o600)
    database = sqlite3.connect(
        path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    deadline = time.monotonic() + 1.0
    while True:
        try:
            # Switching does not wait for others that do the same, so it is tried again.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_SCHEMA)
            return database
        except sqlite3.Error as error:
            if not isinstance(error, sqlite3.OperationalError) or time.monotonic() > deadline:
                database.close()
                raise
            time.sleep(0.01)


_spools: weakref.WeakSet[Spool] = weakref.WeakSet()
#: One fork at a time: what the second one waited for would be released under its feet.
_forking = threading.Lock()
_held: list[Spool] = []


def _before_fork() -> None:
    _forking.acquire()
    for spool in list(_spools):
        spool.before_fork()
        _held.append(spool)


def _after_fork() -> None:
    while _held:
        _held.pop().after_fork()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
