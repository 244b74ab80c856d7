"""The response that hands its connection over while the server sends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Response

from ..errors import HubUnavailable
from .pipe import Exit, Pipe
from .sockets import Client, Swap

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from ..companion import Bus, Verdict

#: Marks the response for the companion, which removes it.
MARK = "X-Mercure-Handoff"


class HandoffResponse(Response):
    """Status 200, the stream's headers, no body.

    When the server asks for it, after ``after_request`` functions and the session have done their
    part, the client's connection goes to the companion and the server's answer into a socket
    pair. The companion reads the answer there, passes its head on to the client and goes on with
    the stream.

    :param client: the client's connection, or the way out of an ASGI request.
    :param fallback: makes the response to give instead if handing over fails.
    """

    def __init__(
        self,
        verdict: Verdict,
        *,
        bus: Bus,
        token: str,
        client: Client | Exit,
        fallback: Callable[[str], Response],
    ) -> None:
        super().__init__(b"", 200, verdict.headers)
        self._bus = bus
        self._token = token
        self._client = client
        self._fallback = fallback

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Hands over, then lets the server answer as always."""
        try:
            self._hand_over()
        except (OSError, HubUnavailable) as error:
            # Nothing has changed for the server: an ordinary response still works.
            return self._without_handoff(str(error))(environ, start_response)
        self.headers[MARK] = self._token
        return super().__call__(environ, start_response)

    def _hand_over(self) -> None:
        client = self._client
        exchange = Pipe(client, MARK) if isinstance(client, Exit) else Swap.prepare(client.fileno())
        try:
            self._bus.take(self._token, (exchange.live, exchange.far.fileno()))
            exchange.commit()
        finally:
            exchange.close()

    def _without_handoff(self, reason: str) -> Response:
        response = self._fallback(reason)
        for name, value in self.headers:
            # What the application added, the session cookie above all, belongs to it as well.
            if name not in response.headers or name.lower() == "set-cookie":
                response.headers.add(name, value)
        return response
