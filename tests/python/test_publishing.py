"""Publishing to external hubs, and what happens when a hub is down, hangs or refuses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import companions
from flask_mercure_sse import (
    ConfigurationError,
    HubRefused,
    HubUnavailable,
    InvalidUpdate,
    MercureSSE,
    discovery,
    mercure_publish,
)
from flask_mercure_sse.updates import Update
from support import servers
from support.sse import Stream

HUB_PATH = "/.well-known/mercure"
KEYS = {"publisher": "p" * 32, "subscriber": "s" * 32}


@contextlib.contextmanager
def external_hub(*options: str) -> Iterator[tuple[int, str]]:
    """The stand-alone hub on a free port: its port and URL."""
    arguments = [
        *("serve", "--listen", "127.0.0.1:0", "--ops-listen", "none", "--log-format", "json"),
        f"--publisher-jwt-key={KEYS['publisher']}",
        f"--subscriber-jwt-key={KEYS['subscriber']}",
        *options,
    ]
    process = subprocess.Popen([servers.HUB, *arguments], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        lines = (json.loads(line)["fields"] for line in process.stderr)
        address = next(line["address"] for line in lines if line["message"] == "listening")
        port = int(address.rpartition(":")[2])
        yield port, f"http://127.0.0.1:{port}{HUB_PATH}"
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize("protocol", ["both", "1.0", "0.x"])
def test_an_external_hub_of_either_generation(make_app, protocol):
    resource = "https://hub.example/.well-known/mercure"
    identity = [
        "--trusted-issuers=urn:flask-mercure-sse:tests",
        f"--resource-identifier={resource}",
    ]
    with external_hub(f"--protocol={protocol}", *identity) as (port, url):
        app = make_app(
            MERCURE_HUB_URL=url,
            MERCURE_RESOURCE_IDENTIFIER=resource,
            MERCURE_PUBLISHER_SECRET_KEY=KEYS["publisher"],
            MERCURE_SUBSCRIBER_SECRET_KEY=KEYS["subscriber"],
            MERCURE_ON_FAILURE="raise",
        )
        mercure = app.extensions["mercure_sse"].instance
        with app.app_context():
            address = mercure.hub_url("private")
            assert address.startswith(url)
            query = address.partition("?")[2]
            # A hub of 0.x alone knows no typ at+jwt; a template keeps 1.0 out of the token.
            extra = ["{none}"] if protocol == "0.x" else []
            token = mercure.create_subscription_jwt(["private", *extra])
            publisher = mercure.create_publisher_jwt(["*", *extra])
            if protocol == "1.0":
                query = query.replace("topic=", "match=")
            bearer = {"Authorization": f"Bearer {token}"}
            stream = Stream.open(port, f"{HUB_PATH}?{query}", bearer)
            assert stream.status == 200, stream.head
            event = mercure.publish("private", {"n": 1}, private=True, type="t", jwt=publisher)
            if protocol != "0.x":
                assert mercure.publish("other", "x"), "the token is made by itself"
        assert stream.wait(1) == ['{"n": 1}']
        assert (stream.events[0].id, stream.events[0].type) == (event, "t")
        stream.close()


def app_with(make_app, url: str, **config):
    config = {"MERCURE_TIMEOUT": 0.5, **config}
    return make_app(MERCURE_HUB_URL=url, MERCURE_PUBLISHER_JWT="token", **config)


def test_failures_are_logged_or_raised(make_app, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}{HUB_PATH}"
    quiet = app_with(make_app, url)
    with quiet.app_context():
        assert mercure_publish("t", "x") is None, "the request goes on"
    assert "An update was not published" in caplog.text
    loud = app_with(make_app, url, MERCURE_ON_FAILURE="raise")
    with loud.app_context(), pytest.raises(HubUnavailable):
        mercure_publish("t", "x")


def test_a_hanging_hub_costs_no_more_than_the_timeout(make_app):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}{HUB_PATH}"
        app = app_with(make_app, url, MERCURE_ON_FAILURE="raise")
        begin = time.monotonic()
        with app.app_context(), pytest.raises(HubUnavailable):
            mercure_publish("t", "x")
        assert time.monotonic() - begin < 5


def test_a_refusal_is_an_error_not_an_id(make_app):
    with external_hub() as (_, url):
        app = app_with(make_app, url, MERCURE_ON_FAILURE="raise", MERCURE_TIMEOUT=10)
        with app.app_context():
            with pytest.raises(HubRefused, match=r"401.*MERCURE_PUBLISHER_JWT") as refused:
                mercure_publish("t", "x")
            assert refused.value.status == 401
            assert "token" not in str(refused.value).replace("the access token", "")


def test_a_token_for_an_external_hub_is_not_signed_with_the_secret_key(make_app):
    app = make_app(MERCURE_HUB_URL="http://127.0.0.1:9/")
    with app.app_context(), pytest.raises(ConfigurationError, match="MERCURE_PUBLISHER_JWT"):
        mercure_publish("t", "x")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("*", "x"), "wildcard"),
        (("", "x"), "is empty"),
        (([], "x"), "is missing"),
        (("t\n", "x"), "line break"),
        (("t", object()), "not JSON serializable"),
        (("t", b"\xff"), "utf-8"),
    ],
)
def test_a_mistake_that_no_hub_accepts_is_always_raised(app, arguments, reason):
    with app.app_context(), pytest.raises(InvalidUpdate, match=reason):
        mercure_publish(*arguments)


@pytest.mark.parametrize("field", ["id", "type"])
def test_no_field_can_be_injected(app, field):
    with app.app_context(), pytest.raises(InvalidUpdate, match=field):
        mercure_publish("t", "x", **{field: "x\ndata: forged"})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("/.well-known/mercure/x", "x"), "reserved"),
        (("t" * 5000, "x"), "limit of 4096"),
        (("t", "x" * (2 << 20)), "limit of 1048576"),
    ],
)
def test_what_the_hub_does_not_accept_follows_the_policy(app, caplog, arguments, reason):
    with app.app_context():
        with pytest.raises(InvalidUpdate, match=reason):
            mercure_publish(*arguments, on_failure="raise")
        assert mercure_publish(*arguments) is None
    assert reason in caplog.text


def test_values_of_every_kind(app):
    with app.app_context():
        for data in ("", "é\r\nx", b"bytes", {"a": [1, None]}, 7, None):
            assert mercure_publish("t", data)
        assert mercure_publish(["t", "u"], "x", id="i", type="k", retry=5) == "i"


TOPICS = st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), min_size=1)


@settings(deadline=None)
@given(st.text(), st.lists(TOPICS.filter(lambda text: text != "*"), min_size=1), st.booleans())
def test_the_form_says_what_was_meant(data, topics, private):
    from urllib.parse import parse_qsl

    update = Update.build(topics, data, private=private)
    pairs = parse_qsl(update.form.decode(), keep_blank_values=True)
    expected = [("topic", topic) for topic in topics] + [("data", data), ("id", update.id)]
    assert pairs == expected + ([("private", "on")] if private else [])


def test_outside_of_any_application():
    with pytest.raises(ConfigurationError, match="there is no application"):
        MercureSSE().publish("t", "x")


def test_set_up_twice_or_wrongly(make_app):
    app = make_app()
    with pytest.raises(ConfigurationError, match="already"):
        MercureSSE(app)
    for key, value in [
        ("MERCURE_HUB_ALLOW_ANONYMOUS", "perhaps"),
        ("MERCURE_TIMEOUT", "soon"),
        ("MERCURE_ON_FAILURE", "ignore"),
        ("MERCURE_HUB_URL", 7),
    ]:
        with pytest.raises(ConfigurationError, match=key):
            make_app("wrong", **{key: value})
    with pytest.raises(ConfigurationError, match="unknown argument: hub_ulr"):
        MercureSSE(__import__("flask").Flask("typo"), hub_ulr="x")


# -- the companion ------------------------------------------------------------------------------


def test_nothing_is_started_before_the_first_use(make_app, runtime_dir):
    app = make_app()
    with app.test_request_context():
        app.extensions["mercure_sse"].instance.hub_url("t")
    assert companions(runtime_dir) == []
    with app.app_context():
        mercure_publish("t", "x")
    assert len(companions(runtime_dir)) == 1


def test_a_missing_binary_names_the_fix(make_app, monkeypatch, caplog):
    monkeypatch.setenv("MERCURE_HUB_BINARY", "/nowhere/mercure-hub")
    app = make_app(MERCURE_ON_FAILURE="raise")
    with app.app_context(), pytest.raises(HubUnavailable, match="MERCURE_HUB_BINARY"):
        mercure_publish("t", "x")
    answer = app.test_client().get(f"{HUB_PATH}?topic=t")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "MERCURE_HUB_BINARY" in caplog.text
    assert "nowhere" not in answer.text, "the reason is for the operator"
    browser = {"Accept": "text/event-stream"}
    answer = app.test_client().get(f"{HUB_PATH}?topic=t", headers=browser)
    assert (answer.status_code, answer.text) == (200, ":the hub is unavailable\nretry: 3000\n\n"), (
        "it comes back"
    )


def test_a_directory_that_cannot_be_used_names_the_fix(make_app, runtime_dir):
    blocked = runtime_dir / "file"
    blocked.write_text("")
    open_to_all = runtime_dir / "open"
    open_to_all.mkdir(mode=0o755)
    open_to_all.chmod(0o755)
    for number, (directory, reason) in enumerate(
        [
            (blocked, "MERCURE_RUNTIME_DIR"),
            (open_to_all, "chmod 700"),
            (runtime_dir / ("x" * 100), "shorter MERCURE_RUNTIME_DIR"),
        ]
    ):
        app = make_app(
            f"app{number}", MERCURE_RUNTIME_DIR=str(directory), MERCURE_ON_FAILURE="raise"
        )
        with app.app_context(), pytest.raises(HubUnavailable, match=reason):
            mercure_publish("t", "x")


def test_stale_sockets_are_replaced(make_app, runtime_dir):
    app = make_app()
    directory = app.extensions["mercure_sse"].companion()._options.directory
    os.makedirs(directory, mode=0o700)
    for name in ("http.sock", "handoff.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(os.path.join(directory, name))
    with app.app_context():
        assert mercure_publish("t", "x")


def test_a_companion_whose_sockets_were_cleaned_away_gives_way(make_app, runtime_dir):
    """Cleaners of temporary files do that. Two companions would split the events in silence."""
    app = make_app()
    with app.app_context():
        mercure_publish("t", "x")
        (old,) = companions(runtime_dir)
        shutil.rmtree(app.extensions["mercure_sse"].companion()._options.directory)
        app.extensions["mercure_sse"].close()
        assert mercure_publish("t", "y")
    servers.wait_until(lambda: not servers.is_alive(old), what="the old companion stayed")
    with app.app_context():
        assert mercure_publish("t", "z"), "its end has not taken the new one's sockets along"
    assert len(companions(runtime_dir)) == 1


def test_off_unix_an_external_hub_is_asked_for(make_app, monkeypatch):
    monkeypatch.setattr("flask_mercure_sse.state.sys.platform", "win32")
    app = make_app()
    with app.app_context(), pytest.raises(ConfigurationError, match="set MERCURE_HUB_URL"):
        mercure_publish("t", "x")


def test_tests_are_on_their_own(make_app, runtime_dir):
    """Also if ``TESTING`` is switched on after the application was made, as in Flask's guide."""
    first, second = make_app(), make_app()
    with first.app_context():
        mercure_publish("t", "not in a test")
    second.testing = True
    path = f"{HUB_PATH}?topic=t&lastEventID=earliest"
    assert "data:" not in second.test_client().get(path).text
    assert "data:" in first.test_client().get(path).text
    assert len(companions(runtime_dir)) == 2


