"""How clients of a resource find its hub: ``Link`` fields (section "Discovery")."""

from __future__ import annotations

from urllib.parse import quote

from .errors import InvalidUpdate

#: What an IRI may keep when it becomes a URI reference between angle brackets.
_URI_SIGNS = "!#$%&'()*+,/:;=?@[]~"


def hub_link(
    hub_url: str,
    *,
    last_event_id: str | None = None,
    content_type: str | None = None,
    event_type: str | None = None,
) -> str:
    """The value of a ``Link`` field that names the hub.

    :param last_event_id: cursor to subscribe from, so that nothing after the response is missed.
    :param content_type: media type of the updates, if it is not that of the resource.
    :param event_type: ``event`` field of the updates, if they have one.
    :raises InvalidUpdate: for a value that no header field can carry.
    """
    attributes = {
        "rel": "mercure",
        "last-event-id": last_event_id,
        "content-type": content_type,
        "type": event_type,
    }
    parameters = [f"{name}={_quoted(name, value)}" for name, value in attributes.items() if value]
    return "; ".join([f"<{_target(hub_url)}>", *parameters])


def self_link(topic: str) -> str:
    """The value of a ``Link`` field that names the canonical topic of a resource."""
    return f'<{_target(topic)}>; rel="self"'


def _target(url: str) -> str:
    return quote(url, safe=_URI_SIGNS)


def _quoted(name: str, value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise InvalidUpdate(f"{name} must not contain control characters")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
