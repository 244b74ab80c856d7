"""Requests to one origin, by the address that a browser would use or by another one."""

from __future__ import annotations

import contextlib
import email.utils
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3

#: What browsers say they can decompress.
_ENCODINGS = "gzip, deflate"
#: What is read of an answer at most, in bytes.
_MUCH = 16 * 1024
#: A stream that lives no longer than this, in seconds, was none.
_AT_ONCE = 0.5


@dataclass(frozen=True)
class Reply:
    """An answer that has ended.

    :param seconds: how long it took.
    :param skew: how far its ``Date`` is ahead of this machine's clock, in seconds; ``None`` if it
        bears none.
    """

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    text: str
    seconds: float
    skew: float | None


class Door:
    """An origin.

    :param origin: as in ``https://example.com``.
    :param connect: ``HOST:PORT`` to connect to instead; the origin's name is still what is said.
    :raises urllib3.exceptions.HTTPError: by each request, if there is no answer.
    """

    def __init__(self, origin: str, connect: str | None = None) -> None:
        parts = urlsplit(origin)
        self.origin = origin
        self.is_secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        port = parts.port or (443 if self.is_secure else 80)
        host, _, other = (connect or "").rpartition(":")
        place = (host, int(other)) if connect else (self.host, port)
        self._name = parts.netloc
        self._pool: urllib3.HTTPConnectionPool
        if self.is_secure:
            names: dict[str, Any] = {"server_hostname": self.host, "assert_hostname": self.host}
            self._pool = urllib3.HTTPSConnectionPool(*place, maxsize=32, retries=False, **names)
        else:
            self._pool = urllib3.HTTPConnectionPool(*place, maxsize=32, retries=False)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        timeout: float,
    ) -> Reply:
        """Sends a request and reads its whole answer; redirects are not followed."""
        begin = time.monotonic()
        answer = self._open(method, path, headers, body, timeout)
        seconds = time.monotonic() - begin
        text = b""
        # The head is what matters; of the body, what comes soon.
        while len(text) < _MUCH and time.monotonic() - begin < timeout:
            chunk = answer.read1(_MUCH)
            if not chunk:
                break
            text += chunk
        answer.close()
        shown = " ".join(text.decode("utf-8", "replace").split())[:200]
        cookies = tuple(answer.headers.getlist("Set-Cookie"))
        return Reply(answer.status, answer.headers, cookies, shown, seconds, _skew(answer.headers))

    def listen(self, path: str, headers: Mapping[str, str], *, timeout: float) -> Listener:
        """Opens a stream.

        :param timeout: for its head to arrive, and for each silence after it, in seconds.
        """
        fields = {"Accept": "text/event-stream", "Cache-Control": "no-cache", **headers}
        return Listener(self._open("GET", path, fields, None, timeout))

    def _open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        fields = {"Host": self._name, "Accept-Encoding": _ENCODINGS, **(headers or {})}
        return self._pool.urlopen(
            method,
            path,
            body=body,
            headers=fields,
            timeout=urllib3.Timeout(connect=timeout, read=timeout),
            redirect=False,
            assert_same_host=False,
            preload_content=False,
        )

    def close(self) -> None:
        """Closes idle connections."""
        self._pool.close()


def _skew(headers: Mapping[str, str]) -> float | None:
    """How far the clock behind an answer is ahead of ours, in seconds; caches say how old it is."""
    date = email.utils.parsedate_tz(headers.get("Date", ""))
    age = headers.get("Age", "0")
    if date is None or not age.isdecimal():
        return None
    return email.utils.mktime_tz(date) + int(age) - time.time()


@dataclass
class Listener:
    """A stream, read by a thread of its own."""

    answer: urllib3.BaseHTTPResponse
    text: str = ""
    #: When it ended, on the clock of :func:`time.monotonic`.
    ended_at: float | None = None
    #: When its head had arrived.
    opened_at: float = field(default_factory=time.monotonic)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.status = self.answer.status
        self.headers = self.answer.headers
        threading.Thread(target=self._read, name="mercure-doctor", daemon=True).start()

    def _read(self) -> None:
        try:
            while chunk := self.answer.read1(decode_content=True):
                with self._news:
                    self.text += chunk.decode("utf-8", "replace")
                    self._news.notify_all()
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            pass  # cut, or closed by us: it has ended, whichever way
        self.answer.close()
        with self._news:
            self.ended_at = time.monotonic()
            self._news.notify_all()

    def hears(self, text: str, within: float) -> bool:
        """Waits for a text; whether it has come.

        :param within: in seconds.
        """
        with self._news:
            self._news.wait_for(lambda: text in self.text or self.ended_at is not None, within)
            return text in self.text

    def ends(self, within: float) -> bool:
        """Waits for the end of the stream.

        :param within: in seconds.
        """
        with self._news:
            return self._news.wait_for(lambda: self.ended_at is not None, within)

    def ends_at_once(self) -> bool:
        """Whether it was an answer like any other, with an end that came along."""
        self.ends(_AT_ONCE)
        return self.ended_at is not None and self.ended_at - self.opened_at < _AT_ONCE

    def close(self) -> None:
        """Ends the subscription."""
        # Closing would wait for the thread, which may wait for the hub.
        if isinstance(self.answer, urllib3.HTTPResponse):
            with contextlib.suppress(OSError, ValueError):
                self.answer.shutdown()
