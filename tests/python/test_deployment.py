"""The recipes of docs/deployment.md, with real proxies and hubs."""

from __future__ import annotations

import re

import pytest

from conftest import HUB_PATH
from support import neighbours, servers
from support.sse import Stream
from test_docs import blocks

KEY = "a key that is long enough for a test of tokens"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def recipes(language: str, containing: str = "") -> list[str]:
    found = [text for name, text in blocks("docs/deployment.md") if name == language]
    return [text for text in found if containing in text]


def with_ports(recipe: str, ports: dict[str, int]) -> str:
    """The recipe with the ports of the test in the place of its own."""
    return re.sub("|".join(ports), lambda port: str(ports[port[0]]), recipe)


def sees_events_at_once(port: int, server) -> None:
    """Through a proxy at a port: each event arrives before the next one is published."""
    stream = Stream.open(port, f"{HUB_PATH}?topic=t")
    assert stream.status == 200, stream.head
    for number in range(3):
        server.publish("t", str(number))
        assert stream.wait(number + 1)[-1] == str(number)
    stream.close()


@pytest.fixture
def application(start):
    return start(servers.gunicorn, "-w", "2")


def test_nginx(application, tmp_path):
    recipe = with_ports(recipes("nginx")[0], {"8000": application.port})
    with neighbours.nginx(tmp_path / "nginx", recipe) as port:
        sees_events_at_once(port, application)


def test_haproxy(application, tmp_path):
    port = servers.free_port()
    config = tmp_path / "haproxy.cfg"
    ports = {"8000": application.port, "8080": port}
    config.write_text(with_ports(recipes("haproxy")[0], ports))
    command = [neighbours.tool("haproxy"), "-db", "-f", str(config)]
    with neighbours.running(command, port, tmp_path / "haproxy.log"):
        sees_events_at_once(port, application)


def test_caddy(application, tmp_path):
    port = servers.free_port()
    recipe = with_ports(recipes("caddyfile")[0], {"8000": application.port, "8080": port})
    config = tmp_path / "Caddyfile"
    # The recipe alone would open Caddy's administration on a fixed port.
    config.write_text("{\n    admin off\n}\n" + recipe)
    command = [neighbours.tool("caddy"), "run", "--config", str(config)]
    command += ["--adapter", "caddyfile"]
    with neighbours.running(command, port, tmp_path / "caddy.log", HOME=str(tmp_path)):
        sees_events_at_once(port, application)


def hub_settings() -> dict[str, str]:
    """What the guide's exports say, with a key."""
    (exports,) = recipes("sh", "export")
    found = re.findall(r"MERCURE_(\w+)=(\S+)", exports)
    return {name.lower(): KEY if value == "$KEY" else value for name, value in found}


def application_settings(number: int, hub: int) -> dict[str, str]:
    """What one of the guide's ``app.config.update`` says, with the hub's port of the test."""
    text = recipes("python", "config.update")[number]
    found = re.findall(r'(MERCURE_\w+)=(?:"([^"]*)"|KEY)', text)
    config = {f"FLASK_{name}": value or KEY for name, value in found}
    return {name: value.replace("5500", str(hub)) for name, value in config.items()}


def test_a_hub_of_its_own_behind_nginx(start, tmp_path):
    socket = tmp_path / "hub.sock"
    listen = [f"--listen=unix:{socket}"]
    with neighbours.hub(tmp_path, extra=listen, **hub_settings()) as hub:
        server = start(servers.gunicorn, "-w", "2", **application_settings(0, hub))
        recipe = recipes("nginx")[1].replace("/run/mercure/hub.sock", str(socket))
        with neighbours.nginx(tmp_path / "nginx", recipe) as port:
            sees_events_at_once(port, server)


