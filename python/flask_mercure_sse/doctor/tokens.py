"""Whether the hub takes the application's tokens, and which check they fail if not."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from urllib3.exceptions import HTTPError

from ..companion import Grant, judge
from ..errors import MercureError
from .case import Case
from .door import Door, Reply

_Send = Callable[[str], int]

#: What is seen, and what to do, if it is not the hub that refuses.
LOGIN = (
    "something in front of the hub asks for a login of its own (401 without a Bearer challenge)",
    "let the proxy pass the hub's path without it: tokens, sessions and rules protect the hub",
)

_OTHER_SHELL = (
    "the application's own hub refuses a token that is signed with this shell's key",
    "run the doctor with the server's environment: SECRET_KEY, or MERCURE_SUBSCRIBER_SECRET_KEY, "
    "differs",
)
#: What else a hub may have been told that a shared secret is for.
_OTHER_ALGORITHMS = ("HS384", "HS512")


def check_publishing(case: Case) -> bool:
    """Publishes to the doctor's topic; whether the hub took it."""
    state = case.state
    if case.found("publish"):
        return False
    case.say("publishing")
    if state.hub_url is None:
        return _publish_to_own(case)
    door = case.door_to(state.hub_url)
    path = urlsplit(state.hub_url).path
    try:
        token = state.publisher_jwt
        reply = _publish(case, door, path, token)
    except (MercureError, HTTPError) as error:
        text = f"nothing can be published: {error}"
        case.fault("publish", text, "check MERCURE_HUB_URL, and that the hub runs")
        return False
    finally:
        door.close()
    if reply.status == 200:
        case.note("ok", "publish", f"the hub takes updates in {reply.seconds * 1e3:.0f} ms")
        return True
    if reply.status == 401 and not asks_for_token(reply.headers):
        case.fault("login", *LOGIN)
        return False
    if reply.status == 401:
        # SECRET_KEY is not for a hub of somebody else.
        settings = state.settings
        key = settings.publisher_secret_key if settings.has_own_publisher_key else None
        status_of = partial(_status, case)
        explain_refusal(case, "publisher", token, key, reply.skew, status_of)
        return False
    if reply.status == 403:
        _explain_insufficient(case, token)
        return False
    text = f"the hub answers {reply.status} to an update: {reply.text}"
    case.fault("publish", text, "check MERCURE_HUB_URL")
    return False


def _publish_to_own(case: Case) -> bool:
    begin = time.monotonic()
    try:
        case.publish("first")
    except MercureError as error:
        fix = "the message names the fix; flask mercure status tells more"
        case.fault("publish", str(error), fix)
        return False
    seconds = time.monotonic() - begin
    case.note("ok", "publish", f"the built-in hub takes updates in {seconds * 1e3:.0f} ms")
    return True


def _publish(case: Case, door: Door, path: str, token: str) -> Reply:
    private = {"private": "on"} if case.may_read else {}
    form = urlencode({"topic": case.topic, "data": "first", **private}).encode()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return door.request("POST", path, headers, body=form, timeout=case.timeout)


def _status(case: Case, token: str) -> int:
    url = case.state.hub_url or case.hub_url
    door = case.door_to(url)
    try:
        return _publish(case, door, urlsplit(url).path, token).status
    finally:
        door.close()


def asks_for_token(headers: Mapping[str, str]) -> bool:
    """Whether a 401 is a hub's (RFC 6750, section 3); hubs of 0.x may say nothing at all."""
    challenge = headers.get("WWW-Authenticate", "Bearer")
    return "bearer" in challenge.lower()


def explain_refusal(
    case: Case,
    role: str,
    token: str,
    key: str | bytes | None,
    skew: float | None,
    status_of: _Send,
) -> None:
    """Finds out why a hub answers 401, by what else it would take.

    :param role: ``publisher`` or ``subscriber``.
    :param skew: how far the hub's clock is ahead, in seconds, if it says so.
    :param status_of: what the hub answers to another token.
    """
    name = role.upper()
    header, claims = _read(token)
    now = time.time() + (skew or 0)
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires <= now:
        if expires <= time.time():
            text = f"the {role}'s token has expired {time.time() - expires:.0f} s ago"
            case.fault("expired-token", text, "set a new token, or the key instead")
        elif not case.found("clock-skew"):
            text = f"by the hub's clock, which is {skew:.0f} s ahead, the token has expired"
            case.fault("clock-skew", text, "synchronize the clocks of application and hub (NTP)")
        return
    begins = claims.get("nbf")
    if isinstance(begins, int | float) and begins > now:
        text = f"the {role}'s token is not valid yet, for {begins - now:.0f} s (nbf)"
        case.fault("early-token", text, "mint it without nbf, or wait")
        return
    if not case.state.settings.is_external:
        case.fault("other-key", *_OTHER_SHELL)
        return
    secret = key.encode() if isinstance(key, str) else key
    variants = _variants(role, header, claims, secret) if secret else iter(())
    for cause, variant, text, fix in variants:
        if status_of(variant) == 200:
            case.fault(cause, f"the hub refuses the {role}'s token: {text}", fix)
            return
    algorithm = header.get("alg")
    case.fault(
        "wrong-key",
        f"the hub refuses the {role}'s token ({algorithm}): most likely it was signed with "
        "another key than the hub verifies with",
        f"give the application the hub's {role}_jwt_key as MERCURE_{name}_SECRET_KEY"
        + (", or a token signed with it as MERCURE_PUBLISHER_JWT" if role == "publisher" else "")
        + "; mercure-hub explain says what a hub makes of a token",
    )


