"""``flask mercure doctor`` names the cause of each fault that people run into, and of no other."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time

import jwt
import pytest

from conftest import HUB_PATH
from support import neighbours, servers
from support.servers import APPS, ROOT

KEY = "a key that is long enough for a test of tokens"
ISSUER = "urn:flask-mercure-sse:app"
#: What a hub must be told to take the application's tokens.
TRUST = {
    "publisher_jwt_key": KEY,
    "subscriber_jwt_key": KEY,
    "trusted_issuers": ISSUER,
    "resource_identifier": "urn:hub",
}
FORWARD = "proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1;"


class Doctor:
    """Runs the doctor on the application of the tests."""

    def __init__(self, runtime_dir, stack: contextlib.ExitStack) -> None:
        self._runtime_dir = runtime_dir
        self.enter = stack.enter_context

    def __call__(self, url: str, *options: str, **config: str) -> tuple[int, list[str], str]:
        """Exit status, the causes of faults, and everything that was said."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "python"),
            "FLASK_MERCURE_RUNTIME_DIR": str(self._runtime_dir),
            "FLASK_MERCURE_COMPANION_GRACE": "1",
            **as_environment(config),
        }
        command = [servers.script("flask"), "--app", "app", "mercure", "doctor", url, *options]
        if not any(option.startswith("--idle") for option in options):
            command.append("--idle=0")
        done = subprocess.run(
            command, cwd=APPS, env=environment, capture_output=True, text=True, timeout=120
        )
        faults = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("fault")]
        return done.returncode, faults, done.stdout + done.stderr


@pytest.fixture
def doctor(runtime_dir):
    with contextlib.ExitStack() as stack:
        yield Doctor(runtime_dir, stack)


def external(port: int, **more: str) -> dict[str, str]:
    """The application's configuration for a hub of its own."""
    keys = {"publisher_secret_key": KEY, "subscriber_secret_key": KEY}
    url = f"http://127.0.0.1:{port}{HUB_PATH}"
    return {"hub_url": url, "resource_identifier": "urn:hub", **keys, **more}


def as_environment(config: dict[str, str]) -> dict[str, str]:
    return {f"FLASK_MERCURE_{name.upper()}": value for name, value in config.items()}


def test_nothing_is_wrong_with_a_healthy_application(doctor, start):
    server = start(servers.gunicorn, "-w", "2")
    status, faults, said = doctor(f"http://127.0.0.1:{server.port}", "--idle=2")
    assert (status, faults) == (0, []), said
    for cause in ("reach", "publish", "delivery", "idle", "cookie"):
        assert f"ok      {cause}" in said


def test_nothing_is_wrong_with_a_healthy_hub_elsewhere(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **TRUST))
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (0, []), said
    assert "ok      cors" in said


def test_nothing_is_wrong_without_any_key_of_our_own(doctor, start, tmp_path):
    """A hub of somebody else, a token for it, and a SECRET_KEY that is none of its business."""
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **TRUST))
    claims = {"exp": int(time.time()) + 600, "mercure": {"publish": ["*"]}}
    token = jwt.encode(claims, KEY, "HS256")
    url = f"http://127.0.0.1:{port}{HUB_PATH}"
    status, faults, said = doctor(page, hub_url=url, publisher_jwt=token)
    assert (status, faults) == (0, []), said
    assert "ok      delivery" in said


def test_a_shell_that_is_elsewhere_is_told_so(doctor, start, runtime_dir):
    server = start(servers.gunicorn, "-w", "2")
    page = f"http://127.0.0.1:{server.port}"
    server.publish("t", "x")
    status, faults, said = doctor(page, runtime_dir=str(runtime_dir / "x"))
    assert (status, faults) == (1, ["other-hub"]), said


def test_an_application_without_its_hub(doctor, start, tmp_path):
    missing = str(tmp_path / "nowhere")
    server = start(servers.gunicorn, "-w", "1", MERCURE_HUB_BINARY=missing)
    status, faults, said = doctor(f"http://127.0.0.1:{server.port}", runtime_dir=str(tmp_path))
    assert (status, faults) == (1, ["hub-down"]), said


