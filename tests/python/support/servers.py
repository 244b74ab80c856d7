"""Real WSGI servers and hubs, started on free ports and ended again."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).parents[3]
APPS = ROOT / "tests/python/apps"
HUB = os.environ.get("MERCURE_HUB_BINARY", str(ROOT / "target/debug/mercure-hub"))
PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running server and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path

    def request(
        self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def publish(self, topic: str, data: str, **fields: str) -> str:
        """Publishes through the application's own route, in whichever worker gets it."""
        body = urlencode({"topic": topic, "data": data, **fields})
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer, _ = self.request("POST", "/publish", body, form)
        assert status == 200, answer
        return answer

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if self.request("GET", "/ping")[0] < 500:
                    return
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                # The whole session of this server and nothing else: it was started for us.
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@contextlib.contextmanager
def serve(
    arguments: list[str], port: int, folder: Path, log: Path, **environment: str
) -> Iterator[Server]:
    """Runs a server in a folder until the block ends."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "PYTHONUNBUFFERED": "1"}
    env |= {"MERCURE_HUB_BINARY": HUB, **environment}
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def script(name: str) -> str:
    """A command of the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


def gunicorn(port: int, *options: str, app: str = "app:app") -> list[str]:
    bind = ["-b", f"127.0.0.1:{port}", "--no-control-socket"]
    return [script("gunicorn"), *bind, *options, app]


def flask_run(port: int, *options: str) -> list[str]:
    return [script("flask"), "--app", "app", "run", "--port", str(port), *options]


def waitress(port: int, *options: str) -> list[str]:
    return [script("waitress-serve"), f"--listen=127.0.0.1:{port}", *options, "app:app"]


def uwsgi(port: int, *options: str) -> list[str]:
    plain = ["--module", "app:app", "--master", "--need-app", "--die-on-term", "--enable-threads"]
    # A router of its own has a port to itself; the other way round serves the port directly.
    door = [] if "--http" in options else ["--http-socket", f"127.0.0.1:{port}"]
    options = tuple(f"127.0.0.1:{port}" if option == "PORT" else option for option in options)
    return [script("pyuwsgi"), *door, *options, *plain]


def own(port: int, name: str) -> list[str]:
    """A server that has no command; see ``apps/run.py``."""
    return [sys.executable, "run.py", name, str(port)]


def granian(port: int, interface: str, app: str) -> list[str]:
    return [script("granian"), f"--interface={interface}", f"--port={port}", app]


def uvicorn(port: int, app: str) -> list[str]:
    return [script("uvicorn"), f"--port={port}", app]


def hypercorn(port: int, app: str) -> list[str]:
    return [script("hypercorn"), f"--bind=127.0.0.1:{port}", app]


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(done, timeout: float = PATIENCE, what: str = "") -> None:
    """Waits for something that leaves no other trace than a changed state."""
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, what or "it did not happen in time"
        time.sleep(0.02)