def _variants(
    role: str, header: dict[str, Any], claims: dict[str, Any], secret: bytes
) -> Iterator[tuple[str, str, str, str]]:
    """Tokens that a hub takes if only one thing is wrong: cause, token, what it shows, the fix."""
    typ = {"typ": header.get("typ", "JWT")}
    for algorithm in _OTHER_ALGORITHMS:
        text = f"it expects {algorithm}, and the application signs with {header.get('alg')}"
        fix = f"let the hub verify with HS256: {role}_jwt_alg (MERCURE_{role.upper()}_JWT_ALG)"
        yield "wrong-algorithm", _sign(claims, secret, algorithm, typ), text, fix
    if "mercure" in claims and typ["typ"] == "at+jwt":
        legacy: dict[str, Any] = {"mercure": claims["mercure"], "exp": claims.get("exp")}
        text = f"it does not trust the issuer {claims.get('iss')}, or expects another audience"
        fix = (
            f'at the hub: trusted_issuers = ["{claims.get("iss")}"]; in the application: '
            "MERCURE_RESOURCE_IDENTIFIER = the hub's resource identifier"
        )
        yield "issuer", _sign(legacy, secret, "HS256", {}), text, fix


def _sign(claims: dict[str, Any], secret: bytes, algorithm: str, header: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        # Short keys are warned of where tokens are made.
        warnings.simplefilter("ignore")
        return jwt.encode(claims, secret, algorithm, headers=header)


def _explain_insufficient(case: Case, token: str) -> None:
    granted = ", ".join(grant.text for grant in _grants(token)) or "nothing"
    if case.state.settings.publisher_jwt is None:
        text = f"the hub does not let the application's token publish (it asks for {granted})"
        case.fault("publish", text, "check what the hub's policy allows this issuer")
        return
    case.note(
        "note",
        "publish",
        f"MERCURE_PUBLISHER_JWT allows to publish to {granted}, not to the doctor's topic: "
        "delivery cannot be tested with it",
        "set MERCURE_PUBLISHER_SECRET_KEY instead for the time of the test",
    )


def check_matching(case: Case) -> None:
    """Whether the configured token can match any topic of the application."""
    token = case.state.settings.publisher_jwt
    if token is None:
        return
    try:
        grants = _grants(token)
    except jwt.InvalidTokenError as error:
        case.fault("publish", f"MERCURE_PUBLISHER_JWT is no token: {error}", "set a whole token")
        return
    fix = "mint it anew with: mercure-hub token (its --help names both generations' claims)"
    if not grants:
        text = (
            "MERCURE_PUBLISHER_JWT grants nothing: a token with typ at+jwt needs "
            "authorization_details, any other one a mercure claim"
        )
        case.fault("never-matches", text, fix)
    elif case.options.topics:
        _match_topics(case, grants, fix)
    else:
        for grant in filter(_looks_wrong, grants):
            text = f"the grant {grant.text!r} is compared as text: it is no pattern"
            case.fault("never-matches", text, f"write it as a pattern; {fix}")


def _match_topics(case: Case, grants: list[Grant], fix: str) -> None:
    """Asks the hub's own code about each topic."""
    for topic in case.options.topics:
        verdicts = [judge(grant, topic) for grant in grants]
        if any(verdict.matches for verdict in verdicts):
            case.note("ok", "matching", f"the token may publish to {topic}")
            continue
        hints = {hint for verdict in verdicts for hint in verdict.hints}
        granted = ", ".join(grant.text for grant in grants)
        text = f"no grant of MERCURE_PUBLISHER_JWT ({granted}) can match {topic}"
        case.fault("never-matches", ": ".join((text, *sorted(hints))), fix)


def _looks_wrong(grant: Grant) -> bool:
    """A pattern of the other generation, where it is compared as text."""
    text = grant.text
    if grant.parameter == "match":
        return text != "*" and any(sign in text for sign in ("/:", "/*", "{"))
    return grant.parameter == "topic" and text != "*" and ("/:" in text or "/*" in text)


def _grants(token: str) -> list[Grant]:
    """What a token allows to publish to, as its own generation is judged."""
    header, claims = _read(token)
    if header.get("typ") != "at+jwt":
        legacy = claims.get("mercure")
        topics = legacy.get("publish") if isinstance(legacy, dict) else None
        # What is no list counts for nothing.
        listed = topics if isinstance(topics, list) else []
        return [Grant("topic", str(topic)) for topic in listed]
    found = []
    for detail in claims.get("authorization_details") or ():
        if isinstance(detail, dict) and "publish" in (detail.get("actions") or ()):
            for topic in filter(lambda topic: isinstance(topic, dict), detail.get("topics") or ()):
                is_pattern = topic.get("match_type") == "urlpattern"
                parameter = "match_urlpattern" if is_pattern else "match"
                found.append(Grant(parameter, str(topic.get("match"))))
    return found


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unverified: what they claim is what is looked at."""
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    return header, claims
