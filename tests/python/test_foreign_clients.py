"""Clients that nobody here wrote, of both generations, against a hub of its own process."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import jwt
import pytest
from httpx_sse import connect_sse

from support import servers
from support.chromium import CHROMIUM, chromium

CLIENTS = servers.ROOT / "tests/clients"
#: Where `make` puts the package that this one replaces.
PEERS = Path(sys.prefix) / "peers"
KEY = "a-key-of-at-least-thirty-two-bytes!"
PATH = "/.well-known/mercure"
ISSUER = "https://issuer.example"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Hub:
    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.origin + PATH

    def token(self, generation: str, *, publish: list[str] = (), subscribe: list[str] = ()) -> str:
        if generation == "0.x":
            grants = {"publish": list(publish), "subscribe": list(subscribe)}
            return jwt.encode({"mercure": grants}, KEY, "HS256")
        details = [
            {
                "type": "https://mercure.rocks/authorization-detail",
                "actions": [action],
                "topics": [{"match": topic} for topic in topics],
            }
            for action, topics in (("publish", publish), ("subscribe", subscribe))
            if topics
        ]
        claims = {"iss": ISSUER, "aud": self.url, "exp": time.time() + 600}
        claims["authorization_details"] = details
        return jwt.encode(claims, KEY, "HS256", headers={"typ": "at+jwt"})

    def publish(self, topic: str, data: str, **fields: str) -> str:
        token = self.token("1.0", publish=["*"])
        form = {"topic": topic, "data": data, **fields}
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(self.url, data=form, headers=headers, timeout=servers.PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.text

    def address(self, generation: str, topic: str, **parameters: str) -> str:
        name = "match" if generation == "1.0" else "topic"
        return f"{self.url}?{urlencode({name: topic, **parameters})}"


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[Hub]:
    port = servers.free_port()
    fixed = [f"--listen=127.0.0.1:{port}", f"--publisher-jwt-key={KEY}", "--log-level=warn"]
    fixed += [
        "--subscriptions=true",
        f"--subscriber-jwt-key={KEY}",
        f"--trusted-issuers={ISSUER}",
        "--retry=50ms",
    ]
    command = [servers.HUB, "serve", *fixed, *options]
    with servers.serve(command, port, folder, folder / "hub.log"):
        yield Hub(port)


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    with running(tmp_path) as hub:
        yield hub


@contextlib.contextmanager
def node(script: str, url: str, token: str, count: int) -> Iterator[queue.Queue]:
    """A client in Node.js; what it tells, as it tells it."""
    told: queue.Queue = queue.Queue()
    command = ["node", script, url, token, str(count)]
    with subprocess.Popen(command, cwd=CLIENTS, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=lambda: [told.put(json.loads(x)) for x in process.stdout])
        reader.start()
        try:
            yield told
            assert process.wait(30) == 0
        finally:
            process.kill()
            reader.join()


generations = pytest.mark.parametrize("generation", ["1.0", "0.x"])
scripts = pytest.mark.parametrize("script", ["eventsource.mjs", "fetch-event-source.mjs"])


@needs_node
@generations
@scripts
def test_npm_packages_get_what_their_token_allows(hub, script, generation):
    token = hub.token(generation, subscribe=["urn:private"])
    topic = "*"
    with node(script, hub.address(generation, topic), token, 3) as told:
        assert told.get(timeout=30)["open"]
        hub.publish("urn:other", "no", private="on")
        hub.publish("urn:private", "secret", private="on", id="urn:1")
        hub.publish("urn:x", "two\nlines", type="greeting")
        hub.publish("urn:x", "3")
        events = []
        while len(events) < 3:
            event = told.get(timeout=30)
            # Subscriptions are told as well, to whoever may read them; this token may not.
            assert event.get("type") != "mercure"
            if "data" in event:
                events.append(event)
    assert events[0] == {"type": "message", "id": "urn:1", "data": "secret"}
    assert (events[1]["type"], events[1]["data"]) == ("greeting", "two\nlines")
    assert events[2]["data"] == "3"


@needs_node
@generations
@scripts
def test_npm_packages_lose_nothing_over_reconnects(tmp_path, script, generation):
    """The hub ends each stream after a second at most; the client's own reconnect goes on."""
    name = "last_event_id" if generation == "1.0" else "lastEventID"
    with running(tmp_path, "--max-connection-age=1s") as hub:
        # A connection that ends before the first event has no cursor of its own to come back with.
        url = hub.address(generation, "urn:t", **{name: "earliest"})
        with node(script, url, "", 60) as told:
            assert told.get(timeout=30)["open"]
            opened, got = 1, []
            for number in range(60):
                hub.publish("urn:t", str(number))
                time.sleep(0.05)
            while len(got) < 60:
                event = told.get(timeout=30)
                opened += "open" in event
                got += [event["data"]] if "data" in event else []
        assert got == [str(number) for number in range(60)]
        assert opened > 1, "there were reconnects"


@needs_node
def test_fetch_event_source_can_read_that_something_is_lost(hub):
    hub.publish("urn:t", "kept")
    url = hub.address("1.0", "urn:t", last_event_id="urn:forgotten")
    with node("fetch-event-source.mjs", url, "", 1) as told:
        assert told.get(timeout=30) == {"open": True, "preceding": "earliest"}
        assert told.get(timeout=30)["data"] == "kept"


