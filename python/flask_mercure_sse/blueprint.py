"""The built-in hub's address in the application: subscriptions, and publishing if allowed."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlencode

from flask import Blueprint, Response, current_app, request, session

from .companion import Verdict
from .errors import HubUnavailable
from .handoff import Client, Exit, HandoffResponse, Unsupported, way_out
from .rules import Action
from .settings import HUB_PATH
from .state import MercureSSEState

hub_blueprint = Blueprint("mercure_hub", __name__)

#: The parts of a client's request that the companion looks at.
_RELAYED = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Cookie",
    "Host",
    "If-None-Match",
    "Last-Event-ID",
    "Origin",
    "Referer",
)
#: What clients are told, who learn nothing more.
UNAVAILABLE = "the hub is unavailable"
#: Largest body of a publish request, in bytes.
_MAX_BODY = 1 << 20
#: Topics of one request that rules are asked about; each may cost a query.
_MAX_JUDGED = 100
#: Headers of a relayed response that describe the bus, not the client's connection.
_HOP_BY_HOP = frozenset({"connection", "content-length", "date", "transfer-encoding"})


@hub_blueprint.get(HUB_PATH)
def subscribe() -> Response:
    """Serves a subscription: handed over to the companion, relayed, or as one round of polling."""
    state = _state()
    if request.method == "HEAD":
        return Response(status=200, mimetype="text/event-stream")
    envelope = _envelope(state, asked_for=asked_topics())
    try:
        return _route(state)(state, envelope)
    except HubUnavailable as error:
        return _unavailable(state, error)


@hub_blueprint.post(HUB_PATH)
def publish() -> Response:
    """Serves a publish request over HTTP, if the application allows them."""
    state = _state()
    if not state.settings.allow_publish:
        return Response(
            "publishing over HTTP is off; set MERCURE_HUB_ALLOW_PUBLISH to allow it",
            status=403,
            mimetype="text/plain",
        )
    body = _form()
    if len(body) > _MAX_BODY:
        reason = f"request body: over the limit of {_MAX_BODY} bytes"
        return Response(reason, status=413, mimetype="text/plain")
    try:
        published = parse_qs(body.decode("utf-8", "replace")).get("topic", [])
        envelope = _envelope(state, published=published)
        verdict = state.companion().relay("publish", {**envelope, "body": body.decode("latin-1")})
    except HubUnavailable as error:
        return _unavailable(state, error)
    return _response(verdict)


@hub_blueprint.get(f"{HUB_PATH}/subscriptions")
@hub_blueprint.get(f"{HUB_PATH}/subscriptions/<path:rest>")
def subscriptions(rest: str = "") -> Response:
    """Serves the subscription API."""
    state = _state()
    path = _path_as_written() or f"/subscriptions{rest and '/'}{quote(rest)}"
    try:
        return _response(
            state.companion().relay("subscriptions", {**_envelope(state), "path": path})
        )
    except HubUnavailable as error:
        return _unavailable(state, error)


def _path_as_written() -> str | None:
    """The path below the hub's URL, not decoded: a topic in it may hold an encoded slash."""
    written = str(request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or "")
    _, found, below = written.partition("?")[0].partition(f"{HUB_PATH}/subscriptions")
    return f"/subscriptions{below}" if found else None


def _form() -> bytes:
    """The body, as far as it may be long; a form that was parsed before is written again."""
    body = request.stream.read(_MAX_BODY + 1)
    if not body and request.form:
        body = urlencode(list(request.form.items(multi=True))).encode()
    return body


def _state() -> MercureSSEState:
    return cast(MercureSSEState, current_app.extensions["mercure_sse"])


Route = Callable[[MercureSSEState, dict[str, Any]], Response]


def _route(state: MercureSSEState) -> Route:
    """How this request's stream can be served without holding a worker that others need."""
    client = way_out(request.environ) if state.settings.handoff else _SWITCHED_OFF
    if not isinstance(client, Unsupported):
        return partial(_hand_over, client)
    if request.environ.get("werkzeug.socket") is not None and request.environ.get(
        "wsgi.multithread"
    ):
        _explain(state, client, "streamed by a thread")
        return _stream
    _explain(state, client, "served by polling")
    return _poll


_SWITCHED_OFF = Unsupported("MERCURE_HANDOFF is off", "switch it on")


