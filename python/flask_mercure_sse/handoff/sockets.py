"""Whether a client's connection may be taken from its WSGI server, and how to take its place."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from .servers import lookup

if sys.platform != "win32":
    import fcntl

#: Live connections are placed from this descriptor on: low ones are left to servers that use
#: ``select``, which cannot watch others.
_FIRST_DESCRIPTOR = 1024
#: Descriptors that must stay free for the application itself.
_RESERVE = 64


#: What connections with TLS have, whichever library they are from.
_OF_TLS = ("do_handshake", "cipher", "get_cipher_name")


@dataclass(frozen=True)
class Unsupported:
    """Why a connection cannot be taken over."""

    reason: str
    remedy: str


class Client(Protocol):
    """The client's connection, as a server keeps it."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


def client_socket(environ: Mapping[str, Any]) -> Client | Unsupported:
    """The client's connection, if it may be taken over.

    :param environ: the WSGI environment of the request.
    """
    found = lookup(environ)
    if found is None:
        return Unsupported(
            f"the server ({environ.get('SERVER_SOFTWARE', 'unknown')}) does not expose the "
            "client's socket",
            "run under one of the servers of docs/flask.md that hand connections over",
        )
    if any(hasattr(found, name) for name in _OF_TLS):
        return Unsupported("the server itself speaks TLS", "end TLS in a proxy before the server")
    if not str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/1."):
        return Unsupported("the connection is shared (HTTP/2)", "speak HTTP/1.1 to the server")
    if "werkzeug.socket" in environ and environ.get("wsgi.multiprocess"):
        return Unsupported("each request has a process of its own", "use threads, not processes")
    if not _is_connection(found):
        return Unsupported("the socket is not a client's connection", "report this server")
    return cast(Client, found)


def _is_connection(client: Client) -> bool:
    try:
        with socket.socket(fileno=os.dup(client.fileno())) as probe:
            return (
                probe.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
                and probe.type == socket.SOCK_STREAM
                and not probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            )
    except (OSError, AttributeError, TypeError, ValueError):
        return False


@dataclass
class Swap:
    """A descriptor about to change its place.

    ``live`` is the client's connection under a second number, ``near`` and ``far`` a socket pair.
    Until :meth:`commit`, nothing has changed for the server.
    """

    descriptor: int
    live: int
    near: socket.socket
    far: socket.socket

    @classmethod
    def prepare(cls, descriptor: int) -> Swap:
        """Allocates everything that is needed.

        :raises OSError: if descriptors run short; nothing has changed then.
        """
        live = _duplicate(descriptor)
        try:
            near, far = socket.socketpair()
        except OSError:
            os.close(live)
            raise
        # The server reads the end of the connection: it will not wait for another request.
        far.shutdown(socket.SHUT_WR)
        flags = fcntl.fcntl(live, fcntl.F_GETFL)
        fcntl.fcntl(near, fcntl.F_SETFL, flags)
        return cls(descriptor, live, near, far)

    def commit(self) -> None:
        """Puts the near end in the connection's place, in one step: what the server writes from
        now on goes to whoever holds the far end."""
        os.dup2(self.near.fileno(), self.descriptor, inheritable=False)

    def close(self) -> None:
        """Closes this process's copies."""
        os.close(self.live)
        self.near.close()
        self.far.close()


def _duplicate(descriptor: int) -> int:
    try:
        live = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    except OSError as error:
        # EINVAL: the limit is below the place we would prefer. EMFILE: everything above is taken.
        if error.errno not in (errno.EINVAL, errno.EMFILE):
            raise
        live = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _RESERVE)
    return live
