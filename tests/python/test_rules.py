"""Rules of the application: who may read, or publish to, private topics."""

from __future__ import annotations

import logging
import time

import jwt
import pytest
from flask import make_response, session

from conftest import HUB_PATH
from flask_mercure_sse import ConfigurationError, MercureSSE
from support import servers
from support.sse import Stream


@pytest.fixture
def shop(make_app):
    app = make_app(MERCURE_HUB_ALLOW_PUBLISH=True)
    mercure = app.extensions["mercure_sse"].instance
    app.judged = []

    @app.post("/login/<int:number>")
    def login(number):
        session["user"] = number
        return "ok"

    @mercure.authorize("users/{number}/orders/{id}")
    def own_orders(number, id):
        app.judged.append((number, id))
        return session.get("user") == int(number)

    @mercure.authorize("rooms/{+path}", actions=("subscribe", "publish"))
    def rooms(path):
        return "user" in session and path != "secret"

    return app, mercure


def read(client, *topics: str) -> list[str]:
    query = [("topic", topic) for topic in topics] + [("lastEventID", "earliest")]
    text = client.get(HUB_PATH, query_string=query).text
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


def test_a_rule_decides_by_the_session(shop):
    app, mercure = shop
    with app.app_context():
        mercure.publish("users/7/orders/1", "mine", private=True)
        mercure.publish("users/8/orders/1", "somebody's", private=True)
    client = app.test_client()
    both = ("users/7/orders/1", "users/8/orders/1")
    assert read(client, *both) == [], "nobody is logged in"
    client.post("/login/7")
    assert read(client, *both) == ["mine"]
    assert read(client, *both, "*", "users/{a}/orders/{b}") == ["mine"], "wide ones grant nothing"
    assert ("7", "1") in app.judged
    assert read(client, "users/7/orders/1/x", "users/7//orders/1") == []


def test_a_rule_for_publishing(shop):
    app, _ = shop
    client = app.test_client()
    form = {"topic": "rooms/a/b", "data": "hello"}
    own_page = {"Origin": "http://localhost"}
    assert client.post(HUB_PATH, data=form, headers=own_page).status_code == 401
    client.post("/login/7")
    assert client.post(HUB_PATH, data=form, headers=own_page).status_code == 200
    assert read(client, "rooms/a/b") == ["hello"]
    secret = {"topic": "rooms/secret", "data": "x"}
    assert client.post(HUB_PATH, data=secret, headers=own_page).status_code in (401, 403)
    both = {"topic": ["rooms/a", "rooms/secret"], "data": "x"}
    assert client.post(HUB_PATH, data=both, headers=own_page).status_code == 403
    foreign = {"Origin": "http://elsewhere.example"}
    assert client.post(HUB_PATH, data=form, headers=foreign).status_code == 403, "CSRF"


def test_a_rule_that_fails_is_a_no(shop, caplog):
    app, mercure = shop
    with app.app_context():
        mercure.publish("users/x/orders/1", "private", private=True)
        mercure.publish("users/x/orders/1", "public")
    client = app.test_client()
    client.post("/login/7")
    assert read(client, "users/x/orders/1") == ["public"], "int('x') is an error"
    assert "it counts as a no" in caplog.text


def test_the_same_rules_make_tokens(shop):
    app, mercure = shop

    @app.get("/cookie")
    def cookie():
        topics = mercure.authorized(["users/7/orders/1", "users/8/orders/1", "rooms/x"])
        return mercure.set_authz_cookie(make_response(""), topics)

    client = app.test_client()
    client.post("/login/7")
    token = client.get("/cookie").headers["Set-Cookie"].split(";")[0].partition("=")[2]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["mercure"]["subscribe"] == ["users/7/orders/1", "rooms/x"]


def test_a_logged_in_users_stream_ends_to_be_judged_again(start, tmp_path):
    (tmp_path / "app.py").write_text(
        """
from flask import Flask, session
from flask_mercure_sse import MercureSSE
app = Flask(__name__)
app.config["SECRET_KEY"] = "s" * 32
app.config.from_prefixed_env()
mercure = MercureSSE(app)

@app.get("/ping")
def ping():
    return "pong"

@app.post("/login")
def login():
    session["user"] = 7
    return "ok"

@app.post("/publish")
def publish():
    return mercure.publish("users/7", "private", private=True)

@mercure.authorize("users/{number}")
def own(number):
    return session.get("user") == int(number)
"""
    )
    server = start(servers.gunicorn, folder=tmp_path, FLASK_MERCURE_TOKEN_LIFETIME="5")
    server.request("POST", "/publish")  # begins what lives longer than a stream
    cookie = server.request("POST", "/login")[2]["Set-Cookie"].partition(";")[0]
    granted = Stream.open(server.port, f"{HUB_PATH}?topic=users/7", {"Cookie": cookie})
    anonymous = Stream.open(server.port, f"{HUB_PATH}?topic=users/7")
    server.request("POST", "/publish")
    assert granted.wait(1) == ["private"]
    granted.wait_for_end()
    assert anonymous.data == []
    assert not anonymous.ended
    anonymous.close()


