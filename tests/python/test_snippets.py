"""The documents this product starts from, word for word: every snippet in a fresh application."""

from __future__ import annotations

import subprocess
import sys
from html import unescape

from flask import Flask, render_template_string, request

from conftest import HUB_PATH
from support import servers
from support.sse import Stream

GETTING_STARTED = """\
from flask import Flask
from flask_mercure_sse import MercureSSE

app = Flask(__name__)
mercure = MercureSSE(app)
"""
PUBLISH = """\
mercure.publish("topic", "message")
"""
TEMPLATE = """\
<script>
const es = new EventSource("{{ mercure_hub_url('topic') }}");
// ...
</script>
"""


def test_getting_started(start, tmp_path, runtime_dir):
    """No secret key, no configuration; ``publish`` at module level and from a view."""
    (tmp_path / "page.html").write_text(TEMPLATE)
    (tmp_path / "app.py").write_text(
        GETTING_STARTED
        + PUBLISH
        + """
@app.get("/page")
def page():
    from flask import render_template_string
    return render_template_string(open("page.html").read())

@app.get("/ping")
def ping():
    return "pong"

@app.post("/publish")
def publish():
    PUBLISH
    return "ok"
""".replace("PUBLISH", PUBLISH.strip())
    )
    # The application reads no environment; only its place for sockets is redirected.
    server = start(servers.flask_run, folder=tmp_path, TMPDIR=str(runtime_dir))
    page = server.request("GET", "/page")[1]
    assert f'new EventSource("{HUB_PATH}?topic=topic&last_event_id=' in page
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=topic")
    assert server.request("POST", "/publish")[0] == 200
    assert stream.wait(1) == ["message"]
    earlier = Stream.open(server.port, f"{HUB_PATH}?topic=topic&lastEventID=earliest")
    assert earlier.wait(2) == ["message", "message"], "the one at module level was kept"
    for each in (stream, earlier):
        each.close()
    assert "Traceback" not in server.log
    server.stop()


def test_urls_with_a_jwt_and_several_topics(app):
    """mercure_hub_url(topics, "SUBSCRIBER_JWT"), mercure_subscriber_jwt(topics)"""
    with app.test_request_context():
        url = render_template_string(
            """{{ mercure_hub_url(topics, "SUBSCRIBER_JWT") }}""", topics="a"
        )
        assert url == f"{HUB_PATH}?topic=a&authorization=SUBSCRIBER_JWT"
        url = render_template_string("{{ mercure_hub_url(['a b', 'c&d\"<>']) }}")
        assert url == f"{HUB_PATH}?topic=a+b&topic=c%26d%22%3C%3E", "safe in a script as it is"
        assert unescape(url) == url, "and in an attribute"
        assert render_template_string("{{ mercure_subscriber_jwt('a') }}").count(".") == 2


def test_authorization_by_jwt_cookie_and_session(make_app):
    app = make_app()
    mercure = app.extensions["mercure_sse"].instance

    @app.get("/cookie")
    def cookie():
        from flask import make_response

        return mercure.set_authz_cookie(make_response("ok"), "private")

    @app.get("/jwt-cookie")
    def jwt_cookie():
        from flask import make_response

        token = mercure.create_subscription_jwt("private")
        return mercure.set_authz_cookie(make_response("ok"), jwt=token)

    @app.get("/session")
    def session():
        mercure.set_authz_session(["private"])
        return "ok"

    mercure_publish(app, "private", "secret", private=True)
    mercure_publish(app, "private", "public")
    path = f"{HUB_PATH}?topic=*&lastEventID=earliest"
    assert read(app.test_client(), path) == ["public"]
    for way in ("/cookie", "/jwt-cookie", "/session"):
        client = app.test_client()
        client.get(way)
        assert read(client, path) == ["secret", "public"], way
    with app.app_context():
        token = mercure.create_subscription_jwt(["private"])
        empty = mercure.create_subscription_jwt([])
    assert read(app.test_client(), f"{path}&authorization={token}") == ["secret", "public"]
    assert read(app.test_client(), f"{path}&authorization={empty}") == ["public"]


