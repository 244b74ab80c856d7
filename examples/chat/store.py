"""Messages in SQLite: shared by all workers, kept across restarts."""

import sqlite3
from contextlib import closing
from datetime import datetime, timezone

SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sender TEXT NOT NULL,
    recipient TEXT,
    body TEXT NOT NULL,
    sent_at TEXT NOT NULL
)
"""
#: Messages that a page shows at most.
PAGE = 100


class Store:
    def __init__(self, path):
        self._path = path
        with closing(self._connect()) as db:
            db.execute(SCHEMA)

    def _connect(self):
        db = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        db.row_factory = sqlite3.Row
        return db

    def add(self, sender, recipient, body):
        """Keeps a message and returns it as a dictionary."""
        sent_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        insert = (
            "INSERT INTO message (sender, recipient, body, sent_at) VALUES (?, ?, ?, ?) RETURNING *"
        )
        with closing(self._connect()) as db:
            return dict(db.execute(insert, (sender, recipient, body, sent_at)).fetchone())

    def visible_to(self, name, after=0):
        """The newest messages that a user may see, oldest first."""
        query = """
            SELECT * FROM message
            WHERE id > ? AND (recipient IS NULL OR recipient = ? OR sender = ?)
            ORDER BY id DESC LIMIT ?
        """
        with closing(self._connect()) as db:
            rows = db.execute(query, (after, name, name, PAGE)).fetchall()
        return [dict(row) for row in reversed(rows)]

    def names(self):
        """Everybody who has written, in alphabetical order."""
        with closing(self._connect()) as db:
            rows = db.execute("SELECT DISTINCT sender FROM message ORDER BY sender LIMIT 200")
            return [row["sender"] for row in rows]
