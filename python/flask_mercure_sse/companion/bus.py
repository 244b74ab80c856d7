"""The bus: how a worker talks to the companion.

Requests go by HTTP over one Unix socket, connections are handed over by another. A process that
uses the bus keeps one connection to the second socket open for as long as it lives; that is how
the companion knows that it is needed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, TypeVar

from ..errors import HubUnavailable
from . import process
from .lines import LogLines
from .messages import connect, receive, send
from .process import CompanionOptions

#: Version of the bus that this package speaks.
BUS_VERSION = 2
#: Idle connections of each kind that are kept.
_IDLE = 4
#: How often the newest id is read anew if it was just being written.
_GLANCES = 10
#: Two ids of the greatest length, in bytes.
_LONGEST_HEAD = 4096

_T = TypeVar("_T")


@dataclass(frozen=True)
class Verdict:
    """The companion's answer to a client's request."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _UnixHTTPConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, self.timeout)


class Bus:
    """A process's connections to the companion of one application. Safe for threads and forks."""

    def __init__(self, options: CompanionOptions, timeout: float, logger: logging.Logger) -> None:
        self._options = options
        self._timeout = timeout
        self._logger = logger
        self._reset()
        _buses.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._requests: list[_UnixHTTPConnection] = []
        self._handoffs: list[socket.socket] = []
        self._presence: socket.socket | None = None
        self._lines: LogLines | None = None
        #: Whether the companion's version was found to be ours.
        self._agreed = False

    def obey(self) -> None:
        """Leaves a running companion as it is."""
        self._options = replace(self._options, since=0)

    def close(self) -> None:
        """Closes every connection; the companion may end once no process has any."""
        self._forget()
        if self._lines is not None:
            self._lines.close()
        self._be_present(None)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # -- being there ------------------------------------------------------------------------

    def join_if_running(self) -> None:
        """Tells a companion that is running already that this process needs it.

        Starts nothing. Without this, a companion would end while a server that has just reloaded
        waits for its first request.
        """
        with contextlib.suppress(OSError, HubUnavailable):
            if self._presence is None:
                self._presence = connect(self._path("handoff.sock"), self._timeout)

    def after_fork(self) -> None:
        """Makes the bus this process's own: the parent's connections stay the parent's."""
        presence, inherited = self._presence, [*self._handoffs]
        if self._lines is not None:
            self._lines.abandon()
        requests = [c.sock for c in self._requests if c.sock is not None]
        self._reset()
        for connection in (*inherited, *requests, *([presence] if presence else [])):
            connection.close()
        self.join_if_running()

    def _ensure(self) -> None:
        """Makes sure that a companion of our version runs and knows of this process."""
        deadline = time.monotonic() + self._timeout
        if not self._starting.acquire(timeout=self._timeout):
            raise HubUnavailable("the companion does not answer")
        try:
            while True:
                try:
                    connection = connect(self._path("handoff.sock"), self._timeout)
                    break
                except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                    process.start(self._options)
                if not process.retry_until(deadline):
                    raise HubUnavailable("the companion was started and cannot be reached")
            self._be_present(connection)
            self._check_version(deadline)
            self._agreed = True
            self._repeat_log()
        finally:
            self._starting.release()

    def _check_version(self, deadline: float) -> None:
        """Has a companion replaced that is of another version, or has other settings than this
        application wants; whoever was set up last is obeyed."""
        found = json.loads(self._exchange("GET", "/status", b"", {}, fresh=True).body)
        same_bus = found.get("bus") == BUS_VERSION
        is_newer = found.get("since", 0) >= self._options.since
        if same_bus:
            if not is_newer and not self._is_as_wanted(found["settings"]):
                self._replace()
            return
        if is_newer:
            raise HubUnavailable(
                "the running companion belongs to a newer flask-mercure-sse; restart this process"
            )
        self._exchange("POST", "/retire", b"", {}, fresh=True)
        while os.path.exists(self._path("handoff.sock")):
            if not process.retry_until(deadline):
                raise HubUnavailable("an older companion does not retire; end it by hand")
        self._forget()
        process.start(self._options)
        self._be_present(connect(self._path("handoff.sock"), self._timeout))

    def _is_as_wanted(self, settings: str) -> bool:
        try:
            return settings == process.settings_name(self._options)
        except HubUnavailable:
            return True  # the binary is just being replaced: what runs will do

    def _replace(self) -> None:
        self._logger.info(
            "The running Mercure hub has another version or other settings; one that is as this "
            "application wants it takes its place."
        )
        try:
            process.start(self._options, succeed=True)
        except HubUnavailable as error:
            # It speaks our language: better than none, and better than trying at each request.
            self._logger.warning("The running Mercure hub stays as it is: %s", error)

    def _repeat_log(self) -> None:
        if self._lines is None or self._lines.has_ended:
            path = self._path("handoff.sock")
            self._lines = LogLines(lambda: connect(path, self._timeout), self._logger)

    def _be_present(self, connection: socket.socket | None) -> None:
        """Keeps a connection open for as long as this process lives, instead of a former one."""
        former, self._presence = self._presence, connection
        if former is not None:
            former.close()

    def _path(self, name: str) -> str:
        path = os.path.join(self._options.directory, name)
        if len(os.fsencode(path)) > 100:
            raise HubUnavailable(
                f"{path} is too long for a Unix socket; choose a shorter MERCURE_RUNTIME_DIR"
            )
        return path

    def _attempt(self, action: Callable[[], _T], again: Callable[[], _T] | None = None) -> _T:
        """Runs an action; if the companion is gone, once more (or ``again``) with a new one."""
        try:
            if not self._agreed:
                self._ensure()
            return action()
        except (ConnectionError, FileNotFoundError, HTTPException):
            # It ended, or was killed: an idle connection tells us only when we use it.
            self._forget()
        except TimeoutError as error:
            raise HubUnavailable("the companion does not answer") from error
        except OSError as error:
            raise HubUnavailable(f"the companion cannot be reached: {error}") from error
        try:
            self._ensure()
            return (again or action)()
        except (OSError, HTTPException) as error:
            raise HubUnavailable(f"the companion cannot be reached: {error}") from error

    def _forget(self) -> None:
        with self._lock:
            requests, self._requests = self._requests, []
            handoffs, self._handoffs = self._handoffs, []
        for request in requests:
            request.close()
        for handoff in handoffs:
            handoff.close()

    # -- requests ---------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Verdict:
        """Sends one request to the companion.

        :raises HubUnavailable: if it cannot be reached, started or made to answer in time.
        """
        return self._attempt(lambda: self._exchange(method, path, body, headers or {}))

    def publish(self, form: bytes, *, again: bool = False) -> Verdict:
        """Publishes an update.

        :param form: the update, with an id.
        :param again: whether it may have been published before; then it is not repeated.
        :raises HubUnavailable: as :meth:`request`.
        """
        headers = {"Content-Type": "application/x-www-form-urlencoded"}

        def once() -> Verdict:
            return self._exchange("POST", "/publish-once", form, headers)

        # A companion that goes while it answers may have accepted the update, and another one may
        # have its log by now.
        first = once if again else lambda: self._exchange("POST", "/publish", form, headers)
        return self._attempt(first, once)

    def last_event_id(self) -> str | None:
        """Id of the newest event, as the companion has noted it; starts and asks nobody.

        ``None`` if there is no event, or no companion yet.
        """
        for _ in range(_GLANCES):
            try:
                with open(self._path("head"), "rb") as head:
                    lines = head.read(_LONGEST_HEAD).split(b"\n")
            except OSError:
                return None
            if len(lines) < 2 or lines[0] == lines[1]:
                return lines[0].decode() or None
        return None  # never the same twice: begin at the oldest event

    def relay(self, kind: str, envelope: Mapping[str, Any]) -> Verdict:
        """Passes a client's request on.

        :param kind: ``publish``, ``poll`` or ``subscriptions``.
        """
        body = json.dumps(envelope).encode()
        return self.request("POST", f"/relay/{kind}", body, {"Content-Type": "application/json"})

    def stream(self, envelope: Mapping[str, Any]) -> tuple[Verdict, Iterator[bytes]]:
        """Passes a subscription on and returns its stream, chunk by chunk."""

        def action() -> tuple[_UnixHTTPConnection, HTTPResponse]:
            connection = _UnixHTTPConnection(self._path("http.sock"), self._timeout)
            body = json.dumps(envelope).encode()
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/relay/subscribe", body, headers)
            return connection, connection.getresponse()

        connection, response = self._attempt(action)
        if response.status != 200:
            verdict = Verdict(response.status, response.getheaders(), response.read())
            connection.close()
            return verdict, iter(())
        verdict = Verdict(200, response.getheaders(), b"")
        return verdict, _chunks(connection, response)

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        fresh: bool = False,
    ) -> Verdict:
        with self._lock:
            connection = self._requests.pop() if self._requests and not fresh else None
        if connection is None:
            connection = _UnixHTTPConnection(self._path("http.sock"), self._timeout)
        try:
            # The companion may answer, and close, before it has read all of a body that is too
            # large; the answer says so, the broken pipe does not.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            verdict = Verdict(response.status, response.getheaders(), response.read())
            _still_there(verdict)
        except BaseException:
            connection.close()
            raise
        self._keep(self._requests, connection)
        return verdict

    # -- connections ------------------------------------------------------------------------

    def authorize(self, token: str, envelope: Mapping[str, Any]) -> Verdict:
        """Asks whether a client may subscribe; ``take`` with the same token follows."""
        message = {"kind": "authorize", "token": token, "envelope": dict(envelope)}
        return self._attempt(lambda: self._converse(message, ()))

    def take(self, token: str, descriptors: Sequence[int]) -> None:
        """Gives the client's connection, and the far end of the worker's, to the companion.

        Never repeated: the descriptors of a failed attempt are still the caller's.

        :raises HubUnavailable: if the companion did not say that it has them.
        """
        try:
            verdict = self._converse({"kind": "take", "token": token}, descriptors)
        except (OSError, HTTPException) as error:
            raise HubUnavailable(f"the connection could not be handed over: {error}") from error
        if verdict.status != 200:
            raise HubUnavailable(f"the companion does not take the connection: {verdict.body!r}")

    def _converse(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> Verdict:
        with self._lock:
            connection = self._handoffs.pop() if self._handoffs else None
        if connection is None:
            connection = connect(self._path("handoff.sock"), self._timeout)
        try:
            send(connection, json.dumps(message).encode(), descriptors)
            reply = json.loads(receive(connection))
            headers = [(str(name), str(value)) for name, value in reply["headers"]]
            verdict = Verdict(int(reply["status"]), headers, str(reply["body"]).encode())
            _still_there(verdict)
        except BaseException:
            connection.close()
            raise
        self._keep(self._handoffs, connection)
        return verdict

    def _keep(self, idle: list[Any], connection: Any) -> None:
        with self._lock:
            if len(idle) < _IDLE:
                idle.append(connection)
                return
        connection.close()


def _still_there(verdict: Verdict) -> None:
    """Another companion is taking the place of the one that was asked: it will answer."""
    if verdict.status == 410:
        raise ConnectionResetError("the companion gives its place away")


def _chunks(connection: _UnixHTTPConnection, response: HTTPResponse) -> Iterator[bytes]:
    # Heartbeats keep coming, so silence longer than any heartbeat means a dead companion.
    if connection.sock is not None:
        connection.sock.settimeout(None)
    try:
        while chunk := response.read1(65536):
            yield chunk
    except (OSError, HTTPException):
        return  # the client reconnects with its cursor
    finally:
        connection.close()


_buses: weakref.WeakSet[Bus] = weakref.WeakSet()


def _after_fork() -> None:
    for bus in list(_buses):
        bus.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
