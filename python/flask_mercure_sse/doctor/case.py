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


_PORTS = {"http": 80, "https": 443}


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
        origin_of(url)  # refuses what is no address
        # Its prefix, if the application is mounted below one, is part of what it tells itself.
        self.hub_url = urljoin(url, self.state.settings.public_hub_url or self.hub_path)
        #: Nobody listens to it, but who listens to everything.
        self.topic = f"urn:flask-mercure-sse:doctor:{secrets.token_hex(8)}"
        self.page_door = self.door_to(url)
        self.hub_door = self.door_to(self.hub_url)
        self.page_path = urlsplit(url).path.rstrip("/") + "/" + self.options.page.lstrip("/")

    @property
    def timeout(self) -> float:
        """For each answer, in seconds."""
        return self.options.timeout

    @property
    def may_read(self) -> bool:
        """Whether there is a key for tokens that the hub is meant to take. One that is signed with
        ``SECRET_KEY`` is not for a hub of somebody else."""
        settings = self.state.settings
        if settings.is_external:
            return settings.has_own_subscriber_key
        return settings.subscriber_secret_key is not None

    def door_to(self, url: str) -> Door:
        """The way to an origin; that of browsers may lead elsewhere than its name says."""
        public = {origin_of(self.options.url), origin_of(self.hub_url)}
        return Door(origin_of(url), self.options.connect if origin_of(url) in public else None)

    def subscription(self, hub_url: str | None = None) -> str:
        """Path and query to listen to the doctor's topic."""
        parts = urlsplit(hub_url or self.hub_url)
        return f"{parts.path}?{urlencode({'topic': self.topic})}"

    def credentials(self, lifetime: int | None = None) -> Mapping[str, str]:
        """Header fields that allow to read the doctor's private updates.

        :param lifetime: in seconds; the configured one by default.
        """
        if not self.may_read:
            return {}
        token = self.state.subscriber_token([self.topic], lifetime)
        return {"Authorization": f"Bearer {token}"}

    def publish(self, data: str) -> None:
        """Publishes to the doctor's topic, privately if that can be read.

        :raises PublishError: if the hub does not take it.
        """
        instance = self.state.instance
        instance.publish(self.topic, data, self.may_read, on_failure="raise")

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
    """Scheme, host and port, as browsers compare them.

    :raises ConfigurationError: if this is no address of a page or a hub.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"no address: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigurationError(f"{url} is no address; give it as https://example.com")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("the address must not hold a user or a password")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{shown}"
