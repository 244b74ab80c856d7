"""A reader of event streams that never waits for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import urllib3


@dataclass(frozen=True)
class Event:
    """A server-sent event.

    :param type: ``message`` if the event has none.
    """

    id: str
    type: str
    data: str


class Events:
    """A subscription to a running server, for tests that want to see an event arrive.

    ::

        with Events("http://127.0.0.1:5000/.well-known/mercure?topic=news") as events:
            assert events.next().data == "hello"

    :param url: the address to subscribe at.
    :param headers: further header fields: ``Cookie``, ``Authorization``, ``Last-Event-ID``.
    :param timeout: seconds that connecting, and each :meth:`next`, may take.
    :raises AssertionError: if the answer is no event stream.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str] | None = None, timeout: float = 10.0
    ) -> None:
        self._timeout = timeout
        self._pool = urllib3.PoolManager()
        limits = urllib3.Timeout(connect=timeout, read=timeout)
        fields = {"Accept": "text/event-stream", **(headers or {})}
        self._answer = self._pool.request(
            "GET", url, headers=fields, preload_content=False, timeout=limits, retries=False
        )
        kind = self._answer.headers.get("Content-Type", "")
        if self._answer.status != 200 or not kind.startswith("text/event-stream"):
            text = self._answer.read(1000).decode("utf-8", "replace")
            self.close()
            raise AssertionError(f"no event stream but {self._answer.status}: {text}")
        self._lines = self._read_lines()

    def next(self) -> Event:
        """The next event.

        :raises AssertionError: if none arrives in time, or the stream ends.
        """
        deadline = time.monotonic() + self._timeout
        fields: dict[str, Any] = {"data": []}
        try:
            for line in self._lines:
                if time.monotonic() > deadline:
                    break
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "data":
                    fields["data"].append(value)
                elif name in ("id", "event"):
                    fields[name] = value
                elif not line and fields["data"]:
                    data = "\n".join(fields["data"])
                    return Event(fields.get("id", ""), fields.get("event", "message"), data)
            else:
                raise AssertionError("the stream has ended")
        except urllib3.exceptions.HTTPError as error:
            raise AssertionError(f"no event within {self._timeout:g} seconds") from error
        raise AssertionError(f"no event within {self._timeout:g} seconds")

    def _read_lines(self) -> Iterator[str]:
        waiting = b""
        while chunk := self._answer.read1():
            *lines, waiting = (waiting + chunk).split(b"\n")
            yield from (line.decode().removesuffix("\r") for line in lines)

    def close(self) -> None:
        """Ends the subscription."""
        self._answer.close()
        self._pool.clear()

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
