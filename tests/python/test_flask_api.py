"""What the extension offers beside publishing: fragments, commits, who is there, page loads."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from flask import Flask, render_template_string, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from conftest import HUB_PATH
from flask_mercure_sse import ConfigurationError, InvalidUpdate
from support import servers
from support.sse import Stream


def read(app: Flask, topic: str = "*") -> list[str]:
    query = urllib.parse.urlencode({"topic": topic, "lastEventID": "earliest"})
    text = app.test_client().get(f"{HUB_PATH}?{query}").text
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


def mercure_of(app: Flask):
    return app.extensions["mercure_sse"].instance


# -- fragments ----------------------------------------------------------------------------------


def test_a_fragment_is_rendered_and_published(make_app, tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/cart.html").write_text("<ul>\n<li>{{ item }}</li>\n</ul>")
    app = make_app()
    app.jinja_loader = __import__("jinja2").FileSystemLoader(tmp_path / "templates")
    mercure = mercure_of(app)
    with app.app_context():
        mercure.publish_fragment("cart.html", "carts/7", item="<b>", type="cart")
    mercure._app = __import__("weakref").ref(app)
    assert mercure.publish_fragment("cart.html", "carts/7", item="2"), "without a context"
    assert read(app) == ["<ul>", "<li>&lt;b&gt;</li>", "</ul>", "<ul>", "<li>2</li>", "</ul>"]


# -- commits ------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String, default="")


@pytest.fixture
def shop(make_app, tmp_path):
    database = SQLAlchemy(model_class=Base)
    app = make_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/books.db")
    database.init_app(app)
    with app.app_context():
        Base.metadata.create_all(database.engine)
        yield app, database, mercure_of(app)
        database.session.remove()
        database.engine.dispose()


def test_published_after_the_commit_and_never_after_a_rollback(shop):
    app, database, mercure = shop
    session = database.session
    session.add(Book(id=1))
    id = mercure.publish_on_commit("t", "committed")
    assert read(app) == [], "not before"
    session.commit()
    assert read(app) == ["committed"]
    assert mercure.last_event_id() == id
    session.add(Book(id=2))
    mercure.publish_on_commit("t", "rolled back")
    session.rollback()
    session.add(Book(id=3))
    session.commit()
    assert read(app) == ["committed"], "neither then nor with the next commit"


def test_nothing_is_published_for_a_commit_that_fails(shop):
    app, database, mercure = shop
    session = database.session
    session.add(Book(id=1))
    session.commit()
    session.add(Book(id=1))
    mercure.publish_on_commit("t", "never")
    with pytest.raises(Exception, match="UNIQUE"):
        session.commit()
    session.rollback()
    session.commit()
    assert read(app) == []


def test_given_before_the_transaction_begins(shop):
    app, database, mercure = shop
    mercure.publish_on_commit("t", "first")
    database.session.add(Book(id=1))
    database.session.commit()
    mercure.publish_on_commit("t", "second")
    database.session.rollback()
    mercure.publish_on_commit("t", "third")
    database.session.close()
    database.session.add(Book(id=3))
    database.session.commit()
    assert read(app) == ["first"]


def test_the_guides_view(shop):
    from test_docs import block

    app, database, mercure = shop
    scope = {"app": app, "db": database, "Book": Book, "mercure": mercure}
    exec(block("docs/flask.md", 3), scope)  # noqa: S102 (our own documentation)
    assert app.test_client().post("/books/9").status_code == 204
    # In a request, the update may leave a moment after the answer.
    servers.wait_until(lambda: read(app) == ['{"number": 9}'])


def test_savepoints(shop):
    app, database, mercure = shop
    session = database.session
    session.add(Book(id=1))
    mercure.publish_on_commit("t", "outer")
    with session.begin_nested():
        session.add(Book(id=2))
        mercure.publish_on_commit("t", "kept")
        with session.begin_nested() as innermost:
            mercure.publish_on_commit("t", "undone")
            innermost.rollback()
    with session.begin_nested() as savepoint:
        mercure.publish_on_commit("t", "undone, too")
        savepoint.rollback()
    assert read(app) == []
    session.commit()
    assert read(app) == ["outer", "kept"]


@pytest.mark.parametrize("way", ["close", "reset", "remove"])
def test_a_session_that_is_given_up_takes_its_updates_along(shop, way):
    app, database, mercure = shop
    database.session.execute(select(Book))
    mercure.publish_on_commit("t", "abandoned")
    getattr(database.session() if way != "remove" else database.session, way)()
    database.session.execute(select(Book))
    mercure.publish_on_commit("t", "meant")
    database.session.commit()
    assert read(app) == ["meant"]


def test_after_a_commit_nothing_is_raised(shop, caplog):
    from flask_mercure_sse.testing import failing

    app, database, mercure = shop
    database.session.add(Book(id=1))
    with failing(app):
        for data in ("1", "2"):
            mercure.publish_on_commit("t", data, on_failure="raise")
        database.session.commit()
    assert caplog.text.count("An update was not published") == 2, "each was tried"
    database.session.add(Book(id=2))
    database.session.commit()


def test_a_session_without_flask_sqlalchemy(app, tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    Base.metadata.create_all(engine)
    mercure = mercure_of(app)
    with app.app_context():
        with Session(engine) as session, session.begin():
            session.add(Book(id=1))
            mercure.publish_on_commit("t", "x", session=session)
        with pytest.raises(ConfigurationError, match="Flask-SQLAlchemy"):
            mercure.publish_on_commit("t", "x")
        with pytest.raises(ConfigurationError, match="no SQLAlchemy session"):
            mercure.publish_on_commit("t", "x", session=7)
        with Session(engine) as session, pytest.raises(InvalidUpdate):
            mercure.publish_on_commit("", "x", session=session)
    engine.dispose()
    assert read(app) == ["x"]


# -- who is there -------------------------------------------------------------------------------


def test_the_subscription_api_below_the_application(start):
    server = start(servers.gunicorn, "-w", "2")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=a%2Fb")
    other = Stream.open(server.port, f"{HUB_PATH}?topic=c")
    path = f"{HUB_PATH}/subscriptions"
    assert server.request("GET", path)[0] == 401, "not for everybody"
    token = server.request("GET", "/token?topic=*")[1]
    bearer = {"Authorization": f"Bearer {token}", "Accept": "application/ld+json"}

    def topics(path: str) -> set[str]:
        status, body, headers = server.request("GET", path, headers=bearer)
        assert (status, headers["Content-Type"]) == (200, "application/ld+json")
        assert 'rel="mercure"' in headers["Link"]
        return {each["topic"] for each in json.loads(body)["subscriptions"]}

    servers.wait_until(lambda: topics(path) == {"a/b", "c"})
    assert topics(f"{path}/a%2Fb") == {"a/b"}, "an encoded slash stays one"
    assert topics(f"{path}/a") == set()

    def is_unchanged() -> bool:
        etag = server.request("GET", path, headers=bearer)[2]["ETag"]
        known = {**bearer, "If-None-Match": etag}
        return server.request("GET", path, headers=known)[0] == 304

    # Their events are appended a little after they are listed, and the tag names the newest event.
    servers.wait_until(is_unchanged)
    for each in (stream, other):
        each.close()
    servers.wait_until(lambda: topics(path) == set())


def test_subscriptions_can_be_switched_off(make_app):
    app = make_app(MERCURE_HUB_SUBSCRIPTIONS=False)
    from flask_mercure_sse import HubRefused

    with app.app_context(), pytest.raises(HubRefused):
        mercure_of(app).get_subscriptions()


def test_one_subscriber(app):
    mercure = mercure_of(app)
    with app.app_context():
        assert mercure.get_subscriptions()["subscriptions"] == []
        assert mercure.get_subscriptions("t", "urn:uuid:nobody") == {"subscriptions": []}
        with pytest.raises(TypeError, match="together with a topic"):
            mercure.get_subscriptions(subscriber="x")


def test_all_subscriptions_have_their_topic(start):
    server = start(servers.gunicorn)
    streams = [Stream.open(server.port, f"{HUB_PATH}?topic={t}") for t in ("a", "b%7Bid%7D", "*")]

    def topics() -> set[str]:
        document = json.loads(server.request("GET", "/subscriptions")[1])
        return {each["topic"] for each in document["subscriptions"]}

    servers.wait_until(lambda: topics() == {"a", "b{id}", "*"})
    for stream in streams:
        stream.close()


# -- page loads ---------------------------------------------------------------------------------


def test_no_gap_between_a_pages_queries_and_its_connection(make_app):
    app = make_app()
    mercure = mercure_of(app)
    shown: list[str] = []

    @app.get("/page")
    def page():
        shown[:] = ["what the database held"]
        with app.app_context():
            mercure.publish("t", "while the page was made")
        extra = {"last_event_id": False} if "now" in request.args else {}
        return render_template_string("{{ mercure_hub_url('t', **extra) }}", extra=extra)

    with app.app_context():
        mercure.publish("t", "what the database held")
    client = app.test_client()
    url = client.get("/page").text
    with app.app_context():
        mercure.publish("t", "while it was on its way")
    text = client.get(url).text
    data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert data == ["while the page was made", "while it was on its way"]
    assert "last_event_id" not in client.get("/page?now").text, "left out if told so"


def test_before_the_first_event_a_page_begins_at_the_beginning(make_app):
    app = make_app()

    @app.get("/page")
    def page():
        return render_template_string("{{ mercure_hub_url('t') }}")

    url = app.test_client().get("/page").text
    assert url.endswith("last_event_id=earliest")
    with app.app_context():
        mercure_of(app).publish("t", "first")
    assert "data: first" in app.test_client().get(url).text


def test_the_newest_id_is_known_at_once(app):
    """Written before the acknowledgement: whoever has published finds it."""
    mercure = mercure_of(app)
    with app.app_context():
        for number in range(300):
            id = mercure.publish("t", "x", id="i" * (number % 50 + 1) if number % 2 else None)
            assert mercure.last_event_id() == id


def test_the_newest_id_is_known_again_after_a_cleaner_of_temporary_files(app, runtime_dir):
    mercure = mercure_of(app)
    with app.app_context():
        mercure.publish("t", "x")
        (head,) = runtime_dir.glob("*/head")
        head.unlink()
        assert mercure.last_event_id() == "earliest"
        assert mercure.publish("t", "y") == mercure.last_event_id()


def test_the_cursor_can_be_left_out_everywhere(make_app):
    app = make_app(MERCURE_URL_CURSOR=False)
    with app.test_request_context():
        app.preprocess_request()
        assert mercure_of(app).hub_url("t") == f"{HUB_PATH}?topic=t"


# -- the stand-alone server ---------------------------------------------------------------------


def test_the_server_module_runs_the_hub(make_app, tmp_path):
    import subprocess
    import sys

    port = servers.free_port()
    secrets = [f"--publisher-secret={'p' * 32}", f"--subscriber-secret={'s' * 32}"]
    command = [sys.executable, "-m", "flask_mercure_sse.server", f"--port={port}", *secrets]
    env = {**__import__("os").environ, "PYTHONPATH": str(servers.ROOT / "python")}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}{HUB_PATH}"
        app = make_app(
            MERCURE_HUB_URL=url,
            MERCURE_PUBLISHER_SECRET_KEY="p" * 32,
            MERCURE_SUBSCRIBER_SECRET_KEY="s" * 32,
            MERCURE_RESOURCE_IDENTIFIER=url,
        )
        mercure = mercure_of(app)
        with app.app_context():
            token = mercure.create_publisher_jwt(["{+any}"])
            publish = lambda: mercure.publish("t", "x", jwt=token)  # noqa: E731
            servers.wait_until(lambda: publish() is not None, what="it did not start")
            stream = Stream.open(port, f"{HUB_PATH}?topic=t")
            assert publish()
            assert stream.wait(1) == ["x"]
            reader = mercure.create_subscription_jwt(["{+any}"])
            stream.close()
        assert "eyJ" not in (tmp_path / "log").read_text(), "no token in a log"
        assert reader
    finally:
        process.terminate()
        process.wait()
    missing = subprocess.run(command[:3], env=env, capture_output=True, text=True, check=False)
    assert "--publisher-secret" in missing.stderr
