"""Whether a silent stream is left alone."""

from __future__ import annotations

import time

from urllib3.exceptions import HTTPError

from .case import Case


def check_idle(case: Case) -> None:
    """Watches a stream on which nothing is published."""
    seconds = case.options.idle
    if seconds <= 0 or case.found("buffering"):
        return
    case.say(f"watching a silent stream for {seconds:g} s")
    begin = time.monotonic()
    try:
        stream = case.hub_door.listen(
            # A token that outlives the watch: its end is no cut.
            case.subscription(),
            case.credentials(int(seconds + 60)),
            timeout=seconds + case.timeout,
        )
    except HTTPError:
        return  # reported by whoever opened streams before
    cut = stream.ends(seconds)
    after = (stream.ended_at or time.monotonic()) - begin
    stream.close()
    heartbeat = case.state.settings.keepalive_interval
    if not cut:
        case.note("ok", "idle", f"a silent stream stays open for {seconds:g} s")
        return
    advice = f"the hub sends a comment every {heartbeat:g} s" if heartbeat else "heartbeats are off"
    if case.state.settings.is_external:
        fix = "set the hub's heartbeat below that"
    else:
        fix = "set MERCURE_HUB_KEEPALIVE_INTERVAL below that"
        fix += f" ({advice})"
    case.fault(
        "idle-cut",
        f"a silent stream is cut after {after:.1f} s, so something between browser and hub does "
        "not wait long enough",
        f"{fix}, or raise the proxy's limit (nginx: proxy_read_timeout, HAProxy: timeout tunnel "
        "and timeout server)",
    )