def _explain(state: MercureSSEState, why: Unsupported, instead: str) -> None:
    if current_app.testing:
        return
    state.announce(
        logging.WARNING,
        why.reason,
        "Mercure subscriptions are %s, because %s. To hand them over to the hub: %s.",
        instead,
        why.reason,
        why.remedy,
    )


def _hand_over(client: Client | Exit, state: MercureSSEState, envelope: dict[str, Any]) -> Response:
    bus = state.companion()
    token = client.token if isinstance(client, Exit) else secrets.token_hex(16)
    verdict = bus.authorize(token, envelope)
    if verdict.status != 200:
        return _response(verdict)
    state.announce(
        logging.INFO,
        "handoff",
        "Mercure subscriptions are handed over to the hub (%s).",
        request.environ.get("SERVER_SOFTWARE", "unknown server"),
    )

    def fallback(reason: str) -> Response:
        state.announce(
            logging.WARNING, "failed", "A subscription could not be handed over: %s", reason
        )
        try:
            return _poll(state, envelope)
        except HubUnavailable as error:
            return _unavailable(state, error)

    return HandoffResponse(verdict, bus=bus, token=token, client=client, fallback=fallback)


def _stream(state: MercureSSEState, envelope: dict[str, Any]) -> Response:
    verdict, chunks = state.companion().stream(envelope)
    response = _response(verdict)
    if verdict.status == 200:
        response.response = chunks
        # That of the empty body which the response was made with.
        response.headers.pop("Content-Length", None)
    return response


def _poll(state: MercureSSEState, envelope: dict[str, Any]) -> Response:
    return _response(state.companion().relay("poll", envelope))


def _envelope(
    state: MercureSSEState, *, asked_for: Sequence[str] = (), published: Sequence[str] = ()
) -> dict[str, Any]:
    """The request, as the companion takes it.

    :param asked_for: topics that the client wants to read.
    :param published: topics that it wants to publish to.
    """
    headers = [(name, request.headers[name]) for name in _RELAYED if name in request.headers]
    query = request.environ.get("QUERY_STRING", "")
    grants = granted(state, asked_for, published)
    return {"query": query, "headers": headers, "policy": state.policy(), "grants": grants}


def asked_topics() -> list[str]:
    """The topics that the request at hand wants to read, one by one."""
    names = ("topic", "match", "match_exact")
    return list(dict.fromkeys(topic for name in names for topic in request.args.getlist(name)))


def granted(
    state: MercureSSEState, asked_for: Sequence[str], published: Sequence[str]
) -> dict[str, Any] | None:
    """What ``set_authz_session`` has put into the session, and what the application's rules allow.

    The stream ends with the lifetime of a token, and the browser comes back, to be judged by what
    the session holds then: a logout takes effect within this time.
    """
    kept = session.get("mercure")
    stored = kept if isinstance(kept, dict) else {}
    topics: dict[str, list[str]] = {}
    for action, asked in _actions(asked_for, published):
        topics[action] = [*map(str, stored.get(action) or ())]
        topics[action] += state.instance.authorized(asked[:_MAX_JUDGED], action)
    if not stored and not any(topics.values()):
        return None
    return {
        **topics,
        "payload": state.instance.payload_of(topics["subscribe"]),
        "expires_at": int(time.time()) + state.settings.token_lifetime,
    }


def _actions(
    asked_for: Sequence[str], published: Sequence[str]
) -> tuple[tuple[Action, Sequence[str]], tuple[Action, Sequence[str]]]:
    return ("subscribe", asked_for), ("publish", published)


def _response(verdict: Verdict) -> Response:
    headers = [(n, v) for n, v in verdict.headers if n.lower() not in _HOP_BY_HOP]
    return Response(verdict.body, verdict.status, headers)


def _unavailable(state: MercureSSEState, error: HubUnavailable) -> Response:
    state.logger.error("The Mercure hub is unavailable: %s", error)
    if request.method == "GET" and "text/event-stream" in request.headers.get("Accept", ""):
        # An EventSource gives up for good after an error; after an empty stream it comes back.
        return Response(
            f":{UNAVAILABLE}\nretry: 3000\n\n",
            mimetype="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )
    return Response(UNAVAILABLE, status=503, mimetype="text/plain", headers={"Retry-After": "2"})
