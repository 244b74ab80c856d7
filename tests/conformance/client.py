"""A client that sees what a hub does: requests, streams, tokens."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import jwt

DETAIL = "https://mercure.rocks/authorization-detail"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: A list of names and values, as they stand in a query.
Pairs = list[tuple[str, str]]


def fresh(prefix: str = "https://example.com/") -> str:
    """A topic that nobody else uses."""
    return prefix + secrets.token_hex(8)


@dataclass
class Event:
    """One server-sent event, as it stood in the stream."""

    fields: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((value for field, value in self.fields if field == name), None)

    @property
    def id(self) -> str | None:
        return self.get("id")

    @property
    def type(self) -> str | None:
        return self.get("event")

    @property
    def data(self) -> str:
        """The lines of data, joined as a browser joins them."""
        return "\n".join(value for field, value in self.fields if field == "data")


class Stream:
    """An open event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.headers = response.headers
        self._lines = self._split(response.iter_text())

    @staticmethod
    def _split(chunks: Iterator[str]) -> Iterator[str]:
        """Lines end with CR, LF or CRLF and nothing else (unlike ``str.splitlines``)."""
        rest = ""
        for chunk in chunks:
            rest = (rest + chunk).replace("\r\n", "\n")
            held = rest.endswith("\r")
            *lines, rest = rest[: -1 if held else None].replace("\r", "\n").split("\n")
            rest += "\r" if held else ""
            yield from lines

    def event(self) -> Event | None:
        """The next event that a browser would dispatch; ``None`` at the end of the stream."""
        event = Event()
        for line in self._lines:
            if line == "":
                if event.get("data") is not None:
                    return event
                event = Event()
            elif not line.startswith(":"):
                name, _, value = line.partition(":")
                event.fields.append((name, value.removeprefix(" ")))
        return None

    def data(self) -> str | None:
        event = self.event()
        return None if event is None else event.data

    def of_type(self, kind: str | None) -> Event:
        """The next event of a type; others are passed over."""
        while (event := self.event()) is not None:
            if event.type == kind:
                return event
        raise AssertionError("the stream has ended")


@dataclass
class Hub:
    """The hub that is judged."""

    client: httpx.Client
    #: Makes a client with a connection of its own.
    connect: Callable[[], httpx.Client]
    url: str
    publisher_key: str
    subscriber_key: str
    issuer: str
    audience: str
    cors_origin: str | None

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def origin(self) -> str:
        return self.url.removesuffix(self.path)

    # Tokens

    def v1(self, *details: dict, key: str | None = None, typ: str = "at+jwt", **claims: Any) -> str:
        """A valid 1.0 token, but for the claims given; ``None`` leaves one out."""
        now = int(time.time())
        payload = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": "urn:conformance",
            "client_id": "conformance",
            "iat": now,
            "exp": now + 600,
            "jti": secrets.token_hex(8),
            "authorization_details": list(details),
        } | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key or self.publisher_key, "HS256", headers={"typ": typ})

    def publisher(self, *topics: str, **claims: Any) -> str:
        return self.v1(detail("publish", *(topics or ("*",))), **claims)

    def subscriber(self, *topics: str, **claims: Any) -> str:
        return self.v1(
            detail("subscribe", *(topics or ("*",))), **({"key": self.subscriber_key} | claims)
        )

    def v0(self, key: str, typ: str | None = "JWT", mercure: Any = None, **claims: Any) -> str:
        return jwt.encode({"mercure": mercure or {}} | claims, key, "HS256", headers={"typ": typ})

    def v0_publisher(self, *topics: str, **claims: Any) -> str:
        return self.v0(self.publisher_key, mercure={"publish": list(topics or ("*",))}, **claims)

    def v0_subscriber(self, *topics: str, payload: Any = None, **claims: Any) -> str:
        mercure = {"subscribe": list(topics or ("*",))}
        if payload is not None:
            mercure["payload"] = payload
        return self.v0(self.subscriber_key, mercure=mercure, **claims)

    # Requests

    def post(self, fields: Pairs | bytes, token: str | None = "", **headers: str) -> httpx.Response:
        """Publishes; without a token named, with one that allows everything."""
        if token == "":
            token = self.publisher()
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(self.url, content=body, headers=FORM | bearer | names)

    def publish(self, topic: str, data: str = "", **fields: str) -> str:
        """Publishes something that must be accepted; returns its id."""
        answer = self.post([("topic", topic), ("data", data), *fields.items()])
        assert answer.status_code == 200, answer.text
        return answer.text

    def get(self, params: Pairs, token: str | None = None, **headers: str) -> httpx.Response:
        """Asks for a stream that is expected to be refused."""
        with self.open(params, token, **headers) as response:
            if response.status_code != 200:
                response.read()
            return response

    @contextlib.contextmanager
    def open(
        self,
        params: Pairs | str,
        token: str | None = None,
        form: Pairs | bytes | None = None,
        **headers: str,
    ) -> Iterator[httpx.Response]:
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        query = params if isinstance(params, str) else urlencode(params)
        url = f"{self.url}?{query}" if query else self.url
        body = form if isinstance(form, bytes | None) else urlencode(form).encode()
        with self.client.stream(
            "GET" if form is None else "QUERY",
            url,
            content=body,
            headers=bearer | ({} if form is None else FORM) | names,
        ) as response:
            yield response

    @contextlib.contextmanager
    def subscribe(self, params: Pairs | str, token: str | None = None, **options: Any):
        """A stream; the subscription must be accepted."""
        with self.open(params, token, **options) as response:
            if response.status_code != 200:
                raise AssertionError(f"{response.status_code} {response.read().decode()}")
            yield Stream(response)

    @contextlib.contextmanager
    def visit(self, params: Pairs | str, token: str | None = None, **options: Any):
        """A stream on a connection of its own, which ends with it."""
        with (
            self.connect() as client,
            replace(self, client=client).subscribe(params, token, **options) as stream,
        ):
            yield stream

    def api(self, path: str, token: str | None, **headers: str) -> httpx.Response:
        """Asks the subscription API for a path below the hub's."""
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(self.origin + path, headers=bearer | names)


def detail(*parts: str, kind: str | None = None, **members: Any) -> dict:
    """A Mercure authorization detail: an action, then topics."""
    action, *topics = parts
    matchers = [
        {"match": topic} | ({} if kind is None else {"match_type": kind}) for topic in topics
    ]
    return {"type": DETAIL, "actions": [action], "topics": matchers} | members


def challenge(response: httpx.Response) -> str:
    """The Bearer challenge of a refusal."""
    value = response.headers.get("WWW-Authenticate", "")
    assert value.split(" ")[0] == "Bearer", value
    return value
