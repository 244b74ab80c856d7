"""How a request's connection can leave the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .pipe import SCOPE_KEY, Exit
from .sockets import Client, Unsupported, client_socket


def way_out(environ: Mapping[str, Any]) -> Client | Exit | Unsupported:
    """The way out that the ASGI wrapper offers, else the client's socket.

    :param environ: the WSGI environment of the request.
    """
    scope = environ.get("asgi.scope")
    if isinstance(scope, Mapping):
        offered = scope.get(SCOPE_KEY)
        if isinstance(offered, Exit):
            return offered
        return Unsupported(
            "an ASGI server shows no socket",
            "wrap the application: flask_mercure_sse.asgi.MercureASGI(WSGIMiddleware(app))",
        )
    return client_socket(environ)
