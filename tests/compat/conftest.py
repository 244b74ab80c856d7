"""What flask-mercure-sse 0.1 and 0.4 document, judged on the release that is installed.

``pytest tests/compat`` judges this project; with a folder that holds another release first on
``PYTHONPATH``, the same tests judge that one.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask, request
from werkzeug.serving import make_server

sys.path.append(str(Path(__file__).parents[1] / "python"))

from flask_mercure_sse import MercureSSE
from support.sse import Stream

HUB_PATH = "/.well-known/mercure"


class Site:
    """An application, its extension and a threaded server for it."""

    def __init__(self, app: Flask, mercure: MercureSSE) -> None:
        self.app = app
        self.mercure = mercure
        self.streams: list[Stream] = []
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        # Some packages hold a thread per stream until it notices that the client has left.
        self.server.block_on_close = False
        self.port = self.server.port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stream(self, query: str, headers: dict[str, str] | None = None) -> Stream:
        stream = Stream.open(self.port, f"{HUB_PATH}?{query}", headers)
        self.streams.append(stream)
        return stream

    def publish(self, *arguments, **options):
        with self.app.test_request_context():
            return self.mercure.publish(*arguments, **options)

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.server.shutdown()
        self.server.server_close()
        with contextlib.suppress(AttributeError):
            self.app.extensions["mercure_sse"].close()


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mercure-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def configured(folder: Path) -> Callable[..., tuple[Flask, MercureSSE]]:
    """An application with its extension, not served."""

    def configured(name: str = "compat", options: dict | None = None, **config):
        app = Flask(name)
        # Debugging is when 0.4 has a hub of its own.
        app.debug = True
        app.config["SECRET_KEY"] = "a secret for tests, long enough to be one"
        app.config.update(config)
        if not hasattr(sys.modules["flask_mercure_sse"], "__version__"):
            return app, MercureSSE(app, **(options or {}))
        places = {"MERCURE_RUNTIME_DIR": str(folder), "MERCURE_COMPANION_GRACE": 0.5}
        app.config.update(places, MERCURE_PUBLISH_WAIT=5)
        return app, MercureSSE(app, **(options or {}))

    return configured


@pytest.fixture
def site(configured) -> Iterator[Callable[..., Site]]:
    """Serves an application: ``site(MERCURE_TYPE_IS_TOPIC=True)``."""
    made: list[Site] = []

    def site(options: dict | None = None, **config) -> Site:
        # 0.4 sends the head of a stream with its first bytes, which may be a heartbeat.
        config.setdefault("MERCURE_HUB_KEEPALIVE_INTERVAL", 1)
        app, mercure = configured(options=options, **config)

        @app.post("/publish")
        def publish():
            mercure.publish(request.form["topic"], request.form["data"])
            return "ok"

        made.append(Site(app, mercure))
        return made[-1]

    yield site
    for each in made:
        each.close()
