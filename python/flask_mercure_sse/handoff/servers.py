"""Where WSGI servers keep the client's socket.

Only servers on this list are touched: for each of them it was tried that their own handling of the
request goes on undisturbed. Nothing here can be forged by a client, whose header fields all become
keys that begin with ``HTTP_``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Environ = Mapping[str, Any]

#: Servers whose request body is a buffered reader on the socket, by ``SERVER_SOFTWARE``.
_READERS = ("gevent/", "cheroot/", "CherryPy/", "Cheroot/", "WSGIServer/")


@dataclass(frozen=True)
class _Descriptor:
    """A connection of which a server tells nothing but the number."""

    number: int

    def fileno(self) -> int:
        return self.number


def lookup(environ: Environ) -> Any | None:
    """The client's connection, or ``None`` if the server is not on the list.

    :param environ: the WSGI environment of the request.
    """
    for find in _SERVERS:
        try:
            found = find(environ)
        except Exception:  # noqa: S112 (another release of a server, with other insides)
            continue
        if found is not None:
            return found
    return None


def _by_key(environ: Environ) -> Any | None:
    """Werkzeug, gunicorn, and gunicorn's ``gevent_pywsgi`` worker."""
    keys = ("werkzeug.socket", "gunicorn.socket", "gunicorn.sock")
    return next((environ[key] for key in keys if environ.get(key) is not None), None)


def _waitress(environ: Environ) -> Any | None:
    """The method that tells whether the client has left belongs to its channel."""
    method = environ.get("waitress.client_disconnected")
    # Looking ahead, it reads from the socket while the request is served, and would find the end.
    if method is None or method.__self__.adj.channel_request_lookahead:
        return None
    return method.__self__.socket


def _eventlet(environ: Environ) -> Any | None:
    body = environ.get("eventlet.input")
    return None if body is None else body.get_socket()


def _uwsgi(environ: Environ) -> Any | None:
    if "uwsgi.version" not in environ:
        return None
    import uwsgi  # type: ignore[import-untyped] # there inside of uWSGI only

    if {"https-socket", b"https-socket"} & set(uwsgi.opt):
        return None  # TLS in the worker itself
    return _Descriptor(uwsgi.connection_fd())


def _reader(environ: Environ) -> Any | None:
    """gevent's own server, cheroot, CherryPy and wsgiref: through the reader of the body."""
    if not str(environ.get("SERVER_SOFTWARE", "")).startswith(_READERS):
        return None
    reader = environ["wsgi.input"]
    while hasattr(reader, "rfile"):
        reader = reader.rfile
    return reader.raw._sock


_SERVERS: tuple[Callable[[Environ], Any | None], ...] = (
    _by_key,
    _waitress,
    _eventlet,
    _uwsgi,
    _reader,
)
