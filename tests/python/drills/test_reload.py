"""The development server reloads; the streams do not notice."""

from __future__ import annotations

import shutil
from http.client import HTTPException

from conftest import HUB_PATH
from support import servers
from support.sse import Crowd, Stream


def test_touching_the_source_drops_no_stream(start, tmp_path):
    source = tmp_path / "app.py"
    shutil.copy(servers.APPS / "app.py", source)
    server = start(servers.flask_run, "--debug", folder=tmp_path)
    crowd = Crowd([Stream.open(server.port, f"{HUB_PATH}?topic=t") for _ in range(20)])
    server.publish("t", "before")
    crowd.wait_for(1)
    for reload in range(2):
        process = server.request("GET", "/ping")[1]
        source.write_text(source.read_text() + f"\n# change {reload}\n")
        servers.wait_until(lambda old=process: other_process(server, old))
        server.publish("t", f"after {reload}")
        crowd.wait_for(2 + reload)
    expected = ["before", "after 0", "after 1"]
    assert all(stream.data == expected and not stream.ended for stream in crowd.streams)
    crowd.close()


def other_process(server, old: str) -> bool:
    """Whether the reloaded process answers (in between, nobody does)."""
    try:
        return server.request("GET", "/ping")[1] != old
    except (OSError, HTTPException):
        return False
