"""Reconnection: cursors, replay, and being told of a gap."""

from __future__ import annotations

import pytest

from client import fresh

pytestmark = pytest.mark.v1
FIELD = "Mercure-Last-Event-ID"


@pytest.fixture
def history(hub):
    """A topic with three events, and their ids."""
    topic = fresh()
    return topic, [hub.publish(topic, str(number)) for number in (1, 2, 3)]


def test_every_event_has_an_id(hub, subscribe):
    topic = fresh()
    stream = subscribe([("match", topic)])
    identifier = hub.publish(topic)
    assert stream.event().id == identifier


def test_the_header_resumes(history, subscribe):
    topic, ids = history
    stream = subscribe([("match", topic)], Last_Event_ID=ids[0])
    assert [stream.data(), stream.data()] == ["2", "3"]


def test_the_parameter_resumes(history, subscribe):
    topic, ids = history
    stream = subscribe([("match", topic), ("last_event_id", ids[1])])
    assert stream.data() == "3"


def test_the_header_goes_before_the_parameter(history, subscribe):
    topic, ids = history
    stream = subscribe([("match", topic), ("last_event_id", ids[0])], Last_Event_ID=ids[1])
    assert stream.data() == "3"


def test_earliest_asks_for_everything(history, subscribe):
    topic, _ = history
    stream = subscribe([("match", topic), ("last_event_id", "earliest")])
    assert stream.headers[FIELD] == "earliest"
    assert [stream.data() for _ in range(3)] == ["1", "2", "3"]


def test_the_field_names_the_event_before_the_first_one(history, subscribe):
    topic, ids = history
    for identifier in ids:
        stream = subscribe([("match", topic), ("last_event_id", identifier)])
        assert stream.headers[FIELD] == identifier


def test_an_unknown_id_is_told(history, subscribe):
    topic, _ = history
    stream = subscribe([("match", topic), ("last_event_id", "urn:never:published")])
    assert stream.headers[FIELD] == "earliest"


def test_without_a_cursor_nothing_is_told(subscribe):
    assert FIELD not in subscribe([("match", fresh())]).headers


def test_replay_goes_over_into_live_without_loss_or_repetition(hub, history, subscribe):
    topic, ids = history
    stream = subscribe([("match", topic), ("last_event_id", ids[0])])
    hub.publish(topic, "4")
    assert [stream.data() for _ in range(3)] == ["2", "3", "4"]


def test_replay_skips_other_topics(hub, subscribe):
    topic, cursor = fresh(), hub.publish(fresh(), "start")
    hub.publish(fresh(), "other")
    hub.publish(topic, "mine")
    assert subscribe([("match", topic), ("last_event_id", cursor)]).data() == "mine"


def test_replay_is_authorized_by_the_token_of_the_moment(hub, subscribe):
    topic, cursor = fresh(), hub.publish(fresh(), "start")
    hub.publish(topic, "secret", private="on")
    hub.publish(topic, "public")
    params = [("match", topic), ("last_event_id", cursor)]
    assert subscribe(params).data() == "public"
    assert subscribe(params, hub.subscriber("another")).data() == "public"
    assert subscribe(params, hub.subscriber(topic)).data() == "secret"


def test_a_reused_id_resolves_to_its_earliest_event(hub, subscribe):
    topic, reused = fresh(), fresh("urn:reused:")
    hub.publish(topic, "1", id=reused)
    if hub.publish(topic, "2", id=reused) != reused:
        pytest.skip("the hub makes its own ids")
    hub.publish(topic, "3")
    stream = subscribe([("match", topic), ("last_event_id", reused)])
    assert [stream.data(), stream.data()] == ["2", "3"]


def test_a_cursor_of_any_form_is_only_unknown(subscribe):
    for cursor in ("#1", "a b", "ü", "%", "0", "*"):
        params = [("match", fresh()), ("last_event_id", cursor)]
        assert subscribe(params).headers[FIELD] == "earliest", cursor
