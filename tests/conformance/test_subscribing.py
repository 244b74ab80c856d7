"""Subscribing: parameters, the reserved namespace, QUERY, limits, the stream itself."""

from __future__ import annotations

import pytest

from client import Hub, fresh

pytestmark = pytest.mark.v1
#: Characters that no identifier may hold: C0, DEL, C1, and invisible ones (Cf).
FORBIDDEN = [
    "%00",
    "%0A",
    "%0D",
    "%1F",
    "%7F",
    "%C2%80",
    "%C2%9F",
    "%E2%80%8B",
    "%E2%80%AE",
    "%C2%AD",
    "%EF%BB%BF",
]


def refused(hub: Hub, query: str) -> None:
    with hub.open(query) as response:
        assert response.status_code == 400, query


def test_get_opens_an_event_stream(hub, subscribe):
    topic = fresh()
    stream = subscribe([("match", topic)])
    assert stream.headers["Content-Type"].split(";")[0] == "text/event-stream"
    hub.publish(topic, "hello")
    assert stream.data() == "hello"


def test_the_bare_parameter_and_its_explicit_spelling_are_exact(hub, subscribe):
    topic = fresh()
    streams = [subscribe([(name, topic)]) for name in ("match", "match_exact")]
    hub.publish(topic, "hello")
    assert [stream.data() for stream in streams] == ["hello", "hello"]


def test_parameters_combine_and_one_match_is_enough(hub, subscribe):
    base = fresh()
    stream = subscribe(
        [("match", f"{base}/a"), ("match_urlpattern", f"{base}/b/:id"), ("match", "other")]
    )
    for topic in (f"{base}/x", f"{base}/a", f"{base}/b/1"):
        hub.publish(topic, topic)
    assert [stream.data(), stream.data()] == [f"{base}/a", f"{base}/b/1"]


def test_an_event_that_matches_twice_is_sent_once(hub, subscribe):
    topic = fresh()
    stream = subscribe([("match", topic), ("match_urlpattern", topic), ("match", topic)])
    hub.publish(topic, "once")
    hub.publish(topic, "next")
    assert [stream.data(), stream.data()] == ["once", "next"]


def test_the_query_is_parsed_as_a_form(hub, subscribe):
    topic = fresh("a b+c;d&e=f/é-")
    stream = subscribe([("match", topic)])
    plus = subscribe(
        "match="
        + topic.replace("+", "%2B").replace(" ", "+").replace("&", "%26").replace("=", "%3D")
    )
    raw = fresh("a;b%zz,c?d/")
    loose = subscribe(f"&&match={raw.replace('%', '%25')}&=&match=other%zz&")
    hub.publish(topic, "hello")
    hub.publish(raw, "raw")
    assert stream.data() == "hello"
    assert plus.data() == "hello"
    assert loose.data() == "raw"


MISSPELLED = "match_foo MATCH Match matches match_Exact match_EXACT MATCH_urlpattern match-exact"


@pytest.mark.parametrize("name", [*MISSPELLED.split(), "matcher", "match%5B%5D", "%6Datch_foo"])
def test_unknown_names_that_begin_with_match_are_refused(hub, name):
    refused(hub, f"match=a&{name}=b")


def test_a_name_without_a_value_counts_in_the_reserved_namespace(hub):
    refused(hub, "match=a&match_foo")


def test_other_parameters_are_ignored(hub, subscribe):
    topic = fresh()
    stream = subscribe([("match", topic), ("rematch", "x"), ("_", "1")])
    hub.publish(topic, "hello")
    assert stream.data() == "hello"


@pytest.mark.parametrize("character", FORBIDDEN)
@pytest.mark.parametrize("name", ["match", "match_exact", "match_urlpattern"])
def test_control_and_invisible_characters_are_refused_in_matchers(hub, name, character):
    refused(hub, f"{name}=/a{character}b")


