"""What templates see of the extension: functions for the application that renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from flask import current_app
from markupsafe import Markup

from .state import KEY, MercureSSEState
from .topics import Topics, as_topic, subscription_topic

if TYPE_CHECKING:
    from .extension import MercureSSE


def current() -> MercureSSE:
    """The current application's extension."""
    return cast(MercureSSEState, current_app.extensions[KEY]).instance


def mercure_hub_url(
    topics: Topics | None = None,
    subscriber_jwt: str | None = None,
    with_subscriptions: bool = False,
    *,
    last_event_id: str | bool | None = None,
) -> Markup:
    """The address to subscribe at, for a template; see :meth:`MercureSSE.hub_url`."""
    url = current().hub_url(topics, subscriber_jwt, with_subscriptions, last_event_id=last_event_id)
    return _safe(url)


def mercure_authentified_hub_url(
    topics: Topics | None = None,
    payload: Mapping[str, Any] | None = None,
    with_subscriptions: bool = False,
) -> Markup:
    """The address with a token in it; see :meth:`MercureSSE.authentified_hub_url`."""
    return _safe(current().authentified_hub_url(topics, payload, with_subscriptions))


def mercure_subscriber_jwt(topics: Topics, payload: Mapping[str, Any] | None = None) -> str:
    """Makes a token; see :meth:`MercureSSE.create_subscription_jwt`."""
    return current().create_subscription_jwt(topics, payload)


def mercure_subscriptions(topic: Topics | None = None) -> list[dict[str, Any]]:
    """Who is subscribed to a topic; see :meth:`MercureSSE.get_subscriptions`."""
    return list(current().get_subscriptions(topic)["subscriptions"])


def _safe(url: str) -> Markup:
    """Safe as it is in an attribute and in a script: every character that means something there is
    percent-encoded, so the ``&`` between parameters needs no escaping and gets none."""
    base, mark, query = url.partition("?")
    # The prefix that the application is mounted at may come from a proxy: no entity in it either.
    encoded = quote(base, safe="!$%()*+,/:=@[]~") + mark + quote(query, safe="!$%&()*+,/:=?@[]~")
    return Markup(encoded)  # noqa: S704 (encoded right here)


#: The names that templates use.
GLOBALS: dict[str, Callable[..., Any]] = {
    "mercure_authentified_hub_url": mercure_authentified_hub_url,
    "mercure_hub_url": mercure_hub_url,
    "mercure_subscriber_jwt": mercure_subscriber_jwt,
    "mercure_subscription_topic": subscription_topic,
    "mercure_subscriptions": mercure_subscriptions,
    "mercure_topic": as_topic,
}
