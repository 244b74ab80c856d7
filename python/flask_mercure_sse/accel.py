"""Subscriptions behind nginx, with a hub of its own: the application decides, nginx connects.

The view answers with ``X-Accel-Redirect``, and nginx passes the client on to the hub, over a
location that nobody can ask for from outside. The grant goes along as a token that no client sees.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, request

from . import tokens
from .blueprint import asked_topics, granted
from .settings import HUB_PATH
from .state import KEY, MercureSSEState
from .topics import stands_for_several

#: Of the same name as the built-in hub's: addresses are made in the same way.
accel_blueprint = Blueprint("mercure_hub", __name__)


@accel_blueprint.get(HUB_PATH)
def subscribe() -> Response:
    """Sends the client to the hub with what it may read."""
    state = cast(MercureSSEState, current_app.extensions[KEY])
    settings = state.settings
    # Who presents a token is judged by it, by the hub.
    presents_a_token = bool(request.args.get("authorization")) or request.headers.get(
        "Authorization", ""
    ).lower().startswith("bearer ")
    grants = None if presents_a_token else granted(state, asked_topics(), ())
    if grants is None and not presents_a_token and not settings.allow_anonymous:
        return Response("a session or a token is needed", status=401, mimetype="text/plain")
    parameters = [pair for pair in request.args.items(multi=True) if pair != ("authorization", "")]
    if grants is not None:
        token = tokens.mint(
            settings,
            settings.subscriber_secret_key,
            state.logger,
            subscribe=_needed(grants["subscribe"]),
            payload=grants["payload"],
        )
        parameters.append(("authorization", token))
    response = Response(mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
    response.headers["X-Accel-Redirect"] = f"{settings.accel_redirect}?{urlencode(parameters)}"
    return response


def _needed(topics: list[str]) -> list[str]:
    """Those of the granted topics that matter for what is asked for: the redirect is a header, and
    proxies limit its length."""
    asked = set(asked_topics())
    if "match_urlpattern" in request.args or any(stands_for_several(topic) for topic in asked):
        return topics
    return [topic for topic in topics if topic in asked or stands_for_several(topic)]
