"""The recipes of docs/recipes.md as they stand there: real browsers, task queues, databases."""

from __future__ import annotations

import time
from pathlib import Path

import flask
from flask import render_template_string
from playwright.sync_api import expect

from conftest import HUB_PATH
from support import neighbours, servers
from support.sse import Stream
from test_chat import browser  # noqa: F401 (a fixture)
from test_docs import blocks, events

DOCUMENT = "docs/recipes.md"
MODULES = servers.ROOT / "tests/clients/node_modules"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: What a module with a recipe begins with; the guide takes it for granted.
PREAMBLE = """
from flask import Flask, render_template_string, request
from flask_mercure_sse import MercureSSE

app = Flask(__name__)
app.config["SECRET_KEY"] = "a secret for tests, long enough to be one"
app.config.from_prefixed_env()
mercure = MercureSSE(app)
"""


def recipe(language: str, containing: str) -> str:
    (found,) = (text for name, text in blocks(DOCUMENT) if name == language and containing in text)
    return found


def run(text: str, **scope) -> dict:
    exec(text, scope)  # noqa: S102 (our own documentation)
    return scope


def test_flask_login_and_renewal(make_app):
    from flask_login import LoginManager, UserMixin, login_user

    app = make_app(MERCURE_HUB_ALLOW_ANONYMOUS=True)
    mercure = app.extensions["mercure_sse"].instance
    users = LoginManager(app)

    @users.user_loader
    def load(number):
        user = UserMixin()
        user.id = number
        return user

    @app.post("/login/<number>")
    def login(number):
        login_user(load(number))
        response = app.make_response("")
        return mercure.set_authz_cookie(response, [f"users/{number}", "users/8"], renewable=True)

    scope = {"app": app, "mercure": mercure, "render_template_string": render_template_string}
    scope = run(recipe("python", "import current_user"), **scope)
    run(recipe("python", "renew_authz_cookie"), **scope)
    with app.app_context():
        for number in (7, 8):
            mercure.publish(f"users/{number}", f"for {number}", private=True)
    client = app.test_client()
    read = f"{HUB_PATH}?topic=users/{{id}}&topic=users/7&topic=users/8&lastEventID=earliest"
    assert events(client, read) == []
    assert client.post("/renew").status_code == 401
    client.post("/login/7")
    name = app.extensions["mercure_sse"].authz_cookie_name
    before = client.get_cookie(name, path=HUB_PATH)
    client.delete_cookie(name, path=HUB_PATH)
    assert events(client, read) == ["for 7"], "by the rule, without a token"
    assert "users%2F7" in client.get("/inbox").text
    assert client.post("/renew").status_code == 204
    after = client.get_cookie(name, path=HUB_PATH)
    assert after.value != before.value
    reader = app.test_client()
    reader.set_cookie(name, after.value, path=HUB_PATH)
    assert events(reader, read) == ["for 7"], "users/8 is no longer granted: the rule says no"
    reader.set_cookie(name, before.value, path=HUB_PATH)
    assert events(reader, read) == ["for 7", "for 8"]


def test_celery(start, tmp_path, runtime_dir):
    for folder in ("queue", "done"):
        (tmp_path / folder).mkdir()
    broker = {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": str(tmp_path / "queue"),
            "data_folder_out": str(tmp_path / "queue"),
            "processed_folder": str(tmp_path / "done"),
        },
    }
    module = f"{PREAMBLE}\napp.config['CELERY'] = {broker!r}\n{recipe('python', 'import Celery')}"
    (tmp_path / "tasks.py").write_text(
        f"{module}\n@app.post('/order')\ndef order():\n    report.delay(7)\n    return 'ordered'\n"
        "@app.get('/ping')\ndef ping():\n    return ''\n"
    )
    server = start(lambda port: servers.gunicorn(port, app="tasks:app"), folder=tmp_path)
    environment = {
        "PYTHONPATH": str(servers.ROOT / "python"),
        "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
        "FLASK_MERCURE_COMPANION_GRACE": "1",
        "HOME": str(tmp_path),
    }
    command = [
        servers.script("celery"),
        "-A",
        "tasks:celery",
        "worker",
        "--pool=solo",
        "--concurrency=1",
    ]
    with neighbours.process([*command, "--loglevel=INFO"], tmp_path, **environment):
        stream = Stream.open(server.port, f"{HUB_PATH}?topic=reports/7")
        server.request("POST", "/order")
        assert stream.wait(3) == [f'{{"percent": {percent}}}' for percent in (0, 50, 100)]
        stream.close()


