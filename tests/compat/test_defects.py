"""Defects of the releases that came before: none of them may come back."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.parse

import jwt
import pytest
from flask import Flask, make_response

from conftest import Site
from flask_mercure_sse import MercureSSE
from support.sse import Crowd


def test_f1_a_slow_reader_fails_no_publisher_and_no_other_reader(site):
    here = site()
    stalled = here.stream("topic=t")
    stalled.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    healthy = here.stream("topic=t")
    for number in range(200):
        assert here.publish("t", f"{number} " + "x" * 10_000)
    data = [text.partition(" ")[0] for text in healthy.wait(200)]
    assert data == [str(number) for number in range(200)]


def test_f2_a_slow_reader_gets_everything_later(site):
    here = site()
    slow = here.stream("topic=t")
    for number in range(200):
        here.publish("t", f"{number} " + "x" * 10_000)
    data = [text.partition(" ")[0] for text in slow.wait(200)]
    assert data == [str(number) for number in range(200)]


def test_f3_everything_missed_is_replayed(site):
    here = site()
    first = here.publish("t", "seen")
    for number in range(20):
        here.publish("t", str(number))
    stream = here.stream("topic=t", {"Last-Event-ID": first})
    assert stream.wait(20) == [str(number) for number in range(20)]


def test_f4_page_loads_do_not_erase_the_history(site):
    here = site()
    last = here.publish("t", "seen")
    here.publish("t", "missed")
    for _ in range(260):
        here.stream("topic=other").close()
    stream = here.stream("topic=t", {"Last-Event-ID": last})
    assert stream.wait(1) == ["missed"]


@pytest.mark.parametrize("selector", ["books/{id}", "*"])
def test_f5_templates_and_the_wildcard(site, selector):
    here = site()
    stream = here.stream(urllib.parse.urlencode({"topic": selector}))
    here.publish("books/7", "x")
    assert stream.wait(1) == ["x"]


def test_f5_alternate_topics(site):
    here = site()
    stream = here.stream("topic=b")
    here.publish(["a", "b"], "x")
    assert stream.wait(1) == ["x"]


@pytest.mark.parametrize("field", ["id", "type"])
def test_f6_no_field_is_injected(site, field):
    here = site()
    stream = here.stream("topic=t")
    with contextlib.suppress(ValueError):
        here.publish("t", "x", **{field: "x\ndata: forged"})
    here.publish("t", "the end")
    Crowd([stream]).wait(lambda: "the end" in stream.data)
    assert all("forged" not in data for data in stream.data)


def test_f6_bytes_are_text(site):
    here = site()
    stream = here.stream("topic=t")
    here.publish("t", b"bytes")
    assert stream.wait(1) == ["bytes"]


def test_f7_two_applications_keep_their_keys():
    mercure, apps = MercureSSE(), []
    for name in ("one", "two"):
        app = Flask(name)
        app.debug = True
        app.config["SECRET_KEY"] = f"{name}, and long enough to be a secret"
        mercure.init_app(app)
        apps.append(app)
    for app in apps:
        with app.test_request_context():
            token = mercure.create_subscription_jwt("t")
        jwt.decode(token, app.secret_key, algorithms=["HS256"], options={"verify_aud": False})


def test_f8_a_refusal_is_no_event_id(configured):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"Unauthorized")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        app, mercure = configured(
            options={"hub": False}, MERCURE_HUB_URL=url, MERCURE_PUBLISHER_JWT="wrong"
        )
        with app.test_request_context():
            assert mercure.publish("t", "x") is None
        server.shutdown()


def test_f8_a_hanging_hub_does_not_hang_the_request(configured):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/"
        app, mercure = configured(
            options={"hub": False},
            MERCURE_HUB_URL=url,
            MERCURE_PUBLISHER_JWT="token",
            MERCURE_TIMEOUT=0.5,
        )
        begin = time.monotonic()
        with app.test_request_context():
            mercure.publish("t", "x")
        assert time.monotonic() - begin < 5


def test_f9_tokens_expire(configured):
    app, mercure = configured()
    with app.test_request_context():
        token = mercure.create_subscription_jwt("t")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert time.time() < claims["exp"] <= time.time() + 86400


def test_f9_a_cookie_without_topics_grants_nothing(site):
    here = site()
    with here.app.test_request_context():
        response = here.mercure.set_authz_cookie(make_response(""))
    cookie = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
    stream = here.stream("topic=t", cookie)
    here.publish("t", "secret", private=True)
    here.publish("t", "public")
    assert stream.wait(1) == ["public"]


def test_f10_false_from_the_environment_is_false(site):
    here = site(MERCURE_HUB_ALLOW_ANONYMOUS="False")
    assert here.stream("topic=t").status in (401, 403)


def test_f11_proxies_are_told_not_to_buffer(site):
    stream = site().stream("topic=t")
    assert stream.header("X-Accel-Buffering") == "no"
    assert "no-transform" in (stream.header("Cache-Control") or "")


def test_f11_the_server_listens_to_this_machine_only():
    command = [sys.executable, "-m", "flask_mercure_sse.server", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "127.0.0.1" in text


def test_f12_the_cursor_of_either_generation(site):
    here = site()
    first = here.publish("t", "seen")
    here.publish("t", "missed")
    for name in ("lastEventID", "last_event_id", "Last-Event-ID"):
        query = urllib.parse.urlencode({"topic": "t", name: first})
        assert here.stream(query).wait(1) == ["missed"], name


def test_f12_topics_in_a_tuple_with_their_subscriptions(configured):
    app, mercure = configured()
    with app.test_request_context():
        url = mercure.hub_url(("a", "b"), with_subscriptions=True)
    assert url.count("topic=") == 4


def test_f12_one_name_for_objects_that_tell_both(site):
    class Note:
        def __mercure_sse__(self):
            return "notes", "text"

    here = site()
    stream = here.stream("topic=notes")
    here.publish(Note())
    assert stream.wait(1) == ["text"]


def test_f13_a_stream_ends_with_its_token(site):
    here: Site = site()
    here.stream("topic=t").close()  # what lives longer than a token has begun
    claims = {"mercure": {"subscribe": ["t"]}, "exp": int(time.time()) + 5}
    token = jwt.encode(claims, here.app.secret_key, algorithm="HS256")
    stream = here.stream(f"topic=t&authorization={token}")
    assert stream.status == 200
    stream.wait_for_end()


def test_f13_no_module_is_patched(site):
    import threading

    site()
    assert "gevent.monkey" not in sys.modules or not sys.modules["gevent.monkey"].saved
    assert threading.Thread.__module__ == "threading"
