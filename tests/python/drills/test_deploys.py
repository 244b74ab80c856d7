"""Deploys under load: whatever is replaced, no subscriber loses, repeats or reorders an event."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from http.client import HTTPException

import pytest

from conftest import HUB_PATH, companions
from support import servers
from support.audience import Audience, violations

LONG = os.environ.get("MERCURE_DRILL") == "long"
SUBSCRIBERS = 500 if LONG else 60
RATE = 50 if LONG else 25
#: Seconds of load around each action.
PAUSE = 5.0 if LONG else 1.0
ROUNDS = 5 if LONG else 1


class Publishers:
    """Publishes numbers at a steady rate, and notes which of them were acknowledged."""

    def __init__(self, server, rate: int, threads: int = 4) -> None:
        self.acknowledged: set[int] = set()
        self.doubtful: set[int] = set()
        self._server, self._pause = server, threads / rate
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(at, threads)) for at in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, step: int) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            try:
                self._server.publish("t", str(number))
            except (OSError, HTTPException, AssertionError):
                self.doubtful.add(number)  # its worker was killed, or is being replaced
            else:
                self.acknowledged.add(number)
            number += step

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def reload(server) -> None:
    booted = server.log.count("Booting worker")
    server.signal(signal.SIGHUP)
    servers.wait_until(lambda: server.log.count("Booting worker") >= booted + 2)


def kill_worker(server) -> None:
    worker = int(server.request("GET", "/ping")[1].split()[1])
    os.kill(worker, signal.SIGKILL)
    servers.wait_until(lambda: not servers.is_alive(worker))


def upgrade(server, hub, runtime_dir) -> None:
    """What an installer does: another file in the place of the binary; then the workers reload."""
    (before,) = companions(runtime_dir)
    newer = hub.with_suffix(".new")
    shutil.copy(servers.HUB, newer)
    newer.replace(hub)
    reload(server)
    servers.wait_until(lambda: companions(runtime_dir) not in ([before], []))
    servers.wait_until(lambda: not servers.is_alive(before))


@pytest.fixture
def own_hub(tmp_path):
    """A copy of the binary that a test may replace."""
    return shutil.copy(servers.HUB, tmp_path / "mercure-hub"), tmp_path / "mercure-hub"


ACTIONS = ("reload", "kill a worker", "upgrade")


def test_a_deploy_is_not_noticed(start, runtime_dir, own_hub):
    """gunicorn with workers that are recycled all the time, under load, while it is reloaded, its
    workers are killed and the hub is upgraded."""
    _, hub = own_hub
    options = ("-w", "2", "--max-requests", "40", "--max-requests-jitter", "20")
    server = start(servers.gunicorn, *options, MERCURE_HUB_BINARY=str(hub))
    audience = Audience(server.port, f"{HUB_PATH}?topic=t", SUBSCRIBERS)
    servers.wait_until(audience.all_live, timeout=60)
    publishers = Publishers(server, RATE)
    dropped: dict[str, int] = {}
    for action in ACTIONS * ROUNDS:
        before = audience.drops
        {
            "reload": lambda: reload(server),
            "kill a worker": lambda: kill_worker(server),
            "upgrade": lambda: upgrade(server, hub, runtime_dir),
        }[action]()
        time.sleep(PAUSE)  # load, not waiting: the next action meets it as well
        dropped[action] = dropped.get(action, 0) + audience.drops - before
    publishers.stop()
    expected = publishers.acknowledged
    wanted = max(expected)
    complete = lambda: all(expected <= set(m.numbers) for m in audience.members)  # noqa: E731
    with contextlib.suppress(AssertionError):  # said below, by name
        servers.wait_until(complete, timeout=30)
    audience.stop()
    print(f"{len(expected)} events (newest {wanted}) to {SUBSCRIBERS} subscribers, "
          f"{len(publishers.doubtful)} unacknowledged; connections dropped: {dropped}")  # fmt: skip
    received = [member.numbers for member in audience.members]
    assert violations(received, expected, publishers.doubtful) == []
    assert audience.gaps == 0
    assert dropped == dict.fromkeys(ACTIONS, 0)


def test_the_checker_can_fail():
    good = [[1, 2, 3], [1, 2, 3]]
    assert violations(good, {1, 2}, {3}) == []
    assert "missing [2]" in violations([[1, 2], [1]], {1, 2}, set())[0]
    assert "repeated [1]" in violations([[1, 1, 2]], {1, 2}, set())[0]
    assert "another order" in violations([[1, 2], [2, 1]], {1, 2}, set())[0]
    assert "never published [9]" in violations([[1, 9]], {1}, set())[0]
