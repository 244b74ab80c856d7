"""The application's configuration, read once in ``init_app``."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from .errors import ConfigurationError
from .publishing import OnFailure

#: Path of the built-in hub, below the application's root.
HUB_PATH = "/.well-known/mercure"


#: Where the stand-alone hub listens if it is told nothing else.
DEFAULT_HUB_URL = f"http://localhost:5500{HUB_PATH}"

#: Above every sensible duration and count.
_MAX_NUMBER = 1e9
#: Names that ``init_app`` takes: each is the default of a configuration key.
_ARGUMENTS = {
    "accel_redirect",
    "authz_cookie_name",
    "companion_grace",
    "handoff",
    "hub",
    "hub_allow_anonymous",
    "hub_allow_publish",
    "hub_keepalive_interval",
    "hub_name",
    "hub_reconciliation_length",
    "hub_subscriptions",
    "hub_url",
    "issuer",
    "on_failure",
    "public_hub_url",
    "publisher_jwt",
    "publish_wait",
    "publisher_secret_key",
    "resource_identifier",
    "runtime_dir",
    "spool",
    "spool_size",
    "subscriber_secret_key",
    "timeout",
    "token_lifetime",
    "type_is_topic",
    "url_cursor",
}


@dataclass(frozen=True)
class Settings:
    """What ``MERCURE_*`` keys and the arguments of ``init_app`` amount to.

    Durations are in seconds.
    """

    hub_url: str | None
    public_hub_url: str | None
    #: Whether the hub's address is made from the request's, as an absolute URL.
    hub_url_from_request: bool
    publisher_jwt: str | None
    authz_cookie_name: str
    type_is_topic: bool
    allow_publish: bool
    allow_anonymous: bool
    subscriber_secret_key: str | bytes | None
    publisher_secret_key: str | bytes | None
    #: Whether the subscriber key was set for Mercure, rather than taken from ``SECRET_KEY``.
    has_own_subscriber_key: bool
    #: Whether the publisher key was set for Mercure, rather than taken from ``SECRET_KEY``.
    has_own_publisher_key: bool
    on_failure: OnFailure
    timeout: float
    publish_wait: float
    url_cursor: bool
    spool: str | None
    spool_size: int
    token_lifetime: int
    issuer: str
    resource_identifier: str
    keepalive_interval: float
    reconciliation_length: int
    subscriptions: bool
    companion_grace: float
    runtime_directory: str | None
    hub_name: str
    handoff: bool
    #: Path of nginx's internal location that leads to an external hub.
    accel_redirect: str | None

    @property
    def is_external(self) -> bool:
        """Whether the hub is somebody else's process, reached by URL."""
        return self.hub_url is not None

    @classmethod
    def read(
        cls,
        config: Mapping[str, Any],
        arguments: Mapping[str, Any],
        *,
        app_name: str,
        development: bool,
        logger: logging.Logger,
    ) -> Settings:
        """Reads the configuration; keys of ``app.config`` go before arguments.

        :param config: the application's configuration.
        :param arguments: the arguments of ``init_app``, by the name of their key in lower case
            and without the prefix.
        :param app_name: default for identities that tokens carry.
        :param development: whether the application is being debugged or tested.
        :param logger: told of keys that look like ours and are not.
        :raises ConfigurationError: for a value of the wrong kind, naming the key.
        """
        read = _Reader(config, arguments)
        _warn_of_unknown_keys(config, logger)
        if unknown := set(arguments) - _ARGUMENTS:
            raise ConfigurationError(f"unknown argument: {', '.join(sorted(unknown))}")
        hub_url, public_hub_url, from_request = read.addresses(development)
        secret = config.get("SECRET_KEY") or None
        cookie = _cookie_name(read.text("AUTHZ_COOKIE_NAME"), public_hub_url)
        own_publisher_key = read.secret("PUBLISHER_SECRET_KEY")
        own_subscriber_key = read.secret("SUBSCRIBER_SECRET_KEY")
        accel_redirect = read.path("ACCEL_REDIRECT")
        if accel_redirect is not None and own_subscriber_key is None:
            raise ConfigurationError(
                "MERCURE_ACCEL_REDIRECT needs MERCURE_SUBSCRIBER_SECRET_KEY: the hub must not be "
                "given tokens that are signed with SECRET_KEY"
            )
        return cls(
            hub_url=hub_url,
            public_hub_url=public_hub_url,
            hub_url_from_request=from_request,
            publisher_jwt=read.text("PUBLISHER_JWT"),
            authz_cookie_name=cookie,
            type_is_topic=read.flag("TYPE_IS_TOPIC", False),
            allow_publish=read.flag("HUB_ALLOW_PUBLISH", False),
            allow_anonymous=read.flag("HUB_ALLOW_ANONYMOUS", True),
            subscriber_secret_key=own_subscriber_key or secret,
            has_own_subscriber_key=own_subscriber_key is not None,
            publisher_secret_key=own_publisher_key or secret,
            has_own_publisher_key=own_publisher_key is not None,
            on_failure=read.policy("ON_FAILURE"),
            timeout=read.number("TIMEOUT", 5.0, minimum=0.001),
            publish_wait=read.number("PUBLISH_WAIT", 0.05),
            url_cursor=read.flag("URL_CURSOR", True),
            spool=read.text("SPOOL"),
            spool_size=int(read.number("SPOOL_SIZE", 64 << 20, minimum=1)),
            token_lifetime=int(read.number("TOKEN_LIFETIME", 3600, minimum=1)),
            issuer=read.text("ISSUER") or f"urn:flask-mercure-sse:{app_name}",
            resource_identifier=read.text("RESOURCE_IDENTIFIER")
            or public_hub_url
            or f"http://localhost{HUB_PATH}",
            keepalive_interval=read.number("HUB_KEEPALIVE_INTERVAL", 15.0),
            reconciliation_length=int(read.number("HUB_RECONCILIATION_LENGTH", 100_000, minimum=1)),
            subscriptions=read.flag("HUB_SUBSCRIPTIONS", True),
            companion_grace=read.number("COMPANION_GRACE", 30.0),
            runtime_directory=read.text("RUNTIME_DIR"),
            hub_name=read.text("HUB_NAME") or "",
            handoff=read.flag("HANDOFF", True),
            accel_redirect=accel_redirect,
        )


