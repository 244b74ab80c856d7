"""Whether events arrive: at once, on every stream, and without a worker for each."""

from __future__ import annotations

import itertools
import json
import time

from urllib3.exceptions import HTTPError

from ..blueprint import UNAVAILABLE
from ..errors import MercureError
from .case import Case
from .door import Listener
from .streams import open_stream

#: Streams that are opened at once: as many as a browser may.
_STREAMS = 6
#: An event that takes longer was held back, in seconds.
_PROMPT = 2.0
#: What fills the buffers of a proxy, in bytes.
_FLOOD = 512 * 1024
#: In pieces that every hub takes.
_PIECE = 64 * 1024

_numbers = itertools.count(1)


def check_delivery(case: Case) -> bool:
    """Opens streams, publishes, and sees what arrives; whether streams work at all."""
    case.say(f"opening {_STREAMS} streams")
    streams: list[Listener] = []
    try:
        for _ in range(_STREAMS):
            stream = open_stream(case, streams)
            if stream is None:
                return False
            streams.append(stream)
        if _polls(case, streams[0]):
            return False
        if not _is_this_hub(case, len(streams)):
            return False
        _check_compression(case, streams[0])
        _check_workers(case)
        return _check_arrival(case, streams)
    finally:
        for stream in streams:
            stream.close()


def _polls(case: Case, stream: Listener) -> bool:
    """Whether streams end at once because the server gives no connection away."""
    ends_at_once = stream.ends_at_once()
    # Whatever the way there does to its end.
    if UNAVAILABLE in stream.text:
        case.fault(
            "hub-down",
            "the application answers, but cannot reach its hub",
            "its log says why (The Mercure hub is unavailable: ...)",
        )
        return True
    if not ends_at_once or "retry:" not in stream.text:
        return False
    case.note(
        "warning",
        "polling",
        "browsers poll the hub, every two seconds: this server gives no connection away",
        "the application's log names the reason and the remedy, once per process",
    )
    return True


def _is_this_hub(case: Case, streams: int) -> bool:
    """Whether the streams are at the built-in hub that this process publishes to."""
    if case.state.settings.is_external:
        return True
    status = json.loads(case.state.companion().request("GET", "/status").body)
    if status["subscribers"] >= streams:
        return True
    case.fault(
        "other-hub",
        "this shell publishes to a hub of its own, not to the one that serves the public address",
        "run the doctor where the application runs: as the same user, from the same folder, with "
        "its MERCURE_RUNTIME_DIR and without TESTING",
    )
    return False


def _check_compression(case: Case, stream: Listener) -> None:
    encoding = stream.headers.get("Content-Encoding", "identity")
    if encoding == "identity":
        return
    case.fault(
        "compression",
        f"a proxy compresses the stream ({encoding}): events wait until its window is full",
        "leave text/event-stream out of what it compresses (nginx: gzip_types; Apache: "
        "no-gzip for the hub's path)",
    )


def _check_workers(case: Case) -> None:
    """Asks for an ordinary page while streams are open."""
    try:
        case.page_door.request("GET", case.page_path, timeout=case.timeout)
    except HTTPError:
        case.fault(
            "held-worker",
            f"with {_STREAMS} streams open, {case.page_path} gets no answer: the streams hold "
            "the workers",
            "let the hub serve the streams; flask mercure status says whether it does",
        )


def _publish(case: Case, data: str) -> str:
    """Publishes; returns what to look for in a stream."""
    mark = f"doctor-{next(_numbers)}"
    case.publish(f"{mark} {data}")
    return mark


def _check_arrival(case: Case, streams: list[Listener]) -> bool:
    case.say("publishing, and waiting for it")
    direct = _direct(case)
    try:
        begin = time.monotonic()
        mark = _publish(case, "")
        if all(stream.hears(mark, _PROMPT) for stream in streams):
            seconds = time.monotonic() - begin
            text = f"an event reaches {len(streams)} streams within {seconds * 1e3:.0f} ms"
            case.note("ok", "delivery", text)
            return True
        _explain_missing(case, streams, mark, direct)
    except MercureError as error:
        case.fault("publish", str(error), "the message names the fix")
    finally:
        if direct is not None:
            direct.close()
    return True


def _explain_missing(
    case: Case, streams: list[Listener], mark: str, direct: Listener | None
) -> None:
    """Some streams did not get an event: is it held back, or did it go elsewhere?"""
    for _ in range(_FLOOD // _PIECE):
        _publish(case, "." * _PIECE)
    late = sum(stream.hears(mark, _PROMPT) for stream in streams)
    if late == len(streams):
        if not case.found("compression"):
            case.fault(
                "buffering",
                f"an event does not arrive within {_PROMPT:g} s, but does when more follow: a "
                "proxy collects them",
                "switch buffering off for the hub's path (nginx: proxy_buffering off, and do not "
                "ignore X-Accel-Buffering)",
            )
    elif late > 0:
        case.fault(
            "several-hubs",
            f"{late} of {len(streams)} streams get an event: several hubs share the address, and "
            "know nothing of each other",
            "run one hub, or let all of them use one transport",
        )
    elif direct is not None and direct.hears(mark, _PROMPT):
        case.fault(
            "several-hubs",
            "no stream of the public address gets an event, and one of MERCURE_HUB_URL does: they "
            "are different hubs",
            "let MERCURE_HUB_URL and MERCURE_PUBLIC_HUB_URL name the same hub",
        )
    else:
        text = "no event arrives, however much is published"
        case.fault("delivery", text, "check the hub's log, and what the token may read")


def _direct(case: Case) -> Listener | None:
    """A stream of the hub itself, past whatever stands before it."""
    url = case.state.hub_url
    if url is None or url == case.hub_url:
        return None
    try:
        return case.door_to(url).listen(
            case.subscription(url), case.credentials(), timeout=case.timeout
        )
    except HTTPError:
        return None
