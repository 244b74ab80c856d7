"""What a publisher needs of a hub."""

from __future__ import annotations

from typing import Literal, Protocol

from ..errors import HubRefused, HubUnavailable, InvalidUpdate, PublishError
from ..updates import Update

#: What happens when an update cannot be published: an exception, a line in the log, or a place
#: on disk until the hub is back.
OnFailure = Literal["raise", "log", "spool"]


class HubTarget(Protocol):
    """Where updates go."""

    def send(self, update: Update, *, again: bool = False) -> None:
        """Publishes an update and waits for the hub's answer.

        :param again: an earlier attempt may have succeeded: the update must not appear twice.
        :raises HubUnavailable: if the hub cannot be reached, or cannot accept updates now.
        :raises HubRefused: if it refuses.
        :raises InvalidUpdate: if the update breaks a rule of the protocol.
        """


def error_of(status: int, answer: str) -> PublishError:
    """What a hub's refusal means for the application."""
    reason = " ".join(answer.split())[:200] or "no reason given"
    if status in (400, 413, 415):
        return InvalidUpdate(f"the hub does not accept the update: {reason}")
    if status >= 500:
        return HubUnavailable(f"the hub answered {status}: {reason}")
    advice = "; check MERCURE_PUBLISHER_JWT" if status in (401, 403) else ""
    return HubRefused(f"the hub answered {status}: {reason}{advice}", status)