@pytest.mark.parametrize(
    ("location", "cause"),
    [
        ("auth_basic x; auth_basic_user_file /dev/null;", "login"),
        ("limit_conn zone 3;", "limit"),
        ("return 302 /login;", "address"),
        ("proxy_pass http://127.0.0.1:9;", "unreachable"),
    ],
)
def test_what_stands_in_front(doctor, start, tmp_path, location, cause):
    server = start(servers.gunicorn, "-w", "2")
    forward = FORWARD.format(port=server.port)
    forward = forward if "proxy_pass" not in location else ""
    front = f"location / {{ {FORWARD.format(port=server.port)} }}"
    front += f"location {HUB_PATH} {{ {location} {forward} }}"
    zone = "limit_conn_zone $binary_remote_addr zone=zone:1m;"
    port = doctor.enter(neighbours.nginx(tmp_path / "nginx", front, zone))
    status, faults, said = doctor(f"http://127.0.0.1:{port}")
    assert (status, faults) == (1, [cause]), said
    assert "<html>" not in said


def test_wrong_key(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    trust = {**TRUST, "publisher_jwt_key": "another key, and long enough as well to be one"}
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **trust))
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (1, ["wrong-key"]), said
    assert "MERCURE_PUBLISHER_SECRET_KEY" in said
    assert KEY not in said
    trust = {**TRUST, "subscriber_jwt_key": "another key, and long enough as well to be one"}
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **trust))
    status, faults, said = doctor(page, **external(port))
    assert "wrong-key" in faults
    assert "the subscriber's token" in said


def test_wrong_algorithm(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    trust = {**TRUST, "publisher_jwt_alg": "HS512"}
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **trust))
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (1, ["wrong-algorithm"]), said
    assert "expects HS512" in said


def test_an_issuer_that_the_hub_does_not_trust(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    trust = {**TRUST, "trusted_issuers": "https://somebody.else"}
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **trust))
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (1, ["issuer"]), said


def test_a_proxy_that_buffers(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "2")
    forward = FORWARD.format(port=server.port)
    held = f"location / {{ {forward} proxy_ignore_headers X-Accel-Buffering; }}"
    port = doctor.enter(neighbours.nginx(tmp_path / "nginx", held))
    status, faults, said = doctor(f"http://127.0.0.1:{port}")
    assert (status, faults) == (1, ["buffering"]), said
    assert "proxy_buffering off" in said


def test_a_proxy_that_compresses(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "2")
    gzip = "gzip on; gzip_proxied any; gzip_types text/event-stream; gzip_min_length 0;"
    plain = f"location / {{ {FORWARD.format(port=server.port)} }}"
    port = doctor.enter(neighbours.nginx(tmp_path / "nginx", plain, gzip))
    status, faults, said = doctor(f"http://127.0.0.1:{port}")
    assert (status, faults) == (1, ["compression"]), said


def test_a_proxy_that_cuts_silent_streams(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "2")
    plain = f"location / {{ {FORWARD.format(port=server.port)} proxy_read_timeout 5s; }}"
    port = doctor.enter(neighbours.nginx(tmp_path / "nginx", plain))
    status, faults, said = doctor(f"http://127.0.0.1:{port}", "--idle=10")
    assert (status, faults) == (1, ["idle-cut"]), said
    assert "MERCURE_HUB_KEEPALIVE_INTERVAL" in said


def test_a_hub_elsewhere_that_does_not_allow_the_page(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    port = doctor.enter(neighbours.hub(tmp_path, **TRUST))
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (1, ["cors"]), said
    assert page in said


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("?domain=other.example", "cookie-domain"),
        ("?path=/elsewhere", "cookie-path"),
        ("?secure=yes", "cookie-secure"),
    ],
)
def test_a_cookie_that_does_not_come_to_the_hub(doctor, start, query, cause):
    server = start(servers.gunicorn, "-w", "2")
    url = f"http://www.example.test:{server.port}"
    there = f"--connect=127.0.0.1:{server.port}"
    status, faults, said = doctor(url, there, f"--page=/cookie{query}")
    assert (status, faults) == (1, [cause]), said
    status, faults, said = doctor(url, there, "--page=/cookie")
    assert (status, faults) == (0, []), said


