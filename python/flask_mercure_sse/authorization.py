"""Who may read what is private: tokens, cookies and the session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Response, has_request_context, request, session

from . import tokens
from .addresses import Addresses, own_path
from .base import PayloadGetter
from .topics import Topics, topic_list

_F = TypeVar("_F", bound=PayloadGetter)


class Authorization(Addresses):
    """The part of the extension that grants access."""

    def payload_getter(self, function: _F) -> _F:
        """Declares the function that says what a subscriber's token tells of the subscriber.

        It is called with the list of topics whenever a token is made, and its result shows up in
        the subscriptions of whoever uses the token: ``{"user_id": 7}``, say.
        """
        self._payload_getter = function
        return function

    def payload_of(self, topics: list[str]) -> Any:
        """What is told of the subscriber at hand; ``None`` without a :meth:`payload_getter`."""
        return self._payload_getter(topics) if self._payload_getter is not None else None

    def create_subscription_jwt(
        self, topics: Topics, payload: Mapping[str, Any] | None = None
    ) -> str:
        """Makes a token that allows to read private updates of some topics.

        :param topics: a topic or a list; URI templates and ``*`` work too.
        :param payload: what to tell of the subscriber, over what :meth:`payload_getter` says.
        :raises ConfigurationError: if no key is configured.
        """
        state = self.state
        names = topic_list(topics)
        told = self.payload_of(names)
        if payload is not None:
            told = {**(told or {}), **payload}
        key = state.settings.subscriber_secret_key
        return tokens.mint(state.settings, key, state.logger, subscribe=names, payload=told)

    def create_publisher_jwt(self, topics: Topics = "*") -> str:
        """Makes a token that allows to publish to some topics.

        :param topics: a topic or a list; URI templates and ``*`` work too.
        :raises ConfigurationError: if no key is configured.
        """
        state = self.state
        key = state.settings.publisher_secret_key
        return tokens.mint(state.settings, key, state.logger, publish=topic_list(topics))

    def authentified_hub_url(
        self,
        topics: Topics | None = None,
        payload: Mapping[str, Any] | None = None,
        with_subscriptions: bool = False,
    ) -> str:
        """The address to subscribe at, with a token for these topics in it.

        Addresses end up in logs, and 1.0 does not know such tokens: prefer the session or a cookie.
        """
        names = [] if topics is None else topic_list(topics)
        return self.hub_url(names, self.create_subscription_jwt(names, payload), with_subscriptions)

    def set_authz_cookie(
        self,
        response: Response,
        topics: Topics | None = None,
        jwt: str | None = None,
        payload: Mapping[str, Any] | None = None,
        secure: bool | None = None,
        **options: Any,
    ) -> Response:
        """Gives the browser a token in a cookie that scripts cannot read.

        :param response: the response to set the cookie on.
        :param topics: topics whose private updates may be read; none by default.
        :param jwt: a token to use instead of a new one.
        :param payload: see :meth:`create_subscription_jwt`.
        :param secure: whether the cookie is for HTTPS only; by default, if the hub is.
        :param options: for ``Response.set_cookie``, over the derived ones.
        :raises ConfigurationError: if no key is configured.
        """
        settings = self.state.settings
        if jwt is None:
            jwt = self.create_subscription_jwt([] if topics is None else topics, payload)
            options.setdefault("max_age", settings.token_lifetime)
        options = {**self._cookie_options(secure), **options}
        response.set_cookie(settings.authz_cookie_name, jwt, **options)
        return response

    def delete_authz_cookie(self, response: Response, **options: Any) -> Response:
        """Takes the token away again, at a logout.

        :param options: ``domain`` and ``path``, if :meth:`set_authz_cookie` was given them.
        """
        options = {**self._cookie_options(None), **options}
        response.delete_cookie(self.state.settings.authz_cookie_name, **options)
        return response

    def _cookie_options(self, secure: bool | None) -> dict[str, Any]:
        hub = self.state.settings.public_hub_url
        if secure is None:
            secure = urlsplit(hub).scheme == "https" if hub else _request_is_secure()
        path = urlsplit(hub).path or "/" if hub else own_path()
        return {"path": path, "secure": secure, "httponly": True, "samesite": "Strict"}

    def set_authz_session(
        self, subscribe: Topics | None = None, publish: Topics | None = None
    ) -> None:
        """Allows the user of this session to read private updates, or to publish, on the built-in
        hub. No token leaves the server.

        :param subscribe: topics whose private updates may be read.
        :param publish: topics that may be published to, if ``MERCURE_HUB_ALLOW_PUBLISH`` is set.
        """
        session["mercure"] = {
            "subscribe": [] if subscribe is None else topic_list(subscribe),
            "publish": [] if publish is None else topic_list(publish),
        }


def _request_is_secure() -> bool:
    return has_request_context() and request.is_secure
