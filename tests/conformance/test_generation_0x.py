"""Generation 0.x: selectors, the ``mercure`` claim, JSON-LD."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest

from client import fresh

pytestmark = pytest.mark.v0
COOKIE = "mercureAuthorization"


class TestSelectors:
    @pytest.fixture
    def selects(self, hub, subscribe):
        def selects(selector: str, topic: str) -> bool:
            mark = fresh("urn:mark:")
            stream = subscribe([("topic", selector), ("topic", mark)])
            for name in (topic, mark):
                form = [("topic", name), ("data", "topic" if name == topic else "mark")]
                assert hub.post(form, hub.v0_publisher()).status_code == 200
            return stream.data() == "topic"

        return selects

    def test_the_star_selects_everything(self, selects):
        assert selects("*", fresh())

    def test_an_equal_text_is_selected(self, selects):
        for selector in ("plain", "https://example.com/{id}", "a b", "{"):
            assert selects(selector, selector), selector

    @pytest.mark.parametrize(
        ("template", "topic", "expected"),
        [
            ("https://example.com/{id}", "https://example.com/1", True),
            ("https://example.com/{id}", "https://example.com/a%20b", True),
            ("https://example.com/{id}", "https://example.com/1/2", False),
            ("https://example.com/{id}", "https://elsewhere.example/1", False),
            ("https://example.com/{+path}", "https://example.com/1/2", True),
            ("https://example.com/a{#part}", "https://example.com/a#b", True),
            ("https://example.com/a{.kind}", "https://example.com/a.json", True),
            ("https://example.com{/one,two}", "https://example.com/1/2", True),
            ("https://example.com{/list*}", "https://example.com/1/2/3", True),
            ("https://example.com/a{;x}", "https://example.com/a;x=1", True),
            ("https://example.com/a{?q,p}", "https://example.com/a?q=1&p=2", True),
            ("https://example.com/a{?q}", "https://example.com/a?z=1", False),
            ("https://example.com/a{?q*}", "https://example.com/a?x=1&y=2", True),
            ("https://example.com/a?x=1{&q}", "https://example.com/a?x=1&q=2", True),
            ("https://example.com/{id:3}", "https://example.com/abc", True),
            ("https://example.com/{id:3}", "https://example.com/abcd", False),
            ("https://example.com/{x,y}", "https://example.com/1,2", True),
            ("https://example.com/a", "https://example.com/A", False),
        ],
    )
    def test_templates_are_matched_in_reverse(self, selects, template, topic, expected):
        assert selects(template, topic) is expected


def test_several_topics_one_stream(hub, subscribe):
    one, other = fresh(), fresh()
    stream = subscribe([("topic", one), ("topic", other)])
    hub.post([("topic", one), ("data", "1")], hub.v0_publisher())
    hub.post([("topic", other), ("data", "2")], hub.v0_publisher())
    assert [stream.data(), stream.data()] == ["1", "2"]


def test_the_stream_has_its_media_type(subscribe):
    headers = subscribe([("topic", fresh())]).headers
    assert headers["Content-Type"].split(";")[0] == "text/event-stream"


def test_the_match_prefix_is_not_reserved_for_a_request_of_0x_alone(hub):
    # Decided by what the request carries; a hub of both generations may refuse it.
    with hub.open([("topic", "a"), ("matchmaker", "x")]) as response:
        assert response.status_code in {200, 400}


class TestPlaces:
    def private(self, hub, stream, topic):
        hub.post([("topic", topic), ("data", "secret"), ("private", "on")], hub.v0_publisher())
        hub.post([("topic", topic), ("data", "public")], hub.v0_publisher())
        return stream.data()

    def test_header(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("topic", topic)], hub.v0_subscriber(topic))
        assert self.private(hub, stream, topic) == "secret"

    def test_cookie(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("topic", topic)], Cookie=f"{COOKIE}={hub.v0_subscriber(topic)}")
        assert self.private(hub, stream, topic) == "secret"

    def test_parameter(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("topic", topic), ("authorization", hub.v0_subscriber(topic))])
        assert self.private(hub, stream, topic) == "secret"
        assert "private" in stream.headers["Cache-Control"]

    def test_parameter_for_publishing(self, hub):
        token = hub.v0_publisher()
        answer = hub.client.post(hub.url, params={"authorization": token}, data={"topic": "a"})
        assert answer.status_code == 200
        assert "private" in answer.headers["Cache-Control"]

    def test_the_header_goes_first_then_the_parameter_then_the_cookie(self, hub, subscribe):
        topic = fresh()
        good, cookie = hub.v0_subscriber(topic), f"{COOKIE}=garbage"
        stream = subscribe([("topic", topic), ("authorization", "garbage")], good, Cookie=cookie)
        assert self.private(hub, stream, topic) == "secret"
        stream = subscribe([("topic", topic), ("authorization", good)], Cookie=cookie)
        assert self.private(hub, stream, topic) == "secret"

    def test_a_page_elsewhere_cannot_publish_with_the_cookie(self, hub):
        cookie = f"{COOKIE}={hub.v0_publisher()}"
        for headers in ({}, {"Origin": "https://evil.example"}):
            answer = hub.post([("topic", "a")], None, Cookie=cookie, **headers)
            assert answer.status_code in {401, 403}
        answer = hub.post([("topic", "a")], None, Cookie=cookie, Origin=hub.origin)
        assert answer.status_code == 200


class TestPublishers:
    def test_every_topic_must_be_granted(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("topic", topic)])
        token = hub.v0_publisher(topic, "https://example.com/{id}")
        assert hub.post([("topic", topic), ("topic", "other")], token).status_code == 403
        fields = [("topic", topic), ("topic", "https://example.com/1"), ("data", "ok")]
        assert hub.post(fields, token).status_code == 200
        assert stream.data() == "ok"

    @pytest.mark.parametrize(
        "mercure", [{}, {"publish": []}, {"publish": None}, {"subscribe": ["*"]}]
    )
    def test_without_grants_nothing_may_be_published(self, hub, mercure):
        token = hub.v0(hub.publisher_key, mercure=mercure)
        assert hub.post([("topic", "a")], token).status_code == 403

    def test_without_a_token_nothing_may_be_published(self, hub):
        assert hub.post([("topic", "a")], None).status_code in {401, 403}

    def test_bad_tokens(self, hub):
        now = int(time.time())
        for token in (
            "garbage",
            hub.v0("another-key-that-the-hub-does-not-know", mercure={"publish": ["*"]}),
            hub.v0_publisher(exp=now - 60),
            hub.v0_publisher(nbf=now + 60),
        ):
            assert hub.post([("topic", "a")], token).status_code in {401, 403}

    def test_the_answer_is_the_id(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("topic", topic)])
        answer = hub.post([("topic", topic), ("id", "urn:x:" + topic)], hub.v0_publisher())
        assert answer.is_success
        assert stream.event().id == answer.text

    def test_fragment_ids_belong_to_the_hub(self, hub):
        answer = hub.post([("topic", "a"), ("id", "#1")], hub.v0_publisher())
        assert answer.status_code == 400


class TestReading:
    def test_one_granted_topic_is_enough(self, hub, subscribe):
        canonical, alternate = fresh(), fresh()
        stream = subscribe([("topic", canonical)], hub.v0_subscriber(alternate))
        publisher = hub.v0_publisher()
        hub.post([("topic", canonical), ("data", "no"), ("private", "")], publisher)
        both = [("topic", canonical), ("topic", alternate), ("data", "yes"), ("private", "")]
        hub.post(both, publisher)
        assert stream.data() == "yes"

    def test_a_template_grants_what_it_matches(self, hub, subscribe):
        base = fresh()
        stream = subscribe([("topic", "*")], hub.v0_subscriber(base + "/{?topic}"))
        topic = f"{base}/?topic={quote('https://example.com/1', safe='')}"
        hub.post([("topic", base), ("data", "no"), ("private", "")], hub.v0_publisher())
        hub.post([("topic", topic), ("data", "yes"), ("private", "")], hub.v0_publisher())
        while (data := stream.data()) != "yes":
            assert data != "no"

    def test_the_stream_ends_when_the_token_does(self, hub, subscribe):
        expiry = int(time.time()) + 4
        stream = subscribe([("topic", fresh())], hub.v0_subscriber(exp=expiry))
        assert stream.event() is None
        assert time.time() < expiry + 10


class TestReconciliation:
    @pytest.fixture
    def history(self, hub):
        topic = fresh()
        token = hub.v0_publisher()
        return topic, [hub.post([("topic", topic), ("data", n)], token).text for n in "123"]

    def test_header_and_parameter(self, history, subscribe):
        topic, ids = history
        by_header = subscribe([("topic", topic)], Last_Event_ID=ids[1])
        by_parameter = subscribe([("topic", topic), ("lastEventID", ids[1])])
        for stream in (by_header, by_parameter):
            assert stream.headers["Last-Event-ID"] == ids[1]
            assert stream.data() == "3"

    def test_the_header_goes_first(self, history, subscribe):
        topic, ids = history
        stream = subscribe([("topic", topic), ("lastEventID", ids[0])], Last_Event_ID=ids[1])
        assert stream.data() == "3"

    def test_earliest_and_the_unknown(self, history, subscribe):
        topic, _ = history
        for cursor in ("earliest", "urn:never:published"):
            stream = subscribe([("topic", topic), ("lastEventID", cursor)])
            assert stream.headers["Last-Event-ID"] == "earliest"
        stream = subscribe([("topic", topic), ("lastEventID", "earliest")])
        assert [stream.data() for _ in range(3)] == ["1", "2", "3"]


class TestActiveSubscriptions:
    @pytest.fixture(autouse=True)
    def _offered(self, hub):
        if hub.api(hub.path + "/subscriptions", hub.v0_subscriber()).status_code == 404:
            pytest.skip("the hub does not offer active subscriptions")

    @pytest.fixture
    def watch(self, hub, subscribe):
        def watch(selector: str):
            path = f"{hub.path}/subscriptions/{quote(selector, safe='')}/{{subscriber}}"
            return subscribe([("topic", path)], hub.v0_subscriber(path))

        return watch

    @pytest.mark.parametrize("suffix", ["", "/{id}"])
    def test_events_and_documents(self, hub, watch, suffix):
        selector = fresh() + suffix
        watcher = watch(selector)
        token = hub.v0_subscriber("x", payload={"user": "u"})
        with hub.visit([("topic", selector)], token):
            document = json.loads(watcher.data())
            assert document["@context"] == "https://mercure.rocks/"
            assert (document["type"], document["topic"]) == ("Subscription", selector)
            assert (document["active"], document["payload"]) == (True, {"user": "u"})
            encoded = quote(selector, safe="")
            subscriber = quote(document["subscriber"], safe="")
            assert document["id"] == f"{hub.path}/subscriptions/{encoded}/{subscriber}"
            single = hub.api(document["id"], hub.v0_subscriber())
            assert single.headers["Content-Type"].split(";")[0] == "application/ld+json"
            assert single.json() == document | {"lastEventID": single.json()["lastEventID"]}
            for path in (f"{hub.path}/subscriptions", f"{hub.path}/subscriptions/{encoded}"):
                answer = hub.api(path, hub.v0_subscriber())
                assert answer.headers["Content-Type"].split(";")[0] == "application/ld+json"
                collection = answer.json()
                assert collection["@context"] == "https://mercure.rocks/"
                assert (collection["id"], collection["type"]) == (path, "Subscriptions")
                assert collection["lastEventID"]
                assert document["id"] in [one["id"] for one in collection["subscriptions"]]
        assert json.loads(watcher.data())["active"] is False

    def test_a_subscriber_keeps_its_identifier(self, hub, watch):
        one, other = fresh(), fresh()
        watchers = [watch(one), watch(other)]
        with hub.visit([("topic", one), ("topic", other)]):
            first, second = (json.loads(watcher.data()) for watcher in watchers)
        assert first["subscriber"] == second["subscriber"]

    def test_the_api_is_closed_to_strangers(self, hub):
        path = hub.path + "/subscriptions"
        assert hub.api(path, None).status_code in {401, 403}
        assert hub.api(path, hub.v0_subscriber("other")).status_code in {401, 403}
        assert hub.api(path, hub.v0_subscriber(path)).status_code == 200

    def test_an_unknown_subscription_is_404(self, hub):
        path = f"{hub.path}/subscriptions/nothing/urn%3Auuid%3A0"
        assert hub.api(path, hub.v0_subscriber()).status_code == 404