def test_a_hub_that_no_cookie_of_the_application_can_reach(doctor, start):
    server = start(servers.gunicorn, "-w", "2")
    url, there = f"http://www.example.test:{server.port}", f"--connect=127.0.0.1:{server.port}"
    hub = f"http://hub.other.test:{server.port}{HUB_PATH}"
    _, faults, said = doctor(url, there, public_hub_url=hub, hub="true")
    assert "cookie-domain" in faults, said


def test_several_hubs_behind_one_name(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    trust = {**TRUST, "cors_origins": page}
    ports = [doctor.enter(neighbours.hub(tmp_path, **trust)) for _ in range(2)]
    upstream = "".join(f"server 127.0.0.1:{port};" for port in ports)
    both = "location / { proxy_pass http://both; proxy_http_version 1.1; }"
    port = doctor.enter(
        neighbours.nginx(tmp_path / "nginx", both, f"upstream both {{ {upstream} }}")
    )
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (1, ["several-hubs"]), said
    # Browsers come to one, and the application publishes to the other.
    public = f"http://127.0.0.1:{ports[0]}{HUB_PATH}"
    status, faults, said = doctor(page, **external(ports[1], public_hub_url=public))
    assert (status, faults) == (1, ["several-hubs"]), said


def test_streams_that_hold_their_worker(doctor, start, tmp_path):
    hub = doctor.enter(neighbours.hub(tmp_path, **TRUST))
    config = external(hub)
    server = start(servers.gunicorn, "-w", "1", "--graceful-timeout=1", **as_environment(config))
    page = f"http://127.0.0.1:{server.port}"
    status, faults, said = doctor(
        page, "--timeout=6", **config, public_hub_url=f"{page}/through-a-view"
    )
    assert (status, faults) == (1, ["held-worker"]), said
    assert "each stream holds a worker" in said


def test_clocks_that_differ(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    ahead = neighbours.hub(
        tmp_path, neighbours.tool("faketime"), "-f", "+2h", cors_origins=page, **TRUST
    )
    port = doctor.enter(ahead)
    status, faults, said = doctor(page, **external(port))
    assert (status, faults) == (1, ["clock-skew"]), said
    assert re.search(r"\b7(19\d|200) s ahead", said), said


@pytest.mark.parametrize(
    ("grants", "options"),
    [
        ({"mercure": {"publish": ["/books/:id"]}}, ["--topic=/books/1"]),
        ({"mercure": {"publish": ["/books/:id"]}}, []),
        ({"mercure": {"publish": ["/Books/{id}"]}}, ["--topic=/books/1"]),
        ({"authorization_details": [{"actions": ["publish"], "topics": [{"match": "*"}]}]}, []),
    ],
)
def test_a_token_that_can_never_match(doctor, start, tmp_path, grants, options):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **TRUST))
    token = jwt.encode({"exp": int(time.time()) + 600, **grants}, KEY, "HS256")
    config = {**external(port), "publisher_jwt": token}
    status, faults, said = doctor(page, *options, **config)
    assert (status, faults) == (1, ["never-matches"]), said
    assert token not in said


def test_an_expired_token_and_one_that_is_none(doctor, start, tmp_path):
    server = start(servers.gunicorn, "-w", "1")
    page = f"http://127.0.0.1:{server.port}"
    port = doctor.enter(neighbours.hub(tmp_path, cors_origins=page, **TRUST))
    claims = {"exp": int(time.time()) - 60, "mercure": {"publish": ["*"]}}
    config = external(port)
    status, faults, said = doctor(
        page, **{**config, "publisher_jwt": jwt.encode(claims, KEY, "HS256")}
    )
    assert (status, faults) == (1, ["expired-token"]), said
    status, faults, said = doctor(page, **{**config, "publisher_jwt": "nonsense"})
    assert status == 1
    assert "is no token" in said


def test_what_cannot_be_reached_is_said(doctor):
    status, faults, said = doctor(f"http://127.0.0.1:{servers.free_port()}")
    assert (status, faults[0]) == (1, "unreachable"), said
    for url in ("http://user:secret@127.0.0.1/", "http://[::1", "http://127.0.0.1:99999/"):
        status, _, said = doctor(url)
        assert status == 1
        assert "Traceback" not in said
        assert "secret" not in said
    status, _, said = doctor("http://127.0.0.1/", "--connect=localhost")
    assert status == 2
    status, _, said = doctor("example.com")
    assert status == 1
    assert "give it as https://" in said
