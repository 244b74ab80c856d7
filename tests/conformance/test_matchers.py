"""Which topics a matcher selects."""

from __future__ import annotations

import pytest

from client import fresh

pytestmark = pytest.mark.v1


@pytest.fixture
def selects(hub, subscribe):
    """Whether a matcher selects a topic: what it does not select never arrives before the next."""

    def selects(name: str, matcher: str, topic: str) -> bool:
        mark = fresh("urn:mark:")
        stream = subscribe([(name, matcher), ("match", mark)])
        hub.publish(topic, "topic")
        hub.publish(mark, "mark")
        return stream.data() == "topic"

    return selects


@pytest.mark.parametrize("name", ["match", "match_exact", "match_urlpattern"])
def test_the_wildcard_selects_every_topic_whatever_the_type(selects, name):
    for topic in ("plain", "https://example.com/a?b#c", "urn:a:b", "/relative", "日本語"):
        assert selects(name, "*", topic), topic


@pytest.mark.parametrize(
    ("matcher", "topic"),
    [
        ("https://example.com/A", "https://example.com/a"),
        ("https://EXAMPLE.com/a", "https://example.com/a"),
        ("https://example.com/%61", "https://example.com/a"),
        ("https://example.com", "https://example.com/"),
        ("e\u0301", "é"),
        ("https://example.com/a/../b", "https://example.com/b"),
        ("a", "a "),
    ],
)
def test_exact_compares_bytes(selects, matcher, topic):
    assert selects("match", matcher, matcher)
    assert not selects("match", matcher, topic)


def test_exact_resolves_nothing(hub, selects):
    path = fresh("/r/")
    assert not selects("match", path, hub.origin + path)
    assert not selects("match", hub.origin + path, path)


def test_exact_knows_no_patterns(selects):
    for matcher in ("https://example.com/:id", "https://example.com/{id}", "https://example.com/*"):
        assert not selects("match", matcher, "https://example.com/1")


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("https://example.com/books/:id", "https://example.com/books/1", True),
        ("https://example.com/books/:id", "https://example.com/books/1/2", False),
        ("https://example.com/books/:id", "https://example.com/books/", False),
        ("https://example.com/books/*", "https://example.com/books/1/2", True),
        ("https://example.com/books/:id(\\d+)", "https://example.com/books/12", True),
        ("https://example.com/books/:id(\\d+)", "https://example.com/books/x", False),
        ("https://example.com/books{/:id}?", "https://example.com/books", True),
        ("https://:host.example.com/", "https://a.example.com/", True),
        ("https://EXAMPLE.com/a", "https://example.com/a", True),
        ("https://example.com/A", "https://example.com/a", False),
        ("https://example.com/a?q=:v", "https://example.com/a?q=1", True),
        ("https://example.com:443/a", "https://example.com/a", True),
        ("http{s}?://example.com/a", "http://example.com/a", True),
        ("https://example.com/a/../b", "https://example.com/b", True),
        ("urn\\::rest*", "urn:a:b", True),
        ("https://[\\:\\:1]/:id", "https://[::1]/1", True),
        ("https://example.com/a#:part", "https://example.com/a#b", True),
        ("https://example.com/é", "https://example.com/%C3%A9", True),
        ("https://example.com:*/a", "https://example.com:8080/a", True),
        ("https://example.com/x[:id]", "https://example.com/x[1]", True),
        ("https://example.com/:id(aB)", "https://example.com/ab", False),
    ],
)
def test_url_patterns_follow_the_standard(selects, pattern, topic, expected):
    assert selects("match_urlpattern", pattern, topic) is expected


def test_relative_patterns_and_topics_are_resolved_against_the_hub(hub, selects):
    for pattern in ("/books/:id", hub.origin + "/books/:id"):
        for topic in ("/books/1", hub.origin + "/books/1"):
            assert selects("match_urlpattern", pattern, topic), (pattern, topic)
    assert not selects("match_urlpattern", "/books/:id", "https://elsewhere.example/books/1")


@pytest.mark.parametrize("topic", ["http://[", "https://exa mple.com/"])
def test_a_topic_that_is_no_url_matches_no_pattern(selects, topic):
    assert selects("match_urlpattern", "*://*:*/*", "https://example.com/"), "others do"
    assert not selects("match_urlpattern", "*://*:*/*", topic)


def test_a_pathological_pattern_does_not_hold_the_hub_up(hub, subscribe):
    mark, pattern = fresh(), "https://example.com/((a*)*)*b"
    with hub.open([("match_urlpattern", pattern)]) as response:
        accepted = response.status_code == 200
        assert accepted or response.status_code == 400, "too costly to accept is an answer, too"
    if accepted:
        stream = subscribe([("match_urlpattern", pattern), ("match", mark)])
        hub.publish("https://example.com/" + "a" * 3000, "pathological")
        hub.publish(mark, "mark")
        assert stream.data() == "mark"
