"""Updates that leave in the background, in the order in which they were given."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
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
    :param answered: told how long sending took, in seconds, and the error.
    """

    update: Update
    hub: HubTarget
    settle: Callable[[Delivery, PublishError | None], str | None]
    answered: Callable[[float, PublishError | None], None]
    #: Done as soon as it was sent or has failed; its result is the error, if there is one.
    done: Future[PublishError | None] = field(default_factory=Future)
    #: Its number in the spool, if it is kept there.
    spooled: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _abandoned: bool = False

    def send(self) -> None:
        """Sends the update."""
        failure: PublishError | None = None
        begin = time.monotonic()
        try:
            self.hub.send(self.update)
        except PublishError as error:
            failure = error
        except Exception as error:  # whatever it is, somebody may wait for it
            failure = PublishError(f"the update could not be sent: {error}")
        self.answered(time.monotonic() - begin, failure)
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


class _Queue:
    """What one process has of an outbox."""

    def __init__(self) -> None:
        # No RLock: several greenlets of one thread would all be its owner.
        self.changed = threading.Condition(threading.Lock())
        self.waiting: deque[Delivery] = deque()
        self.thread: threading.Thread | None = None
        self.closed = False
        self.due = False


class Outbox:
    """A bounded queue and the thread that empties it. Safe for threads and forks.

    :param limit: updates that may wait.
    :param logger: told of what should not happen.
    :param chore: called when :meth:`wake` asks for it, and then every ``period`` seconds for as
        long as it returns that there is something left to do.
    """

    def __init__(
        self, limit: int, logger: logging.Logger, chore: Callable[[], bool], period: float = 1.0
    ) -> None:
        self._limit = limit
        self._logger = logger
        self._chore = chore
        self._period = period
        self._queues: dict[int, _Queue] = {}

    def _own(self) -> _Queue:
        """This process's queue: what waits in a parent, and its thread, stay there.

        Made at the first use and not at the fork, because gevent patches a worker after it.
        """
        process = os.getpid()
        # Of several threads that come here at once, one wins.
        return self._queues.get(process) or self._queues.setdefault(process, _Queue())

    def put(self, delivery: Delivery) -> str | None:
        """Enqueues an update; returns why it cannot be, or ``None``."""
        queue = self._own()
        with queue.changed:
            if queue.closed:
                return "the publisher is closed"
            if len(queue.waiting) >= self._limit:
                return f"{self._limit} updates wait for the hub already"
            queue.waiting.append(delivery)
            queue.changed.notify()
        try:
            self._start(queue)
        except RuntimeError as error:
            if self.withdraw(delivery):
                return f"no thread can be started: {error}"
        return None

    def withdraw(self, delivery: Delivery) -> bool:
        """Takes an update back; false if it is being sent, or was."""
        queue = self._own()
        with queue.changed:
            try:
                queue.waiting.remove(delivery)
            except ValueError:
                return False
            return True

    def wake(self) -> None:
        """Has the chore done soon."""
        queue = self._own()
        with queue.changed:
            queue.due = True
            queue.changed.notify()
        # If none can be started now, the next update tries again.
        with contextlib.suppress(RuntimeError):
            self._start(queue)

    def _start(self, queue: _Queue) -> None:
        with queue.changed:
            if queue.closed or queue.thread is not None:
                return
            thread = threading.Thread(target=self._run, args=(queue,), name="mercure", daemon=True)
            queue.thread = thread
        try:
            # Not under the lock: starting waits for the thread, which may be a greenlet.
            thread.start()
        except RuntimeError:
            queue.thread = None
            raise

    def _run(self, queue: _Queue) -> None:
        left, next_chore = False, 0.0
        while True:
            with queue.changed:
                if not queue.waiting and not queue.closed and not queue.due:
                    queue.changed.wait(self._period if left else None)
                if queue.closed and not queue.waiting:
                    return
                delivery = queue.waiting.popleft() if queue.waiting else None
                due, queue.due = queue.due, False
            try:
                if delivery is not None:
                    delivery.send()
                # By the clock: updates that keep coming must not keep the chore from being done.
                if due or (left and time.monotonic() >= next_chore):
                    next_chore = time.monotonic() + self._period
                    left = self._chore()
            except Exception:
                self._logger.exception("Sending updates goes on after an error")

    def close(self, timeout: float) -> list[Delivery]:
        """Ends the thread once everything has left, or the time is up; returns what has not."""
        queue = self._own()
        with queue.changed:
            thread, queue.closed = queue.thread, True
            queue.changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        with queue.changed:
            left, queue.waiting = list(queue.waiting), deque()
        return left