def test_a_stream_granted_by_the_session_ends_and_is_judged_again(start):
    server = start(servers.gunicorn, FLASK_MERCURE_TOKEN_LIFETIME="5")
    server.publish("other", "begins what lives longer than a stream")
    _, _, headers = server.request("POST", "/login/alice")
    cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
    path = f"{HUB_PATH}?topic=users/alice"
    stream = Stream.open(server.port, path, cookie)
    server.publish("users/alice", "secret", private="on")
    assert stream.wait(1) == ["secret"]
    stream.wait_for_end()
    again = Stream.open(server.port, f"{path}&lastEventID=earliest", cookie)
    assert again.wait(1) == ["secret"]
    logged_out = Stream.open(server.port, f"{path}&lastEventID=earliest")
    server.publish("users/alice", "public")
    assert logged_out.wait(1) == ["public"]
    for each in (again, logged_out):
        each.close()


def test_publishing_by_session_needs_a_page_of_the_application(make_app):
    """The session is a cookie: without a look at the origin, any site could publish with it."""
    app = make_app(MERCURE_HUB_ALLOW_PUBLISH=True)
    mercure = app.extensions["mercure_sse"].instance

    @app.get("/session")
    def session():
        mercure.set_authz_session(publish=["a"])
        return "ok"

    update = {"topic": "a", "data": "x"}
    for host, other in [("http://localhost", "https://evil.example"),
                        ("http://app.example", "http://localhost")]:  # fmt: skip
        client = app.test_client()
        client.get("/session", base_url=host)
        for origin, status in [(None, 403), (other, 403), (host, 200)]:
            headers = {"Origin": origin} if origin else {}
            answer = client.post(HUB_PATH, data=update, headers=headers, base_url=host)
            assert answer.status_code == status, (host, origin)


def mercure_publish(app: Flask, *arguments, **options) -> str | None:
    with app.app_context():
        return app.extensions["mercure_sse"].instance.publish(*arguments, **options)


def read(client, path: str) -> list[str]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]


def test_the_cookie_is_as_safe_as_it_can_be(app):
    mercure = app.extensions["mercure_sse"].instance
    with app.test_request_context(base_url="https://example.com"):
        from flask import make_response

        header = mercure.set_authz_cookie(make_response(), "a").headers["Set-Cookie"]
    assert header.startswith("mercureAuthorization=")
    for attribute in ("Secure", "HttpOnly", "SameSite=Strict", f"Path={HUB_PATH}", "Max-Age=3600"):
        assert attribute in header


def test_the_configuration_table(make_app):
    app = make_app(
        MERCURE_AUTHZ_COOKIE_NAME="other",
        MERCURE_HUB_ALLOW_PUBLISH=True,
        MERCURE_HUB_ALLOW_ANONYMOUS="False",
        MERCURE_SUBSCRIBER_SECRET_KEY="s" * 32,
        MERCURE_PUBLISHER_SECRET_KEY="p" * 32,
    )
    client = app.test_client()
    path = f"{HUB_PATH}?topic=a&lastEventID=earliest"
    assert client.get(path).status_code == 401, "anonymous subscribers are refused"

    # "When publishing via HTTP is allowed: app.extensions["mercure"].publisher_jwt"
    with app.app_context():
        token = app.extensions["mercure"].publisher_jwt
    body = {"topic": "a", "data": "by http"}
    assert client.post(HUB_PATH, data=body).status_code == 401
    bearer = {"Authorization": f"Bearer {token}"}
    answer = client.post(HUB_PATH, data=body, headers=bearer)
    assert (answer.status_code, answer.text[:9]) == (200, "urn:uuid:")

    subscriber = jwt(app, lambda mercure: mercure.create_subscription_jwt("a"))
    client.set_cookie("other", subscriber, path=HUB_PATH)
    assert read(client, path) == ["by http"]
    publisher_as_subscriber = {"Authorization": f"Bearer {token}"}
    assert client.get(path, headers=publisher_as_subscriber).status_code == 401, "keys have roles"

    too_much = client.post(HUB_PATH, data={"topic": "a", "data": "x" * (2 << 20)}, headers=bearer)
    assert (too_much.status_code, too_much.text) == (
        413,
        "request body: over the limit of 1048576 bytes",
    )

    closed = make_app("closed")
    assert closed.test_client().post(HUB_PATH, data=body).status_code == 403


