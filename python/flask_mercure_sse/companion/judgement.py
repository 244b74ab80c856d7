"""Asking the hub's own code what a topic selector matches."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from urllib.parse import urlencode

from .binary import find_binary

#: How long the binary may think, in seconds.
_PATIENCE = 10.0
#: Nothing is signed here, and the binary wants a key.
_NO_KEY = "no token is judged with this"


@dataclass(frozen=True)
class Grant:
    """A matcher in a token.

    :param parameter: the query parameter that means the same: ``topic`` for a selector of 0.x,
        ``match`` and ``match_urlpattern`` for the matchers of 1.0.
    """

    parameter: str
    text: str


@dataclass(frozen=True)
class Judgement:
    """What the hub makes of a selector and a topic.

    :param hints: what may have been meant, if they do not match.
    """

    matches: bool
    hints: tuple[str, ...]


def judge(grant: Grant, topic: str) -> Judgement:
    """Whether a grant matches a topic.

    :raises HubUnavailable: if the binary is missing.
    """
    asked = [f"--query={urlencode({grant.parameter: grant.text})}", f"--topic={topic}"]
    result = subprocess.run(
        [find_binary(), "explain", *asked],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
        env={"MERCURE_SUBSCRIBER_JWT_KEY": _NO_KEY, "MERCURE_PUBLISHER_JWT_KEY": _NO_KEY},
    )
    lines = [line.strip() for line in result.stdout.splitlines()]
    hints = (line.removeprefix("hint: ") for line in lines if line.startswith("hint: "))
    return Judgement(result.returncode == 0, tuple(hints))