def test_the_application_decides_and_nginx_connects(start, tmp_path):
    with neighbours.hub(tmp_path, **hub_settings()) as hub:
        server = start(servers.gunicorn, "-w", "1", **application_settings(1, hub))
        recipe = with_ports(recipes("nginx")[2], {"8000": server.port, "5500": hub})
        recipe = recipe.replace("/var/log/nginx", str(tmp_path))
        with neighbours.nginx(tmp_path / "nginx", recipe) as port:
            sees_events_at_once(port, server)
            session = server.request("POST", "/login/alice")[2]["Set-Cookie"].split(";")[0]
            path = f"{HUB_PATH}?topic=users/alice"
            alice = Stream.open(port, path, {"Cookie": session})
            nobody = Stream.open(port, path)
            body = "topic=users/alice&data=secret&private=on"
            assert server.request("POST", "/publish", body, FORM)[0] == 200
            server.publish("users/alice", "public")
            assert alice.wait(2) == ["secret", "public"]
            assert nobody.wait(1) == ["public"]
            resume = {"Cookie": session, "Last-Event-ID": alice.events[0].id}
            again = Stream.open(port, path, resume)
            assert again.wait(1) == ["public"], "the cursor goes along"
            assert "authorization" not in alice.head.lower()
            inside = Stream.open(port, "/_mercure?topic=t")
            assert inside.status == 404, "nobody comes in from outside"
            crowd = [Stream.open(port, f"{HUB_PATH}?topic=t") for _ in range(50)]
            assert server.request("GET", "/ping")[0] == 200, "one worker, and none is held"
            for stream in (alice, nobody, again, inside, *crowd):
                stream.close()


def test_a_redirect_without_a_hub_of_its_own_is_refused(make_app):
    from flask_mercure_sse.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="MERCURE_HUB_URL"):
        make_app(MERCURE_ACCEL_REDIRECT="/_mercure", MERCURE_SUBSCRIBER_SECRET_KEY=KEY)
    with pytest.raises(ConfigurationError, match="MERCURE_SUBSCRIBER_SECRET_KEY"):
        make_app(MERCURE_ACCEL_REDIRECT="/_mercure", MERCURE_HUB_URL="http://127.0.0.1:1/hub")
    with pytest.raises(ConfigurationError, match="must be a path"):
        make_app(MERCURE_ACCEL_REDIRECT="_mercure", MERCURE_HUB_URL="http://127.0.0.1:1/hub")


def test_who_may_come_is_decided_by_the_application(make_app):
    app = make_app(
        MERCURE_ACCEL_REDIRECT="/_mercure",
        MERCURE_HUB_URL="http://127.0.0.1:1/hub",
        MERCURE_HUB_ALLOW_ANONYMOUS=False,
        MERCURE_SUBSCRIBER_SECRET_KEY=KEY,
        MERCURE_PUBLISHER_JWT="unused",
    )
    client = app.test_client()
    assert client.get(f"{HUB_PATH}?topic=t").status_code == 401
    with client.session_transaction() as session:
        session["mercure"] = {"subscribe": ["t", *(f"others/{n}" for n in range(1000))]}
    answer = client.get(f"{HUB_PATH}?topic=t&topic=a%26b")
    redirect = answer.headers["X-Accel-Redirect"]
    assert redirect.startswith("/_mercure?topic=t&topic=a%26b&authorization=ey")
    assert answer.data == b""
    assert len(redirect) < 2000, "what is not asked for does not go along"
    basic = {"Authorization": "Basic eDp5"}
    answer = client.get(f"{HUB_PATH}?topic=t&authorization=", headers=basic)
    assert answer.headers["X-Accel-Redirect"].startswith("/_mercure?topic=t&authorization=ey")
    bearer = {"Authorization": "Bearer mine"}
    answer = app.test_client().get(f"{HUB_PATH}?topic=t", headers=bearer)
    assert answer.headers["X-Accel-Redirect"] == "/_mercure?topic=t", "the hub judges it"
    own = client.get(f"{HUB_PATH}?topic=t&authorization=mine").headers["X-Accel-Redirect"]
    assert own == "/_mercure?topic=t&authorization=mine", "who presents a token is judged by it"
