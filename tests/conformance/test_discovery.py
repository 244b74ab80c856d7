"""Protected resource metadata and CORS."""

from __future__ import annotations

import pytest

from client import DETAIL, challenge, fresh

pytestmark = pytest.mark.v1


@pytest.fixture
def metadata(hub):
    answer = hub.client.get(f"{hub.origin}/.well-known/oauth-protected-resource{hub.path}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    return answer.json()


def test_the_metadata_names_the_resource(hub, metadata):
    assert metadata["resource"] == hub.audience


def test_the_metadata_says_how_tokens_are_presented(metadata):
    assert metadata["bearer_methods_supported"] == ["header"]
    assert metadata["mercure_cookie"]
    assert DETAIL in metadata["authorization_details_types_supported"]


def test_the_metadata_lists_the_matcher_types(metadata):
    kinds = metadata.get("mercure_matcher_types_supported", ["exact", "urlpattern"])
    assert {"exact", "urlpattern"} <= set(kinds)


def test_the_metadata_tells_of_active_subscriptions(hub, metadata):
    offered = hub.api(hub.path + "/subscriptions", hub.subscriber()).status_code != 404
    assert metadata.get("mercure_subscriptions", False) is offered


def test_authorization_servers_are_listed_or_left_out(metadata):
    assert metadata.get("authorization_servers", ["somebody"])


def test_the_challenge_leads_to_the_metadata(hub, metadata):
    value = challenge(hub.post([("topic", "a")], None))
    url = value.split('resource_metadata="')[1].split('"')[0]
    assert hub.client.get(url).json() == metadata


def test_the_cookie_that_is_named_works(hub, metadata, subscribe):
    topic = fresh()
    cookie = f"{metadata['mercure_cookie']}={hub.subscriber()}"
    stream = subscribe([("match", topic)], Cookie=cookie)
    hub.publish(topic, "secret", private="on")
    assert stream.data() == "secret"


@pytest.mark.usefixtures("cors_origin")
class TestCors:
    def test_a_listed_origin_may_use_credentials(self, cors_origin, subscribe):
        headers = subscribe([("match", fresh())], Origin=cors_origin).headers
        assert headers["Access-Control-Allow-Origin"] == cors_origin
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert "origin" in headers["Vary"].lower()

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "https://allowed.example.evil.example"]
    )
    def test_another_origin_is_neither_reflected_nor_a_star(self, subscribe, origin):
        headers = subscribe([("match", fresh())], Origin=origin).headers
        assert "Access-Control-Allow-Credentials" not in headers
        assert headers.get("Access-Control-Allow-Origin") != origin

    def test_a_star_never_goes_with_credentials(self, hub, subscribe):
        cookie = f"__Secure-mercure_access_token={hub.subscriber()}"
        params = [("match", fresh())]
        headers = subscribe(params, Origin="https://evil.example", Cookie=cookie).headers
        allowed = headers.get("Access-Control-Allow-Origin")
        assert allowed is None or "Access-Control-Allow-Credentials" not in headers

    def test_refusals_carry_the_fields_as_well(self, hub, cors_origin):
        with hub.open("", Origin=cors_origin) as response:
            assert response.status_code == 400
            assert response.headers["Access-Control-Allow-Origin"] == cors_origin

    def test_loss_and_link_are_readable(self, hub, cors_origin, subscribe):
        params = [("match", fresh()), ("last_event_id", "earliest")]
        exposed = subscribe(params, Origin=cors_origin).headers["Access-Control-Expose-Headers"]
        assert "mercure-last-event-id" in exposed.lower()
        answer = hub.api(hub.path + "/subscriptions", hub.subscriber(), Origin=cors_origin)
        if answer.status_code != 404:
            assert "link" in answer.headers["Access-Control-Expose-Headers"].lower()

    def test_a_preflight_allows_what_clients_send(self, hub, cors_origin):
        answer = hub.client.options(
            hub.url,
            headers={
                "Origin": cors_origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, last-event-id",
            },
        )
        assert answer.status_code in {200, 204}
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        assert "authorization" in allowed
        assert "last-event-id" in allowed
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
