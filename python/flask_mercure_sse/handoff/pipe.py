"""Handing over where the server shows no socket: a socket pair takes the connection's place."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

#: Name of the :class:`Exit` in the ASGI scope.
SCOPE_KEY = "flask_mercure_sse"


@dataclass
class Exit:
    """The way out of one ASGI request: the wrapper makes it, the view opens it.

    :param token: what the response must carry: then no middleware has answered instead.
    """

    token: str
    inside: socket.socket | None = None

    def opened_by(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a response with these header fields is the one that opened it."""
        marks = [value for name, value in headers if name.lower() == b"x-mercure-handoff"]
        return self.inside is not None and marks == [self.token.encode()]

    def close(self) -> None:
        """Closes this process's end: the hub learns that the client has left."""
        if self.inside is not None:
            self.inside.close()
            self.inside = None


class Pipe:
    """A socket pair about to be handed over.

    ``live`` is the hub's end; on ``far`` it finds the head of the response that it waits for.
    """

    def __init__(self, way_out: Exit, mark: str) -> None:
        self._exit = way_out
        self._inside, self._outside = socket.socketpair()
        near, self.far = socket.socketpair()
        with near:
            near.sendall(f"HTTP/1.1 200 OK\r\n{mark}: {way_out.token}\r\n\r\n".encode())

    @property
    def live(self) -> int:
        """Descriptor of the hub's end."""
        return self._outside.fileno()

    def commit(self) -> None:
        """The hub has it."""
        self._exit.inside = self._inside

    def close(self) -> None:
        """Closes this process's copies of what the hub has, or of everything."""
        self._outside.close()
        self.far.close()
        if self._exit.inside is None:
            self._inside.close()
