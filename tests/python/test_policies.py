"""What a hub that is down, hangs, refuses, is slow or full costs a request."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest

from flask_mercure_sse import (
    ConfigurationError,
    HubRefused,
    HubUnavailable,
    Publisher,
    publish_failed,
    update_published,
)
from flask_mercure_sse.publishing import publisher as publishing
from support.servers import ROOT, wait_until
from test_publishing import HUB_PATH, KEYS, external_hub

#: What a request may wait for a hub in trouble in these tests, in seconds. The promise is one
#: millisecond; a machine that runs other tests may not give a thread its turn for a while. Far
#: less than a healthy hub is given here.
MOMENT = 0.3
HEALTHY_WAIT = 2.0


class Hub(http.server.ThreadingHTTPServer):
    """A hub that misbehaves as it is told, and keeps what it accepts."""

    daemon_threads = True

    def __init__(self, status: int = 200, pause: float = 0.0, port: int = 0) -> None:
        self.status, self.pause = status, pause
        self.received: list[str] = []
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{HUB_PATH}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        time.sleep(self.server.pause)
        if self.server.status == 200:
            self.server.received.append(parse_qs(body)["data"][0])
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def hub(status: int = 200, pause: float = 0.0, port: int = 0) -> Iterator[Hub]:
    with Hub(status, pause, port) as running:
        yield running
        running.shutdown()


def closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


@pytest.fixture
def publish(make_app):
    """Publishes within a request; returns the outcome and how long it took, in seconds."""

    def prepare(url: str, **config):
        waits = {"MERCURE_TIMEOUT": 4, "MERCURE_PUBLISH_WAIT": HEALTHY_WAIT}
        app = make_app(MERCURE_HUB_URL=url, MERCURE_PUBLISHER_JWT="t", **waits, **config)
        mercure = app.extensions["mercure_sse"].instance

        def publish(data: str, **options):
            with app.test_request_context():
                begin = time.monotonic()
                result = mercure.publish("t", data, **options)
                return result, time.monotonic() - begin

        publish.app = app  # type: ignore[attr-defined]
        return publish

    return prepare


@contextlib.contextmanager
def faulty(fault: str) -> Iterator[str]:
    """The URL of a hub with a fault."""
    if fault == "down":
        yield f"http://127.0.0.1:{closed_port()}{HUB_PATH}"
    elif fault == "hanging":
        with socket.create_server(("127.0.0.1", 0)) as hanging:
            yield f"http://127.0.0.1:{hanging.getsockname()[1]}{HUB_PATH}"
    else:
        status = {"refusing": 403, "slow": 200, "full": 503}[fault]
        with hub(status, pause=0.1 if fault == "slow" else 0.0) as running:
            yield running.url


FAULTS = ["down", "hanging", "refusing", "slow", "full"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_hub_does_not_delay_a_request_that_logs(publish, caplog, fault):
    with faulty(fault) as url:
        attempt = publish(url)
        attempt("warm up")
        took = min(attempt(str(number))[1] for number in range(5))
        assert took < MOMENT
        attempt.app.extensions["mercure_sse"].close()
    failed = "An update was not published" in caplog.text
    assert failed == (fault != "slow"), caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_hub_does_not_delay_a_request_that_spools(publish, tmp_path, caplog, fault):
    with faulty(fault) as url:
        attempt = publish(url, MERCURE_ON_FAILURE="spool", MERCURE_SPOOL=str(tmp_path / "spool"))
        results = [attempt(str(number)) for number in range(5)]
        assert min(took for _, took in results[1:]) < MOMENT
        if fault != "refusing":
            assert all(id for id, _ in results), "kept, so there is an id"
    if fault == "refusing":
        wait_until(lambda: "not published" in caplog.text, what="a refusal is final, and told")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_hub_raises_within_the_timeout(publish, fault):
    with faulty(fault) as url:
        attempt = publish(url, MERCURE_ON_FAILURE="raise")
        begin = time.monotonic()
        if fault == "slow":
            assert attempt("x")[0]
        else:
            expected = HubRefused if fault == "refusing" else HubUnavailable
            with pytest.raises(expected):
                attempt("x")
        assert time.monotonic() - begin < 15, "four seconds, and what a busy machine adds"


def test_what_was_spooled_arrives_in_order_when_the_hub_is_back(publish, tmp_path):
    port = closed_port()
    url = f"http://127.0.0.1:{port}{HUB_PATH}"
    attempt = publish(url, MERCURE_ON_FAILURE="spool", MERCURE_SPOOL=str(tmp_path / "spool"))
    for number in range(20):
        assert attempt(str(number))[0]
    with hub(port=port) as back:
        attempt("last")
        wait_until(lambda: "last" in back.received, what="the spool was not emptied")
        assert back.received == [*map(str, range(20)), "last"]


def test_the_spool_survives_the_process(tmp_path):
    """A process that is killed right after publishing; another one sends what it left."""
    port = closed_port()
    script = textwrap.dedent(
        f"""
        import os, signal
        from flask_mercure_sse import Publisher
        publisher = Publisher("http://127.0.0.1:{port}/", "t", on_failure="spool",
                              spool={str(tmp_path / "spool")!r})
        for number in range(10):
            assert publisher.publish("t", str(number), wait=0.001)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    run = subprocess.run([sys.executable, "-c", script], env=env, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL
    with hub(port=port) as back:
        heir = Publisher(back.url, "t", on_failure="spool", spool=str(tmp_path / "spool"))
        assert heir.publish("t", "heir")
        wait_until(lambda: "heir" in back.received, what="the spool was not emptied")
        heir.close()
        assert back.received == [*map(str, range(10)), "heir"]


def test_a_full_spool_is_told(tmp_path, caplog):
    publisher = Publisher(
        f"http://127.0.0.1:{closed_port()}/",
        "t",
        on_failure="spool",
        spool=str(tmp_path / "spool"),
        spool_size=100_000,
    )
    results = [bool(publisher.publish("t", "x" * 10_000)) for _ in range(15)]
    assert (results[0], results[-1]) == (True, False)
    assert results == sorted(results, reverse=True)
    assert "the spool is full" in caplog.text
    publisher.close()


def test_an_update_that_may_have_arrived_is_not_repeated(make_app):
    """The built-in hub tells a second attempt from a second update."""
    app = make_app()
    state = app.extensions["mercure_sse"]
    with app.app_context():
        first = state.instance.publish("t", "once", id="my-id")
        assert first == "my-id"
        update = state.instance._update("t", "once", id="my-id")
        state.hub().send(update, again=True)
        state.instance.publish("t", "twice is fine if it is meant", id="my-id")
    path = f"{HUB_PATH}?topic=t&lastEventID=earliest"
    text = app.test_client().get(path).text
    assert text.count("data: once") == 1
    assert text.count("data: twice") == 1


def test_a_full_queue_is_told(monkeypatch, publish, caplog):
    monkeypatch.setattr(publishing, "QUEUE_LIMIT", 3)
    with faulty("hanging") as url:
        attempt = publish(url)
        results = [attempt(str(number))[0] for number in range(8)]
    assert results[-1] is None
    assert "3 updates wait for the hub already" in caplog.text


def test_updates_leave_in_order_and_before_the_process_ends(tmp_path):
    with external_hub("--anonymous=true") as (port, url):
        script = textwrap.dedent(
            f"""
            from flask import Flask
            from flask_mercure_sse import MercureSSE
            app = Flask("ending")
            mercure = MercureSSE(app, hub_url={url!r}, publisher_jwt={jwt_for(url)!r})
            with app.test_request_context():
                for number in range(50):
                    assert mercure.publish("t", str(number))
            """
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
        subprocess.run([sys.executable, "-c", script], env=env, timeout=60, check=True)
        from support.sse import Stream

        stream = Stream.open(port, f"{HUB_PATH}?topic=t&lastEventID=earliest")
        assert stream.wait(50) == [str(number) for number in range(50)]
        stream.close()


def test_from_an_event_loop(make_app):
    app = make_app(MERCURE_ON_FAILURE="raise")
    mercure = app.extensions["mercure_sse"].instance

    async def publish_all() -> list[str]:
        return await asyncio.gather(*(mercure.apublish("t", str(n)) for n in range(10)))

    with app.app_context():
        ids = asyncio.run(publish_all())
        quiet = asyncio.run(mercure.apublish("t", "logged", on_failure="log"))
    assert len({*ids, quiet}) == 11


def test_from_an_event_loop_the_policy_holds(publish, tmp_path, caplog):
    with faulty("down") as url:
        attempt = publish(url, MERCURE_SPOOL=str(tmp_path / "spool"))
        mercure = attempt.app.extensions["mercure_sse"].instance
        with attempt.app.app_context():
            assert asyncio.run(mercure.apublish("t", "x")) is None
            assert asyncio.run(mercure.apublish("t", "x", on_failure="spool"))
            with pytest.raises(HubUnavailable):
                asyncio.run(mercure.apublish("t", "x", on_failure="raise"))


def test_without_flask():
    with external_hub() as (_, url):
        token = jwt_for(url)
        publisher = Publisher(url, token, on_failure="raise")
        assert publisher.publish("t", {"a": 1})
        assert Publisher(url, lambda: token).publish("t", "x")
        with pytest.raises(ConfigurationError, match="jwt"):
            Publisher(url)
        with pytest.raises(ConfigurationError, match="spool"):
            Publisher(url, token, on_failure="spool")


def jwt_for(url: str) -> str:
    import jwt

    return jwt.encode({"mercure": {"publish": ["*"]}}, KEYS["publisher"], algorithm="HS256")


def test_signals_tell_how_it_went(publish):
    told: list[tuple] = []

    def good(sender, id):
        told.append(("good", sender.name, id))

    def bad(sender, id, error):
        told.append(("bad", sender.name, type(error).__name__))

    with update_published.connected_to(good), publish_failed.connected_to(bad):
        with hub() as running:
            id, _ = publish(running.url)("x", on_failure="raise")
        with faulty("refusing") as url, pytest.raises(HubRefused):
            publish(url)("x", on_failure="raise")
    assert told == [("good", "tests", id), ("bad", "tests", "HubRefused")]


def test_a_fork_sends_its_own_updates_and_no_others(make_app):
    app = make_app()
    mercure = app.extensions["mercure_sse"].instance
    with app.app_context():
        mercure.publish("t", "parent")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, on purpose
        child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException), app.app_context():
            status = 0 if mercure.publish("t", "child") else 1
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    text = app.test_client().get(f"{HUB_PATH}?topic=t&lastEventID=earliest").text
    assert (text.count("data: parent"), text.count("data: child")) == (1, 1)


# -- what must not stop it ----------------------------------------------------------------------


def test_a_receiver_that_fails_stops_nothing(publish, caplog):
    def fails(sender, id):
        raise RuntimeError("a receiver's own")

    with hub(pause=0.05) as running, update_published.connected_to(fails):
        attempt = publish(running.url)
        for number in range(5):
            assert attempt(str(number))[0]
        wait_until(lambda: len(running.received) == 5, what="the thread has ended")
        attempt("6", on_failure="raise")
    assert "a receiver's own" in caplog.text


def test_one_call_can_spool_by_default(publish, runtime_dir):
    port = closed_port()
    attempt = publish(f"http://127.0.0.1:{port}{HUB_PATH}")
    assert list(runtime_dir.iterdir()) == [], "nothing is made before it is needed"
    assert attempt("x", on_failure="spool")[0]
    (spool,) = runtime_dir.glob("*/spool.db")
    assert (spool.stat().st_mode & 0o777, spool.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with hub(port=port) as back:
        wait_until(lambda: back.received == ["x"], what="it was not sent")


def test_a_process_that_ends_empties_its_spool(tmp_path):
    with hub(pause=0.02) as running:
        spool = str(tmp_path / "spool")
        publisher = Publisher(running.url, "t", on_failure="spool", spool=spool)
        for number in range(20):
            assert publisher.publish("t", str(number), wait=0.001)
        publisher.close()
        assert running.received == [*map(str, range(20))]


def test_a_new_process_sends_what_is_left_at_its_first_request(make_app, tmp_path):
    spool = str(tmp_path / "spool")
    port = closed_port()
    url = f"http://127.0.0.1:{port}{HUB_PATH}"
    left = Publisher(url, "t", on_failure="spool", spool=spool)
    left.publish("t", "left")
    left.close()
    config = {"MERCURE_ON_FAILURE": "spool", "MERCURE_SPOOL": spool}
    app = make_app(MERCURE_HUB_URL=url, MERCURE_PUBLISHER_JWT="t", **config)
    with hub(port=port) as back:
        app.test_client().get("/any")
        wait_until(lambda: back.received == ["left"], what="it was not sent")


def test_other_updates_do_not_starve_the_spool(publish):
    port = closed_port()
    attempt = publish(f"http://127.0.0.1:{port}{HUB_PATH}")
    assert attempt("kept", on_failure="spool")[0]
    with hub(port=port) as back:

        def arrived() -> bool:
            attempt("steady")
            return "kept" in back.received

        wait_until(arrived, what="the spool starves")


def test_a_broken_spool_does_not_break_the_request(publish, tmp_path, caplog):
    (tmp_path / "spool").write_bytes(b"this is no database, and never was one" * 100)
    with hub() as running:
        config = {"MERCURE_ON_FAILURE": "spool", "MERCURE_SPOOL": str(tmp_path / "spool")}
        assert publish(running.url, **config)("arrives")[0]
        wait_until(lambda: running.received == ["arrives"])
    attempt = publish(f"http://127.0.0.1:{closed_port()}/", **config)
    attempt("lost")
    wait_until(lambda: "An update was not published: the spool" in caplog.text)


def test_no_update_is_sent_from_the_queue_and_from_the_disk(tmp_path):
    """Several processes share the spool, and the hub stops answering for a while."""
    with hub(pause=0.3) as running:
        spool = str(tmp_path / "spool")
        both = [Publisher(running.url, "t", on_failure="spool", spool=spool) for _ in range(2)]
        for number in range(6):
            both[number % 2].publish("t", str(number), wait=0.001)
        for publisher in both:
            publisher.close()
        wait_until(lambda: len(running.received) >= 6)
    assert sorted(running.received) == [*map(str, range(6))], "each once"


def test_a_fork_beside_a_spool_in_use(tmp_path):
    """Parent and child write at the same time, and a child holds nothing of the parent's."""
    script = textwrap.dedent(
        f"""
        import os, sys, threading, warnings
        warnings.simplefilter("ignore")
        from flask_mercure_sse import Publisher
        from flask_mercure_sse.publishing import spool
        spool._LOCK_TIMEOUT = 10  # eight that write at once on a busy machine
        publisher = Publisher("http://127.0.0.1:{closed_port()}/", "t", on_failure="spool",
                              spool={str(tmp_path / "spool")!r})
        def write(name):
            for number in range(20):
                assert publisher.publish("t", f"{{name}}-{{number}}", wait=0.001)
        threads = [threading.Thread(target=write, args=(f"p{{n}}",)) for n in range(3)]
        for thread in threads: thread.start()
        children = []
        for child in range(5):
            pid = os.fork()
            if pid == 0:
                write(f"c{{child}}")
                os._exit(0)
            children.append(pid)
        for thread in threads: thread.join()
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        os._exit(0)
        """
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    subprocess.run([sys.executable, "-c", script], env=env, timeout=90, check=True)
    database = sqlite3.connect(tmp_path / "spool")
    (count,) = database.execute("SELECT count(*) FROM updates").fetchone()
    database.close()
    assert count == 8 * 20, "everything that was acknowledged is there"


def test_nothing_is_left_to_import_for_the_first_publish():
    """A fork beside a first publish would leave the child with a half imported module."""
    script = textwrap.dedent(
        f"""
        import sys
        from flask_mercure_sse import Publisher
        publisher = Publisher("http://127.0.0.1:{closed_port()}/", "t", on_failure="log")
        before = set(sys.modules)
        publisher.publish("t", "x", wait=0.1)
        print(*sorted(set(sys.modules) - before))
        """
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, timeout=90, check=True, capture_output=True
    )
    assert done.stdout.decode().split() == []


def test_an_unknown_policy_is_told(publish):
    with hub() as running, pytest.raises(ConfigurationError, match="rasie"):
        publish(running.url)("x", on_failure="rasie")


def test_without_a_thread_updates_are_lost_loudly_and_the_next_ones_leave(
    publish, monkeypatch, caplog
):
    with hub() as running:
        attempt = publish(running.url)

        def start(self):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", start)
            assert attempt("lost")[0] is None
        assert "no thread can be started" in caplog.text
        assert attempt("arrives")[0]
        wait_until(lambda: "arrives" in running.received)


def test_a_hub_that_is_always_slow_is_healthy_if_it_is_meant_to_be(publish):
    """``MERCURE_PUBLISH_WAIT`` says what prompt means."""
    with hub(pause=0.1) as running:
        attempt = publish(running.url)
        for number in range(4):
            assert attempt(str(number))[0]
            assert running.received[-1] == str(number), "it was waited for"


def test_an_event_loop_waits_no_longer_than_a_request(publish):
    with faulty("hanging") as url:
        attempt = publish(url)
        attempt("finds out")
        mercure = attempt.app.extensions["mercure_sse"].instance

        async def again() -> float:
            begin = time.monotonic()
            assert await mercure.apublish("t", "x")
            return time.monotonic() - begin

        with attempt.app.test_request_context():
            assert min(asyncio.run(again()) for _ in range(3)) < MOMENT


def test_threads_may_fork_at_the_same_time(tmp_path):
    script = textwrap.dedent(
        f"""
        import os, threading, warnings
        warnings.simplefilter("ignore")
        from flask_mercure_sse.publishing import Spool
        from flask_mercure_sse.updates import Update
        spool = Spool({str(tmp_path / "spool")!r}, 1 << 20)
        def forks():
            for _ in range(150):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
                spool.is_empty()
        spool.add(Update.build("t", "x"))
        threads = [threading.Thread(target=forks) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    subprocess.run([sys.executable, "-c", script], env=env, timeout=60, check=True)
