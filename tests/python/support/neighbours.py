"""What stands beside an application: hubs of their own, and proxies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .servers import HUB, PATIENCE, free_port

#: What every proxy of the tests has in common; it writes nowhere but in its folder.
_NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen 127.0.0.1:{port};
        {server}
    }}
}}
"""


def tool(name: str) -> str:
    """A program's path; the test is skipped without it, which CI does not allow."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "it ended at once"
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.02)


@contextlib.contextmanager
def process(
    arguments: list[str], folder: Path, log: str = "process.log", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program in a folder until the block ends."""
    with (folder / log).open("wb") as output:
        started = subprocess.Popen(
            arguments,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        # The whole session: a wrapper may have started the program.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        started.wait(20)


@contextlib.contextmanager
def running(arguments: list[str], port: int, log: Path, **environment: str) -> Iterator[int]:
    """Runs a program that listens on a port until the block ends."""
    with process(arguments, log.parent, log.name, **environment) as started:
        wait_for_port(port, started)
        yield port


@contextlib.contextmanager
def nginx(folder: Path, server: str, http: str = "") -> Iterator[int]:
    """A proxy. ``server`` and ``http`` go into the blocks of these names."""
    port = free_port()
    # Its workers would give up the rights to write in the test's folder.
    user = "user root;" if os.getuid() == 0 else ""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(user=user, folder=folder, port=port, server=server, http=http))
    command = [tool("nginx"), "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]
    with running(command, port, folder / "nginx.log") as listening:
        yield listening


@contextlib.contextmanager
def hub(folder: Path, *before: str, extra: Sequence[str] = (), **settings: str) -> Iterator[int]:
    """A hub of its own.

    ``settings`` are its configuration's names, ``extra`` are flags, ``before`` goes before it.
    """
    port = free_port()
    environment = {f"MERCURE_{name.upper()}": value for name, value in settings.items()}
    command = [*before, HUB, "serve", f"--listen=127.0.0.1:{port}", *extra]
    with running(command, port, folder / f"hub-{port}.log", **environment) as listening:
        yield listening


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[tuple[int, Path]]:
    """A database server whose owner needs no password. Yields its port, and where its tools are."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not versions:
        pytest.skip("postgresql is not installed")
    port, data, before = free_port(), folder / "data", []
    data.mkdir(parents=True)
    if os.getuid() == 0:
        # It refuses to run as root; the folders above are made for this user alone.
        before = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        shutil.chown(data, "nobody")
        for above in [folder, *folder.parents][:4]:
            above.chmod(above.stat().st_mode | 0o011)
    tools = versions[-1]
    init = [tools / "initdb", "--auth=trust", "--username=owner", "--no-sync", "-D", data]
    subprocess.run([*before, *map(str, init)], check=True, capture_output=True, cwd="/")
    command = [*before, str(tools / "postgres"), "-D", str(data), "-p", str(port)]
    command += ["-h", "127.0.0.1", "-k", ""]
    with running(command, port, folder / "postgresql.log"):
        # It listens before it is ready.
        ready = [str(tools / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(ready, check=False).returncode != 0:
            assert time.monotonic() < deadline, "it is not ready"
            time.sleep(0.02)
        yield port, tools