def jwt(app: Flask, make) -> str:
    with app.app_context():
        return make(app.extensions["mercure_sse"].instance)


def test_any_secret_key_works_with_a_warning(make_app, caplog):
    app = make_app(SECRET_KEY="x")
    token = jwt(app, lambda mercure: mercure.create_subscription_jwt("private"))
    mercure_publish(app, "private", "secret", private=True)
    path = f"{HUB_PATH}?topic=private&lastEventID=earliest&authorization={token}"
    assert read(app.test_client(), path) == ["secret"]
    assert "has 1 bytes" in caplog.text
    binary = make_app("binary", SECRET_KEY=bytes(range(256)))
    token = jwt(binary, lambda mercure: mercure.create_subscription_jwt("private"))
    mercure_publish(binary, "private", "secret", private=True)
    path = f"{HUB_PATH}?topic=private&lastEventID=earliest&authorization={token}"
    assert read(binary.test_client(), path) == ["secret"]


def test_commands(runtime_dir, tmp_path):
    """``flask mercure --help`` and every command."""
    # Configuration is read in init_app: the key comes by the environment here.
    (tmp_path / "app.py").write_text(
        GETTING_STARTED.replace("mercure =", "app.config.from_prefixed_env()\nmercure =")
    )
    import os

    env = {
        **os.environ,
        "PYTHONPATH": str(servers.ROOT / "python"),
        "FLASK_SECRET_KEY": "s" * 32,
        "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
        "FLASK_MERCURE_COMPANION_GRACE": "0.2",
    }

    def flask(*arguments: str) -> str:
        command = [sys.executable, "-m", "flask", "mercure", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    helped = flask("--help")
    for command in ("gen-secret-key", "publish", "publisher-jwt", "status", "subscriber-jwt"):
        assert command in helped
    assert len(flask("gen-secret-key")) == 64
    assert flask("subscriber-jwt", "-t", "a", "-t", "b").count(".") == 2
    assert flask("publisher-jwt").count(".") == 2
    options = ["--private", "--id", "my-id", "--type", "kind", "--retry", "7"]
    assert flask("publish", *options, "topic", "data") == "my-id"
    assert "subscribers" in flask("status")


def test_two_applications_in_one_process_are_independent(make_app):
    first = make_app("first", SECRET_KEY="1" * 32)
    second = make_app("second", SECRET_KEY="2" * 32)
    mercure_publish(first, "t", "from the first")
    mercure_publish(second, "t", "from the second")
    path = f"{HUB_PATH}?topic=t&lastEventID=earliest"
    assert read(first.test_client(), path) == ["from the first"]
    assert read(second.test_client(), path) == ["from the second"]
    token = jwt(first, lambda mercure: mercure.create_subscription_jwt("t"))
    stranger = {"Authorization": f"Bearer {token}"}
    assert second.test_client().get(path, headers=stranger).status_code == 401


def test_below_a_prefix(make_app):
    app = make_app()

    @app.get("/page")
    def page():
        url = "{{ mercure_hub_url('t', last_event_id=False) }} "
        return render_template_string(url) + request.script_root

    answer = app.test_client().get("/page", environ_overrides={"SCRIPT_NAME": "/below"})
    assert answer.text == f"/below{HUB_PATH}?topic=t /below"
