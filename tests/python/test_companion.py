"""The companion's life: one takes another one's place, and everything it may meet on the way."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import HUB_PATH, companions, status_of
from flask_mercure_sse.errors import HubUnavailable
from support import servers
from support.sse import Stream


def handoff_socket(runtime_dir: Path) -> Path:
    (found,) = runtime_dir.glob("*/handoff.sock")
    return found


def ask(connection: socket.socket, message: dict) -> dict:
    body = json.dumps(message).encode()
    connection.sendall(struct.pack("!I", len(body)) + body)
    (length,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
    return json.loads(connection.recv(length, socket.MSG_WAITALL))


def test_other_settings_bring_another_companion_and_every_stream_goes_on(
    make_app, start, runtime_dir
):
    server = start(servers.gunicorn, "-w", "2")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    server.publish("t", "1")
    stream.wait(1)
    (before,) = companions(runtime_dir)
    server.stop()
    again = start(servers.gunicorn, "-w", "2", FLASK_MERCURE_HUB_KEEPALIVE_INTERVAL="7")
    again.publish("t", "2")
    assert stream.wait(2) == ["1", "2"], "over the end of one server and the start of another"
    (after,) = companions(runtime_dir)
    assert after != before
    servers.wait_until(lambda: not servers.is_alive(before))
    resumed = Stream.open(again.port, f"{HUB_PATH}?topic=t", {"Last-Event-ID": stream.events[0].id})
    assert resumed.wait(1) == ["2"], "ids of the former companion are known"
    for one in (stream, resumed):
        one.close()


def test_an_application_set_up_earlier_does_not_take_it_back(make_app, runtime_dir):
    earlier, later = (make_app(MERCURE_ON_FAILURE="raise") for _ in range(2))
    earlier.extensions["mercure_sse"].settings.__dict__["keepalive_interval"] = 3.0
    earlier.extensions["mercure_sse"]._since -= 1000
    for app in (later, earlier):
        with app.app_context():
            app.extensions["mercure_sse"].publisher.publish("t", "x")
    (running,) = companions(runtime_dir)
    arguments = Path(f"/proc/{running}/cmdline").read_bytes()
    assert b"--heartbeat=3000" not in arguments


@pytest.mark.parametrize("last_words", ["none", "nonsense"])
def test_a_successor_that_fails_changes_nothing(start, runtime_dir, last_words):
    server = start(servers.gunicorn, "-w", "2")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    server.publish("t", "1")
    before = status_of(server)["pid"]
    with socket.socket(socket.AF_UNIX) as successor:
        successor.settimeout(servers.PATIENCE)
        successor.connect(str(handoff_socket(runtime_dir)))
        reply = ask(successor, {"kind": "succeed", "settings": "other", "since": 2**60})
        assert reply["status"] == 200
        if last_words == "nonsense":
            # What it was sent stays unread but for the inventory and its descriptors.
            _, rights, _, _ = successor.recvmsg(4096, socket.CMSG_SPACE(12))
            held = array.array("i", rights[0][2])
            assert len(held) == 3
            successor.sendall(struct.pack("!I", 2) + b"no")
            for descriptor in held:
                os.close(descriptor)
    server.publish("t", "2")
    assert stream.wait(2) == ["1", "2"]
    assert status_of(server)["pid"] == before
    again = Stream.open(server.port, f"{HUB_PATH}?topic=t", {"Last-Event-ID": stream.events[0].id})
    assert again.wait(1) == ["2"]
    for one in (stream, again):
        one.close()


def test_whoever_wants_the_same_or_is_older_does_not_get_the_place(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "2")
    server.publish("t", "1")
    status = status_of(server)
    for settings, since in ((status["settings"], 2**60), ("other", status["since"])):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(servers.PATIENCE)
            asking.connect(str(handoff_socket(runtime_dir)))
            reply = ask(asking, {"kind": "succeed", "settings": settings, "since": since})
            assert reply["status"] == 409
    assert status_of(server)["pid"] == status["pid"]


def test_a_directory_of_somebody_else_is_refused_with_the_fix(make_app, tmp_path):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    open_to_all.chmod(0o755)
    app = make_app(MERCURE_RUNTIME_DIR=str(open_to_all), MERCURE_ON_FAILURE="raise")
    with app.app_context(), pytest.raises(HubUnavailable, match="chmod 700"):
        app.extensions["mercure_sse"].publisher.publish("t", "x")


def test_what_the_companion_logs_is_in_the_applications_log_once(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "3")
    with ThreadPoolExecutor(6) as pool:  # every worker comes to know the companion
        list(pool.map(lambda _: server.request("GET", "/status?hold=0.3"), range(6)))
    handoff_socket(runtime_dir).unlink()
    servers.wait_until(lambda: "the file of a socket is gone" in server.log)
    servers.wait_until(lambda: not companions(runtime_dir))
    assert server.log.count("mercure-hub: the file of a socket is gone") == 1
    server.publish("t", "a new one is started")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_attempts_that_fail_leave_nothing_behind(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "1")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    companion = status_of(server)["pid"]
    counts = []
    for number in range(12):
        server.publish("t", str(number))
        with socket.socket(socket.AF_UNIX) as successor:
            successor.settimeout(servers.PATIENCE)
            successor.connect(str(handoff_socket(runtime_dir)))
            reply = ask(successor, {"kind": "succeed", "settings": "other", "since": 2**60})
            assert reply["status"] == 200
        assert status_of(server)["pid"] == companion
        counts.append(descriptors(companion))
    assert stream.wait(12) == [str(number) for number in range(12)]
    assert max(counts[6:]) <= max(counts[:6]) + 3, counts
    stream.close()


def test_a_successor_outlives_whoever_has_started_it(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "1", FLASK_MERCURE_COMPANION_GRACE="1")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    server.publish("t", "1")
    before = status_of(server)["pid"]
    arguments = Path(f"/proc/{before}/cmdline").read_bytes().decode().split("\0")[:-1]
    arguments = [a for a in arguments if not a.startswith(("--settings", "--since"))]
    gone, told = os.pipe()
    os.close(gone)
    command = [*arguments, "--settings=other", f"--since={2**60}", "--replace"]
    successor = subprocess.Popen(command, stdout=told, stderr=subprocess.DEVNULL)
    os.close(told)
    servers.wait_until(lambda: not servers.is_alive(before))
    server.publish("t", "2")
    assert stream.wait(2) == ["1", "2"]
    assert status_of(server)["pid"] == successor.pid
    stream.close()
    server.stop()
    assert successor.wait(servers.PATIENCE) == 0


def test_a_service_takes_the_place_of_what_workers_have_started(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "1")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    server.publish("t", "1")
    worker_started = status_of(server)["pid"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(servers.ROOT / "python"),
        "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
    }
    command = [servers.script("flask"), "--app", "app", "mercure", "hub"]
    with subprocess.Popen(
        command, cwd=servers.APPS, env=environment, stdout=subprocess.PIPE
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        server.publish("t", "2")
        assert stream.wait(2) == ["1", "2"]
        assert status_of(server)["pid"] == service.pid != worker_started
        server.signal(signal.SIGHUP)
        servers.wait_until(lambda: server.log.count("Booting worker") == 2)
        server.publish("t", "3")
        assert stream.wait(3)[2:] == ["3"]
        assert status_of(server)["pid"] == service.pid, "no worker takes it back"
        service.terminate()
    stream.close()


def test_a_shell_with_other_settings_changes_nothing(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "1")
    server.publish("t", "1")
    before = status_of(server)["pid"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(servers.ROOT / "python"),
        "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
        "FLASK_MERCURE_HUB_RECONCILIATION_LENGTH": "3",
    }
    for arguments in (["status"], ["publish", "t", "2"]):
        command = [servers.script("flask"), "--app", "app", "mercure", *arguments]
        subprocess.run(command, cwd=servers.APPS, env=environment, check=True, capture_output=True)
    assert status_of(server)["pid"] == before


def test_a_binary_that_is_just_being_replaced_is_no_obstacle(make_app, monkeypatch, tmp_path):
    first, second = (make_app(MERCURE_ON_FAILURE="raise") for _ in range(2))
    with first.app_context():
        first.extensions["mercure_sse"].publisher.publish("t", "x")
    monkeypatch.setenv("MERCURE_HUB_BINARY", str(tmp_path / "not-there-yet"))
    with second.app_context():
        assert second.extensions["mercure_sse"].publisher.publish("t", "y")
