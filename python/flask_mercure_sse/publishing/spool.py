"""Updates kept on disk until their hub takes them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigurationError
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
_SIZE = "SELECT coalesce(sum(length(form)), 0) FROM updates"
_INSERT = "INSERT INTO updates (id, form, attempted, not_before) VALUES (?, ?, ?, ?)"
_OLDEST = "SELECT number, id, form, attempted, not_before FROM updates ORDER BY number LIMIT 1"


@dataclass(frozen=True)
class Spooled:
    """An update in the spool."""

    number: int
    update: Update
    attempted: bool


class Spool:
    """A file of updates that several processes share, oldest first.

    What is in it survives the end of every process; after a power failure the newest updates may
    be missing (SQLite, WAL, ``synchronous=NORMAL``).

    :param path: of the file; its folder must exist.
    :param limit: size of all updates in it, in bytes.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0

    def _open(self) -> sqlite3.Connection:
        """This process's connection: SQLite's must not be used across a fork."""
        if self._connection is None or self._owner != os.getpid():
            try:
                Path(self._path).touch(mode=0o600)
                connection = sqlite3.connect(
                    self._path, timeout=1.0, isolation_level=None, check_same_thread=False
                )
            except (OSError, sqlite3.Error) as error:
                raise ConfigurationError(
                    f"the spool {self._path} cannot be opened ({error}); set MERCURE_SPOOL"
                ) from error
            _prepare(connection)
            self._connection, self._owner = connection, os.getpid()
        return self._connection

    def add(self, update: Update, *, pause: float = 0.0) -> int | None:
        """Adds an update; returns its number, or ``None`` if there is no room.

        :param pause: seconds for which an attempt to send it may still be under way.
        """
        row = (update.id, update.form, bool(pause), time.time() + pause if pause else 0.0)
        with self._lock:
            database = self._open()
            (size,) = database.execute(_SIZE).fetchone()
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

    def _execute(self, statement: str, number: int) -> None:
        with self._lock:
            self._open().execute(statement, (number,))

    def is_empty(self) -> bool:
        """Whether no update waits."""
        with self._lock:
            return self._open().execute("SELECT 1 FROM updates LIMIT 1").fetchone() is None

    def next(self) -> Spooled | None:
        """The oldest update; ``None`` as well while an attempt to send it is under way."""
        with self._lock:
            row = self._open().execute(_OLDEST).fetchone()
        if row is None or row[4] > time.time():
            return None
        return Spooled(row[0], Update(row[1], row[2]), bool(row[3]))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Of all processes, one sends: whether it is this one."""
        with open(f"{self._path}.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None


def _prepare(database: sqlite3.Connection) -> None:
    deadline = time.monotonic() + 5.0
    while True:
        try:
            # Switching does not wait for others that do the same, so it is tried again.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_SCHEMA)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
