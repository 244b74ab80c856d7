"""What is published: topics and payloads, from whatever the application has at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

#: One topic or several. Anything that is no string is asked for its topic; see :func:`as_topic`.
Topics = Any

#: Path below which active subscriptions have their topics, on every hub.
_SUBSCRIPTIONS = "/.well-known/mercure/subscriptions"


def as_topic(source: Any) -> str:
    """The topic of something: its ``__mercure_sse_topic__``, or its text.

    :param source: a string, or an object; the attribute may be a string, a property or a method.
    """
    topic = getattr(source, "__mercure_sse_topic__", None)
    if topic is None:
        return str(source)
    return str(topic() if callable(topic) else topic)


def topic_list(topics: Topics) -> list[str]:
    """One topic or several, as a list."""
    if isinstance(topics, list | tuple | set | frozenset):
        return [as_topic(topic) for topic in topics]
    return [as_topic(topics)]


def subscription_topic(topic: Any = None, subscriber: str | None = None) -> str:
    """The topic of the events that tell who subscribes to a topic (0.x, "Active Subscriptions").

    :param topic: the topic subscribed to; any by default, as a URI template.
    :param subscriber: id of one subscriber; any by default, as a URI template.
    """
    if topic is None:
        return f"{_SUBSCRIPTIONS}{{/topic}}{{/subscriber}}"
    path = f"{_SUBSCRIPTIONS}/{quote(as_topic(topic), safe='')}"
    return path + ("{/subscriber}" if subscriber is None else f"/{quote(subscriber, safe='')}")


def describe(topic: Any, data: Any) -> tuple[Any, Any]:
    """Topic and payload of a call to ``publish``.

    Without a payload, an object speaks for itself: ``__mercure_sse__()`` returns both; else its
    topic is its ``__mercure_sse_topic__`` or the name of its class, and its payload the object. A
    plain string is a topic, and its event has no data.

    :param topic: what was given as topic.
    :param data: what was given as payload; ``None`` if nothing was.
    """
    if data is not None:
        return topic, data
    both = getattr(topic, "__mercure_sse__", None)
    if both is not None:
        topic, data = both()
        return topic, data
    if isinstance(topic, str | list | tuple | set | frozenset):
        return topic, ""
    if not hasattr(topic, "__mercure_sse_topic__"):
        return type(topic).__name__, topic
    return topic, topic


def payload(data: Any, dumps: Callable[[Any], str] = json.dumps) -> str:
    """The payload as text: strings as they are, bytes as UTF-8, anything else as JSON.

    :param data: the payload, or an object with ``__mercure_sse_data__()``, which returns it.
    :param dumps: writes JSON.
    """
    if hasattr(data, "__mercure_sse_data__"):
        data = data.__mercure_sse_data__()
    if isinstance(data, str):
        return data
    if isinstance(data, bytes | bytearray):
        return bytes(data).decode()
    return dumps(data)


def stands_for_several(topic: str) -> bool:
    """Whether this is no single topic but ``*`` or a URI template."""
    return topic == "*" or "{" in topic
