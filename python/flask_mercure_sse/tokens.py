"""Minting tokens that satisfy both generations of the protocol at once."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any

from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm

from .errors import ConfigurationError
from .settings import Settings

_DETAIL_TYPE = "https://mercure.rocks/authorization-detail"
#: A key below this length, in bytes, can be guessed from a token offline (RFC 7518, 3.2).
_SAFE_KEY_LENGTH = 32


class _AnyLengthHMAC(HMACAlgorithm):
    """HS256 that leaves the warning about short keys to us: a warning filter must not be able to
    turn a working application into a broken one."""

    def check_key_length(self, key: Any) -> str | None:  # noqa: ARG002 (the base class's)
        return None


_JWS = PyJWS()
_JWS.unregister_algorithm("HS256")
_JWS.register_algorithm("HS256", _AnyLengthHMAC(HMACAlgorithm.SHA256))


def mint(
    settings: Settings,
    key: str | bytes | None,
    logger: logging.Logger,
    *,
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    payload: Any = None,
    lifetime: int | None = None,
) -> str:
    """Makes a signed token.

    The token carries the ``mercure`` claim of 0.x and, unless a selector is a URI template, which
    1.0 does not know, the ``authorization_details`` of 1.0.

    :param key: the signing key.
    :param publish: selectors of topics that may be published to.
    :param subscribe: selectors of topics whose private updates may be read.
    :param payload: what to tell of the subscriber, an object; nothing by default.
    :param lifetime: seconds until the token expires; the configured lifetime by default.
    :raises ConfigurationError: without a key.
    """
    secret = key.encode() if isinstance(key, str) else key
    if not secret:
        raise ConfigurationError(
            "a key is needed to sign tokens: set SECRET_KEY, or MERCURE_SUBSCRIBER_SECRET_KEY "
            "and MERCURE_PUBLISHER_SECRET_KEY"
        )
    _warn_if_short(secret, logger)
    now = int(time.time())
    claims: dict[str, Any] = {
        "iat": now,
        "exp": now + (settings.token_lifetime if lifetime is None else lifetime),
        "jti": uuid.uuid4().urn,
        "mercure": {"publish": list(publish), "subscribe": list(subscribe)},
    }
    if payload is not None:
        claims["mercure"]["payload"] = payload
    typ = "JWT"
    if not any("{" in selector for selector in (*publish, *subscribe)):
        typ = "at+jwt"
        claims |= {
            "iss": settings.issuer,
            "aud": settings.resource_identifier,
            "sub": uuid.uuid4().urn,
            "client_id": settings.issuer,
            "authorization_details": [
                {
                    "type": _DETAIL_TYPE,
                    "actions": [action],
                    "topics": [{"match": selector} for selector in selectors],
                    **({"payload": payload} if payload and action == "subscribe" else {}),
                }
                for action, selectors in (("publish", publish), ("subscribe", subscribe))
                if selectors
            ],
        }
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return _JWS.encode(payload, secret, algorithm="HS256", headers={"typ": typ})


_warned: set[int] = set()


def _warn_if_short(secret: bytes, logger: logging.Logger) -> None:
    if len(secret) < _SAFE_KEY_LENGTH and id(logger) not in _warned:
        _warned.add(id(logger))
        logger.warning(
            "The key that signs Mercure tokens has %d bytes; with fewer than %d it can be guessed "
            "from a token. Make one with: python -c 'import secrets; print(secrets.token_hex())'",
            len(secret),
            _SAFE_KEY_LENGTH,
        )
