"""What the extension keeps for one application."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from flask import Flask

from . import signals, tokens
from .companion import (
    BuiltInHub,
    Bus,
    CompanionOptions,
    command_of,
    prepare_directory,
)
from .errors import ConfigurationError, HubUnavailable, PublishError
from .publishing import ExternalHub, HubTarget, Publisher, Spool, external
from .settings import Settings, runtime_base
from .updates import Update

if TYPE_CHECKING:
    from .extension import MercureSSE

#: The state's place in ``app.extensions``.
KEY = "mercure_sse"
#: A grace period for a hub that does not end with its workers, in seconds.
_FOR_EVER = 10.0 * 365 * 86400
#: What puts a hub that runs as a service above those that workers start: only another service takes
#: its place. Added to the time at which it was set up.
_SERVICE = 10**15
#: The cookie of generation 1.0.
_COOKIE_V1 = "__Secure-mercure_access_token"


class MercureSSEState:
    """State of the extension in one application: ``app.extensions["mercure_sse"]``.

    :param instance: the extension object.
    :param settings: the application's configuration.
    :param app: the application.
    """

    def __init__(self, instance: MercureSSE, settings: Settings, app: Flask) -> None:
        self.instance = instance
        self.settings = settings
        self.logger: logging.Logger = app.logger
        self._app = weakref.ref(app)
        self._buses: dict[tuple[int, bool], Bus] = {}
        self._announced: set[str] = set()
        self._publisher: Publisher | None = None
        self._published_to: HubTarget | None = None
        self._looked_for_kept = 0
        self._since = time.time_ns() // 1_000_000

    def obey(self) -> None:
        """Leaves a running companion as it is, whatever this process would want."""
        self._since = 0
        for bus in self._buses.values():
            bus.obey()

    @property
    def app(self) -> Flask:
        """The application.

        :raises ConfigurationError: if it is gone.
        """
        app = self._app()
        if app is None:
            raise ConfigurationError("the application is gone")
        return app

    # What the documents of 0.1 and 0.4 name, to be read by applications.

    @property
    def hub_url(self) -> str | None:
        """URL of the external hub; ``None`` for the built-in one."""
        return self.settings.hub_url

    @property
    def authz_cookie_name(self) -> str:
        """Name of the cookie that holds a subscriber's token."""
        return self.settings.authz_cookie_name

    @property
    def public_hub_url(self) -> str | None:
        """URL of the hub for browsers; ``None`` if it is the application's own."""
        return self.settings.public_hub_url

    @property
    def type_is_topic(self) -> bool:
        """Whether an event without a type gets its topic as type."""
        return self.settings.type_is_topic

    @property
    def hub_allow_publish(self) -> bool:
        """Whether the built-in hub takes updates by HTTP."""
        return self.settings.allow_publish

    @property
    def hub_allow_anonymous(self) -> bool:
        """Whether the built-in hub serves subscribers without a token or session."""
        return self.settings.allow_anonymous

    @property
    def hub_subscriptions(self) -> bool:
        """Whether the built-in hub tells who is subscribed."""
        return self.settings.subscriptions

    @property
    def hub_keepalive_interval(self) -> float:
        """Seconds of silence before a heartbeat."""
        return self.settings.keepalive_interval

    @property
    def hub_reconciliation_length(self) -> int:
        """Number of updates that the built-in hub keeps."""
        return self.settings.reconciliation_length

    @property
    def subscriber_secret_key(self) -> str | bytes | None:
        """The key that signs subscribers' tokens."""
        return self.settings.subscriber_secret_key

    @property
    def publisher_secret_key(self) -> str | bytes | None:
        """The key that signs publishers' tokens."""
        return self.settings.publisher_secret_key

    @property
    def publisher_jwt(self) -> str:
        """A token to publish with: the configured one, or a new one for the built-in hub.

        :raises ConfigurationError: if there is neither a token nor a key to make one.
        """
        settings = self.settings
        if settings.publisher_jwt is not None:
            return settings.publisher_jwt
        if settings.is_external and not settings.has_own_publisher_key:
            # A token signed with SECRET_KEY would give a stranger something to guess it from.
            raise ConfigurationError(
                "publishing to an external hub needs MERCURE_PUBLISHER_JWT, or "
                "MERCURE_PUBLISHER_SECRET_KEY to make tokens with"
            )
        return tokens.mint(settings, settings.publisher_secret_key, self.logger, publish=["*"])

    def subscriber_token(self, topics: Sequence[str], lifetime: int | None = None) -> str:
        """A token to read private updates with, which belongs to nobody in particular.

        :param lifetime: in seconds; the configured one by default.
        :raises ConfigurationError: without a key.
        """
        key = self.settings.subscriber_secret_key
        return tokens.mint(self.settings, key, self.logger, subscribe=topics, lifetime=lifetime)

    @property
    def publisher(self) -> Publisher:
        """The application's publisher."""
        if self._publisher is None:
            settings = self.settings
            publisher = Publisher(
                self.hub(),
                on_failure=settings.on_failure,
                timeout=settings.timeout,
                spool=None if sys.platform == "win32" else self._spool(),
                logger=self.logger,
                outcome=self._tell,
            )
            # Of several threads that come here at once, one wins.
            self._publisher = self._publisher or publisher
        return self._publisher

    @contextlib.contextmanager
    def publishing_to(self, target: HubTarget) -> Iterator[None]:
        """Sends the application's updates elsewhere within the block, for tests."""
        former = self._published_to, self._publisher
        self._published_to, self._publisher = target, None
        try:
            yield
        finally:
            if self._publisher is not None:
                self._publisher.close()
            self._published_to, self._publisher = former

    def hub(self, url: str | None = None, jwt: str | None = None) -> HubTarget:
        """Where updates go.

        :param url: another hub than the configured one.
        :param jwt: another token to publish with.
        :raises ConfigurationError: if there is no token, and no key to make one.
        """
        if self._published_to is not None:
            return self._published_to
        url = url or self.hub_url
        if url is None:
            # Whether there can be one is told here; which one is asked for each update.
            _ = self.companion()
            return BuiltInHub(self.companion)
        if jwt is not None:
            return ExternalHub(url, lambda: jwt, self.settings.timeout)
        # Tokens expire, so each update gets one; whether any can be made is told here.
        _ = self.publisher_jwt
        return ExternalHub(url, lambda: self.publisher_jwt, self.settings.timeout)

    def ask(self, path: str) -> tuple[int, bytes]:
        """Reads a resource below the hub's URL with everything granted; returns status and body.

        :raises HubUnavailable: if there is no answer.
        """
        if self.hub_url is None:
            # The form of 0.x: it has words for URI templates, too.
            accept = {"Accept": "application/ld+json"}
            verdict = self.companion().request("GET", path, headers=accept)
            return verdict.status, verdict.body
        url = self.hub_url.rstrip("/") + path
        topic = urlsplit(url).path
        settings = self.settings
        token = tokens.mint(
            settings, settings.subscriber_secret_key, self.logger, subscribe=[topic]
        )
        return external.get(url, token, settings.timeout)

    def companion_command(self) -> list[str]:
        """The command that runs the built-in hub until it is stopped.

        :raises HubUnavailable: if its binary or its place is missing.
        """
        _ = self.companion()  # whether there may be one
        options = self._companion_options(testing=False)
        prepare_directory(options)
        service = replace(options, grace=_FOR_EVER, since=options.since + _SERVICE, service=True)
        return [*command_of(service), "--replace"]

    def follow(self, topics: list[str], last_event_id: str | None) -> Iterator[str]:
        """The lines of the built-in hub's stream on some topics, whatever is private included.

        :raises HubUnavailable: if it cannot be reached.
        """
        query = [("topic", topic) for topic in topics]
        query += [("lastEventID", last_event_id)] if last_event_id else []
        envelope = {
            "query": urlencode(query),
            "headers": [],
            "policy": self.policy(),
            "grants": {"subscribe": ["*"]},
        }
        verdict, chunks = self.companion().stream(envelope)
        if verdict.status != 200:
            raise HubUnavailable(f"the hub answered {verdict.status}: {verdict.body.decode()}")
        return _lines(chunks)

    def last_event_id(self) -> str | None:
        """Id of the built-in hub's newest event; ``earliest`` if there is none yet, ``None`` for an
        external hub, which cannot be asked."""
        if self.settings.is_external or sys.platform == "win32":
            return None
        return self.companion().last_event_id() or "earliest"

    def _companion_options(self, testing: bool) -> CompanionOptions:
        app, settings = self.app, self.settings
        # The same for every process of an application, whatever imports it: a worker, a shell, a
        # task queue. The import name is not (it is __main__ for one of them).
        identity = [os.path.realpath(app.root_path), app.name, settings.hub_name]
        if testing:
            # Tests run side by side and one after the other; each application is on its own, and
            # its companion ends with it.
            identity.append(secrets.token_hex(8))
        return CompanionOptions(
            base=runtime_base(settings),
            identity="\0".join(identity),
            grace=0.0 if testing else settings.companion_grace,
            heartbeat=settings.keepalive_interval,
            history=settings.reconciliation_length,
            subscriptions=settings.subscriptions,
            since=self._since,
        )

    def _spool(self) -> Spool:
        settings = self.settings
        if settings.spool is not None:
            return Spool(settings.spool, settings.spool_size)
        app = self._app()
        options = self._companion_options(app is not None and app.testing)
        path = os.path.join(options.directory, "spool.db")
        return Spool(path, settings.spool_size, lambda: prepare_directory(options))

    def send_kept(self) -> None:
        """Has the updates that former processes kept sent; asked at each request, done once."""
        if self._looked_for_kept != os.getpid():
            self._looked_for_kept = os.getpid()
            self.publisher.wake()

    def _tell(self, update: Update, failure: PublishError | None) -> None:
        app = self._app()
        if app is None:
            return
        if failure is None:
            signals.update_published.send(app, id=update.id)
        else:
            signals.publish_failed.send(app, id=update.id, error=failure)

    def companion(self) -> Bus:
        """The bus of the built-in hub.

        Made when it is needed: a server may change its user after the application was set up, and
        tests switch ``app.testing`` on then.

        :raises ConfigurationError: if there is none: the hub is an external one, or needs to be.
        """
        if self.settings.is_external:
            raise ConfigurationError("MERCURE_HUB_URL is set: the built-in hub is not in use")
        if sys.platform == "win32":
            raise ConfigurationError(
                "the built-in hub needs a Unix system; run mercure-hub or another Mercure hub "
                "elsewhere and set MERCURE_HUB_URL"
            )
        app = self._app()
        testing = app is not None and app.testing
        key = (os.getuid(), testing)
        bus = self._buses.get(key)
        if bus is None:
            options = self._companion_options(testing)
            # Of several threads that come here at once, one wins.
            bus = self._buses.setdefault(key, Bus(options, self.settings.timeout, self.logger))
        return bus

    def join_if_running(self) -> None:
        """Tells a companion that runs already that this process needs it."""
        if sys.platform != "win32":
            self.companion().join_if_running()

    def close(self) -> None:
        """Sends what still waits, and closes every connection to companions."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        for bus in self._buses.values():
            bus.close()

    def policy(self) -> dict[str, Any]:
        """The rules by which the companion judges a client of this application."""
        settings = self.settings
        return {
            "anonymous": settings.allow_anonymous,
            "publisher_key": _latin1(settings.publisher_secret_key),
            "subscriber_key": _latin1(settings.subscriber_secret_key),
            "resource_identifier": settings.resource_identifier,
            "trusted_issuers": [settings.issuer],
            "cookie_names": [settings.authz_cookie_name, _COOKIE_V1],
        }

    def announce(self, level: int, key: str, message: str, *arguments: object) -> None:
        """Logs something once per process."""
        if key not in self._announced:
            self._announced.add(key)
            self.logger.log(level, message, *arguments)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    waiting = b""
    for chunk in chunks:
        *lines, waiting = (waiting + chunk).split(b"\n")
        # Comments only keep the connection alive.
        yield from (line.decode() for line in lines if not line.startswith(b":"))


def _latin1(key: str | bytes | None) -> str | None:
    """A key's bytes, each as one character, the way JSON can carry them."""
    data = key.encode() if isinstance(key, str) else key
    return data.decode("latin-1") if data else None
