"""``flask mercure hub`` and ``flask mercure tail``, as somebody types them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from conftest import HUB_PATH, companions
from support import servers
from support.sse import Stream


@pytest.fixture
def flask_mercure(runtime_dir):
    """Runs ``flask mercure …`` for the servers' application."""
    env = {
        **os.environ,
        "PYTHONPATH": str(servers.ROOT / "python"),
        "PYTHONUNBUFFERED": "1",
        "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
        "FLASK_MERCURE_COMPANION_GRACE": "1",
    }

    @contextlib.contextmanager
    def run(*arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = [servers.script("flask"), "--app", "app", "mercure", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=servers.APPS, env=env, **pipes) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.communicate()

    return run


def test_the_hub_in_the_foreground(flask_mercure, start, runtime_dir):
    with flask_mercure("hub") as hub:
        assert hub.stdout.readline() == "ready\n"
        server = start(servers.gunicorn, "-w", "2")
        stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
        server.publish("t", "x")
        assert stream.wait(1) == ["x"]
        assert companions(runtime_dir) == [hub.pid], "the workers have found it"
        with flask_mercure("hub") as second:
            output = second.communicate(timeout=30)[0]
            assert "running in this directory already" in output
        server.stop()
        assert hub.poll() is None, "it does not end with its workers"
        hub.terminate()
        assert hub.wait(20) == 0
        stream.close()


def test_tail(flask_mercure, start):
    server = start(servers.gunicorn)
    server.publish("t", "before")
    server.publish("t", "secret", private="on")
    server.publish("other", "not asked for")
    with flask_mercure("tail", "--from-start", "--topic", "t") as tail:
        shown = [tail.stdout.readline().strip() for _ in range(7)]
    assert [line for line in shown if line.startswith("data")] == ["data: before", "data: secret"]


def test_explain_names_rules_and_judges_with_the_applications_keys(flask_mercure):
    def explain(*arguments: str) -> tuple[int, str]:
        with flask_mercure("explain", *arguments) as process:
            said = process.stdout.read()
            return process.wait(), said

    status, said = explain("--topic=users/7/orders")
    assert status == 0
    assert "rules asked about users/7/orders: none" in said
    assert "may be published" in said
    with flask_mercure("subscriber-jwt", "--topic=users/{id}") as minted:
        token = minted.stdout.read().strip()
    status, said = explain(
        "--query=topic=users/{id}", "--topic=users/7", "--private", "--token", token
    )
    assert status == 0, said
    assert "the token may read the private update" in said
    status, said = explain("--query=topic=users/{id}", "--topic=users/7", "--private")
    assert status == 1
    assert "withheld" in said
    status, said = explain("--query=topic=users/:id", "--topic=users/7")
    assert status == 1
    assert "hint:" in said
