"""What the documents of 0.1.0 and 0.4.1 say, one statement per test."""

from __future__ import annotations

import html
import json
import time
import urllib.parse

import pytest
from blinker import signal
from flask import make_response, render_template_string

from conftest import HUB_PATH


def token_of(url: str) -> str:
    return urllib.parse.parse_qs(urllib.parse.urlsplit(str(url)).query)["authorization"][0]


def topics_of(url: str) -> list[str]:
    return urllib.parse.parse_qs(urllib.parse.urlsplit(str(url)).query)["topic"]


def test_publish_and_subscribe(site):
    here = site()
    stream = here.stream("topic=topic")
    here.publish("topic", "message")
    assert stream.wait(1) == ["message"]


def test_publish_by_keyword_returns_the_id(site):
    here = site()
    stream = here.stream("topic=t")
    assert here.publish("t", "x", private=False, id="my-id", type="my-type", retry=2500) == "my-id"
    assert stream.wait(1) == ["x"]
    assert (stream.events[-1].id, stream.events[-1].type) == ("my-id", "my-type")


def test_data_that_is_no_text_is_json(site):
    here = site()
    stream = here.stream("topic=t")
    here.publish("t", {"a": [1, None]})
    assert json.loads(stream.wait(1)[0]) == {"a": [1, None]}


def test_several_topics_in_one_url(site):
    here = site()
    with here.app.test_request_context():
        url = here.mercure.hub_url(["a", "b c"])
    assert topics_of(url) == ["a", "b c"]
    stream = here.stream(urllib.parse.urlsplit(url).query)
    here.publish("a", "1")
    here.publish("b c", "2")
    assert stream.wait(2) == ["1", "2"]


def test_the_url_in_a_template(configured):
    app, _ = configured()
    with app.test_request_context():
        page = render_template_string("""new EventSource("{{ mercure_hub_url('topic') }}")""")
    assert f"{HUB_PATH}?topic=topic" in page


def test_private_updates_need_a_token(site):
    here = site()
    anonymous = here.stream("topic=t")
    with here.app.test_request_context():
        token = here.mercure.create_subscription_jwt("t")
        url = here.mercure.hub_url("t", token)
    assert token_of(url) == token
    granted = here.stream(urllib.parse.urlsplit(url).query)
    here.publish("t", "secret", private=True)
    here.publish("t", "public")
    assert granted.wait(2) == ["secret", "public"]
    assert anonymous.wait(1) == ["public"]


def test_the_authentified_url(site):
    here = site()
    with here.app.test_request_context():
        url = here.mercure.authentified_hub_url("t")
        page = render_template_string("{{ mercure_authentified_hub_url('t') }}")
    assert token_of(html.unescape(page))
    granted = here.stream(urllib.parse.urlsplit(url).query)
    here.publish("t", "secret", private=True)
    assert granted.wait(1) == ["secret"]


def test_the_subscriber_token_in_a_template(configured):
    app, _ = configured()
    with app.test_request_context():
        assert render_template_string("{{ mercure_subscriber_jwt(['a', 'b']) }}").count(".") == 2


@pytest.mark.parametrize("own_token", [True, False])
def test_the_cookie(site, own_token):
    here = site()
    with here.app.test_request_context():
        token = here.mercure.create_subscription_jwt("t") if own_token else None
        response = here.mercure.set_authz_cookie(make_response(""), "t", jwt=token)
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("mercureAuthorization=")
    assert f"Path={HUB_PATH}" in cookie
    assert "HttpOnly" in cookie
    granted = here.stream("topic=t", {"Cookie": cookie.partition(";")[0]})
    here.publish("t", "secret", private=True)
    assert granted.wait(1) == ["secret"]


def test_the_session(site):
    here = site()

    @here.app.get("/login")
    def login():
        here.mercure.set_authz_session(["t"])
        return "ok"

    cookie = here.app.test_client().get("/login").headers["Set-Cookie"].partition(";")[0]
    granted = here.stream("topic=t", {"Cookie": cookie})
    here.publish("t", "secret", private=True)
    assert granted.wait(1) == ["secret"]


