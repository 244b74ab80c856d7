"""The helpers that applications use in their own tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import HUB_PATH, companions
from flask_mercure_sse import HubRefused, HubUnavailable, mercure_publish
from flask_mercure_sse.testing import Events, failing, record
from support import servers
from support.servers import ROOT


def test_what_is_published_is_recorded_and_reaches_no_hub(app, runtime_dir):
    with app.app_context(), record(app) as updates:
        id = mercure_publish(["a", "b"], {"n": 1}, private=True, type="t", retry=5)
        (update,) = updates
        mercure_publish("c", "text")
        assert mercure_publish("d", "x", hub_url="http://127.0.0.1:9/", jwt="t")
    assert (update.topic, update.topics, update.json) == ("a", ["a", "b"], {"n": 1})
    assert (update.id, update.private, update.type, update.retry) == (id, True, "t", 5)
    assert (updates[1].data, updates[1].private, updates[1].type) == ("text", False, None)
    assert updates[2].topic == "d", "what is meant for another hub, too"
    assert companions(runtime_dir) == []
    with app.app_context():
        assert mercure_publish("c", "afterwards, as always")
    assert len(updates) == 3


def test_an_application_without_its_hub(app):
    with app.app_context():
        with failing(app):
            assert mercure_publish("t", "x") is None
            with pytest.raises(HubUnavailable):
                mercure_publish("t", "x", on_failure="raise")
        with failing(app, HubRefused("no", 403)), pytest.raises(HubRefused):
            mercure_publish("t", "x", on_failure="raise")


def test_events_with_a_deadline(start):
    server = start(servers.gunicorn)
    url = f"http://127.0.0.1:{server.port}{HUB_PATH}"
    with Events(f"{url}?topic=t", timeout=10) as events:
        id = server.publish("t", "one\ntwo")
        event = events.next()
        assert (event.id, event.type, event.data) == (id, "message", "one\ntwo")
        server.publish("t", "three")
        assert events.next().data == "three"
    with Events(f"{url}?topic=t", {"Last-Event-ID": id}) as events:
        assert events.next().data == "three"
    with Events(f"{url}?topic=t", timeout=3) as events, pytest.raises(AssertionError):
        events.next()
    with pytest.raises(AssertionError, match=r"no event stream but 400: .*names no topic"):
        Events(url)


PLUGIN = """
import pytest
from flask import Flask
from flask_mercure_sse import MercureSSE

@pytest.fixture
def app():
    app = Flask(__name__)
    app.secret_key = "s" * 32
    mercure = MercureSSE(app)
    app.post("/orders")(lambda: mercure.publish("orders", "new") or "failed")
    return app

"""


def test_the_fixture(tmp_path):
    from test_docs import block

    (tmp_path / "test_app.py").write_text(PLUGIN + block("docs/flask.md", 12))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-p", "flask_mercure_sse.testing.plugin", "test_app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in run.stdout, run.stdout
