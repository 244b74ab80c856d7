"""Publishing by policy, without Flask."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import json
import logging
import sqlite3
import weakref
from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError, HubUnavailable, PublishError
from ..updates import Update
from .external import ExternalHub
from .hubs import HubTarget, OnFailure
from .outbox import Delivery, Outbox
from .spool import Spool, Spooled

#: Updates that may wait in memory for a hub, per process.
QUEUE_LIMIT = 10_000

Outcome = Callable[[Update, PublishError | None], None]


class Publisher:
    """Publishes updates to a hub, from anywhere: a task queue, a script, an event loop.

    ``Publisher("https://hub.example/.well-known/mercure", jwt=token)`` publishes to any Mercure
    hub; ``mercure.publisher`` is the one of an application. Safe for threads and forks.

    :param hub: the hub's URL, or a target of its own.
    :param jwt: the token to publish with, or a function that makes one.
    :param on_failure: what happens if the hub cannot be reached or refuses: ``"raise"`` an
        exception, ``"log"`` an error, or ``"spool"``: keep the update on disk until it can.
    :param timeout: how long to wait for the hub's answer, in seconds.
    :param spool: path of the file that keeps updates; needed for ``"spool"``.
    :param spool_size: size that the file's updates may reach together, in bytes.
    :param dumps: writes payloads that are no text as JSON.
    :param logger: where failures are told.
    :param outcome: called after each update with the update and the error, or ``None``; mostly in
        a thread of the publisher.
    """

    def __init__(
        self,
        hub: str | HubTarget,
        jwt: str | Callable[[], str] | None = None,
        *,
        on_failure: OnFailure = "log",
        timeout: float = 5.0,
        spool: str | None = None,
        spool_size: int = 64 << 20,
        dumps: Callable[[Any], str] = json.dumps,
        logger: logging.Logger | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        if on_failure == "spool" and spool is None:
            raise ConfigurationError('on_failure="spool" needs the path of a spool')
        self._hub = self.external(hub, jwt, timeout) if isinstance(hub, str) else hub
        self._on_failure = on_failure
        self._timeout = timeout
        self._dumps = dumps
        self._logger = logger or logging.getLogger("flask_mercure_sse")
        self._outcome = outcome
        self._spool = Spool(spool, spool_size) if spool is not None else None
        idle = self._send_spooled if self._spool else None
        self._outbox = Outbox(QUEUE_LIMIT, idle)
        _publishers.add(self)

    @staticmethod
    def external(url: str, jwt: str | Callable[[], str] | None, timeout: float) -> HubTarget:
        """A hub that is reached by URL."""
        if jwt is None:
            raise ConfigurationError("publishing to a hub by URL needs a token: jwt=…")
        token = jwt if callable(jwt) else lambda: jwt
        return ExternalHub(url, token, timeout)

    # -- publishing -------------------------------------------------------------------------

    def publish(
        self,
        topic: Any,
        data: Any = None,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        *,
        on_failure: OnFailure | None = None,
        wait: float | None = None,
    ) -> str | None:
        """Publishes an update; see :meth:`~flask_mercure_sse.MercureSSE.publish`.

        :param wait: how long to wait for the outcome under ``"log"`` and ``"spool"``, in seconds;
            after that the update goes on in the background. The timeout by default.
        :returns: the event's id; ``None`` if publishing is known to have failed.
        """
        update = Update.build(
            topic, data, private=private, id=id, type=type, retry=retry, dumps=self._dumps
        )
        return self.send(update, on_failure=on_failure, wait=wait)

    async def apublish(
        self,
        topic: Any,
        data: Any = None,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        *,
        on_failure: OnFailure | None = None,
    ) -> str | None:
        """Publishes an update from an event loop, which goes on meanwhile."""
        update = Update.build(
            topic, data, private=private, id=id, type=type, retry=retry, dumps=self._dumps
        )
        return await self.asend(update, on_failure=on_failure)

    # -- what happens to it -----------------------------------------------------------------

    def send(
        self,
        update: Update,
        *,
        hub: HubTarget | None = None,
        on_failure: OnFailure | None = None,
        wait: float | None = None,
    ) -> str | None:
        """Publishes an update that was built before; see :meth:`publish`.

        :param hub: another hub than the publisher's own; updates for it are never spooled.
        """
        policy = on_failure or self._on_failure
        if policy == "raise":
            return self._send_now(update, hub or self._hub)
        delivery = self._enqueue(update, hub, policy)
        if not isinstance(delivery, Delivery):
            return delivery
        try:
            failure = delivery.done.result(self._timeout if wait is None else wait)
        except concurrent.futures.TimeoutError:
            return self._leave(delivery)
        return delivery.settle(delivery, failure)

    async def asend(
        self,
        update: Update,
        *,
        hub: HubTarget | None = None,
        on_failure: OnFailure | None = None,
    ) -> str | None:
        """Publishes an update that was built before; see :meth:`apublish`."""
        policy = on_failure or self._on_failure
        if policy == "raise":
            return await asyncio.to_thread(self._send_now, update, hub or self._hub)
        delivery = self._enqueue(update, hub, policy)
        if not isinstance(delivery, Delivery):
            return delivery
        try:
            done = asyncio.wrap_future(delivery.done)
            failure = await asyncio.wait_for(asyncio.shield(done), self._timeout)
        except (TimeoutError, asyncio.TimeoutError, asyncio.CancelledError) as ended:
            left = self._leave(delivery)
            if isinstance(ended, asyncio.CancelledError):
                raise
            return left
        return delivery.settle(delivery, failure)

    def _send_now(self, update: Update, hub: HubTarget) -> str:
        try:
            hub.send(update)
        except PublishError as error:
            self._tell(update, error)
            raise
        self._tell(update, None)
        return update.id

    def _enqueue(
        self, update: Update, hub: HubTarget | None, policy: OnFailure
    ) -> Delivery | str | None:
        spooled = policy == "spool" and hub is None
        if spooled and self._spool is not None and not self._spool.is_empty():
            # Older updates wait on disk: it must not overtake them.
            return self._keep(Delivery(update, self._hub, self._settle_spooled))
        settle = self._settle_spooled if spooled else self._settle
        delivery = Delivery(update, hub or self._hub, settle)
        if self._outbox.put(delivery):
            return delivery
        failure = HubUnavailable(f"{QUEUE_LIMIT} updates wait for the hub already")
        return delivery.settle(delivery, failure)

    def _leave(self, delivery: Delivery) -> str | None:
        """Nobody waits any longer: whoever sends the update settles it."""
        if delivery.settle == self._settle_spooled:
            # On disk first, so that it outlives this process from here on.
            self._keep(delivery, pause=2 * self._timeout)
        if delivery.abandon():
            return delivery.update.id
        return delivery.settle(delivery, delivery.done.result())

    def _settle(self, delivery: Delivery, failure: PublishError | None) -> str | None:
        self._tell(delivery.update, failure)
        if failure is None:
            return delivery.update.id
        self._logger.error("An update was not published: %s", failure)
        return None

    def _settle_spooled(self, delivery: Delivery, failure: PublishError | None) -> str | None:
        spool = self._the_spool()
        if isinstance(failure, HubUnavailable):
            if delivery.spooled is None:
                return self._keep(delivery)
            spool.release(delivery.spooled)
            return delivery.update.id
        if delivery.spooled is not None:
            spool.remove(delivery.spooled)
        return self._settle(delivery, failure)

    # -- the spool --------------------------------------------------------------------------

    def _the_spool(self) -> Spool:
        if self._spool is None:
            raise ConfigurationError('on_failure="spool" needs the path of a spool')
        return self._spool

    def _keep(self, delivery: Delivery, pause: float = 0.0) -> str | None:
        """Puts an update into the spool; one that does not fit is lost, and told."""
        try:
            delivery.spooled = self._the_spool().add(delivery.update, pause=pause)
            reason = "the spool is full"
        except (OSError, sqlite3.Error) as error:
            reason = f"the spool cannot be written: {error}"
        if delivery.spooled is None:
            return self._settle(delivery, HubUnavailable(reason))
        self._outbox.start()
        return delivery.update.id

    def _send_spooled(self) -> None:
        """Sends what waits on disk, oldest first, until the hub is unavailable again."""
        spool = self._the_spool()
        try:
            with spool.exclusive() as mine:
                while mine and (spooled := spool.next()) and self._send_again(spool, spooled):
                    pass
        except (OSError, sqlite3.Error) as error:
            self._logger.error("The spool of updates cannot be read: %s", error)

    def _send_again(self, spool: Spool, spooled: Spooled) -> bool:
        """Sends one update; false if the hub is unavailable."""
        delivery = Delivery(spooled.update, self._hub, self._settle)
        try:
            spool.attempt(spooled.number)
            self._hub.send(spooled.update, again=spooled.attempted)
        except HubUnavailable:
            return False
        except PublishError as error:
            self._settle(delivery, error)
        else:
            self._settle(delivery, None)
        spool.remove(spooled.number)
        return True

    def close(self) -> None:
        """Sends what still waits, for as long as the timeout, and ends the publisher's thread."""
        for delivery in self._outbox.close(self._timeout):
            delivery.settle(delivery, HubUnavailable("the process ends"))
        if self._spool is not None:
            self._spool.close()

    def _tell(self, update: Update, failure: PublishError | None) -> None:
        if self._outcome is not None:
            self._outcome(update, failure)


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for publisher in list(_publishers):
        publisher.close()
