"""Asking the hub's own code what a topic selector matches."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from urllib.parse import urlencode

from ..errors import ConfigurationError
from ..settings import Settings
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


def explain_command(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """The command that judges tokens with an application's keys, and its environment.

    :raises ConfigurationError: if the application has not the keys, or has some that are no text.
    :raises HubUnavailable: if the binary is missing.
    """
    if settings.is_external and not settings.has_own_subscriber_key:
        raise ConfigurationError(
            "the external hub judges tokens with keys that this application does not have: set "
            "MERCURE_SUBSCRIBER_SECRET_KEY and MERCURE_PUBLISHER_SECRET_KEY, or run mercure-hub "
            "explain where they are"
        )
    values = {
        "PUBLISHER_JWT_KEY": _text(settings.publisher_secret_key),
        "SUBSCRIBER_JWT_KEY": _text(settings.subscriber_secret_key),
        "TRUSTED_ISSUERS": settings.issuer,
        "RESOURCE_IDENTIFIER": settings.resource_identifier,
        "ANONYMOUS": "true" if settings.allow_anonymous else "false",
    }
    environment = {f"MERCURE_{name}": value for name, value in values.items() if value}
    return [find_binary(), "explain"], environment


def _text(key: str | bytes | None) -> str:
    try:
        text = key.decode() if isinstance(key, bytes) else key or ""
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigurationError("explain works with keys that are text; these are bytes")
    return text
