"""Publishing by policy, without Flask."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import json
import logging
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from ..errors import ConfigurationError, HubUnavailable, MercureError, PublishError
from ..updates import Update
from .external import ExternalHub
from .hubs import HubTarget, OnFailure
from .outbox import Delivery, Outbox
from .spool import Spool, Spooled, SpoolError

#: Updates that may wait in memory for a hub, per process.
QUEUE_LIMIT = 10_000
#: A hub that takes longer for an update is in trouble, in seconds.
PROMPT = 0.05
#: How long one that is in trouble is waited for, in seconds.
IN_TROUBLE = 0.001

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
    :param spool_size: size that what it holds may reach, in bytes.
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
        spool: str | Spool | None = None,
        spool_size: int = 64 << 20,
        dumps: Callable[[Any], str] = json.dumps,
        logger: logging.Logger | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        if on_failure == "spool" and spool is None:
            raise ConfigurationError('on_failure="spool" needs the path of a spool')
        self._hub = self.external(hub, jwt, timeout) if isinstance(hub, str) else hub
        self._on_failure: OnFailure = on_failure
        self._timeout = timeout
        self._dumps = dumps
        self._logger = logger or logging.getLogger("flask_mercure_sse")
        self._outcome = outcome
        self._spool = Spool(spool, spool_size) if isinstance(spool, str) else spool
        #: Whether the hub has answered promptly the last time.
        self._prompt = True
        self._outbox = Outbox(QUEUE_LIMIT, self._logger, self.send_kept)
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
            a millisecond at most if the hub did not answer promptly the last time. After that the
            update goes on in the background. By default, the timeout, whatever was before.
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
        policy = self._policy(on_failure)
        if policy == "raise":
            return self._send_now(update, hub or self._hub)
        delivery = self._enqueue(update, hub, policy, wait)
        if not isinstance(delivery, Delivery):
            return delivery
        try:
            failure = delivery.done.result(self._patience(hub, wait))
        except concurrent.futures.TimeoutError:
            return self._leave(delivery)
        return delivery.settle(delivery, failure)

    async def asend(
        self,
        update: Update,
        *,
        hub: HubTarget | None = None,
        on_failure: OnFailure | None = None,
        wait: float | None = None,
    ) -> str | None:
        """Publishes an update that was built before; see :meth:`apublish`."""
        policy = self._policy(on_failure)
        if policy == "raise":
            return await asyncio.to_thread(self._send_now, update, hub or self._hub)
        delivery = self._enqueue(update, hub, policy, wait)
        if not isinstance(delivery, Delivery):
            return delivery
        try:
            done = asyncio.wrap_future(delivery.done)
            failure = await asyncio.wait_for(asyncio.shield(done), self._patience(hub, wait))
        except (TimeoutError, asyncio.TimeoutError, asyncio.CancelledError) as ended:
            left = self._leave(delivery)
            if isinstance(ended, asyncio.CancelledError):
                raise
            return left
        return delivery.settle(delivery, failure)

    def _patience(self, hub: HubTarget | None, wait: float | None) -> float:
        if wait is None:
            return self._timeout
        return wait if self._prompt or hub is not None else min(wait, IN_TROUBLE)

    def _answered(self, prompt: float, took: float, failure: PublishError | None) -> None:
        """Notes whether the next one who publishes may count on a prompt answer."""
        self._prompt = took <= prompt and not isinstance(failure, HubUnavailable)

    def _policy(self, chosen: OnFailure | None) -> OnFailure:
        policy: OnFailure = chosen or self._on_failure
        if policy not in get_args(OnFailure):
            raise ConfigurationError(f'on_failure is {policy!r}, and not "raise", "log" or "spool"')
        if policy == "spool" and self._spool is None:
            raise ConfigurationError('on_failure="spool" needs the path of a spool: MERCURE_SPOOL')
        return policy

    def _send_now(self, update: Update, hub: HubTarget) -> str:
        try:
            hub.send(update)
        except PublishError as error:
            self._tell(update, error)
            raise
        self._tell(update, None)
        return update.id

    def _enqueue(
        self, update: Update, hub: HubTarget | None, policy: OnFailure, wait: float | None
    ) -> Delivery | str | None:
        spooled = policy == "spool" and hub is None
        settle = self._settle_spooled if spooled else self._settle
        # Another hub's troubles are its own.
        answered = partial(self._answered, max(PROMPT, wait or 0.0)) if hub is None else _ignore
        delivery = Delivery(update, hub or self._hub, settle, answered)
        if spooled and self._others_wait():
            # It must not overtake them.
            return self._keep(delivery)
        reason = self._outbox.put(delivery)
        return delivery if reason is None else settle(delivery, HubUnavailable(reason))

    def _leave(self, delivery: Delivery) -> str | None:
        """Nobody waits any longer: whoever sends the update settles it."""
        if delivery.hub is self._hub:
            self._prompt = False
        if delivery.settle == self._settle_spooled:
            if self._outbox.withdraw(delivery):
                return self._keep(delivery)
            # It is being sent. On disk all the same, so that it outlives this process.
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

    def _tell(self, update: Update, failure: PublishError | None) -> None:
        if self._outcome is None:
            return
        try:
            self._outcome(update, failure)
        except Exception:  # of whoever listens: publishing goes on
            self._logger.exception("A receiver of the outcome of an update failed")

    # -- the spool --------------------------------------------------------------------------

    def _others_wait(self) -> bool:
        try:
            return self._spool is not None and not self._spool.is_empty()
        except SpoolError as error:
            self._logger.error("Updates cannot be kept: %s", error)
            return False

    def _settle_spooled(self, delivery: Delivery, failure: PublishError | None) -> str | None:
        unavailable = isinstance(failure, HubUnavailable)
        if delivery.spooled is None:
            return self._keep(delivery) if unavailable else self._settle(delivery, failure)
        if self._spool is not None:
            try:
                if unavailable:
                    self._spool.release(delivery.spooled)
                else:
                    self._spool.remove(delivery.spooled)
            except SpoolError as error:
                self._logger.error("An update that was kept may be published twice: %s", error)
        # What came after it may wait for it.
        self._outbox.wake()
        return delivery.update.id if unavailable else self._settle(delivery, failure)

    def _keep(self, delivery: Delivery, pause: float = 0.0) -> str | None:
        """Puts an update into the spool. One that cannot be kept is lost, and told, unless it is
        being sent."""
        reason = "the spool is full"
        try:
            if self._spool is not None:
                delivery.spooled = self._spool.add(delivery.update, pause=pause)
        except SpoolError as error:
            reason = str(error)
        if delivery.spooled is not None:
            self._outbox.wake()
            return delivery.update.id
        if pause:
            self._logger.warning("An update that is being sent cannot be kept: %s", reason)
            return delivery.update.id
        return self._settle(delivery, HubUnavailable(reason))

    def send_kept(self, patience: float = 1.0) -> bool:
        """Sends what waits on disk, oldest first, until the hub is unavailable again, or for so
        many seconds. Of all processes one does; the others return at once.

        :returns: whether anything is left.
        """
        if self._spool is None or not self._others_wait():
            return False
        deadline = time.monotonic() + patience
        try:
            with self._spool.exclusive() as mine:
                while mine and time.monotonic() < deadline and (kept := self._spool.next()):
                    if not self._send_again(self._spool, kept):
                        break
        except SpoolError as error:
            self._logger.error("Kept updates cannot be sent: %s", error)
        return self._others_wait()

    def _send_again(self, spool: Spool, kept: Spooled) -> bool:
        """Sends one update; false if the hub is unavailable."""
        delivery = Delivery(kept.update, self._hub, self._settle, _ignore)
        failure: PublishError | None = None
        spool.attempt(kept.number)
        try:
            self._hub.send(kept.update, again=kept.attempted)
        except HubUnavailable:
            return False
        except PublishError as error:
            failure = error
        except MercureError as error:
            self._logger.error("Kept updates cannot be sent: %s", error)
            return False
        spool.remove(kept.number)
        self._settle(delivery, failure)
        return True

    @property
    def quietly(self) -> OnFailure:
        """The policy, or ``"log"`` where an exception would be out of place."""
        return "log" if self._on_failure == "raise" else self._on_failure

    def wake(self) -> None:
        """Has the updates that a former process kept sent soon."""
        self._outbox.wake()

    def close(self) -> None:
        """Sends what still waits, for as long as the timeout, and ends the publisher's thread."""
        deadline = time.monotonic() + self._timeout
        for delivery in self._outbox.close(self._timeout):
            delivery.settle(delivery, HubUnavailable("the process ends"))
        if self._spool is not None:
            self.send_kept(deadline - time.monotonic())
            self._spool.close()


def _ignore(_took: float, _failure: PublishError | None) -> None:
    pass


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for publisher in list(_publishers):
        # One that fails must not keep the others from sending what they have.
        with contextlib.suppress(Exception):
            publisher.close()
