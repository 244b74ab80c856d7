"""Subscribers that come back, as a browser's ``EventSource`` does, and a checker for them."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

#: How long a member waits before it comes back, in seconds.
RETRY = 0.2


@dataclass(eq=False)
class Member:
    """One subscriber: everything it has received, over all of its connections."""

    numbers: list[int] = field(default_factory=list)
    last_id: str = ""
    drops: int = 0
    gaps: int = 0
    socket: socket.socket | None = None
    return_at: float = 0.0
    _head: bytes | None = b""
    _rest: bytes = b""

    def connect(self, port: int, path: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
        lines += [f"Last-Event-ID: {self.last_id}"] if self.last_id else []
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.socket.setblocking(False)
        self._head, self._rest = b"", b""

    def receive(self) -> bool:
        """Takes what has arrived; false once the connection has ended."""
        assert self.socket is not None
        try:
            chunk = self.socket.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if self._head is not None:
            head, mark, chunk_left = (self._head + chunk).partition(b"\r\n\r\n")
            if not mark:
                self._head = head
                return bool(chunk)
            self._begin(head.decode("latin-1"))
            self._take(chunk_left)
        else:
            self._take(chunk)
        return bool(chunk)

    @property
    def is_live(self) -> bool:
        return self.socket is not None and self._head is None

    def _begin(self, head: str) -> None:
        self._head = None
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
        preceding = fields.get("last-event-id")
        if self.last_id and preceding != self.last_id.lower():
            self.gaps += 1

    def _take(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            for line in block.split(b"\n"):
                if line.startswith(b"id: "):
                    self.last_id = line[4:].decode()
                elif line.startswith(b"data: "):
                    self.numbers.append(int(line[6:]))


class Audience:
    """Many members, served by one thread until :meth:`stop`."""

    def __init__(self, port: int, path: str, count: int) -> None:
        self.members = [Member() for _ in range(count)]
        self._port, self._path = port, path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def drops(self) -> int:
        return sum(member.drops for member in self.members)

    @property
    def gaps(self) -> int:
        return sum(member.gaps for member in self.members)

    def all_live(self) -> bool:
        return all(member.is_live for member in self.members)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            away = list(self.members)
            while not self._stopping.is_set():
                now = time.monotonic()
                for member in [m for m in away if m.return_at <= now]:
                    if self._join(member, selector):
                        away.remove(member)
                for key, _ in selector.select(0.02):
                    if not key.data.receive():
                        selector.unregister(key.fileobj)
                        key.data.drops += 1
                        self._leave(key.data)
                        away.append(key.data)
            for member in self.members:
                self._leave(member)

    def _join(self, member: Member, selector: selectors.BaseSelector) -> bool:
        try:
            member.connect(self._port, self._path)
        except OSError:
            self._leave(member)
            return False
        selector.register(member.socket, selectors.EVENT_READ, member)
        return True

    def _leave(self, member: Member) -> None:
        if member.socket is not None:
            member.socket.close()
        member.socket = None
        member.return_at = time.monotonic() + RETRY


def violations(members: list[list[int]], acknowledged: set[int], doubtful: set[int]) -> list[str]:
    """What is wrong with what the members of an audience received.

    Everything that was acknowledged must be there, once, and in the same order for all. What was
    sent and not acknowledged may be there, for all or for none.
    """
    found = []
    reference = members[0] if members else []
    for name, numbers in enumerate(members):
        counts = Counter(numbers)
        repeated = sorted(number for number, count in counts.items() if count > 1)
        missing = sorted(acknowledged - counts.keys())
        strange = sorted(counts.keys() - acknowledged - doubtful)
        found += [f"member {name}: repeated {repeated[:5]}"] if repeated else []
        found += [f"member {name}: missing {missing[:5]}"] if missing else []
        found += [f"member {name}: never published {strange[:5]}"] if strange else []
        if not (repeated or missing or strange) and numbers != reference:
            found.append(f"member {name}: another order than member 0")
    return found