@pytest.mark.parametrize("template", ["a{?x}", "a{x*}", "a{", "{x}/{x}", "{1}", "{a}{b}"])
def test_what_no_rule_can_decide_on(template):
    with pytest.raises(ConfigurationError, match="the rule for"):
        MercureSSE().authorize(template)(lambda **_: True)


def test_hostile_topics_take_no_longer_than_their_length():
    """Templates with several expressions in one segment made backtracking engines run for ever."""
    mercure = MercureSSE()
    for template in ("{a}-{b}-{c}", "{+a}/{+b}/edit", "orders/{customer}-{number}"):
        mercure.authorize(template)(lambda **_: False)
    for topic in ("-" * 4096, "a-" * 2000, "/" * 4096, "orders/" + "-" * 4000 + "/"):
        begin = time.process_time()
        assert mercure._rules.allowed([topic] * 100, "subscribe", logging.getLogger()) == []
        assert time.process_time() - begin < 2, "hundred topics of the greatest length"


def test_a_variable_ends_where_the_next_literal_begins():
    mercure, found = MercureSSE(), []
    mercure.authorize("orders/{customer}-{number}")(lambda **v: found.append(v))
    mercure.authorize("files/{+path}/edit")(lambda **v: found.append(v))
    mercure.authorize("all")(lambda: True)
    topics = [
        "orders/a-b-c",
        "files/x/y/edit",
        "files//edit",
        "orders/-b",
        "orders/a-b/c",
        "x" * 5000,
    ]
    assert mercure._rules.allowed([*topics, "all"], "subscribe", logging.getLogger()) == ["all"]
    assert found == [{"customer": "a", "number": "b-c"}, {"path": "x/y"}]


def test_an_unknown_action():
    with pytest.raises(ConfigurationError, match="unknown action: read"):
        MercureSSE().authorize("a", actions=("read",))(lambda: True)


def test_percent_encoded_variables_are_decoded_once(shop):
    app, mercure = shop
    with app.test_request_context():
        mercure.authorized(["users/7%2F8/orders/%2531"])
    assert app.judged == [("7/8", "%31")]


# -- cookies ------------------------------------------------------------------------------------


def cookie_for(make_app, hub: str, origin: str, **config) -> str:
    app = make_app(MERCURE_HUB_URL=hub, MERCURE_PUBLISHER_JWT="t", **config)
    mercure = app.extensions["mercure_sse"].instance
    with app.test_request_context(base_url=origin):
        return mercure.set_authz_cookie(make_response(""), "t").headers["Set-Cookie"]


def test_cookies_reach_the_hub(make_app):
    same = cookie_for(make_app, "https://example.com/hub", "https://example.com/")
    assert "Path=/hub" in same
    assert "Secure" in same
    assert "Domain" not in same
    below = cookie_for(make_app, "https://hub.example.com/", "https://www.example.com/")
    assert "Domain=example.com" in below
    other_port = cookie_for(make_app, "http://localhost:5500/hub", "http://localhost:5000/")
    assert "Domain" not in other_port
    assert "Secure" not in other_port


@pytest.mark.parametrize(
    ("hub", "origin"),
    [
        ("https://hub.example/", "https://app.other/"),
        ("https://hub.com/", "https://app.com/"),
        ("http://127.0.0.1:5500/", "http://10.0.0.1/"),
        ("http://localhost:5500/", "http://127.0.0.1:5000/"),
    ],
)
def test_a_cookie_that_cannot_reach_the_hub_is_refused_with_the_reason(make_app, hub, origin):
    with pytest.raises(ConfigurationError, match="cannot reach the hub"):
        cookie_for(make_app, hub, origin)


@pytest.mark.parametrize("name", ["__Host-mercure", "__Secure-mercure"])
def test_names_that_promise_what_cannot_be_are_refused_at_start(make_app, name):
    with pytest.raises(ConfigurationError, match="MERCURE_AUTHZ_COOKIE_NAME"):
        make_app(
            MERCURE_HUB_URL="http://hub.example/",
            MERCURE_PUBLISHER_JWT="t",
            MERCURE_AUTHZ_COOKIE_NAME=name,
        )


def test_a_logout_takes_the_cookie_away(make_app):
    app = make_app()
    mercure = app.extensions["mercure_sse"].instance
    with app.test_request_context():
        given = mercure.set_authz_cookie(make_response(""), "t").headers["Set-Cookie"]
        taken = mercure.delete_authz_cookie(make_response("")).headers["Set-Cookie"]
    assert f"Path={HUB_PATH}" in given
    assert f"Path={HUB_PATH}" in taken
    assert "Max-Age=0" in taken
    assert (
        int(
            jwt.decode(given.split(";")[0].partition("=")[2], options={"verify_signature": False})[
                "exp"
            ]
        )
        > time.time()
    )
