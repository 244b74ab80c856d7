"""Every snippet of the documentation, extracted and run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import flask
import httpx
import pytest
import tomllib
from flask import Flask, render_template_string

from conftest import HUB_PATH
from support import servers
from support.sse import Stream

ROOT = servers.ROOT
#: Documents with snippets, and the language of each of them, in order. A snippet that is added
#: has to be added here, and to a test below.
SNIPPETS = {
    "README.md": ["sh", "python", "sh", "sh", "sh", "sh"],
    "docs/flask.md": [
        *("python", "python", "python", "python", "html"),
        *("python", "python", "python", "python", "python", "python", "python", "python", "sh"),
    ],
    "docs/quickstart.md": ["sh", "python", "sh", "sh", "sh", "sh"],
    "docs/deployment.md": [
        *("sh", "sh", "sh", "sh", "sh", "python", "sh", "sh"),
        *("nginx", "haproxy", "caddyfile", "python"),
        *("sh", "python", "nginx", "python", "nginx"),
    ],
    "docs/recipes.md": [
        *("python", "python", "html", "python", "python", "python", "html", "python"),
        *("html", "python", "html", "python", "html"),
    ],
    "docs/conformance.md": ["sh"],
    "docs/production/choosing.md": ["sh", "sh", "sh"],
    "docs/production/nats.md": ["conf", "sh"],
    "docs/production/postgresql.md": ["sql", "sh"],
    "docs/production/redis.md": ["sh", "conf"],
    "docs/production/debugger.md": ["sh"],
    "docs/production/serving.md": ["toml", "toml", "toml", "toml"],
    "docs/production/sqlite.md": ["sh"],
    "docs/hub.md": ["toml", "sh", "sh", "sh", "sh", "toml", "sh", "sh"],
}


def blocks(document: str) -> list[tuple[str, str]]:
    text = (ROOT / document).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block(document: str, number: int) -> str:
    return blocks(document)[number][1]


def test_every_snippet_is_known_to_a_test():
    documents = [
        ROOT / "README.md",
        *sorted(ROOT.glob("*.md")),
        *sorted(ROOT.glob("docs/**/*.md")),
    ]
    found = {str(path.relative_to(ROOT)) for path in documents}
    for document in found:
        languages = [language for language, _ in blocks(document)]
        assert languages == SNIPPETS.get(document, []), document


def test_links_lead_somewhere():
    for document in ROOT.glob("**/*.md"):
        if {".venv", "node_modules", "target"} & set(document.relative_to(ROOT).parts):
            continue
        for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            if "://" not in link:
                assert target.exists(), f"{document}: {link}"
                assert not anchor or anchor in anchors(target), f"{document}: {link}"


def anchors(document: Path) -> set[str]:
    """What links can point to in a document: its headings, as they are usually written there."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_package_has_the_name_that_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert block("README.md", 0) == f"pip install {project['name']}\n"


def test_the_readmes_application(start, tmp_path, runtime_dir):
    (tmp_path / "app.py").write_text(block("README.md", 1))
    for command in (servers.flask_run, servers.gunicorn):
        server = start(
            lambda port, command=command: command(port),
            folder=tmp_path,
            TMPDIR=str(runtime_dir),
        )
        page = server.request("GET", "/")[1]
        assert f'new EventSource("{HUB_PATH}?topic=room&last_event_id=' in page
        stream = Stream.open(server.port, f"{HUB_PATH}?topic=room")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert server.request("POST", "/say", "text=hello", form)[0] == 204
        assert stream.wait(1) == ["hello"]
        stream.close()
        server.stop()


def environment(port: int) -> dict[str, str]:
    """The binary on the path, and a free port instead of the default one."""
    path = f"{Path(servers.HUB).parent}{os.pathsep}{os.environ['PATH']}"
    url = f"http://127.0.0.1:{port}{HUB_PATH}"
    return {
        **os.environ,
        "PATH": path,
        "MERCURE_LISTEN": f"127.0.0.1:{port}",
        "MERCURE_HUB_URL": url,
    }


@contextlib.contextmanager
def shell(script: str, env: dict[str, str], **options) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["bash", "-euc", script],
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)  # the session that was started right here
        process.communicate()


def read_until(output, text: str) -> None:
    for line in output:
        if text in line:
            return
    raise AssertionError(f"the output ended without {text!r}")