def _warn_of_unknown_keys(config: Mapping[str, Any], logger: logging.Logger) -> None:
    """A misspelt key would leave a hub open that was thought closed."""
    known = {f"MERCURE_{name.upper()}" for name in _ARGUMENTS}
    for key in sorted(key for key in config if key.startswith("MERCURE_")):
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            logger.warning("%s is not a setting of flask-mercure-sse%s", key, hint)


def _cookie_name(name: str | None, hub: str | None) -> str:
    """The cookie's name; a prefix of it is a promise that browsers hold the application to."""
    if name is None:
        return "mercureAuthorization"
    if name.startswith("__Host-"):
        raise ConfigurationError(
            "MERCURE_AUTHZ_COOKIE_NAME begins with __Host-: such cookies have the path /, and this "
            "one goes to the hub only; use __Secure-"
        )
    if name.startswith("__Secure-") and hub is not None and not hub.startswith("https://"):
        raise ConfigurationError(
            f"MERCURE_AUTHZ_COOKIE_NAME begins with __Secure-, but the hub is at {hub}: browsers "
            "refuse the cookie; use https, or another name"
        )
    return name


class _Reader:
    def __init__(self, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        self._config = config
        self._arguments = arguments

    def _value(self, name: str) -> Any:
        value = self._config.get(f"MERCURE_{name}")
        return self._arguments.get(name.lower()) if value is None else value

    def text(self, name: str) -> str | None:
        value = self._value(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise ConfigurationError(f"MERCURE_{name} must be a string")
        return value

    def path(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", value):
            raise ConfigurationError(f"MERCURE_{name} must be a path, as in /_mercure")
        return value

    def url(self, name: str, *, relative: bool = False) -> str | None:
        value = self.text(name)
        starts = ("http://", "https://", *(("/",) if relative else ()))
        if value is not None and not value.startswith(starts):
            raise ConfigurationError(f"MERCURE_{name} must begin with http:// or https://")
        return value

    def addresses(self, development: bool) -> tuple[str | None, str | None, bool]:
        """URL of the external hub, the one for browsers, and whether that is the request's own.

        A public URL alone means a stand-alone hub at its default address, unless the application
        is in development, or ``MERCURE_HUB`` says which.
        """
        public = self.url("PUBLIC_HUB_URL", relative=True)
        if self._value("HUB_URL") is True:
            return None, public, public is None
        url = self.url("HUB_URL")
        if self.path("ACCEL_REDIRECT") is None:
            public = public or url
        elif url is None:
            raise ConfigurationError(
                "MERCURE_ACCEL_REDIRECT needs MERCURE_HUB_URL: a hub of its own"
            )
        built_in = self._value("HUB")
        if built_in is None:
            built_in = url is None and (public is None or development)
        else:
            built_in = self.flag("HUB", True)
        return None if built_in else url or DEFAULT_HUB_URL, public, False

    def secret(self, name: str) -> str | bytes | None:
        value = self._value(name)
        if value is not None and not isinstance(value, str | bytes):
            raise ConfigurationError(f"MERCURE_{name} must be a string or bytes")
        return value or None

    def flag(self, name: str, default: bool) -> bool:
        """A boolean; from the environment it arrives as text."""
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, str):
            words = {"true": True, "1": True, "yes": True, "on": True}
            words |= {"false": False, "0": False, "no": False, "off": False, "": default}
            if value.strip().lower() not in words:
                raise ConfigurationError(f"MERCURE_{name} must be true or false")
            return words[value.strip().lower()]
        return bool(value)

    def number(self, name: str, default: float, *, minimum: float = 0) -> float:
        value = self._value(name)
        try:
            number = default if value is None else float(value)
        except (TypeError, ValueError):
            raise ConfigurationError(f"MERCURE_{name} must be a number") from None
        if not minimum <= number <= _MAX_NUMBER:
            limits = f"between {minimum:g} and {_MAX_NUMBER:g}"
            raise ConfigurationError(f"MERCURE_{name} must be {limits}")
        return number

    def policy(self, name: str) -> OnFailure:
        value = self._value(name)
        for policy in get_args(OnFailure):
            if value == policy:
                return cast(OnFailure, value)
        if value is None:
            return "log"
        raise ConfigurationError(f'MERCURE_{name} must be "raise", "log" or "spool"')


def runtime_base(settings: Settings) -> str:
    """The directory below which companions live, one directory each.

    Not ``XDG_RUNTIME_DIR``: a service and a shell of the same user differ in it, and would not
    find each other.
    """
    import tempfile

    if settings.runtime_directory is not None:
        return os.path.abspath(settings.runtime_directory)
    return os.path.join(tempfile.gettempdir(), f"flask-mercure-sse-{os.getuid()}")
