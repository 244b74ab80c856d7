"""The companion's log in the application's: one of its workers repeats what it says."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
from collections.abc import Callable

from ..errors import HubUnavailable
from .messages import receive, send

_LEVELS = {
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}
#: Time, level, text.
_LINE = re.compile(r"\S+\s+(ERROR|WARN|INFO|DEBUG)\s+(.*)", re.DOTALL)


class LogLines:
    """A connection for lines of the log, and the thread that reads it.

    Every process asks for them, and the companion tells one that is there. When another companion
    takes its place, the thread comes back to that one; it ends with the companion.

    :param connect: connects to the companion.
    :param logger: the application's.
    """

    def __init__(self, connect: Callable[[], socket.socket], logger: logging.Logger) -> None:
        self._connect = connect
        self._logger = logger
        self._connection: socket.socket | None = None
        self._closed = False
        self.has_ended = False
        threading.Thread(target=self._run, name="mercure-log", daemon=True).start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """After a fork: the connection stays the parent's, and there is no thread."""
        self.has_ended = True
        if self._connection is not None:
            self._connection.close()

    def _run(self) -> None:
        try:
            while not self._closed and self._read():
                pass
        except (OSError, HubUnavailable, ValueError):
            pass  # the companion is gone; whoever needs it next starts it, and asks again
        finally:
            self.has_ended = True

    def _read(self) -> bool:
        """Repeats lines until the companion closes; whether it is worth asking again."""
        with self._connect() as connection:
            self._connection = connection
            if self._closed:
                return False
            send(connection, b'{"kind": "log"}')
            if json.loads(receive(connection))["status"] != 200:
                return False
            connection.settimeout(None)
            with contextlib.suppress(ConnectionError):
                while True:
                    self._repeat(receive(connection).decode("utf-8", "replace"))
        return True

    def _repeat(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        level, text = found.groups() if found else ("INFO", line)
        self._logger.log(_LEVELS[level], "mercure-hub: %s", text)
