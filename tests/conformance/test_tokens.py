"""Access tokens of 1.0: where they stand, what makes them valid, what they grant."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest

from client import challenge, detail, fresh

pytestmark = pytest.mark.v1
COOKIE = "__Secure-mercure_access_token"


def invalid(hub, token: str) -> None:
    """Publishing and subscribing with the token is refused, and the answer tells no more."""
    answer = hub.post([("topic", "a")], token)
    assert answer.status_code == 401, answer.text
    assert 'error="invalid_token"' in challenge(answer)


def test_without_a_token_publishing_is_401_without_error_code(hub):
    answer = hub.post([("topic", "a")], None)
    assert answer.status_code == 401
    assert "error" not in challenge(answer).replace("resource_metadata", "")


def test_challenges_name_the_metadata(hub):
    for token in (None, "garbage", hub.v1()):
        answer = hub.post([("topic", "a")], token)
        assert "resource_metadata=" in challenge(answer)


def test_anonymous_subscribers_get_public_updates_only(hub, subscribe):
    topic = fresh()
    stream = subscribe([("match", topic)])
    hub.publish(topic, "secret", private="on")
    hub.publish(topic, "public")
    assert stream.data() == "public"


def test_an_invalid_token_is_refused_even_where_none_is_needed(hub):
    with hub.open([("match", "a")], "garbage") as response:
        assert response.status_code == 401
        assert 'error="invalid_token"' in challenge(response)


class TestPlaces:
    def test_the_scheme_is_case_insensitive(self, hub):
        topic = [("topic", fresh())]
        for scheme in ("Bearer", "bearer", "BEARER"):
            answer = hub.post(topic, None, Authorization=f"{scheme} {hub.publisher()}")
            assert answer.status_code == 200

    def test_a_bearer_scheme_without_token_is_a_malformed_request(self, hub):
        answer = hub.post([("topic", "a")], None, Authorization="Bearer")
        assert answer.status_code == 400
        assert 'error="invalid_request"' in challenge(answer)

    def test_a_cookie_may_hold_the_token(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("match", topic)], Cookie=f"a=b; {COOKIE}={hub.subscriber()}")
        hub.publish(topic, "secret", private="on")
        assert stream.data() == "secret"

    def test_the_header_goes_before_the_cookie(self, hub, subscribe):
        topic = fresh()
        bad = f"{COOKIE}=garbage"
        stream = subscribe([("match", topic)], hub.subscriber(), Cookie=bad)
        hub.publish(topic, "secret", private="on")
        assert stream.data() == "secret"
        good = f"{COOKIE}={hub.subscriber()}"
        with hub.open([("match", topic)], "garbage", Cookie=good) as response:
            assert response.status_code == 401, "a bad header is not made good by a cookie"

    def test_tokens_in_the_url_are_not_taken(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("match", topic), ("access_token", hub.subscriber())])
        hub.publish(topic, "secret", private="on")
        hub.publish(topic, "public")
        assert stream.data() == "public"

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "https://evil.example"},
            {"Referer": "https://evil.example/x"},
            {"Origin": "null"},
        ],
    )
    def test_a_page_elsewhere_cannot_publish_with_the_cookie(self, hub, headers):
        cookie = f"{COOKIE}={hub.publisher()}"
        answer = hub.post([("topic", "a")], None, Cookie=cookie, **headers)
        assert answer.status_code in {401, 403}

    def test_a_page_of_the_hub_itself_can(self, hub):
        cookie = f"{COOKIE}={hub.publisher()}"
        for headers in ({"Origin": hub.origin}, {"Referer": hub.origin + "/page"}):
            answer = hub.post([("topic", "a")], None, Cookie=cookie, **headers)
            assert answer.status_code == 200


class TestValidation:
    @pytest.mark.parametrize(
        "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"]
    )
    def test_the_type_in_every_spelling(self, hub, typ):
        assert hub.post([("topic", "a")], hub.publisher(typ=typ)).status_code == 200

    @pytest.mark.parametrize("typ", ["JWT", "id_token+jwt", "jwt+at", "text/at+jwt", "at+jwt2"])
    def test_authorization_details_need_the_type(self, hub, typ):
        assert hub.post([("topic", "a")], hub.publisher(typ=typ)).status_code in {401, 403}

    @pytest.mark.parametrize("claim", ["iss", "aud", "exp"])
    def test_required_claims(self, hub, claim):
        invalid(hub, hub.publisher(**{claim: None}))

    def test_expired_tokens(self, hub):
        invalid(hub, hub.publisher(exp=int(time.time()) - 60))
        invalid(hub, hub.publisher(exp="tomorrow"))

    def test_tokens_that_are_not_valid_yet(self, hub):
        invalid(hub, hub.publisher(nbf=int(time.time()) + 300))
        assert (
            hub.post([("topic", "a")], hub.publisher(nbf=int(time.time()) - 5)).status_code == 200
        )

    def test_the_issuer_is_compared_exactly(self, hub):
        for issuer in (
            hub.issuer + "/",
            hub.issuer.upper(),
            "https://other.example",
            "",
            1,
            [hub.issuer],
        ):
            token = jwt.encode(
                jwt.decode(hub.publisher(), options={"verify_signature": False}) | {"iss": issuer},
                hub.publisher_key, "HS256", headers={"typ": "at+jwt"},
            ) if isinstance(issuer, str) else forged_issuer(hub, issuer)  # fmt: skip
            invalid(hub, token)

    def test_the_audience_names_the_hub(self, hub):
        for audience in (
            "https://other.example",
            [],
            ["https://other.example"],
            hub.audience + "/",
        ):
            invalid(hub, hub.publisher(aud=audience))
        several = ["https://other.example", hub.audience]
        assert hub.post([("topic", "a")], hub.publisher(aud=several)).status_code == 200

    def test_another_key(self, hub):
        invalid(hub, hub.publisher(key="another-key-that-the-hub-does-not-know"))

    def test_no_signature_and_no_algorithm(self, hub):
        claims = jwt.decode(hub.publisher(), options={"verify_signature": False})
        for algorithm in ("none", "None", "NONE", "nOnE"):
            invalid(hub, f"{segment({'typ': 'at+jwt', 'alg': algorithm})}.{segment(claims)}.")

    def test_a_changed_claim(self, hub):
        header, _, signature = hub.v1(detail("publish", "only-this")).split(".")
        claims = jwt.decode(hub.publisher(), options={"verify_signature": False})
        invalid(hub, f"{header}.{segment(claims)}.{signature}")

    @pytest.mark.parametrize("field", ["jwk", "jku", "x5u", "x5c"])
    def test_keys_that_the_token_brings_along_are_not_used(self, hub, field):
        secret = "a-key-that-the-token-brings-along-itself"
        encoded = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
        brought = {
            "jwk": {"kty": "oct", "k": encoded},
            "jku": "http://127.0.0.1:9/jwks.json",
            "x5u": "http://127.0.0.1:9/cert.pem",
            "x5c": ["MIIB"],
        }
        claims = jwt.decode(hub.publisher(), options={"verify_signature": False})
        header = {"typ": "at+jwt", field: brought[field]}
        invalid(hub, jwt.encode(claims, secret, "HS256", headers=header))

    @pytest.mark.parametrize("token", ["a", "a.b", "a.b.c", "..", "e30.e30.", "a.b.c.d.e"])
    def test_noise(self, hub, token):
        invalid(hub, token)

    def test_the_publishers_key_is_not_the_subscribers(self, hub):
        if hub.publisher_key == hub.subscriber_key:
            pytest.skip("one key for both roles")
        with hub.open([("match", "a")], hub.subscriber(key=hub.publisher_key)) as response:
            assert response.status_code == 401
        invalid(hub, hub.publisher(key=hub.subscriber_key))


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged_issuer(hub, issuer: object) -> str:
    """PyJWT refuses to write an issuer that is no text, so this signs it itself."""
    claims = jwt.decode(hub.publisher(), options={"verify_signature": False}) | {"iss": issuer}
    body = f"{segment({'typ': 'at+jwt', 'alg': 'HS256'})}.{segment(claims)}"
    key = jwt.get_algorithm_by_name("HS256")
    signature = key.sign(body.encode(), key.prepare_key(hub.publisher_key))
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


class TestDetails:
    """All or nothing: one bad detail spoils the token."""

    GOOD = detail("publish", "*")

    @pytest.mark.parametrize(
        "bad",
        [
            {"actions": ["publish"]},
            {"actions": [], "topics": [{"match": "a"}]},
            {"actions": "publish", "topics": [{"match": "a"}]},
            {"actions": [1], "topics": [{"match": "a"}]},
            {"actions": ["later", None], "topics": [{"match": "a"}]},
            {"topics": [{"match": "a"}]},
            {"actions": ["publish"], "topics": []},
            {"actions": ["publish"], "topics": "a"},
            {"actions": ["publish"], "topics": ["a"]},
            {"actions": ["publish"], "topics": [{}]},
            {"actions": ["publish"], "topics": [{"match": 1}]},
            {"actions": ["publish"], "topics": [{"match": "a", "match_type": "Exact"}]},
            {"actions": ["publish"], "topics": [{"match": "a", "match_type": "regexp"}]},
            {"actions": ["publish"], "topics": [{"match": "a", "match_type": 1}]},
            {"actions": ["publish"], "topics": [{"match": "/(", "match_type": "urlpattern"}]},
            {"actions": ["publish"], "topics": [{"match": "a\u200bb"}]},
            {"actions": ["publish"], "topics": [{"match": "a\nb"}]},
            {"actions": ["subscribe"], "topics": [{"match": "a"}, {"match": 1}]},
            {"actions": ["subscribe"], "topics": [{"match": "a"}], "payload": "text"},
        ],
    )
    def test_one_bad_detail_spoils_the_token(self, hub, bad):
        from client import DETAIL

        invalid(hub, hub.v1(self.GOOD, {"type": DETAIL} | bad))

    def test_the_claim_must_be_an_array(self, hub):
        invalid(hub, hub.v1(authorization_details={"type": "x"}))
        invalid(hub, hub.v1(authorization_details=[1]))

    def test_details_of_other_types_and_unknown_actions_grant_nothing(self, hub):
        other = {"type": "https://other.example", "anything": 1}
        upper = detail("publish", "*") | {"type": "https://MERCURE.rocks/authorization-detail"}
        unknown = detail("shout", "*")
        answer = hub.post([("topic", "a")], hub.v1(other, upper, unknown))
        assert answer.status_code == 403
        assert hub.post([("topic", "a")], hub.v1(other, unknown, self.GOOD)).status_code == 200

    def test_an_unknown_action_beside_a_known_one(self, hub):
        both = detail("publish", "*") | {"actions": ["shout", "publish"]}
        assert hub.post([("topic", "a")], hub.v1(both)).status_code == 200

    def test_no_details_grant_nothing(self, hub):
        for token in (hub.v1(), hub.v1(authorization_details=None)):
            answer = hub.post([("topic", "a")], token)
            assert answer.status_code == 403
            assert 'error="insufficient_scope"' in challenge(answer)

    def test_every_topic_must_be_granted(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("match", topic)])
        token = hub.v1(detail("publish", topic), detail("publish", topic + "/x"))
        answer = hub.post([("topic", topic), ("topic", "other")], token)
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in challenge(answer)
        assert (
            hub.post([("topic", topic), ("topic", topic + "/x"), ("data", "ok")], token).status_code
            == 200
        )
        assert stream.data() == "ok", "nothing of the refused update was sent"

    def test_match_type_defaults_to_exact(self, hub):
        pattern = "https://example.com/:id"
        topic = [("topic", "https://example.com/1")]
        assert hub.post(topic, hub.v1(detail("publish", pattern))).status_code == 403
        assert hub.post(topic, hub.v1(detail("publish", pattern, kind="exact"))).status_code == 403
        assert (
            hub.post(topic, hub.v1(detail("publish", pattern, kind="urlpattern"))).status_code
            == 200
        )

    def test_the_wildcard_grants_everything_whatever_its_type(self, hub):
        for kind in (None, "exact", "urlpattern"):
            assert (
                hub.post([("topic", "a")], hub.v1(detail("publish", "*", kind=kind))).status_code
                == 200
            )

    def test_a_token_far_too_large_is_refused(self, hub):
        answer = hub.post([("topic", "a")], hub.v1(detail("publish", *["a"] * 3500)))
        assert answer.status_code in {400, 401, 413, 431}


class TestReading:
    def test_one_granted_topic_is_enough(self, hub, subscribe):
        canonical, alternate = fresh(), fresh()
        stream = subscribe([("match", canonical)], hub.subscriber(alternate))
        hub.post([("topic", canonical), ("data", "no"), ("private", "on")])
        hub.post([("topic", canonical), ("topic", alternate), ("data", "yes"), ("private", "on")])
        assert stream.data() == "yes"

    def test_listening_grants_nothing(self, hub, subscribe):
        topic = fresh()
        stream = subscribe([("match", "*"), ("match", topic)], hub.subscriber("other"))
        hub.publish(topic, "secret", private="on")
        hub.publish(topic, "public")
        while (data := stream.data()) != "public":
            assert data != "secret"

    def test_grants_by_pattern(self, hub, subscribe):
        base = fresh()
        token = hub.v1(detail("subscribe", base + "/*", kind="urlpattern"), key=hub.subscriber_key)
        stream = subscribe([("match", base + "/1"), ("match", base)], token)
        hub.publish(base, "no", private="on")
        hub.publish(base + "/1", "yes", private="on")
        assert stream.data() == "yes"

    def test_the_stream_ends_when_the_token_does(self, hub, subscribe):
        expiry = int(time.time()) + 4
        stream = subscribe([("match", fresh())], hub.subscriber(exp=expiry))
        assert stream.event() is None, "the end of the stream"
        assert time.time() < expiry + 10
