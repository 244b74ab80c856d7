"""The conformance suite: any hub by URL and key, both generations, HTTP/1.1 and HTTP/2.

Without ``--hub-url``, a hub of this project is started for the run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from client import Hub, Stream

ROOT = Path(__file__).parents[2]
BINARY = os.environ.get("MERCURE_HUB_BINARY", str(ROOT / "target/debug/mercure-hub"))
SECRETS = {
    "publisher": "conformance-publisher-key-0123456789ab",
    "subscriber": "conformance-subscriber-key-0123456789",
}
CORS_ORIGIN = "https://allowed.example"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("Mercure conformance")
    group.addoption("--hub-url", help="URL of the hub to judge; none starts this project's own")
    group.addoption(
        "--publisher-key", help="secret that publishers' tokens are signed with (HS256)"
    )
    group.addoption("--subscriber-key", help="secret of subscribers' tokens [the publishers' one]")
    group.addoption("--issuer", help="iss claim that the hub trusts [origin of the hub's URL]")
    group.addoption("--audience", help="aud claim that the hub asks for [the hub's URL]")
    group.addoption("--cors-origin", help="an origin that the hub allows; else CORS is not judged")
    group.addoption("--http", choices=["1.1", "2", "both"], default="both", help="version to speak")
    group.addoption("--generation", choices=["1.0", "0.x", "both"], default="both")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "v0: a requirement of generation 0.x")
    config.addinivalue_line("markers", "v1: a requirement of generation 1.0")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    generation = config.getoption("--generation")
    marker = {"1.0": "v0", "0.x": "v1"}.get(generation)
    if marker:
        kept = [item for item in items if item.get_closest_marker(marker) is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "http" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--http")
        versions = ["1.1", "2"] if chosen == "both" else [chosen]
        metafunc.parametrize("http", versions, scope="session", ids=lambda v: f"HTTP/{v}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Where nothing may be skipped, a skip is a failure: our own hub offers everything."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and item.config.getoption("--hub-url") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.fixture(scope="session")
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict]:
    """Where the hub is, and what it trusts."""
    option = request.config.getoption
    url = option("--hub-url")
    if url is None:
        with own_hub(tmp_path_factory.mktemp("hub")) as own:
            yield own
        return
    publisher = option("--publisher-key")
    assert publisher, "--publisher-key is needed with --hub-url"
    origin = str(httpx.URL(url).copy_with(raw_path=b"/")).rstrip("/")
    yield {
        "url": url,
        "publisher_key": publisher,
        "subscriber_key": option("--subscriber-key") or publisher,
        "issuer": option("--issuer") or origin,
        "audience": option("--audience") or url,
        "cors_origin": option("--cors-origin"),
    }


@contextlib.contextmanager
def own_hub(folder: Path) -> Iterator[dict]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "listen": f"127.0.0.1:{port}",
        "publisher-jwt-key": SECRETS["publisher"],
        "subscriber-jwt-key": SECRETS["subscriber"],
        "trusted-issuers": "https://issuer.example",
        "cors-origins": CORS_ORIGIN,
        "subscriptions": "true",
        "log-level": "warn",
    }
    command = [BINARY, "serve", *(f"--{name}={value}" for name, value in settings.items())]
    with (folder / "hub.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/.well-known/mercure"
    try:
        wait_until_it_answers(url, process)
        yield {
            "url": url,
            "publisher_key": SECRETS["publisher"],
            "subscriber_key": SECRETS["subscriber"],
            "issuer": "https://issuer.example",
            "audience": url,
            "cors_origin": CORS_ORIGIN,
        }
    finally:
        process.terminate()
        process.wait(20)


def wait_until_it_answers(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url)
            return
        assert process.poll() is None, "the hub did not start"
        assert time.monotonic() < deadline, "the hub does not answer"
        time.sleep(0.02)


@pytest.fixture
def hub(target: dict, http: str) -> Iterator[Hub]:
    def connect() -> httpx.Client:
        return httpx.Client(http1=http == "1.1", http2=http == "2", timeout=20, verify=False)

    with connect() as client:
        yield Hub(client=client, connect=connect, **target)


@pytest.fixture
def subscribe(hub: Hub) -> Iterator[Callable[..., Stream]]:
    """Opens streams that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def subscribe(*arguments, **options) -> Stream:
            return stack.enter_context(hub.subscribe(*arguments, **options))

        yield subscribe


@pytest.fixture
def cors_origin(hub: Hub) -> str:
    if hub.cors_origin is None:
        pytest.skip("--cors-origin names no origin that the hub allows")
    return hub.cors_origin
