"""Whether there is an application and a hub at all, and what their clocks say."""

from __future__ import annotations

from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from .case import Case
from .door import Door, Reply

#: What proxies answer if nothing answers them.
_NOBODY_THERE = (502, 504)
#: Clocks may differ by so many seconds before tokens suffer.
_TOLERANCE = 30


def check_reach(case: Case) -> bool:
    """Asks the page and the hub for an ordinary answer; whether the hub gave one."""
    case.say(f"asking {case.options.url} and {case.hub_url}")
    page = _ask(case, case.page_door, "GET", case.page_path)
    hub = _ask(case, case.hub_door, "OPTIONS", urlsplit(case.hub_url).path)
    for skew in {skew for skew in (page, hub) if skew is not None and abs(skew) > _TOLERANCE}:
        direction = "ahead of" if skew > 0 else "behind"
        case.fault(
            "clock-skew",
            f"a server's clock is {abs(skew):.0f} s {direction} this machine's: tokens expire too "
            "early, or are not valid yet",
            "synchronize the clocks of application and hub (NTP)",
        )
        break
    return not case.found("unreachable", "address")


def _ask(case: Case, door: Door, method: str, path: str) -> float | None:
    """Reports whether there is an answer; returns how far its clock is ahead, if it says so."""
    try:
        reply = door.request(method, path, timeout=case.timeout)
    except HTTPError as error:
        case.fault(
            "unreachable",
            f"{door.origin} does not answer: {_reason(error)}",
            "check the address, that the server runs, and its certificate; --connect HOST:PORT "
            "looks for it elsewhere",
        )
        return None
    place = f"{method} {door.origin}{path}"
    if reply.status in _NOBODY_THERE:
        case.fault(
            "unreachable",
            f"{place} is answered with {reply.status}: a proxy finds nobody behind it",
            "start the application or the hub, and check where the proxy leads",
        )
        return None
    if method == "GET" and _leads_to_https(door, reply):
        case.fault(
            "address",
            f"{door.origin} leads to https",
            f"run the doctor with https://{door.host}: that is where browsers are",
        )
        return None
    case.note("ok", "reach", f"{place} is answered in {reply.seconds * 1e3:.0f} ms")
    return reply.skew


def _leads_to_https(door: Door, reply: Reply) -> bool:
    target = urlsplit(reply.headers.get("Location", ""))
    moved = 300 <= reply.status < 400 and not door.is_secure
    return moved and target.scheme == "https" and target.hostname == door.host


def _reason(error: HTTPError) -> str:
    """The last part of a message: the library's names of its own objects help nobody."""
    cause = error.args[-1] if error.args else error
    return str(getattr(cause, "reason", None) or cause) or type(error).__name__
