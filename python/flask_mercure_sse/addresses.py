"""Where browsers find the hub."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import (
    Flask,
    Response,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    url_for,
)

from . import discovery
from .base import Base
from .settings import HUB_PATH
from .state import KEY
from .topics import Topics, as_topic, subscription_topic, topic_list


class Addresses(Base):
    """The part of the extension that makes addresses."""

    def hub_base_url(self, public: bool = True) -> str:
        """The hub's address without parameters.

        :param public: the one for browsers; else the one that the application itself uses.
        """
        settings = self.state.settings
        if not public and settings.hub_url is not None:
            return settings.hub_url
        if public and settings.public_hub_url is not None:
            return settings.public_hub_url
        if settings.hub_url_from_request and has_request_context():
            return request.host_url.rstrip("/") + own_path()
        return own_path()

    def hub_url(
        self,
        topics: Topics | None = None,
        subscriber_jwt: str | None = None,
        with_subscriptions: bool = False,
        public: bool = True,
        *,
        last_event_id: str | bool | None = None,
    ) -> str:
        """The address to subscribe at.

        :param topics: what to listen to: a topic or a list; URI templates and ``*`` work too.
        :param subscriber_jwt: token to put into the address. A cookie or the session is safer.
        :param with_subscriptions: whether to listen to who subscribes to these topics as well.
        :param public: the address for browsers; else the one the application itself uses.
        :param last_event_id: where to begin; see :meth:`last_event_id`. By default, in a request of
            an application with the built-in hub, at the event that was the newest when the request
            began: what is published while the page is made and loaded is not missed. ``False`` for
            the moment of the connection; ``MERCURE_URL_CURSOR`` makes that the default.
        """
        names = [] if topics is None else topic_list(topics)
        if with_subscriptions:
            names += [subscription_topic(name) for name in names]
        parameters = [("topic", name) for name in names]
        if last_event_id is None or last_event_id is True:
            last_event_id = _cursor_of_request()
            if last_event_id is not None:
                parameters.append(("last_event_id", last_event_id))
        elif isinstance(last_event_id, str):
            # Each generation reads its own name and ignores the other's.
            parameters.append(("last_event_id", last_event_id))
            parameters.append(("lastEventID", last_event_id))
        if subscriber_jwt is not None:
            parameters.append(("authorization", subscriber_jwt))
        base = self.hub_base_url(public=public)
        return f"{base}?{urlencode(parameters)}" if parameters else base

    def last_event_id(self) -> str | None:
        """The id of the hub's newest event, to subscribe from: read it before the data that a page
        shows, and no event between the two is lost.

        ``earliest`` as long as there is none; ``None`` if the hub is an external one, which
        cannot be asked, or cannot be reached.
        """
        return self.state.last_event_id()

    def add_link(
        self,
        response: Response,
        topic: str | None = None,
        *,
        last_event_id: str | None = None,
        content_type: str | None = None,
        event_type: str | None = None,
    ) -> Response:
        """Adds the ``Link`` fields by which clients of a resource discover the hub.

        :param topic: canonical topic of the resource, if that is not the address it was asked at.
        :param last_event_id: cursor to subscribe from; :meth:`last_event_id`, read before the
            resource was, makes sure that no update after it is missed.
        :param content_type: media type of the updates, if it is not that of the resource.
        :param event_type: type of the updates, if they have one.
        :raises InvalidUpdate: for a value that no header field can carry.
        """
        link = discovery.hub_link(
            self.hub_base_url(),
            last_event_id=last_event_id,
            content_type=content_type,
            event_type=event_type,
        )
        response.headers.add("Link", link)
        if topic is not None:
            response.headers.add("Link", discovery.self_link(as_topic(topic)))
        return response


def note_cursor(app: Flask, **_: object) -> None:
    """A request begins: whatever it reads from now on is at least as new as this."""
    g.mercure_cursor = app.extensions[KEY].last_event_id()


def _cursor_of_request() -> str | None:
    return g.get("mercure_cursor") if has_request_context() else None


def own_path() -> str:
    """Path of the built-in hub, below wherever the application is mounted."""
    if has_request_context():
        return url_for("mercure_hub.subscribe", _external=False)
    root = current_app.config["APPLICATION_ROOT"] if has_app_context() else "/"
    return str(root).rstrip("/") + HUB_PATH
