"""From the arguments of ``publish`` to the form that a hub takes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

Topics = str | list[str] | tuple[str, ...]


def topic_list(topics: Any) -> list[str]:
    """One topic or several, as a list; anything that is no string is asked for its text."""
    if isinstance(topics, list | tuple | set | frozenset):
        return [str(topic) for topic in topics]
    return [str(topics)]


def form(
    topic: Any,
    data: Any,
    *,
    private: bool = False,
    id: str | None = None,
    type: str | None = None,
    retry: int | None = None,
) -> bytes:
    """Encodes an update as ``application/x-www-form-urlencoded`` ("Publication").

    :param topic: the canonical topic, or a list with alternate topics after it.
    :param data: the payload: text as it is, bytes as UTF-8, anything else as JSON.
    :param retry: reconnection time in milliseconds.
    """
    fields: list[tuple[str, str]] = [("topic", text) for text in topic_list(topic)]
    fields.append(("data", payload(data)))
    if private:
        fields.append(("private", "on"))
    if id is not None:
        fields.append(("id", str(id)))
    if type is not None:
        fields.append(("type", str(type)))
    if retry is not None:
        fields.append(("retry", str(int(retry))))
    return urlencode(fields).encode()


def payload(data: Any) -> str:
    """The payload as text."""
    if isinstance(data, str):
        return data
    if isinstance(data, bytes | bytearray):
        return bytes(data).decode()
    return json.dumps(data)