@pytest.mark.parametrize("value", ["%FF", "%C3", "%ED%A0%80", "%C0%80"])
def test_matchers_must_be_utf8(hub, value):
    refused(hub, f"match=a{value}")


@pytest.mark.parametrize("pattern", ["/(", "https://[", "/:", "{", "/(?<n>a"])
def test_malformed_url_patterns_are_refused(hub, pattern):
    with hub.open([("match_urlpattern", pattern)]) as response:
        assert response.status_code == 400


def test_a_request_without_matcher_is_refused(hub):
    refused(hub, "")


def test_too_many_matchers_are_refused(hub):
    # More than any URL can carry, so they come in a body.
    form = [("match", str(number)) for number in range(20_000)]
    with hub.open("", form=form) as response:
        assert response.status_code in {400, 405, 413, 501}


def test_an_overlong_matcher_is_refused(hub):
    with hub.open([("match", "a" * 30_000)]) as response:
        assert response.status_code in {400, 414, 431}


class TestQuery:
    """The QUERY method: optional, and strict where it is offered."""

    @pytest.fixture(autouse=True)
    def _offered(self, hub):
        with hub.open("", form=[("match", fresh())]) as response:
            if response.status_code in {405, 501}:
                pytest.skip("the hub does not offer QUERY")

    def test_matchers_may_stand_in_the_body(self, hub, subscribe):
        topic = fresh()
        stream = subscribe("", form=[("match", topic)])
        hub.publish(topic, "hello")
        assert stream.data() == "hello"

    def test_query_and_body_are_one_list(self, hub, subscribe):
        one, other = fresh(), fresh()
        stream = subscribe([("match", one)], form=[("match", other)])
        hub.publish(one, "1")
        hub.publish(other, "2")
        assert [stream.data(), stream.data()] == ["1", "2"]

    def test_the_rules_for_names_and_values_hold_in_the_body(self, hub):
        for form in (b"match=a&match_foo=b", b"match=a%0Ab", b"match=%FF", b"match_urlpattern=/("):
            with hub.open("", form=form) as response:
                assert response.status_code == 400, form

    def test_the_body_must_be_a_form(self, hub):
        with hub.open("", form=b'{"match": "a"}', Content_Type="application/json") as response:
            assert response.status_code in {400, 415}

    def test_the_cursor_may_stand_in_the_body(self, hub, subscribe):
        topic = fresh()
        first = hub.publish(topic, "1")
        hub.publish(topic, "2")
        stream = subscribe("", form=[("match", topic), ("last_event_id", first)])
        assert stream.data() == "2"

    def test_the_cursor_of_the_query_goes_before_that_of_the_body(self, hub, subscribe):
        topic = fresh()
        first, second = hub.publish(topic, "1"), hub.publish(topic, "2")
        hub.publish(topic, "3")
        form = [("match", topic), ("last_event_id", first)]
        assert subscribe([("last_event_id", second)], form=form).data() == "3"

    def test_the_header_goes_before_both(self, hub, subscribe):
        topic = fresh()
        first, second = hub.publish(topic, "1"), hub.publish(topic, "2")
        hub.publish(topic, "3")
        form = [("match", topic), ("last_event_id", first)]
        stream = subscribe([("last_event_id", first)], form=form, Last_Event_ID=second)
        assert stream.data() == "3"


def test_every_property_of_the_format_is_carried(hub, subscribe):
    topic = fresh()
    stream = subscribe([("match", topic)])
    hub.publish(topic, "hello", id="urn:x:" + topic, type="greeting", retry="1234")
    event = stream.event()
    assert (event.id, event.type, event.data) == ("urn:x:" + topic, "greeting", "hello")
    assert event.get("retry") == "1234"


def test_proxies_are_told_not_to_hold_the_stream_back(subscribe):
    stream = subscribe([("match", fresh())])
    assert "no-transform" in stream.headers.get(
        "Cache-Control", ""
    ) or "no-store" in stream.headers.get("Cache-Control", "")
