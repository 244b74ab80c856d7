"""A Flask application under an ASGI server: subscriptions leave the WSGI adapter's thread.

::

    from a2wsgi import WSGIMiddleware
    from flask_mercure_sse.asgi import MercureASGI

    application = MercureASGI(WSGIMiddleware(app))

An ASGI server shows no socket, but its event loop holds many streams at no cost. So the view hands
the hub one end of a socket pair instead of the client's connection, and the event loop passes on
what arrives at the other end.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .handoff.pipe import SCOPE_KEY, Exit
from .handoff.response import MARK

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

#: What the hub writes before the stream: a head, which the server has sent already.
_END_OF_HEAD = b"\r\n\r\n"
#: Bytes passed on at once.
_CHUNK = 1 << 16


class MercureASGI:
    """Serves subscriptions from the event loop.

    :param app: the Flask application in an adapter that shows the scope as
        ``environ["asgi.scope"]``, as a2wsgi does.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        way_out = Exit(secrets.token_hex(16))
        streaming = False

        async def pass_on(message: Message) -> None:
            nonlocal streaming
            if message["type"] == "http.response.start" and way_out.opened_by(message["headers"]):
                # Whatever made another answer of it meant that: nothing is streamed then.
                streaming = message["status"] == 200
                removed = {_MARK, b"content-length"} if streaming else {_MARK}
                kept = [pair for pair in message["headers"] if pair[0].lower() not in removed]
                await send({**message, "headers": kept})
            elif not streaming:
                await send(message)

        async def take() -> Message:
            # granian's is no coroutine function, which a2wsgi expects.
            return await receive()

        try:
            await self._app({**scope, SCOPE_KEY: way_out}, take, pass_on)
            if streaming and way_out.inside is not None:
                await _stream(way_out.inside, receive, send)
        finally:
            way_out.close()


_MARK = MARK.lower().encode()


async def _stream(inside: socket.socket, receive: Receive, send: Send) -> None:
    """Passes the hub's stream on until one side ends."""
    writing = asyncio.ensure_future(_write(inside, send))
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (writing, leaving):
            task.cancel()
        await asyncio.gather(writing, leaving, return_exceptions=True)


async def _write(inside: socket.socket, send: Send) -> None:
    loop = asyncio.get_running_loop()
    inside.setblocking(False)
    head = b""
    while _END_OF_HEAD not in head:
        chunk = await loop.sock_recv(inside, _CHUNK)
        if not chunk:
            break
        head += chunk
    chunk = head.partition(_END_OF_HEAD)[2]
    while True:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        chunk = await loop.sock_recv(inside, _CHUNK)
        if not chunk:
            break
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