def test_payloads_and_is_connected(site):
    here = site()
    seen = []

    @here.mercure.payload_getter
    def payload(topics):
        seen.append(list(topics))
        return {"user_id": 7}

    with here.app.test_request_context():
        assert not here.mercure.is_connected("t")
        query = urllib.parse.urlsplit(here.mercure.authentified_hub_url("t")).query
        other = here.mercure.create_subscription_jwt("t", payload={"admin": True})
    assert ["t"] in seen
    stream, second = here.stream(query), here.stream(f"topic=t&authorization={other}")
    with here.app.test_request_context():
        deadline = time.monotonic() + 10
        while len(here.mercure.get_subscriptions("t")["subscriptions"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert here.mercure.is_connected("t")
        assert here.mercure.is_connected("t", user_id=7)
        assert here.mercure.is_connected("t", user_id=7, admin=True)
        assert not here.mercure.is_connected("t", user_id=8)
        assert not here.mercure.is_connected("other")
        (first, _) = here.mercure.get_subscriptions("t")["subscriptions"]
        assert (first["topic"], first["active"]) == ("t", True)
        listed = render_template_string("{{ mercure_subscriptions('t') | length }}")
        assert listed == "2"
    stream.close(), second.close()
    with here.app.test_request_context():
        deadline = time.monotonic() + 10
        while here.mercure.is_connected("t"):
            assert time.monotonic() < deadline, "a closed stream is no subscription"
            here.mercure.publish("t", "is anybody there?")
            time.sleep(0.01)


def test_subscription_events(site):
    here = site()
    with here.app.test_request_context():
        url = here.mercure.authentified_hub_url(["t"], with_subscriptions=True)
        topic = render_template_string("{{ mercure_subscription_topic('t') | urlencode }}")
    names = topics_of(url)
    assert names[0] == "t"
    assert names[1].startswith(f"{HUB_PATH}/subscriptions/t")
    assert urllib.parse.unquote(topic) == names[1]
    with here.app.test_request_context():
        token = here.mercure.create_subscription_jwt(names)
    query = urllib.parse.urlencode([*[("topic", n) for n in names], ("authorization", token)])
    watcher = here.stream(query)
    other = here.stream("topic=t")
    assert other.status == 200
    documents = [json.loads(data) for data in watcher.wait(2)]
    assert all(document["topic"] == "t" for document in documents)
    assert {document["active"] for document in documents} == {True}


def test_the_type_is_the_topic(site):
    here = site(MERCURE_TYPE_IS_TOPIC=True)
    stream = here.stream("topic=t")
    here.publish("t", "x")
    here.publish("t", "y", type="own")
    assert stream.wait(2) == ["x", "y"]
    assert [event.type for event in stream.events if event.data] == ["t", "own"]


def test_the_type_is_the_topic_of_one_update(site):
    here = site()
    stream = here.stream("topic=t")
    here.publish("t", "x", type=True)
    stream.wait(1)
    assert stream.events[-1].type == "t"


class Order:
    __mercure_sse_topic__ = "orders/7"

    def __mercure_sse_data__(self):
        return "shipped"


def test_objects_tell_their_topic_and_data(site):
    here = site()
    with here.app.test_request_context():
        assert topics_of(here.mercure.hub_url(Order())) == ["orders/7"]
        page = render_template_string("{{ mercure_topic(order) }}", order=Order())
        assert page == "orders/7"
        assert here.mercure.create_subscription_jwt(Order())
    stream = here.stream("topic=orders/7")
    here.publish(Order())
    here.publish(Order(), "delivered")
    assert stream.wait(2) == ["shipped", "delivered"]


def test_objects_without_a_topic_have_their_class_as_topic(site):
    class Note(dict):
        pass

    here = site()
    stream = here.stream("topic=Note")
    here.publish(Note(text="x"))
    assert json.loads(stream.wait(1)[0]) == {"text": "x"}


def test_signals(site):
    here = site()
    stream = here.stream("topic=my-event&topic=elsewhere")
    my_event, other = signal("my-event"), signal("my-other-event")
    here.mercure.publish_signal(my_event, data="plain", signal_name_as_type=True)
    here.mercure.publish_signal(other, "elsewhere", signal_kwargs_as_data=True)
    with here.app.test_request_context():
        my_event.send(None)
        other.send(None, a=1)
    data = stream.wait(2)
    assert data[0] == "plain"
    assert json.loads(data[1]) == {"a": 1}
    assert stream.events[0].type == "my-event"


def test_signals_with_callback_and_marshaler(site):
    here = site()
    stream = here.stream("topic=changed")
    changed = signal("compat-changed")

    def callback(update):
        if update["data"] == "<skip>":
            return False
        update["topic"] = "changed"
        return None

    here.mercure.publish_signal(
        changed,
        data={},
        signal_kwargs_as_data=True,
        marshaler=lambda data: f"<{data['what']}>",
        callback=callback,
    )
    with here.app.test_request_context():
        changed.send(None, what="skip")
        changed.send(None, what="x")
    assert stream.wait(1) == ["<x>"]


def test_a_senders_own_options(site):
    class Sender:
        __mercure_publish__ = {"topic": "own", "data": "mine"}  # noqa: RUF012

    here = site()
    stream = here.stream("topic=own")
    sent = signal("compat-sent")
    here.mercure.publish_signal(sent, data="default")
    with here.app.test_request_context():
        sent.send(Sender())
    assert stream.wait(1) == ["mine"]


def test_publishing_over_http(site):
    closed = site()
    form = {"topic": "t", "data": "x"}
    with closed.app.test_request_context():
        token = closed.app.extensions["mercure_sse"].publisher_jwt
    headers = {"Authorization": f"Bearer {token}"}
    answer = closed.app.test_client().post(HUB_PATH, data=form, headers=headers)
    assert answer.status_code in (403, 405), "off by default"
    opened = site(MERCURE_HUB_ALLOW_PUBLISH=True)
    stream = opened.stream("topic=t")
    client = opened.app.test_client()
    assert client.post(HUB_PATH, data=form).status_code in (401, 403)
    assert client.post(HUB_PATH, data=form, headers=headers).status_code == 200
    assert stream.wait(1) == ["x"]


def test_without_anonymous_subscribers(site):
    here = site(MERCURE_HUB_ALLOW_ANONYMOUS=False)
    assert here.stream("topic=t").status in (401, 403)
    with here.app.test_request_context():
        token = here.mercure.create_subscription_jwt("t")
    assert here.stream(f"topic=t&authorization={token}").status == 200


def test_the_state(configured):
    app, mercure = configured()
    state = app.extensions["mercure_sse"]
    assert state.instance is mercure
    found = (state.authz_cookie_name, state.type_is_topic, state.hub_allow_publish)
    assert found == ("mercureAuthorization", False, False)
    found = (state.hub_allow_anonymous, state.hub_subscriptions, state.hub_keepalive_interval)
    assert found == (True, True, 15)
    assert state.hub_reconciliation_length >= 500
    assert state.subscriber_secret_key == state.publisher_secret_key == app.config["SECRET_KEY"]
    assert state.publisher_jwt.count(".") == 2


def test_the_state_has_its_older_name(configured):
    app, _ = configured()
    assert app.extensions["mercure"] is app.extensions["mercure_sse"]


def test_configuration_goes_before_arguments(configured):
    app, _ = configured(
        options={"hub_url": "http://argument/", "authz_cookie_name": "argument"},
        MERCURE_AUTHZ_COOKIE_NAME="configured",
        MERCURE_PUBLISHER_JWT="token",
    )
    state = app.extensions["mercure_sse"]
    assert state.authz_cookie_name == "configured"
    assert state.hub_url == "http://argument/"


def test_an_external_hub_is_addressed_by_its_urls(configured):
    app, mercure = configured(
        MERCURE_HUB_URL="http://internal/hub",
        MERCURE_PUBLIC_HUB_URL="https://public/hub",
        MERCURE_PUBLISHER_JWT="token",
    )
    with app.test_request_context():
        assert mercure.hub_url("t") == "https://public/hub?topic=t"
        assert mercure.hub_url("t", public=False) == "http://internal/hub?topic=t"
    app, mercure = configured("one", MERCURE_HUB_URL="http://both/", MERCURE_PUBLISHER_JWT="t")
    with app.test_request_context():
        assert mercure.hub_url("t") == "http://both/?topic=t"


def test_the_url_of_the_request(configured):
    app, mercure = configured(MERCURE_HUB_URL=True)
    with app.test_request_context(base_url="https://there.example/"):
        url = mercure.hub_url("t")
    assert url.startswith(f"https://there.example{HUB_PATH}?topic=t")


@pytest.mark.parametrize("command", ["gen-secret-key", "subscriber-jwt", "publisher-jwt"])
def test_commands(configured, command):
    app, _ = configured()
    result = app.test_cli_runner().invoke(args=["mercure", command])
    assert result.exit_code == 0, result.output
    assert len(result.output.strip()) >= 32


def test_the_command_that_publishes(site):
    here = site()
    stream = here.stream("topic=t")
    arguments = ["mercure", "publish", "t", "from the shell", "--id", "i", "--type", "k"]
    result = here.app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 0, result.output
    assert stream.wait(1) == ["from the shell"]
    assert (stream.events[-1].id, stream.events[-1].type) == ("i", "k")


def test_the_current_applications_functions(site):
    from flask_mercure_sse import mercure_publish

    here = site()
    stream = here.stream("topic=t")
    with here.app.test_request_context():
        mercure_publish("t", "x")
    assert stream.wait(1) == ["x"]
