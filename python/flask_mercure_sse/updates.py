"""An update on its way to a hub."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .errors import InvalidUpdate
from .topics import as_topic, describe, payload, topic_list

#: What would break out of a line of the stream (specification, "Publication").
_LINE_BREAKS = ("\r", "\n", "\0")


@dataclass(frozen=True)
class Update:
    """An update as the form that a hub takes ("Publication").

    Its id is made here, not by the hub: so it is known at once, and a second attempt is told from
    a second update.
    """

    id: str
    form: bytes

    @classmethod
    def build(
        cls,
        topic: Any,
        data: Any = None,
        *,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        dumps: Callable[[Any], str] = json.dumps,
    ) -> Update:
        """Encodes what ``publish`` was given.

        :param topic: the canonical topic, a list with alternate topics after it, or an object; see
            :func:`~flask_mercure_sse.topics.describe`.
        :param data: the payload; see :func:`~flask_mercure_sse.topics.payload`.
        :param private: only for subscribers with a grant.
        :param id: the event's id; a new one by default.
        :param type: the event's type; ``True`` for the canonical topic.
        :param retry: reconnection time in milliseconds.
        :param dumps: writes payloads that are no text as JSON.
        :raises InvalidUpdate: if something cannot be encoded.
        """
        try:
            topic, data = describe(topic, data)
            topics = _checked_topics(topic)
            id = _one_line("id", id) if id else uuid.uuid4().urn
            fields = [("topic", text) for text in topics]
            fields += [("data", payload(data, dumps)), ("id", id)]
            if private:
                fields.append(("private", "on"))
            if type is True:
                fields.append(("type", topics[0]))
            elif type:
                fields.append(("type", _one_line("type", as_topic(type))))
            if retry is not None:
                fields.append(("retry", str(int(retry))))
            return cls(id, urlencode(fields).encode())
        except (TypeError, ValueError) as error:
            raise InvalidUpdate(f"the update cannot be sent: {error}") from error


def _checked_topics(topic: Any) -> list[str]:
    """What no hub accepts is a mistake to be told here; a hub's own limits are its own to tell."""
    topics = topic_list(topic)
    if not topics:
        raise ValueError("the topic is missing")
    for text in topics:
        if not text:
            raise ValueError("a topic is empty")
        if text == "*":
            raise ValueError("a topic must not be the wildcard *")
        _one_line("topic", text)
    return topics


def _one_line(name: str, value: Any) -> str:
    text = str(value)
    if any(mark in text for mark in _LINE_BREAKS):
        raise ValueError(f"{name} must not hold a line break or U+0000")
    return text