def test_the_readmes_hub():
    env = environment(servers.free_port())
    env["MERCURE_PUBLISHER_JWT_KEY"] = "k" * 32
    serve = block("README.md", 2)
    export, command = serve.splitlines()
    key = subprocess.run(
        ["bash", "-euc", f"{export}; echo $MERCURE_PUBLISHER_JWT_KEY"],
        env=env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert len(key.stdout.strip()) == 64
    with shell(command, env) as hub:
        read_until(hub.stderr, "listening")
        with shell(block("README.md", 3), env) as subscriber:
            read_until(subscriber.stdout, "retry")
            subprocess.run(["bash", "-euc", block("README.md", 4)], env=env, check=True)
            read_until(subscriber.stdout, "data: hello")


def test_the_playground():
    port = servers.free_port()
    with shell(f"exec {block('docs/production/debugger.md', 0)}", environment(port)) as hub:
        read_until(hub.stderr, "this is a playground")
        read_until(hub.stderr, "listening")
        page = httpx.get(f"http://127.0.0.1:{port}{HUB_PATH}/ui/").text
        assert "Mercure debugger" in page


def test_the_hubs_guide(tmp_path):
    port = servers.free_port()
    env = environment(port)
    del env["MERCURE_LISTEN"], env["MERCURE_HUB_URL"]
    config = block("docs/hub.md", 0)
    (tmp_path / "hub.toml").write_text(config)

    def run(script: str, env: dict[str, str]) -> str:
        done = subprocess.run(
            ["bash", "-euc", script.replace("5500", str(port))],
            cwd=tmp_path, env=env, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "The configuration is valid" in run(block("docs/hub.md", 1), env)
    tokens = block("docs/hub.md", 2)
    assert [line.count(".") for line in run(tokens, env).split()] == [2, 2, 2]

    serve = f"exec mercure-hub serve --config hub.toml --listen 127.0.0.1:{port}"
    with shell(serve, env, cwd=tmp_path) as hub:
        read_until(hub.stderr, "listening")
        subscribe = block("docs/hub.md", 3).replace("5500", str(port))
        with shell(subscribe, env) as subscriber:
            read_until(subscriber.stdout, "retry")
            exports = "\n".join(tokens.splitlines()[:2])
            answer = run(f"{exports}\n{block('docs/hub.md', 4)}", env)
            assert answer.startswith("urn:uuid:")
            read_until(subscriber.stdout, 'data: {"title": "new"}')
            found = json.loads(run(f"{exports}\n{block('docs/hub.md', 6)}", env))
            assert [one["topic"] for one in found["subscriptions"]] == ["books/1"]
    said = run(f"{exports}\n{block('docs/hub.md', 7)}", env)
    assert "granted by" in said
    assert "matches https://example.com/books/1" in said
    (tmp_path / "issuers.toml").write_text(block("docs/hub.md", 5))
    said = run("mercure-hub check-config --config issuers.toml", env)
    assert "fetched from https://login.example.com/jwks.json" in said
    certificate, key = certify(tmp_path)
    words = ["certificate from", "certificate for hub.example.com", "no", "no"]
    for number, word in enumerate(words):
        text = block("docs/production/serving.md", number)
        text = text.replace("/etc/mercure/cert.pem", certificate)
        text = text.replace("/etc/mercure/key.pem", key)
        (tmp_path / "serving.toml").write_text(text)
        said = run("mercure-hub check-config --config serving.toml", env)
        assert re.search(f"^TLS +{word}", said, re.MULTILINE), said


def certify(folder: Path) -> tuple[str, str]:
    """A certificate and its key, in files."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-out", certificate, "-keyout", key]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    return certificate, key


#: A row of docs/conformance.md: level, requirement, proof.
ROW = re.compile(r"^\| (MUST|SHOULD|MAY) \| (.+?) \| (.+) \|$", re.MULTILINE)


def test_every_requirement_has_a_test_that_exists():
    rows = ROW.findall((ROOT / "docs/conformance.md").read_text())
    assert len(rows) > 400, "both generations"
    for level, requirement, proof in rows:
        if proof.startswith("not done: "):
            assert level == "MAY", requirement
            continue
        found = re.fullmatch(r"`([\w./-]+)::(\w+)`", proof)
        assert found is not None, requirement
        source = (ROOT / found[1]).read_text()
        assert re.search(rf"^\s*(async )?(def|fn) {found[2]}\(", source, re.MULTILINE), proof


def test_the_conformance_suite_judges_a_hub_by_its_address():
    """The command of docs/conformance.md, on a few of its tests."""
    port, key = servers.free_port(), "k" * 32
    env = environment(port) | {"MERCURE_PUBLISHER_JWT_KEY": key, "KEY": key}
    env |= {"MERCURE_SUBSCRIBER_JWT_KEY": key, "MERCURE_TRUSTED_ISSUERS": env["MERCURE_HUB_URL"]}
    env["MERCURE_TRUSTED_ISSUERS"] = f"http://127.0.0.1:{port}"
    with shell("exec mercure-hub serve", env) as hub:
        read_until(hub.stderr, "listening")
        command = block("docs/conformance.md", 0)
        assert "make test-conformance JUDGE=" in command
        options = re.search(r'JUDGE="(.+)"', command)[1].replace("$KEY", key)
        options = re.sub(r"https://\S+", env["MERCURE_HUB_URL"], options)
        chosen = ["-q", "-p", "no:cacheprovider", "-k", "test_discovery or test_selectors"]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/conformance", *options.split(), *chosen],
            cwd=ROOT, env=env, capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout


@pytest.fixture
def guide(make_app) -> dict:
    """What the guide's snippets share, with the first one's ``app`` made by the tests."""
    assert "mercure = MercureSSE(app)" in block("docs/flask.md", 0)
    scope: dict = {"__name__": "guide_application"}
    exec(block("docs/flask.md", 0), scope)  # noqa: S102 (our own documentation)
    assert isinstance(scope["app"], Flask)
    app = make_app()
    mercure = app.extensions["mercure_sse"].instance
    mercure._app = __import__("weakref").ref(app)
    return {"app": app, "mercure": mercure}


def run_python(number: int, scope: dict) -> None:
    exec(block("docs/flask.md", number), scope)  # noqa: S102 (our own documentation)


def events(client, path: str) -> list[str]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]


def test_the_flask_guide(guide):
    app = guide["app"]
    guide["jsonify"] = flask.jsonify
    guide["session"] = flask.session
    for number in (1, 2, 5, 6, 7, 8, 9, 10, 11):
        run_python(number, guide)
    with app.test_request_context():
        page = render_template_string(block("docs/flask.md", 4))
    address = re.search(r'EventSource\("([^"]+)"\)', page)
    assert address is not None
    client = app.test_client()
    everything = f"{address[1]}&lastEventID=earliest"
    assert events(client, f"{HUB_PATH}?topic=orders/7&lastEventID=earliest") == [
        '{"state": "shipped"}'
    ]
    assert events(client, everything) == [
        "plain text",
        '{"title": "sent as JSON"}',
        "one update, two topics",
    ]
    url = client.get("/books").json["events"]
    assert f"last_event_id={guide['mercure'].last_event_id().replace(':', '%3A')}" in url
    assert client.get("/present").json == {"here": False}
    guide["mercure"].publish("books/2", "later")
    assert events(client, url) == ["later"]

    links = client.get("/api/books/2").headers.getlist("Link")
    assert links[1] == '<books/2>; rel="self"'
    found = re.fullmatch(r'<(.+)>; rel="mercure"; last-event-id="(.+)"', links[0])
    assert found is not None
    address, cursor = found.groups()
    guide["mercure"].publish("books/2", "since then")
    url = f"{address}?topic=books/2&lastEventID={cursor}"
    assert events(client, url) == ["since then"]

    client.post("/greet")
    private = f"{HUB_PATH}?topic=users/7&lastEventID=earliest"
    assert events(client, private) == []
    address = re.sub(r"last_event_id=[^&]+", "last_event_id=earliest", client.get("/address").text)
    assert events(client, address) == ["only for you"]
    for prepare in (lambda c: c.post("/login"), lambda c: c.get("/cookie")):
        reader = app.test_client()
        prepare(reader)
        assert events(reader, private) == ["only for you"]


def test_the_configuration_table_is_complete():
    """The guide names every key that is read, and no other."""
    source = (ROOT / "python/flask_mercure_sse/settings.py").read_text()
    read = set(re.findall(r'(?:read\.\w+|self\.\w+)\(\s*"([A-Z_]+)"', source))
    table = set(re.findall(r"^\| `MERCURE_([A-Z_]+)`", (ROOT / "docs/flask.md").read_text(), re.M))
    assert table == read


def test_the_commands_of_the_guide(runtime_dir, tmp_path):
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom flask_mercure_sse import MercureSSE\napp = Flask(__name__)\n"
        "app.config.from_prefixed_env()\nMercureSSE(app)\n"
    )
    env = {
        **os.environ,
        "PATH": f"{Path(servers.script('flask')).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "python"),
        "FLASK_SECRET_KEY": "s" * 32,
        "FLASK_MERCURE_RUNTIME_DIR": str(runtime_dir),
        "FLASK_MERCURE_COMPANION_GRACE": "0.5",
    }
    script = block("docs/flask.md", 13)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "urn:uuid:" in done.stdout
    assert "published" in done.stdout
