"""Opening a stream as a browser does, and what it means if there is none."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from .case import Case
from .door import Listener
from .tokens import LOGIN, asks_for_token, explain_refusal

#: What servers and proxies answer if there is too much of something.
_TOO_MANY = (429, 503)


def open_stream(case: Case, opened: list[Listener]) -> Listener | None:
    """Opens another stream; reports why if there is none.

    :param opened: those that are open already.
    """
    credentials = case.credentials()
    try:
        stream = case.hub_door.listen(case.subscription(), credentials, timeout=case.timeout)
    except HTTPError as error:
        _explain_silence(case, opened, error)
        return None
    kind = stream.headers.get("Content-Type", "")
    if stream.status == 200 and kind.startswith("text/event-stream"):
        return stream
    stream.close()
    if stream.status in _TOO_MANY:
        case.fault(
            "limit",
            f"with {len(opened)} streams open, another one is answered with {stream.status}: a "
            "proxy or the hub limits them",
            "raise the limit of connections or requests for the hub's path",
        )
    else:
        _explain_answer(case, stream, credentials.get("Authorization", ""))
    return None


def _explain_silence(case: Case, opened: list[Listener], error: HTTPError) -> None:
    if not opened:
        case.fault(
            "buffering",
            f"a stream does not begin within {case.timeout:g} s ({type(error).__name__}): its head "
            "is held back, the hub hangs, or every worker is busy",
            "switch buffering off for the hub's path (nginx: proxy_buffering off); if it is off, "
            "look at the hub's log",
        )
        return
    case.fault(
        "held-worker",
        f"with {len(opened)} streams open, the next one gets no answer: each stream holds a "
        "worker, or a proxy lets no more connections through",
        "let the hub serve the streams: flask mercure status says whether it does; with an "
        "external hub, send browsers to it directly (MERCURE_PUBLIC_HUB_URL) instead of passing "
        "its streams through a view; behind a proxy, raise its limit of connections",
    )


def _explain_answer(case: Case, stream: Listener, authorization: str) -> None:
    status, path = stream.status, urlsplit(case.hub_url).path
    if status == 401 and not asks_for_token(stream.headers):
        case.fault("login", *LOGIN)
    elif status == 401 and not authorization:
        text = "the hub serves nobody without a token, and there is no key to make one"
        case.fault("no-key", text, "set MERCURE_SUBSCRIBER_SECRET_KEY to the hub's subscriber key")
    elif status == 401:
        key = case.state.settings.subscriber_secret_key
        token = authorization.removeprefix("Bearer ")
        status_of = partial(_status, case)
        explain_refusal(case, "subscriber", token, key, _skew(case), status_of)
    elif 300 <= status < 400:
        target = stream.headers.get("Location", "nowhere")
        text = f"the hub's address answers with a redirect ({status}) to {target}"
        fix = "if that is a login, let the proxy pass the hub's path without it; else name the "
        case.fault("address", text, fix + "hub's own address in MERCURE_PUBLIC_HUB_URL")
    elif status == 200:
        kind = stream.headers.get("Content-Type", "no type")
        text = f"the hub's address answers with {kind}, which is no event stream"
        case.fault("address", text, f"let {path} of the proxy lead to the hub")
    else:
        fix = "check MERCURE_PUBLIC_HUB_URL, and that the proxy passes this path on"
        case.fault("address", f"the hub's address answers {status}", fix)


def _skew(case: Case) -> float | None:
    try:
        path = urlsplit(case.hub_url).path
        return case.hub_door.request("OPTIONS", path, timeout=case.timeout).skew
    except HTTPError:
        return None


def _status(case: Case, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    try:
        stream = case.hub_door.listen(case.subscription(), headers, timeout=case.timeout)
    except HTTPError:
        return 0
    stream.close()
    return stream.status
