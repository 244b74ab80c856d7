"""The extension object, and the functions that templates and views use."""

from __future__ import annotations

import weakref
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from flask import (
    Flask,
    Response,
    current_app,
    has_app_context,
    has_request_context,
    request,
    session,
    url_for,
)
from markupsafe import Markup

from . import discovery, external, tokens, updates
from .blueprint import hub_blueprint
from .cli import mercure_cli
from .errors import ConfigurationError, HubRefused, HubUnavailable, InvalidUpdate, PublishError
from .settings import HUB_PATH, Settings
from .state import MercureSSEState
from .updates import Topics

_KEY = "mercure_sse"


class MercureSSE:
    """Adds a Mercure hub to a Flask application.

    Use ``MercureSSE(app)``, or ``MercureSSE()`` and ``init_app(app)`` in a factory. Arguments are
    defaults for the configuration keys ``MERCURE_*`` of the same name. Nothing is started before
    the first subscription or update.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        # For calls outside an application context, as in module-level code. Weak, so that an
        # application of a test can go.
        self._app: weakref.ref[Flask] | None = None
        if app is not None:
            self._app = weakref.ref(app)
            self.init_app(app, **options)

    def init_app(self, app: Flask, **options: Any) -> None:
        """Sets an application up.

        :param app: the application.
        :param options: defaults for configuration keys: ``hub_url``, ``public_hub_url``,
            ``publisher_jwt``, ``authz_cookie_name``, ``hub_allow_publish``,
            ``hub_allow_anonymous``, ``subscriber_secret_key``, ``publisher_secret_key`` and the
            others of the configuration table.
        :raises ConfigurationError: for a value of the wrong kind, or if it was set up already.
        """
        if _KEY in app.extensions:
            raise ConfigurationError("this application has a MercureSSE extension already")
        settings = Settings.read(app.config, options, app_name=app.name, logger=app.logger)
        state = MercureSSEState(self, settings, app)
        app.extensions[_KEY] = app.extensions["mercure"] = state
        app.jinja_env.globals.update(
            mercure_hub_url=mercure_hub_url,
            mercure_subscriber_jwt=mercure_subscriber_jwt,
        )
        if not settings.is_external:
            app.register_blueprint(hub_blueprint)
            state.join_if_running()
        app.cli.add_command(mercure_cli)

    @property
    def state(self) -> MercureSSEState:
        """The state in the current application, or in the one the extension was made with.

        :raises ConfigurationError: if there is no application, or it was not set up.
        """
        app = current_app if has_app_context() else self._app() if self._app else None
        if app is None:
            raise ConfigurationError(
                "there is no application: use `with app.app_context():`, or MercureSSE(app)"
            )
        state = app.extensions.get(_KEY)
        if state is None:
            raise ConfigurationError("this application was not set up: call init_app(app)")
        return cast(MercureSSEState, state)

    # -- publishing -------------------------------------------------------------------------

    def publish(
        self,
        topic: Topics,
        data: Any = "",
        private: bool = False,
        id: str | None = None,
        type: str | None = None,
        retry: int | None = None,
        jwt: str | None = None,
        hub_url: str | None = None,
    ) -> str | None:
        """Publishes an update to everybody who listens to its topic.

        :param topic: the topic, or a list: the canonical topic and alternate ones.
        :param data: the payload; text as it is, bytes as UTF-8, anything else as JSON.
        :param private: only for subscribers that were granted one of the topics.
        :param id: the event's id; the hub makes one by default.
        :param type: the event's type, for ``addEventListener``.
        :param retry: reconnection time for browsers, in milliseconds.
        :param jwt: token to publish with on an external hub.
        :param hub_url: external hub to publish to, instead of the configured one.
        :returns: the event's id; ``None`` if publishing failed and ``MERCURE_ON_FAILURE`` is
            ``"log"``.
        :raises InvalidUpdate: if the update breaks a rule of the protocol.
        :raises ConfigurationError: if an external hub needs a token that is not configured.
        :raises PublishError: if publishing failed and ``MERCURE_ON_FAILURE`` is ``"raise"``.
        """
        state = self.state
        try:
            body = updates.form(topic, data, private=private, id=id, type=type, retry=retry)
        except (TypeError, ValueError) as error:
            raise InvalidUpdate(f"the update cannot be sent: {error}") from error
        try:
            return _publish(state, body, jwt, hub_url)
        except (HubUnavailable, HubRefused) as error:
            if state.settings.on_failure == "raise":
                raise
            state.logger.error("An update was not published: %s", error)
            return None

    def last_event_id(self) -> str | None:
        """The id of the hub's newest event, to subscribe from: read it before the data that a page
        shows, and no event between the two is lost.

        ``earliest`` as long as there is none; ``None`` if the hub is an external one, which
        cannot be asked, or cannot be reached.
        """
        state = self.state
        if state.settings.is_external:
            return None
        try:
            verdict = state.companion().request("GET", "/status")
        except HubUnavailable as error:
            state.logger.error("The Mercure hub is unavailable: %s", error)
            return None
        import json

        found = json.loads(verdict.body)["last_event_id"]
        return str(found) if found is not None else "earliest"

    # -- addresses --------------------------------------------------------------------------

    def hub_url(
        self,
        topics: Topics | None = None,
        subscriber_jwt: str | None = None,
        *,
        last_event_id: str | None = None,
    ) -> str:
        """The address to subscribe at.

        :param topics: what to listen to: a topic or a list; URI templates and ``*`` work too.
        :param subscriber_jwt: token to put into the address. A cookie or the session is safer.
        :param last_event_id: where to begin; see :meth:`last_event_id`.
        """
        state = self.state
        names = [] if topics is None else updates.topic_list(topics)
        parameters = [("topic", topic) for topic in names]
        if last_event_id is not None:
            # Each generation reads its own name and ignores the other's.
            parameters.append(("last_event_id", last_event_id))
            parameters.append(("lastEventID", last_event_id))
        if subscriber_jwt is not None:
            parameters.append(("authorization", subscriber_jwt))
        base = state.settings.public_hub_url or _own_path()
        return f"{base}?{urlencode(parameters)}" if parameters else base

    # -- authorization ----------------------------------------------------------------------

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
            self.hub_url(),
            last_event_id=last_event_id,
            content_type=content_type,
            event_type=event_type,
        )
        response.headers.add("Link", link)
        if topic is not None:
            response.headers.add("Link", discovery.self_link(topic))
        return response

    def create_subscription_jwt(self, topics: Topics) -> str:
        """Makes a token that allows to read private updates of some topics.

        :param topics: a topic or a list; URI templates and ``*`` work too.
        :raises ConfigurationError: if no key is configured.
        """
        state = self.state
        return tokens.mint(
            state.settings,
            state.settings.subscriber_secret_key,
            state.logger,
            subscribe=updates.topic_list(topics),
        )

    def create_publisher_jwt(self, topics: Topics = "*") -> str:
        """Makes a token that allows to publish to some topics.

        :param topics: a topic or a list; URI templates and ``*`` work too.
        :raises ConfigurationError: if no key is configured.
        """
        state = self.state
        return tokens.mint(
            state.settings,
            state.settings.publisher_secret_key,
            state.logger,
            publish=updates.topic_list(topics),
        )

    def set_authz_cookie(
        self,
        response: Response,
        topics: Topics | None = None,
        jwt: str | None = None,
        **options: Any,
    ) -> Response:
        """Gives the browser a token in a cookie that scripts cannot read.

        :param response: the response to set the cookie on.
        :param topics: topics whose private updates may be read; none by default.
        :param jwt: a token to use instead of a new one.
        :param options: for ``Response.set_cookie``, over the derived ones.
        :raises ConfigurationError: if no key is configured.
        """
        state = self.state
        if jwt is None:
            jwt = self.create_subscription_jwt([] if topics is None else topics)
            options.setdefault("max_age", state.settings.token_lifetime)
        hub = state.settings.public_hub_url
        options.setdefault("path", urlsplit(hub).path or "/" if hub else _own_path())
        secure = urlsplit(hub).scheme == "https" if hub else _request_is_secure()
        options.setdefault("secure", secure)
        options.setdefault("httponly", True)
        options.setdefault("samesite", "Strict")
        response.set_cookie(state.settings.authz_cookie_name, jwt, **options)
        return response

    def set_authz_session(
        self, subscribe: Topics | None = None, publish: Topics | None = None
    ) -> None:
        """Allows the user of this session to read private updates, or to publish, on the built-in
        hub. No token leaves the server.

        :param subscribe: topics whose private updates may be read.
        :param publish: topics that may be published to, if ``MERCURE_HUB_ALLOW_PUBLISH`` is set.
        """
        session["mercure"] = {
            "subscribe": [] if subscribe is None else updates.topic_list(subscribe),
            "publish": [] if publish is None else updates.topic_list(publish),
        }


def _publish(state: MercureSSEState, body: bytes, jwt: str | None, hub_url: str | None) -> str:
    target = hub_url or state.hub_url
    if target is not None:
        token = jwt or state.publisher_jwt
        status, answer = external.post(target, body, token, state.settings.timeout)
    else:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        verdict = state.companion().request("POST", "/publish", body, headers)
        status, answer = verdict.status, verdict.body.decode()
    if status == 200:
        return answer
    raise _error(status, answer)


def _error(status: int, answer: str) -> PublishError:
    reason = answer.strip()[:200] or "no reason given"
    if status in (400, 413, 415):
        return InvalidUpdate(f"the hub does not accept the update: {reason}")
    if status >= 500:
        return HubUnavailable(f"the hub answered {status}: {reason}")
    advice = "; check MERCURE_PUBLISHER_JWT" if status in (401, 403) else ""
    return HubRefused(f"the hub answered {status}: {reason}{advice}", status)


def _own_path() -> str:
    """Path of the built-in hub, below wherever the application is mounted."""
    if has_request_context():
        return url_for("mercure_hub.subscribe", _external=False)
    root = current_app.config["APPLICATION_ROOT"] if has_app_context() else "/"
    return str(root).rstrip("/") + HUB_PATH


def _request_is_secure() -> bool:
    return has_request_context() and request.is_secure


def _current() -> MercureSSE:
    state = cast(MercureSSEState, current_app.extensions[_KEY])
    return state.instance


def mercure_publish(topic: Topics, data: Any = "", **options: Any) -> str | None:
    """Publishes with the current application's extension; see :meth:`MercureSSE.publish`."""
    return _current().publish(topic, data, **options)


def mercure_subscriber_jwt(topics: Topics) -> str:
    """Makes a token, in a template; see :meth:`MercureSSE.create_subscription_jwt`."""
    return _current().create_subscription_jwt(topics)


def mercure_hub_url(
    topics: Topics | None = None,
    subscriber_jwt: str | None = None,
    *,
    last_event_id: str | None = None,
) -> Markup:
    """The address to subscribe at, for a template; see :meth:`MercureSSE.hub_url`.

    Safe as it is in an attribute and in a script: every character that means something there is
    percent-encoded, so the ``&`` between parameters needs no escaping and gets none.
    """
    url = _current().hub_url(topics, subscriber_jwt, last_event_id=last_event_id)
    return Markup(quote(url, safe="!#$%&()*+,/:;=?@[]~"))  # noqa: S704 (encoded right here)
