"""Who may read what is private: tokens, cookies and the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Response, has_request_context, request, session

from . import tokens
from .addresses import Addresses, own_path
from .base import PayloadGetter
from .errors import ConfigurationError
from .rules import Action, Rule
from .topics import Topics, stands_for_several, topic_list

#: Where the session keeps the topics of a cookie that may be renewed.
_RENEWABLE = "mercure_renewable"

_F = TypeVar("_F", bound=PayloadGetter)
_R = TypeVar("_R", bound=Rule)


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

    def authorize(
        self, template: str, *, actions: Iterable[Action] = ("subscribe",)
    ) -> Callable[[_R], _R]:
        """Declares the function that decides whether the user at hand may read a private topic.

        It is called with the template's variables, in a request, and sees the session and the
        current user. On the built-in hub it is asked at each subscription; no token is needed, and
        the stream ends after ``MERCURE_TOKEN_LIFETIME`` to be judged anew. For an external hub,
        give :meth:`authorized` topics to :meth:`set_authz_cookie`.

        :param template: URI template of the topics, with ``{name}`` for one segment and ``{+name}``
            for any text: ``"orders/{id}"``.
        :param actions: what it decides on: ``"subscribe"``, ``"publish"``.
        :raises ConfigurationError: for a template of another kind.
        """

        def declare(function: _R) -> _R:
            self._rules.add(template, actions, function)
            return function

        return declare

    def rules_deciding(self, topics: Iterable[str]) -> dict[str, list[str]]:
        """The rules that are asked about each topic, as text."""
        return {topic: self._rules.deciding(topic) for topic in topics}

    def authorized(self, topics: Topics, action: Action = "subscribe") -> list[str]:
        """Those of some topics that a rule allows the user at hand; see :meth:`authorize`."""
        return self._rules.allowed(topic_list(topics), action, self.state.logger)

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
        *,
        renewable: bool = False,
        **options: Any,
    ) -> Response:
        """Gives the browser a token in a cookie that scripts cannot read.

        :param response: the response to set the cookie on.
        :param topics: topics whose private updates may be read; none by default.
        :param jwt: a token to use instead of a new one.
        :param payload: see :meth:`create_subscription_jwt`.
        :param secure: whether the cookie is for HTTPS only; by default, if the hub is.
        :param renewable: whether to note topics and payload in the session, for
            :meth:`renew_authz_cookie`.
        :param options: for ``Response.set_cookie``, over the derived ones.
        :raises ConfigurationError: if no key is configured.
        """
        settings = self.state.settings
        if renewable:
            names = [] if topics is None else topic_list(topics)
            session[_RENEWABLE] = {"topics": names, "payload": payload and dict(payload)}
        if jwt is None:
            jwt = self.create_subscription_jwt([] if topics is None else topics, payload)
            options.setdefault("max_age", settings.token_lifetime)
        options = {**self._cookie_options(secure), **options}
        response.set_cookie(settings.authz_cookie_name, jwt, **options)
        return response

    def renew_authz_cookie(self, response: Response, **options: Any) -> bool:
        """Gives the browser a new token for the topics of a renewable cookie, before it expires.

        Topics that rules decide on (:meth:`authorize`) are judged anew. Where there are rules,
        those that stand for several topics (``*``, templates) are not renewed: no rule can decide
        on them. The topics are kept in the session, not read from the old token: the browser sends
        that to the hub only, and a session that has ended renews nothing.

        :param response: the response to set the cookie on.
        :param options: as for :meth:`set_authz_cookie`.
        :returns: whether there is a new cookie; if nothing is granted any more, the old one is
            deleted.
        """
        noted = session.get(_RENEWABLE)
        if not isinstance(noted, dict):
            return False
        kept = [topic for topic in noted["topics"] if self._is_still_granted(topic)]
        if not kept:
            self.delete_authz_cookie(response, **options)
            return False
        self.set_authz_cookie(response, kept, payload=noted["payload"], **options)
        return True

    def _is_still_granted(self, topic: str) -> bool:
        if self._rules and stands_for_several(topic):
            return False
        return not self._rules.deciding(topic, "subscribe") or bool(self.authorized(topic))

    def delete_authz_cookie(self, response: Response, **options: Any) -> Response:
        """Takes the token away again, at a logout.

        :param options: ``domain`` and ``path``, if :meth:`set_authz_cookie` was given them.
        """
        if has_request_context():
            session.pop(_RENEWABLE, None)
        options = {**self._cookie_options(None), **options}
        response.delete_cookie(self.state.settings.authz_cookie_name, **options)
        return response

    def _cookie_options(self, secure: bool | None) -> dict[str, Any]:
        hub = urlsplit(self.state.settings.public_hub_url or "")
        if secure is None:
            secure = hub.scheme == "https" if hub.scheme else _request_is_secure()
        return {
            "path": (hub.path or "/") if self.state.settings.public_hub_url else own_path(),
            "domain": _shared_domain(hub.hostname) if hub.hostname else None,
            "secure": secure,
            "httponly": True,
            "samesite": "Strict",
        }

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


def _shared_domain(hub: str) -> str | None:
    """The domain that the application, as the request has named it, and the hub have in common;
    ``None`` if they are one host.

    :raises ConfigurationError: if no cookie of the application can reach the hub.
    """
    own = urlsplit(f"//{request.host}").hostname if has_request_context() else None
    if own is None or own == hub:
        return None
    shared: list[str] = []
    for ours, theirs in zip(own.split(".")[::-1], hub.split(".")[::-1], strict=False):
        if ours != theirs:
            break
        shared.insert(0, ours)
    # One label in common is a top-level domain, and addresses have no parents.
    if len(shared) < 2 or own.replace(".", "").isdigit():
        raise ConfigurationError(
            f"a cookie of {own} cannot reach the hub at {hub}: serve both below one domain, or "
            "give the token to the page (create_subscription_jwt)"
        )
    return ".".join(shared)
