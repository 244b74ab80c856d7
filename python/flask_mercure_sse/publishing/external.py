"""A hub that is reached by URL."""

from __future__ import annotations

# Needed by every look-up of a host, and imported by the first one otherwise: a process that
# forks meanwhile has a child in which the encoding stays half imported and no host is found.
import encodings.idna  # noqa: F401
import os
from collections.abc import Callable

import urllib3

from ..errors import HubUnavailable
from ..updates import Update
from .hubs import error_of

_pool = urllib3.PoolManager(maxsize=16)


def _after_fork() -> None:
    """The parent's connections stay the parent's."""
    global _pool
    _pool = urllib3.PoolManager(maxsize=16)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ExternalHub:
    """Any Mercure hub.

    :param url: the hub's URL.
    :param token: makes the token to publish with.
    :param timeout: for a whole exchange, in seconds.
    """

    def __init__(self, url: str, token: Callable[[], str], timeout: float) -> None:
        self.url = url
        self._token = token
        self._timeout = timeout

    def send(self, update: Update, *, again: bool = False) -> None:  # noqa: ARG002
        """Publishes an update; see :class:`~.hubs.HubTarget`.

        The protocol has no way to say that an update is sent again: if the hub had accepted it
        before its answer was lost, subscribers see two events with one id.
        """
        headers = {
            "Authorization": f"Bearer {self._token()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        answer = _exchange("POST", self.url, headers, self._timeout, update.form)
        if answer.status != 200:
            raise error_of(answer.status, answer.data.decode("utf-8", "replace"))


def get(url: str, token: str, timeout: float) -> tuple[int, bytes]:
    """Reads a resource of a hub; returns status and body of the answer.

    :param timeout: for the whole exchange, in seconds.
    :raises HubUnavailable: if no answer arrives in time.
    """
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/ld+json"}
    answer = _exchange("GET", url, headers, timeout)
    return answer.status, answer.data


def _exchange(
    method: str, url: str, headers: dict[str, str], timeout: float, body: bytes | None = None
) -> urllib3.BaseHTTPResponse:
    try:
        return _pool.request(
            method,
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        # The library's message may repeat the URL, never the token: that is in a header.
        raise HubUnavailable(f"the hub cannot be reached: {error}") from error