def test_a_hanging_companion_costs_each_thread_the_timeout_once(make_app, runtime_dir):
    app = make_app(MERCURE_TIMEOUT=3, MERCURE_ON_FAILURE="raise")
    with app.app_context():
        mercure_publish("t", "x")
    (companion,) = companions(runtime_dir)
    os.kill(companion, signal.SIGSTOP)
    took: list[float] = []

    def publish():
        begin = time.monotonic()
        with app.app_context(), pytest.raises(HubUnavailable):
            mercure_publish("t", "x")
        took.append(time.monotonic() - begin)

    app.extensions["mercure_sse"].companion()._agreed = False
    threads = [threading.Thread(target=publish) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.kill(companion, signal.SIGCONT)
    assert max(took) < 12, "each waits once, and not for the others"


def test_a_misspelt_key_is_told(make_app, caplog):
    make_app(MERCURE_HUB_ALOW_ANONYMOUS=False)
    assert "did you mean MERCURE_HUB_ALLOW_ANONYMOUS?" in caplog.text


def test_threads_and_forks_share_one_companion(make_app, runtime_dir):
    app = make_app(MERCURE_ON_FAILURE="raise")
    results: list[str] = []

    def publish():
        with app.app_context():
            results.append(mercure_publish("t", "x"))

    threads = [threading.Thread(target=publish) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 16
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, on purpose
        child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException), app.app_context():
            mercure_publish("t", "from the child")
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    publish()
    assert len(companions(runtime_dir)) == 1


def test_a_companion_that_speaks_otherwise_retires(make_app, monkeypatch, runtime_dir):
    from flask_mercure_sse.companion import bus

    older, app = (make_app(MERCURE_ON_FAILURE="raise") for _ in range(2))
    older.extensions["mercure_sse"]._since -= 1000
    with app.app_context():
        mercure_publish("t", "x")
    (old,) = companions(runtime_dir)
    monkeypatch.setattr(bus, "BUS_VERSION", 99)
    with older.app_context(), pytest.raises(HubUnavailable, match="newer flask-mercure-sse"):
        mercure_publish("t", "x")
    assert companions(runtime_dir) == [old], "a newer companion is left alone"
    newer = make_app(MERCURE_ON_FAILURE="raise")
    newer.extensions["mercure_sse"]._since += 1000
    with newer.app_context():
        # It would be retired again and again; once is enough to see.
        monkeypatch.setattr(bus.Bus, "_check_version", once(bus.Bus._check_version))
        assert mercure_publish("t", "x")
    servers.wait_until(lambda: not servers.is_alive(old))


def once(method):
    """The method, which does nothing when it is called again."""
    called = []

    def wrapper(*arguments):
        if not called:
            called.append(True)
            method(*arguments)

    return wrapper


def test_links_carry_what_they_are_given_and_nothing_more():
    link = discovery.hub_link(
        "https://h/x?a=b",
        last_event_id='a"; rel="other\\',
        content_type="application/json-patch+json",
        event_type="patch",
    )
    assert link == (
        '<https://h/x?a=b>; rel="mercure"; last-event-id="a\\"; rel=\\"other\\\\"; '
        'content-type="application/json-patch+json"; type="patch"'
    )
    assert discovery.hub_link("/x") == '</x>; rel="mercure"'
    assert discovery.self_link("a>b é") == '<a%3Eb%20%C3%A9>; rel="self"'
    with pytest.raises(InvalidUpdate):
        discovery.hub_link("/x", last_event_id="a\nb")
