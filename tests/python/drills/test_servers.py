"""Every server that hands connections over, with 200 streams on its one worker."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from support import load, servers
from support.modes import MODES

LONG = os.environ.get("MERCURE_DRILL") == "long"


def descriptors(pid: int) -> int:
    """Open descriptors of a process and of its children."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread of a request may end meanwhile
            children += map(int, (task / "children").read_text().split())
    own = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    # The companion may be a child; its descriptors are its own business.
    servers_own = [c for c in children if "companion" not in Path(f"/proc/{c}/cmdline").read_text()]
    return own + sum(descriptors(child) for child in servers_own)


@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_streams_cost_the_worker_nothing(start, mode):
    command, options = MODES[mode]
    server = start(command, *options)
    load.open_crowd(server, 1).close()
    server.publish("t", "warm")
    before = descriptors(server.process.pid)
    crowd = load.open_crowd(server, 200)
    assert all(stream.status == 200 for stream in crowd.streams)
    assert server.request("GET", "/ping")[0] == 200
    server.publish("t", "1")
    crowd.wait_for(1)
    crowd.close()
    # Keep-alive connections of the requests above may stay for a while.
    servers.wait_until(lambda: descriptors(server.process.pid) <= before + 20)
    assert "Traceback" not in server.log
    if LONG:
        # Streams that are open, and used now and then: what a stream costs the one worker. Ten
        # thousand deliveries a second would measure what reads them, in this very process.
        quiet, busy = load.compare(server, 3.0, 3, rate=1.0)
        print(f"{mode}: p95 {quiet * 1e3:.2f} ms, with 200 streams {busy * 1e3:.2f} ms")
        assert busy / quiet <= 2
