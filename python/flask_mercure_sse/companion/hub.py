"""The companion as a hub to publish to."""

from __future__ import annotations

from collections.abc import Callable

from ..publishing.hubs import error_of
from ..updates import Update
from .bus import Bus


class BuiltInHub:
    """The built-in hub.

    :param bus: finds the bus; asked for each update, because it differs between users and tests.
    """

    def __init__(self, bus: Callable[[], Bus]) -> None:
        self._bus = bus

    def send(self, update: Update, *, again: bool = False) -> None:
        """Publishes an update; see :class:`~flask_mercure_sse.publishing.HubTarget`."""
        verdict = self._bus().publish(update.form, again=again)
        if verdict.status != 200:
            raise error_of(verdict.status, verdict.body.decode("utf-8", "replace"))
