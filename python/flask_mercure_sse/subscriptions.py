"""Who is subscribed: the subscription API of a hub, asked by the application."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from .base import Base
from .errors import HubUnavailable
from .publishing.hubs import error_of
from .topics import as_topic


class Subscriptions(Base):
    """The part of the extension that asks who is there."""

    def get_subscriptions(self, topic: Any = None, subscriber: str | None = None) -> dict[str, Any]:
        """The active subscriptions, as the hub's subscription API tells them.

        :param topic: only those to this topic (as it was asked for: a URI template is a text here).
        :param subscriber: only the one of this subscriber.
        :returns: the parsed document; its ``subscriptions`` is a list of objects with ``topic``,
            ``subscriber``, ``active`` and, if the token had one, ``payload``.
        :raises HubUnavailable: if the hub cannot be reached.
        :raises HubRefused: if it does not tell, or not us.
        :raises TypeError: for a subscriber without a topic.
        """
        if subscriber is not None and topic is None:
            raise TypeError("a subscriber is asked for together with a topic")
        parts = [] if topic is None else [as_topic(topic)]
        parts += [] if subscriber is None else [subscriber]
        path = "".join(f"/{quote(part, safe='')}" for part in parts)
        status, body = self.state.ask(f"/subscriptions{path}")
        if status == 404 and subscriber is not None:
            return {"subscriptions": []}
        if status != 200:
            raise error_of(status, body.decode("utf-8", "replace"))
        try:
            document = json.loads(body)
        except ValueError as error:
            raise HubUnavailable("the hub's list of subscriptions cannot be read") from error
        if subscriber is not None:
            document = {"subscriptions": [document]}
        return dict(document)

    def is_connected(self, topic: Any, **payload: Any) -> bool:
        """Whether anybody is subscribed to a topic.

        :param payload: only those whose token told this of them: ``user_id=7``, say.
        :raises HubUnavailable: if the hub cannot be reached.
        """
        for subscription in self.get_subscriptions(topic)["subscriptions"]:
            told = subscription.get("payload")
            told = told if isinstance(told, dict) else {}
            if all(name in told and told[name] == value for name, value in payload.items()):
                return True
        return False