def test_rq(start, tmp_path, runtime_dir):
    port = servers.free_port()
    redis = [neighbours.tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    redis += ["--save", "", "--dir", str(tmp_path)]
    module = f"{PREAMBLE}\nfrom redis import Redis\nfrom rq import Queue\n"
    module += f"redis = Redis(port={port})\n{recipe('python', 'Queue(')}"
    module += "@app.get('/ping')\ndef ping():\n    return ''\n"
    (tmp_path / "jobs.py").write_text(module)
    with neighbours.running(redis, port, tmp_path / "redis.log"):
        server = start(lambda port: servers.gunicorn(port, app="jobs:app"), folder=tmp_path)
        status, answer, _ = server.request("POST", "/reports/7")
        assert status == 202
        environment = {
            "PYTHONPATH": f"{servers.ROOT / 'python'}:{tmp_path}",
            "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
            "FLASK_MERCURE_COMPANION_GRACE": "1",
        }
        command = [servers.script("rq"), "worker", "--burst", "--url", f"redis://127.0.0.1:{port}"]
        with neighbours.process(command, tmp_path, **environment):
            stream = Stream.open(server.port, flask.json.loads(answer)["events"])
            assert stream.wait(1) == ["done"]
            stream.close()


def test_sqlalchemy(make_app):
    from flask_sqlalchemy import SQLAlchemy

    app = make_app(SQLALCHEMY_DATABASE_URI="sqlite:///:memory:")
    db = SQLAlchemy(app)

    class Order(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        state = db.Column(db.String, default="new")

    mercure = app.extensions["mercure_sse"].instance
    run(recipe("python", "publish_on_commit"), app=app, db=db, mercure=mercure, Order=Order)
    with app.app_context():
        db.create_all()
        db.session.add(Order(id=7))
        db.session.commit()
    client = app.test_client()
    assert client.post("/orders/7/ship").status_code == 204
    read = events(client, f"{HUB_PATH}?topic=orders/7&lastEventID=earliest")
    assert read == ['{"state": "shipped"}']


def site(tmp_path: Path, name: str, page: str, code: str, templates: dict[str, str]) -> str:
    """An application with a page and libraries from node_modules; returns its module."""
    folder = tmp_path / "templates"
    folder.mkdir()
    for file, text in templates.items():
        (folder / file).write_text(text)
    (folder / "page.html").write_text(f"<!doctype html><title>{name}</title>{page}")
    libraries = f"""
from flask import render_template, send_from_directory
import threading, time

@app.get("/lib/<path:file>")
def lib(file):
    return send_from_directory({str(MODULES)!r}, file)

@app.get("/ping")
def ping():
    return ""

@app.get("/")
def page():
    return render_template("page.html", topic="answers/1")
"""
    (tmp_path / f"{name}.py").write_text(PREAMBLE + libraries + code)
    return f"{name}:app"


def test_htmx(start, tmp_path, browser):  # noqa: F811
    scripts = '<script src="/lib/htmx.org/dist/htmx.js"></script>'
    scripts += '<script src="/lib/htmx-ext-sse/sse.js"></script>'
    page = scripts + recipe("html", "sse-connect")
    item = {"item.html": "<li>{{ name }}</li>"}
    app = site(tmp_path, "cart", page, recipe("python", '"item.html"'), item)
    server = start(lambda port: servers.gunicorn(port, app=app), folder=tmp_path)
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{server.port}/")
    for number, name in enumerate(("pear", "<fig>"), 1):
        assert server.request("POST", "/cart", f"name={name}", FORM)[0] == 204
        expect(tab.locator("li")).to_have_count(number)
    expect(tab.locator("li").nth(1)).to_have_text("<fig>")
    tab.close()


def test_turbo(start, tmp_path, browser):  # noqa: F811
    page = '<script src="/lib/@hotwired/turbo/dist/turbo.es2017-umd.js"></script>'
    page += recipe("html", "turbo-stream-source")
    template = {"message.turbo.html": recipe("html", 'action="append"')}
    app = site(tmp_path, "board", page, recipe("python", "message.turbo.html"), template)
    server = start(lambda port: servers.gunicorn(port, app=app), folder=tmp_path)
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{server.port}/")
    assert server.request("POST", "/messages", "text=hello", FORM)[0] == 204
    expect(tab.locator("#messages p")).to_have_text("hello")
    tab.close()


def test_a_language_models_answer_survives_a_reload(start, tmp_path, browser):  # noqa: F811
    ask = """
@mercure.authorize("answers/{id}")
def may_read(id):
    return True

@app.post("/ask")
def ask():
    def pieces():
        for number in range(40):
            time.sleep(0.02)
            yield f"w{number} "

    def work():
        with app.app_context():
            answer("answers/1", pieces())

    threading.Thread(target=work).start()
    return "", 202
"""
    code = recipe("python", "def answer(") + ask
    app = site(tmp_path, "model", recipe("html", '"words"'), code, {})
    server = start(lambda port: servers.gunicorn(port, app=app), folder=tmp_path)
    address = f"http://127.0.0.1:{server.port}/"
    tab = browser.new_page()
    tab.goto(address)
    assert server.request("POST", "/ask")[0] == 202
    expect(tab.locator("#answer")).to_contain_text("w5 ")
    tab.reload()
    whole = " ".join(f"w{number}" for number in range(40))
    expect(tab.locator("#answer")).to_have_text(whole)
    other = browser.new_page()
    other.goto(address)
    expect(other.locator("#answer")).to_have_text(whole)
    other.wait_for_function("source.readyState === EventSource.CLOSED")
    tab.close()
    other.close()


def test_a_page_renews_in_time(start, tmp_path, browser):  # noqa: F811
    code = '\n@app.post("/renew")\ndef renew():\n    return "", 204\n'
    app = site(tmp_path, "renewing", recipe("html", "setInterval"), code, {})
    server = start(lambda port: servers.gunicorn(port, app=app), folder=tmp_path)
    tab = browser.new_page()
    tab.clock.install()
    tab.goto(f"http://127.0.0.1:{server.port}/")
    with tab.expect_request("**/renew") as asked:
        tab.clock.fast_forward("20:00")
    assert asked.value.method == "POST"
    tab.close()


def test_an_answer_is_collected(make_app):
    """Not one event per word: words that come at once travel together."""
    app = make_app()
    mercure = app.extensions["mercure_sse"].instance
    scope = run(recipe("python", "def answer("), mercure=mercure, time=time)
    with app.app_context():
        scope["answer"]("answers/2", (f"{number} " for number in range(1000)))
    client = app.test_client()
    with client.session_transaction() as session:
        session["mercure"] = {"subscribe": ["answers/2"]}
    read = events(client, f"{HUB_PATH}?topic=answers/2&lastEventID=earliest")
    assert "".join(read) == "".join(f"{number} " for number in range(1000))
    assert len(read) < 100
