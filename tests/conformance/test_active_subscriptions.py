"""Active subscriptions: events, API, payloads (1.0)."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest

from client import challenge, detail, fresh

pytestmark = pytest.mark.v1


@pytest.fixture(autouse=True)
def _offered(hub):
    if hub.api(hub.path + "/subscriptions", hub.subscriber()).status_code == 404:
        pytest.skip("the hub does not offer active subscriptions")


@pytest.fixture
def watch(hub, subscribe):
    """A stream of the events about one matcher."""

    def watch(matcher: str, token: str | None = None):
        pattern = f"{hub.path}/subscriptions/:type/{quote(matcher, safe='')}/:subscriber"
        return subscribe([("match_urlpattern", pattern)], token or hub.subscriber())

    return watch


def told(stream) -> dict:
    return json.loads(stream.of_type("mercure").data)


def test_a_subscription_is_told_when_it_begins_and_ends(hub, watch):
    topic = fresh()
    watcher = watch(topic)
    with hub.visit([("match", topic)]):
        event = watcher.of_type("mercure")
        document = json.loads(event.data)
    assert document["type"] == "subscription"
    assert (document["match_type"], document["match"]) == ("exact", topic)
    assert document["active"] is True
    ended = told(watcher)
    assert ended["active"] is False
    assert (ended["id"], ended["subscriber"]) == (document["id"], document["subscriber"])


def test_the_path_encodes_each_variable_once(hub, watch):
    matcher = fresh("https://example.com/%2F :x?é=")
    watcher = watch(matcher)
    with hub.visit([("match", matcher)]):
        document = told(watcher)
    subscriber = quote(document["subscriber"], safe="")
    encoded = quote(matcher, safe="")
    assert document["id"] == f"{hub.path}/subscriptions/exact/{encoded}/{subscriber}"


def test_each_type_is_told_by_its_name(hub, watch):
    pattern = fresh("https://example.com/:id/")
    watcher = watch(pattern)
    with hub.visit([("match_urlpattern", pattern)]):
        document = told(watcher)
    assert document["match_type"] == "urlpattern"
    assert document["match"] == pattern


def test_one_subscriber_is_one_identifier_and_others_are_others(hub, subscribe):
    one, other = fresh(), fresh()
    watcher = subscribe([("match_urlpattern", f"{hub.path}/subscriptions/*")], hub.subscriber())
    seen = {}
    with hub.visit([("match", one), ("match", other)]), hub.visit([("match", one)]):
        while sum(map(len, seen.values())) < 3:
            document = told(watcher)
            if document["match"] in {one, other} and document["active"]:
                seen.setdefault(document["subscriber"], set()).add(document["match"])
    assert sorted(map(len, seen.values())) == [1, 2]


def test_clients_cannot_choose_the_identifier(hub, watch):
    topic = fresh()
    watcher = watch(topic)
    mine = "urn:uuid:00000000-0000-4000-8000-000000000000"
    headers = {"Subscriber": mine, "X_Subscriber": mine}
    with hub.visit([("match", topic), ("subscriber", mine)], hub.subscriber(sub=mine), **headers):
        assert told(watcher)["subscriber"] != mine


def test_events_are_private_and_of_the_reserved_type(hub, subscribe, watch):
    topic = fresh()
    path = re.escape(hub.path)
    stranger = subscribe([("match_urlpattern", f"{hub.path}/subscriptions/*"), ("match", topic)])
    watcher = watch(topic)
    with hub.visit([("match", topic)]):
        event = watcher.of_type("mercure")
    assert re.match(path, json.loads(event.data)["id"])
    hub.publish(topic, "mark")
    assert stranger.data() == "mark"


def test_the_first_detail_that_covers_the_subscription_gives_the_payload(hub, watch):
    base = fresh()
    token = hub.v1(
        detail("subscribe", base, payload={"n": 1}),
        detail("subscribe", base + "/:id", kind="urlpattern", payload={"n": 2}),
        detail("subscribe", "*", payload={"n": 3}),
        key=hub.subscriber_key,
    )
    for name, matcher, expected in [
        ("match", base, 1),
        ("match_urlpattern", base + "/:id", 2),
        ("match", base + "/other/deep", 3),
    ]:
        watcher = watch(matcher)
        with hub.visit([(name, matcher)], token):
            document = told(watcher)
            assert document["payload"] == {"n": expected}
            single = hub.api(document["id"], hub.subscriber())
            assert single.json()["payload"] == {"n": expected}


def test_without_payload_the_member_is_absent(hub, watch):
    topic = fresh()
    watcher = watch(topic)
    with hub.visit([("match", topic)]):
        assert "payload" not in told(watcher)


class TestApi:
    def test_collections_and_a_single_subscription(self, hub, watch):
        topic = fresh()
        watcher = watch(topic)
        with hub.visit([("match", topic)]):
            document = told(watcher)
            of_matcher = f"{hub.path}/subscriptions/exact/{quote(topic, safe='')}"
            for path in (f"{hub.path}/subscriptions", of_matcher):
                answer = hub.api(path, hub.subscriber())
                assert answer.status_code == 200
                assert answer.headers["Content-Type"].split(";")[0] == "application/json"
                collection = answer.json()
                assert (collection["id"], collection["type"]) == (path, "subscriptions")
                assert document in collection["subscriptions"]
            assert [one["match"] for one in collection["subscriptions"]] == [topic]
            single = hub.api(document["id"], hub.subscriber())
            assert single.json() == document, "the same document as in the event"
            assert single.headers["Content-Type"].split(";")[0] == "application/json"
        assert told(watcher)["active"] is False
        gone = hub.api(document["id"], hub.subscriber())
        assert gone.status_code == 404 or gone.json()["active"] is False

    def test_the_cursor_stands_in_the_link(self, hub, subscribe):
        answer = hub.api(hub.path + "/subscriptions", hub.subscriber())
        link = answer.headers["Link"]
        assert re.match(r"<[^>]+>", link)
        assert 'rel="mercure"' in link
        assert 'type="mercure"' in link
        assert 'content-type="application/json"' in link
        cursor = re.search(r'last-event-id="([^"]+)"', link)[1]
        topic = fresh()
        hub.publish(topic, "after")
        assert subscribe([("match", topic), ("last_event_id", cursor)]).data() == "after"

    def test_following_from_the_cursor_misses_nothing(self, hub, subscribe):
        answer = hub.api(hub.path + "/subscriptions", hub.subscriber())
        cursor = re.search(r'last-event-id="([^"]+)"', answer.headers["Link"])[1]
        topic = fresh()
        with hub.visit([("match", topic)]):
            pattern = f"{hub.path}/subscriptions/*"
            params = [("match_urlpattern", pattern), ("last_event_id", cursor)]
            stream = subscribe(params, hub.subscriber())
            while told(stream)["match"] != topic:
                pass

    def test_a_known_version_is_not_sent_again(self, hub):
        path = hub.path + "/subscriptions/exact/" + quote(fresh(), safe="")
        answer = hub.api(path, hub.subscriber())
        etag = answer.headers.get("ETag")
        if etag is None:
            pytest.skip("the hub sends no ETag")
        again = hub.api(path, hub.subscriber(), If_None_Match=etag)
        assert again.status_code in {200, 304}
        if again.status_code == 304:
            assert again.content == b""
            assert "last-event-id" in again.headers.get("Link", "last-event-id")

    def test_an_unknown_subscription_is_404(self, hub):
        path = f"{hub.path}/subscriptions/exact/nothing/urn%3Auuid%3A0"
        assert hub.api(path, hub.subscriber()).status_code == 404

    def test_without_a_token_it_is_401(self, hub):
        answer = hub.api(hub.path + "/subscriptions", None)
        assert answer.status_code == 401
        assert "error=" not in challenge(answer)

    def test_the_url_itself_must_be_granted(self, hub):
        root = hub.path + "/subscriptions"
        of_a = root + "/exact/a"
        granted = [
            hub.subscriber(root),
            hub.subscriber("*"),
            hub.v1(detail("subscribe", root, kind="urlpattern"), key=hub.subscriber_key),
            hub.v1(
                detail("subscribe", hub.origin + root, kind="urlpattern"), key=hub.subscriber_key
            ),
        ]
        for token in granted:
            assert hub.api(root, token).status_code == 200
            assert hub.api(root + "?a=b", token).status_code == 200, "the query is no part of it"
        for token in (
            hub.subscriber("other"),
            hub.subscriber(hub.origin + root),
            hub.subscriber(root),
        ):
            answer = hub.api(of_a, token)
            assert answer.status_code == 403
            assert 'error="insufficient_scope"' in challenge(answer)

    def test_publishing_rights_are_not_enough(self, hub):
        token = hub.v1(detail("publish", "*"), key=hub.subscriber_key)
        assert hub.api(hub.path + "/subscriptions", token).status_code == 403
