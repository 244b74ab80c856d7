"""Fixtures: a private place for companions, real servers, and the rule that CI skips nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from support import servers
from support.servers import Server, free_port, serve, wait_until

HUB_PATH = "/.well-known/mercure"
#: The hub that was just built, not one that happens to be installed.
os.environ["MERCURE_HUB_BINARY"] = servers.HUB


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A short path (Unix sockets have little room), gone afterwards, as are its companions."""
    folder = Path(tempfile.mkdtemp(prefix="mercure-"))
    yield folder
    # Again and again: the last act of a worker may have been to start one.
    wait_until(lambda: end_companions(folder), what="the companion stayed")
    shutil.rmtree(folder)


def companions(folder: Path) -> list[int]:
    """Process ids of the companions below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if any(part.startswith(f"--directory={folder}/".encode()) for part in command):
                    found.append(int(entry.name))
    return found


def end_companions(folder: Path) -> bool:
    """Tells companions to end that would stay for their grace period; whether there are none."""
    found = companions(folder)
    for companion in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(companion, signal.SIGTERM)
    return not found


@pytest.fixture
def start(runtime_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers: ``start(servers.gunicorn, "-w", "4")``."""
    with contextlib.ExitStack() as stack:

        def start(command, *options: str, folder: Path = servers.APPS, **environment: str):
            port = free_port()
            log = tmp_path / f"server-{port}.log"
            environment = {
                "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
                # However long a busy machine has no worker; companions are ended with the test.
                "FLASK_MERCURE_COMPANION_GRACE": "60",
                # On a busy machine a healthy hub may take long; tests rely on its order.
                "FLASK_MERCURE_PUBLISH_WAIT": "10",
                **environment,
            }
            arguments = command(port, *options)
            return stack.enter_context(serve(arguments, port, folder, log, **environment))

        yield start


@pytest.fixture
def make_app(runtime_dir: Path) -> Iterator[Callable[..., Flask]]:
    """Makes applications with a companion of their own, which ends with the test."""
    from flask_mercure_sse import MercureSSE

    made = []

    def make_app(name: str = "tests", **config) -> Flask:
        app = Flask(name)
        app.config.update(
            SECRET_KEY="a secret for tests, long enough to be one",
            MERCURE_RUNTIME_DIR=str(runtime_dir),
            MERCURE_COMPANION_GRACE=0.5,
            MERCURE_PUBLISH_WAIT=10,
        )
        app.config.update(config)
        MercureSSE(app)
        made.append(app)
        return app

    yield make_app
    for app in made:
        app.extensions["mercure_sse"].close()


@pytest.fixture
def app(make_app) -> Flask:
    return make_app()


def status_of(server: Server) -> dict:
    """What the companion says of itself."""
    return json.loads(server.request("GET", "/status")[1])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where nothing may be skipped, a skip is a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