@generations
def test_httpx_sse(hub, generation):
    headers = {"Authorization": f"Bearer {hub.token(generation, subscribe=['urn:private'])}"}
    with (
        httpx.Client(timeout=20) as client,
        connect_sse(client, "GET", hub.address(generation, "*"), headers=headers) as source,
    ):
        events = (event for event in source.iter_sse() if event.data)
        hub.publish("urn:other", "no", private="on")
        identifier = hub.publish("urn:private", "a\nb", private="on", type="greeting")
        event = next(events)
        assert (event.event, event.data, event.id) == ("greeting", "a\nb", identifier)


@pytest.fixture(scope="module")
def page():
    with chromium() as browser:
        yield browser.new_page()


FOLLOW = """([url, count, credentials]) => new Promise((resolve, reject) => {
    const source = new EventSource(url, {withCredentials: credentials});
    const events = [];
    const take = (event) => {
        events.push([event.type, event.lastEventId, event.data]);
        if (events.length === count) { source.close(); resolve(events); }
    };
    source.onmessage = take;
    source.addEventListener("greeting", take);
    source.onerror = () => { if (source.readyState === 2) reject(new Error("refused")); };
})"""


@needs_chromium
@generations
def test_chromium_follows_a_page_load(hub, page, generation):
    """From the cursor of the page on: nothing between render and connect is lost."""
    page.goto(hub.origin + "/")
    cursor = hub.publish("urn:t", "rendered")
    hub.publish("urn:t", "in between\n\nwith an empty line", id="urn:2")
    hub.publish("urn:t", "typed", id="urn:3", type="greeting")
    name = "last_event_id" if generation == "1.0" else "lastEventID"
    url = hub.address(generation, "urn:t", **{name: cursor})
    assert page.evaluate(FOLLOW, [url, 2, False]) == [
        ["message", "urn:2", "in between\n\nwith an empty line"],
        ["greeting", "urn:3", "typed"],
    ]


@needs_chromium
@generations
def test_chromium_across_origins_with_a_cookie(tmp_path, page, generation):
    """A page of another port, which is another origin, reads private updates by its cookie."""
    other = servers.free_port()
    origin = f"http://127.0.0.1:{other}"
    folder = tmp_path / "pages"
    folder.mkdir()
    command = [sys.executable, "-m", "http.server", str(other), "--bind", "127.0.0.1"]
    with (
        running(tmp_path, f"--cors-origins={origin}", "--cookie-name=session_token") as hub,
        servers.serve(command, other, folder, tmp_path / "pages.log"),
    ):
        token = hub.token(generation, subscribe=["urn:t"])
        page.context.add_cookies([{"name": "session_token", "value": token, "url": hub.origin}])
        page.goto(origin + "/")
        identifier = hub.publish("urn:t", "secret", private="on")
        name = "last_event_id" if generation == "1.0" else "lastEventID"
        url = hub.address(generation, "urn:t", **{name: "earliest"})
        assert page.evaluate(FOLLOW, [url, 1, True]) == [["message", identifier, "secret"]]
        page.goto(f"http://localhost:{other}/")
        with pytest.raises(Exception, match="refused"):
            page.evaluate(FOLLOW, [url, 1, True])


#: A program that knows the package which this one replaces, and nothing of ours.
PEER = """
import sys
from flask import Flask
from flask_mercure_sse import MercureSSE
import flask_mercure_sse
assert "peers" in flask_mercure_sse.__file__, flask_mercure_sse.__file__
url, key = sys.argv[1:]
app = Flask(__name__)
app.config.update(SECRET_KEY=key, MERCURE_HUB_URL=url, MERCURE_HUB=False)
mercure = MercureSSE(app)
with app.app_context():
    print(mercure.publish("urn:t", {"a": [1]}, private=True, id="urn:1", type="greeting", retry=7))
    print(mercure.publish("urn:t", "text"))
    print(mercure.authentified_hub_url("urn:t"))
    found = mercure.get_subscriptions("urn:watched")
    print(len(found["subscriptions"]), found["type"], mercure.is_connected("urn:watched"))
    print(mercure.is_connected("urn:nobody"))
"""


def test_flask_mercure_sse_041_publishes_to_this_hub(hub):
    env = {**os.environ, "PYTHONPATH": str(PEERS)}
    with (
        httpx.Client(timeout=20) as client,
        connect_sse(client, "GET", hub.address("0.x", "urn:watched")),
    ):
        reader = {"Authorization": f"Bearer {hub.token('0.x', subscribe=['*'])}"}

        def is_told() -> bool:
            answer = client.get(hub.url + "/subscriptions", headers=reader)
            return bool(answer.json()["subscriptions"])

        servers.wait_until(is_told, what="the subscription is told")
        command = [sys.executable, "-c", PEER, hub.url, KEY]
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    first, second, url, found, nobody = run.stdout.splitlines()
    assert first == "urn:1"
    assert found == "1 Subscriptions True"
    assert nobody == "False"
    with httpx.Client(timeout=20) as client:
        resumed = f"{url}&lastEventID=earliest"
        with connect_sse(client, "GET", resumed) as source:
            events = (event for event in source.iter_sse() if event.data)
            event = next(events)
            assert (event.event, event.id, event.retry) == ("greeting", "urn:1", 7)
            assert json.loads(event.data) == {"a": [1]}
            event = next(events)
            assert (event.id, event.data) == (second, "text")
