"""What every part of the extension object builds on."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from flask import Flask, current_app, has_app_context

from .errors import ConfigurationError
from .rules import Rules
from .state import KEY, MercureSSEState

PayloadGetter = Callable[[list[str]], Any]


class Base:
    """Finds the state of the application at hand.

    The object itself holds no state of an application: one extension object may serve several. What
    is declared on it by decorators holds for all of them.
    """

    def __init__(self) -> None:
        # For calls outside an application context, as in module-level code. Weak, so that an
        # application of a test can go.
        self._app: weakref.ref[Flask] | None = None
        self._payload_getter: PayloadGetter | None = None
        self._rules = Rules()

    @property
    def app(self) -> Flask:
        """The current application, or the one the extension was made with.

        :raises ConfigurationError: if there is none.
        """
        if has_app_context():
            return cast(Flask, current_app._get_current_object())  # type: ignore[attr-defined]
        app = self._app() if self._app else None
        if app is None:
            raise ConfigurationError(
                "there is no application: use `with app.app_context():`, or MercureSSE(app)"
            )
        return app

    @property
    def state(self) -> MercureSSEState:
        """The state in :attr:`app`.

        :raises ConfigurationError: if there is no application, or it was not set up.
        """
        state = self.app.extensions.get(KEY)
        if state is None:
            raise ConfigurationError("this application was not set up: call init_app(app)")
        return cast(MercureSSEState, state)
