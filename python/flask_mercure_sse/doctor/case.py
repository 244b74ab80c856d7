"""What an examination is about, and what it has found so far."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from ..errors import ConfigurationError
from .door import Door
from .findings import Finding, Level

if TYPE_CHECKING:
    from ..state import MercureSSEState


@dataclass(frozen=True)
class Options:
    """What the user has asked for.

    :param url: the application's public address.
    :param page: path of a page that needs no login; asked to see whether the application answers,
        and which cookie it sets.
    :param topics: topics the application uses, to see whether its tokens can ever match them.
    :param idle: how long a silent stream is watched, in seconds; 0 for not at all.
    :param timeout: for each answer, in seconds.
    :param connect: ``HOST:PORT`` to connect to, whatever the addresses say.
    """

    url: str
    page: str = "/"
    topics: tuple[str, ...] = ()
    idle: float = 20.0
    timeout: float = 5.0
    connect: str | None = None


@dataclass
class Case:
    """An application and its hub, as seen from outside.

    :param hub_path: path of the built-in hub, below wherever the application is mounted.
    :param say: told what is being done, for whoever waits.
    """

    state: MercureSSEState
    options: Options
    hub_path: str
    say: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        url = self.options.url
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigurationError(f"{url} is no address; give it as https://example.com")
        # Its prefix, if the application is mounted below one, is part of what it tells itself.
        self.hub_url = urljoin(url, self.state.settings.public_hub_url or self.hub_path)
        #: Nobody else publishes to it, or listens.
        self.topic = f"urn:flask-mercure-sse:doctor:{secrets.token_hex(8)}"
        self.page_door = Door(origin_of(url), self.options.connect)
        self.hub_door = Door(origin_of(self.hub_url), self.options.connect)

    @property
    def timeout(self) -> float:
        """For each answer, in seconds."""
        return self.options.timeout

    def subscription(self, hub_url: str | None = None) -> str:
        """Path and query to listen to the doctor's topic."""
        parts = urlsplit(hub_url or self.hub_url)
        return f"{parts.path}?{urlencode({'topic': self.topic})}"

    def credentials(self) -> Mapping[str, str]:
        """Header fields that allow to read the doctor's private updates."""
        settings = self.state.settings
        if settings.subscriber_secret_key is None:
            return {}
        token = self.state.instance.create_subscription_jwt(self.topic)
        return {"Authorization": f"Bearer {token}"}

    def note(self, level: Level, cause: str, text: str, fix: str = "") -> None:
        """Adds a finding."""
        self.findings.append(Finding(level, cause, text, fix))

    def fault(self, cause: str, text: str, fix: str) -> None:
        """Adds a fault."""
        self.note("fault", cause, text, fix)

    def found(self, *causes: str) -> bool:
        """Whether one of these faults was found."""
        return any(f.level == "fault" and f.cause in causes for f in self.findings)

    def close(self) -> None:
        """Closes what was opened."""
        self.page_door.close()
        self.hub_door.close()


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
