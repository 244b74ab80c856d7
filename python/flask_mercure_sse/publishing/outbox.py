"""Updates that leave in the background, in the order in which they were given."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..errors import PublishError
from ..updates import Update
from .hubs import HubTarget


@dataclass(eq=False)
class Delivery:
    """An update on its way. Whoever gave it waits for a moment; how it went is settled by the one
    who gave it if it was still waiting then, else by the thread that sent it.

    :param update: the update.
    :param hub: where to.
    :param settle: draws the consequences of the outcome: ``None``, or the error.
    """

    update: Update
    hub: HubTarget
    settle: Callable[[Delivery, PublishError | None], str | None]
    #: Done as soon as it was sent or has failed; its result is the error, if there is one.
    done: Future[PublishError | None] = field(default_factory=Future)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    #: Its number in the spool, if it is kept there.
    spooled: int | None = None
    _abandoned: bool = False

    def send(self) -> None:
        """Sends the update."""
        failure: PublishError | None = None
        try:
            self.hub.send(self.update)
        except PublishError as error:
            failure = error
        except Exception as error:  # whatever it is, the next update must leave
            failure = PublishError(f"the update could not be sent: {error}")
        with self._lock:
            abandoned = self._abandoned
            self.done.set_result(failure)
        if abandoned:
            self.settle(self, failure)

    def abandon(self) -> bool:
        """Leaves the outcome to the sender; false if it is there already."""
        with self._lock:
            self._abandoned = not self.done.done()
            return self._abandoned


class Outbox:
    """A bounded queue and the thread that empties it. Safe for threads and forks.

    :param limit: updates that may wait.
    :param idle: called every ``period`` seconds as long as nothing waits.
    """

    def __init__(
        self, limit: int, idle: Callable[[], None] | None = None, period: float = 1.0
    ) -> None:
        self._limit = limit
        self._idle = idle
        self._period = period if idle else None
        self.after_fork()
        _outboxes.add(self)

    def after_fork(self) -> None:
        """What waits belongs to the parent, and so does its thread."""
        self._changed = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, delivery: Delivery) -> bool:
        """Enqueues an update; false if too many wait already."""
        with self._changed:
            if len(self._waiting) >= self._limit or self._closed:
                return False
            self._waiting.append(delivery)
            self._changed.notify()
        self.start()
        return True

    def start(self) -> None:
        """Makes sure that the thread runs."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="mercure", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._closed:
                    self._changed.wait(self._period)
                if self._closed and not self._waiting:
                    return
                delivery = self._waiting.popleft() if self._waiting else None
            if delivery is not None:
                delivery.send()
            elif self._idle is not None:
                self._idle()

    def close(self, timeout: float) -> list[Delivery]:
        """Ends the thread once everything has left, or the time is up; returns what has not."""
        with self._changed:
            thread, self._closed = self._thread, True
            self._changed.notify()
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            left, self._waiting = list(self._waiting), deque()
        return left


_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()


def _after_fork() -> None:
    for outbox in list(_outboxes):
        outbox.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
