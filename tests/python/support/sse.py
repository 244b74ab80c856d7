"""Readers of event streams over raw sockets: what arrives, byte by byte, with deadlines."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

PATIENCE = 30.0


@dataclass
class Event:
    id: str = ""
    type: str = "message"
    data: str | None = None


@dataclass(eq=False)
class Stream:
    """One subscriber on a connection of its own."""

    socket: socket.socket
    head: str = ""
    events: list[Event] = field(default_factory=list)
    ended: bool = False
    #: How many of the events have data.
    count: int = 0
    _buffer: bytes = b""
    _chunked: bool = False
    _left: int | None = None
    _arrived: bytes = b""

    @classmethod
    def open(cls, port: int, path: str, headers: dict[str, str] | None = None) -> Stream:
        """Connects and reads the head of the answer."""
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        return cls.on(connection, path, headers)

    @classmethod
    def on(
        cls, connection: socket.socket, path: str, headers: dict[str, str] | None = None
    ) -> Stream:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        stream = cls(connection)
        deadline = time.monotonic() + PATIENCE
        while not stream.head and not stream.ended:
            assert time.monotonic() < deadline, "no answer in time"
            stream.receive()
        return stream

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    def header(self, name: str) -> str | None:
        return next(iter(self.headers(name)), None)

    def headers(self, name: str) -> list[str]:
        lines = self.head.split("\r\n")[1:]
        pairs = [line.split(": ", 1) for line in lines]
        return [value for field_name, value in pairs if field_name.lower() == name.lower()]

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events if event.data is not None]

    def receive(self) -> None:
        """Takes what the socket has (waits if it is blocking)."""
        try:
            chunk = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b""
        if not chunk:
            self.ended = True
            return
        held = len(self._buffer)
        self._buffer += chunk
        if not self.head:
            head, mark, rest = self._buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            self.head, self._buffer = head.decode("latin-1"), b""
            chunk = rest
            self._chunked = self.header("transfer-encoding") == "chunked"
            length = self.header("content-length")
            self._left = None if length is None else int(length)
        else:
            self._buffer = self._buffer[:held]
        if self._left is not None:
            # As every client does: what follows is not of this answer.
            chunk = chunk[: self._left]
            self._left -= len(chunk)
            self.ended = self._left == 0
        self._buffer += self._without_framing(chunk) if self._chunked else chunk
        *blocks, self._buffer = self._buffer.split(b"\n\n")
        for block in blocks:
            self._take(block.decode())

    def _without_framing(self, data: bytes) -> bytes:
        """What the whole chunks of a chunked body hold; the rest waits."""
        self._arrived += data
        body = b""
        while True:
            size, mark, rest = self._arrived.partition(b"\r\n")
            if not mark or len(rest) < int(size, 16) + 2:
                return body
            if int(size, 16) == 0:
                self.ended = True
                return body
            body += rest[: int(size, 16)]
            self._arrived = rest[int(size, 16) + 2 :]

    def _take(self, block: str) -> None:
        event, lines = Event(), []
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name == "data":
                lines.append(value)
            elif name == "id":
                event.id = value
            elif name == "event":
                event.type = value
        event.data = "\n".join(lines) if lines else None
        self.count += event.data is not None
        if event.id or event.data is not None:
            self.events.append(event)

    def wait(self, count: int, timeout: float = PATIENCE) -> list[str]:
        """Waits until so many events with data have arrived; returns them all."""
        Crowd([self]).wait(lambda: self.count >= count or self.ended, timeout)
        assert self.count >= count, f"the stream ended after {self.count} of {count}"
        return self.data

    def wait_for_end(self, timeout: float = PATIENCE) -> None:
        Crowd([self]).wait(lambda: self.ended, timeout)

    def close(self) -> None:
        self.socket.close()


class Crowd:
    """Many subscribers, read by one thread."""

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = streams

    def wait(self, done: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Reads until ``done()``; fails once the time is up."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for stream in self.streams:
                if not stream.ended:
                    stream.socket.setblocking(False)
                    selector.register(stream.socket, selectors.EVENT_READ, stream)
            while not done():
                left = deadline - time.monotonic()
                assert left > 0, "what was waited for did not happen in time"
                for key, _ in selector.select(min(left, 0.5)):
                    key.data.receive()
                    if key.data.ended:
                        selector.unregister(key.fileobj)
                        key.data.close()
        for stream in self.streams:
            if stream.socket.fileno() >= 0:
                stream.socket.settimeout(PATIENCE)

    def wait_for(self, count: int, timeout: float = PATIENCE) -> None:
        """Waits until everybody has so many events."""
        short = lambda: [s for s in self.streams if s.count < count]  # noqa: E731
        self.wait(lambda: not short() or any(s.ended for s in self.streams), timeout)
        assert not short(), f"{len(short())} of {len(self.streams)} did not get {count} events"

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
