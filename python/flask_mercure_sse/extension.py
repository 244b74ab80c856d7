"""The extension object."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import (
    Flask,
    has_app_context,
    has_request_context,
    render_template,
    request,
    request_started,
)

from . import signals, templates
from .accel import accel_blueprint
from .addresses import note_cursor
from .authorization import Authorization
from .blueprint import hub_blueprint
from .cli import mercure_cli
from .errors import ConfigurationError
from .publishing import OnFailure, Publisher
from .settings import Settings
from .state import KEY, MercureSSEState
from .subscriptions import Subscriptions
from .topics import Topics
from .updates import Update

if TYPE_CHECKING:
    from blinker import NamedSignal


class MercureSSE(Authorization, Subscriptions):
    """Adds a Mercure hub to a Flask application.

    Use ``MercureSSE(app)``, or ``MercureSSE()`` and ``init_app(app)`` in a factory. Arguments are
    defaults for the configuration keys ``MERCURE_*`` of the same name. Nothing is started before
    the first subscription or update.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        super().__init__()
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
        if KEY in app.extensions:
            raise ConfigurationError("this application has a MercureSSE extension already")
        settings = Settings.read(
            app.config,
            options,
            app_name=app.name,
            development=app.debug or app.testing,
            logger=app.logger,
        )
        state = MercureSSEState(self, settings, app)
        app.extensions[KEY] = app.extensions["mercure"] = state
        app.jinja_env.globals.update(templates.GLOBALS)
        if settings.on_failure == "spool":
            request_started.connect(_send_kept, app)
        if not settings.is_external:
            app.register_blueprint(hub_blueprint)
            if settings.url_cursor:
                request_started.connect(note_cursor, app)
            state.join_if_running()
        elif settings.accel_redirect is not None:
            app.register_blueprint(accel_blueprint)
        app.cli.add_command(mercure_cli)

    # -- publishing -------------------------------------------------------------------------

    def publish(
        self,
        topic: Topics,
        data: Any = None,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        jwt: str | None = None,
        hub_url: str | None = None,
        *,
        on_failure: OnFailure | None = None,
    ) -> str | None:
        """Publishes an update to everybody who listens to its topic.

        In a request, waits no longer than ``MERCURE_PUBLISH_WAIT`` for the hub, and a millisecond
        if the hub is in trouble, unless failures shall be raised. After that, the update goes on in
        the background.

        :param topic: the topic, or a list: the canonical topic and alternate ones. Alone, an object
            that tells its topic and data; see ``docs/flask.md``.
        :param data: the payload; text as it is, bytes as UTF-8, anything else as JSON.
        :param private: only for subscribers that were granted one of the topics.
        :param id: the event's id; a new one by default.
        :param type: the event's type, for ``addEventListener``; ``True`` for the topic.
        :param retry: reconnection time for browsers, in milliseconds.
        :param jwt: token to publish with on an external hub.
        :param hub_url: external hub to publish to, instead of the configured one.
        :param on_failure: ``"raise"``, ``"log"`` or ``"spool"``, over ``MERCURE_ON_FAILURE``.
        :returns: the event's id; ``None`` if publishing is known to have failed and was logged.
        :raises InvalidUpdate: if the update breaks a rule of the protocol.
        :raises ConfigurationError: if an external hub needs a token that is not configured.
        :raises PublishError: if publishing failed and shall be raised.
        """
        update = self._update(topic, data, private, id, type, retry)
        sending = self._sending(jwt, hub_url, on_failure)
        return self.state.publisher.send(update, **sending)

    async def apublish(
        self,
        topic: Topics,
        data: Any = None,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        *,
        on_failure: OnFailure | None = None,
    ) -> str | None:
        """Publishes an update from an event loop, which goes on meanwhile; see :meth:`publish`."""
        update = self._update(topic, data, private, id, type, retry)
        sending = self._sending(None, None, on_failure)
        return await self.state.publisher.asend(update, **sending)

    def publish_fragment(
        self,
        template: str,
        topic: Topics,
        *,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        on_failure: OnFailure | None = None,
        **context: Any,
    ) -> str | None:
        """Renders a template and publishes the result, for htmx, Turbo and their like.

        :param template: name of the template.
        :param context: variables of the template.
        """
        if has_app_context():
            html = render_template(template, **context)
        else:
            with self.app.app_context():
                html = render_template(template, **context)
        return self.publish(topic, html, private, id, type, retry, on_failure=on_failure)

    def publish_on_commit(
        self,
        topic: Topics,
        data: Any = None,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
        jwt: str | None = None,
        hub_url: str | None = None,
        *,
        on_failure: OnFailure | None = None,
        session: Any = None,
    ) -> str:
        """Publishes an update once the database transaction at hand is committed.

        Nothing is published if it is rolled back, to a savepoint included. What is published is
        what ``data`` was at the call.

        :param session: the SQLAlchemy session whose transaction counts (scoped and asynchronous
            ones, too); by default, Flask-SQLAlchemy's. The others are those of :meth:`publish`.
        :returns: the id the event will have.
        :raises InvalidUpdate: if the update breaks a rule of the protocol.
        """
        # SQLAlchemy is not a dependency: whoever has no session does not need it.
        from .on_commit import Pending, publish_after_commit

        update = self._update(topic, data, private, id, type, retry)
        sending = self._sending(jwt, hub_url, on_failure)
        publish_after_commit(self.app, session, Pending(update, self.publisher, sending))
        return update.id

    @property
    def publisher(self) -> Publisher:
        """The application's publisher, which works without Flask: in threads, tasks, scripts."""
        return self.state.publisher

    def publish_signal(
        self,
        signal: NamedSignal,
        topic: Topics | None = None,
        data: Any = None,
        signal_name_as_type: bool = False,
        signal_kwargs_as_data: bool = False,
        marshaler: Callable[[Any], Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        **publish_options: Any,
    ) -> Callable[..., None]:
        """Publishes an update each time a signal is sent.

        A sender with a mapping ``__mercure_publish__`` overrides any argument of :meth:`publish`.

        :param topic: by default, the signal's name.
        :param data: the payload; empty by default.
        :param signal_name_as_type: whether the event's type is the signal's name.
        :param signal_kwargs_as_data: whether the payload is the signal's arguments, over ``data``.
        :param marshaler: makes the payload of what it would be else.
        :param callback: may change the arguments of :meth:`publish`, a dictionary, in place;
            ``False`` means that nothing is published.
        :param publish_options: further arguments of :meth:`publish`.
        :returns: the receiver, for ``signal.disconnect``.
        """
        return signals.publish_signal(
            self,
            signal,
            topic,
            data,
            signal_name_as_type=signal_name_as_type,
            signal_kwargs_as_data=signal_kwargs_as_data,
            marshaler=marshaler,
            callback=callback,
            **publish_options,
        )

    def _sending(
        self, jwt: str | None, hub_url: str | None, on_failure: OnFailure | None
    ) -> dict[str, Any]:
        """How an update is sent from here: arguments of :meth:`Publisher.send`."""
        state = self.state
        # A process of Werkzeug's for one request ends without a word, so it waits.
        lives_on = has_request_context() and not (
            "werkzeug.socket" in request.environ and request.environ.get("wsgi.multiprocess")
        )
        return {
            "hub": state.hub(hub_url, jwt) if hub_url or jwt else None,
            "on_failure": on_failure,
            "wait": state.settings.publish_wait if lives_on and not self.app.testing else None,
        }

    def _update(
        self,
        topic: Any,
        data: Any,
        private: bool = False,
        id: str | None = None,
        type: str | bool | None = None,
        retry: int | None = None,
    ) -> Update:
        if type is None and self.state.settings.type_is_topic:
            type = True
        return Update.build(
            topic,
            data,
            private=private,
            id=id,
            type=type,
            retry=retry,
            dumps=self.app.json.dumps,
        )


def _send_kept(app: Flask, **_: object) -> None:
    app.extensions[KEY].send_kept()


def mercure_publish(topic: Topics, data: Any = None, **options: Any) -> str | None:
    """Publishes with the current application's extension; see :meth:`MercureSSE.publish`."""
    return templates.current().publish(topic, data, **options)


def publish_signal(signal: NamedSignal, *args: Any, **options: Any) -> Callable[..., None]:
    """Publishes with the current application's extension; see :meth:`MercureSSE.publish_signal`."""
    return templates.current().publish_signal(signal, *args, **options)
