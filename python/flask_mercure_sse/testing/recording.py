"""What an application publishes, without a hub."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from flask import Flask

from ..errors import HubUnavailable, PublishError
from ..publishing import HubTarget
from ..state import KEY, MercureSSEState
from ..updates import Update


@dataclass(frozen=True)
class Recorded:
    """An update, as the hub would have received it.

    :param topics: the canonical topic first.
    :param retry: reconnection time in milliseconds.
    """

    topics: list[str]
    data: str
    id: str
    private: bool
    type: str | None
    retry: int | None

    @property
    def topic(self) -> str:
        """The canonical topic."""
        return self.topics[0]

    @property
    def json(self) -> Any:
        """The payload, read as JSON."""
        return json.loads(self.data)

    @classmethod
    def of(cls, update: Update) -> Recorded:
        """What an update says."""
        fields = parse_qs(update.form.decode(), keep_blank_values=True)
        retry = fields.get("retry")
        return cls(
            topics=fields["topic"],
            data=fields["data"][0],
            id=update.id,
            private="private" in fields,
            type=fields.get("type", [None])[0],
            retry=int(retry[0]) if retry else None,
        )


class _Recorder:
    def __init__(self) -> None:
        self.updates: list[Recorded] = []

    def send(self, update: Update, *, again: bool = False) -> None:  # noqa: ARG002
        self.updates.append(Recorded.of(update))


class _Failing:
    def __init__(self, error: PublishError) -> None:
        self._error = error

    def send(self, update: Update, *, again: bool = False) -> None:  # noqa: ARG002
        raise self._error


@contextlib.contextmanager
def record(app: Flask) -> Iterator[list[Recorded]]:
    """Records what an application publishes within the block; nothing reaches a hub.

    The list grows while the block runs. ``publish`` returns ids as always.
    """
    recorder = _Recorder()
    with _published_to(app, recorder):
        yield recorder.updates


@contextlib.contextmanager
def failing(app: Flask, error: PublishError | None = None) -> Iterator[None]:
    """Makes publishing fail within the block, as if the hub were away.

    :param error: another error than :class:`~flask_mercure_sse.HubUnavailable`.
    """
    with _published_to(app, _Failing(error or HubUnavailable("a test has switched the hub off"))):
        yield


@contextlib.contextmanager
def _published_to(app: Flask, target: HubTarget) -> Iterator[None]:
    state: MercureSSEState = app.extensions[KEY]
    with state.publishing_to(target):
        yield
