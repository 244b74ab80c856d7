"""Every server: a subscription leaves the worker, or the right fall-back serves it."""

from __future__ import annotations

import socket
import ssl

import pytest

from conftest import HUB_PATH, status_of
from support import servers
from support.modes import MODES
from support.sse import Crowd, Stream

HANDED_OVER = "handed over to the hub"


#: The oldest releases, before those that are installed; see ``oldest.txt``.
OLDEST = {"PYTHONPATH": f"{servers.ROOT / '.venv/oldest'}:{servers.ROOT / 'python'}"}


def oldest(command):
    """The same command, without the option that gunicorn has got since."""
    if not (servers.ROOT / ".venv/oldest/gunicorn").is_dir():
        pytest.skip("the oldest releases are not installed; use make test-python")
    return lambda *arguments: [a for a in command(*arguments) if a != "--no-control-socket"]


def test_the_oldest_releases_are_what_runs(start):
    server = start(oldest(servers.gunicorn), **OLDEST)
    assert "Starting gunicorn 23.0.0" in server.log


@pytest.mark.parametrize("release", ["newest", "oldest"])
@pytest.mark.parametrize("mode", MODES)
def test_subscriptions_leave_the_worker(start, mode, release):
    command, options = MODES[mode]
    if release == "oldest":
        server = start(oldest(command), *options, **OLDEST)
    else:
        server = start(command, *options)
    before = [Stream.open(server.port, f"{HUB_PATH}?topic=t") for _ in range(20)]
    assert all(stream.status == 200 for stream in before)
    assert server.request("GET", "/ping")[0] == 200, "the only worker or thread is free"

    late = Stream.open(server.port, f"{HUB_PATH}?topic=t&cookie=1")
    assert late.head.count("HTTP/1.1") == 1
    assert late.header("content-type") == "text/event-stream"
    assert late.header("x-app") == "here", "what the application adds arrives"
    assert "session=" in (late.header("set-cookie") or "")
    assert late.header("x-mercure-handoff") is None
    assert late.header("content-length") is None
    assert (late.header("connection") == "close") or late.header("transfer-encoding") == "chunked"

    crowd = Crowd([*before, late])
    for number in range(5):
        server.publish("t", str(number))
    crowd.wait_for(5)
    assert all(stream.data == list("01234") for stream in crowd.streams)
    assert HANDED_OVER in server.log
    assert "Traceback" not in server.log
    crowd.close()
    servers.wait_until(lambda: status_of(server)["subscribers"] == 0)


def test_http_1_0_and_pipelined_bytes(start):
    server = start(servers.gunicorn)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    request = f"GET {HUB_PATH}?topic=t HTTP/1.0\r\n\r\nGET /ping HTTP/1.0\r\n\r\n"
    connection.sendall(request.encode())
    stream = Stream(connection)
    while not stream.head:
        stream.receive()
    server.publish("t", "1")
    assert stream.wait(1) == ["1"]
    assert "pong" not in stream.head
    stream.close()


def test_middleware_around_the_application_is_respected(start, tmp_path):
    (tmp_path / "app.py").write_text(
        f"import sys; sys.path.insert(0, {str(servers.APPS)!r})\n"
        + """
import importlib.util
spec = importlib.util.spec_from_file_location("real_app", sys.path[0] + "/app.py")
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
inner = real.app.wsgi_app

def app(environ, start_response):
    query = environ.get("QUERY_STRING", "")
    def start(status, headers, *rest):
        if "forbid" in query:
            status = "403 Forbidden"
        return start_response(status, [*headers, ("X-Outer", "yes")], *rest)
    if "explode" in query:
        body = inner(environ, start_response)
        raise RuntimeError("a middleware failed")
    return inner(environ, start)

real.app.wsgi_app, wsgi_app = app, app
app = real.app
"""
    )
    server = start(servers.gunicorn, folder=tmp_path)
    ordinary = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    assert (ordinary.status, ordinary.header("x-outer")) == (200, "yes")
    forbidden = Stream.open(server.port, f"{HUB_PATH}?topic=t&x=forbid")
    assert (forbidden.status, forbidden.header("x-outer")) == (403, "yes")
    server.publish("t", "1")
    assert ordinary.wait(1) == ["1"]
    forbidden.wait_for_end()
    assert forbidden.data == []
    for stream in (ordinary, forbidden):
        stream.close()


def poll(server, path: str, rounds: int) -> list[str]:
    """What an ``EventSource`` does with answers that end: it comes back with its last id."""
    received, cursor = [], ""
    for _ in range(rounds):
        headers = {"Last-Event-ID": cursor} if cursor else {}
        status, body, answer = server.request("GET", path, headers=headers)
        assert status == 200
        assert answer["Content-Type"] == "text/event-stream"
        assert "retry: " in body
        for block in body.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            cursor = fields.get("id", cursor)
            if "data" in fields:
                received.append(fields["data"])
    return received


@pytest.mark.parametrize("mode", ["gunicorn sync", "waitress", "uvicorn", "hypercorn", "granian"])
def test_an_answer_that_was_changed_is_no_stream(start, mode):
    """An ``after_request`` function has the last word, whatever the hub has said before."""
    command, options = MODES[mode]
    server = start(command, *options)
    status, body, headers = server.request("GET", f"{HUB_PATH}?topic=t&guard=1")
    assert (status, body) == (403, "denied")
    assert "X-Mercure-Handoff" not in headers
    servers.wait_until(lambda: status_of(server)["subscribers"] == 0)


def test_waitress_that_looks_ahead_is_served_by_polling(start):
    server = start(servers.waitress, "--channel-request-lookahead=5")
    assert server.request("GET", f"{HUB_PATH}?topic=t")[1].startswith("retry: ")


def test_connections_with_tls_are_left_alone():
    from flask_mercure_sse.handoff import Unsupported
    from flask_mercure_sse.handoff.sockets import client_socket

    class OfAnotherLibrary(socket.socket):
        def do_handshake(self) -> None: ...

    with OfAnotherLibrary() as connection:
        environ = {"gunicorn.socket": connection, "SERVER_PROTOCOL": "HTTP/1.1"}
        refused = client_socket(environ)
    assert isinstance(refused, Unsupported)
    assert "TLS" in refused.reason


POLLED = {
    "granian, WSGI": (servers.granian, ["wsgi", "app:app"]),
    "uvicorn, without the wrapper": (servers.uvicorn, ["asgi:bare"]),
    "hypercorn, without the wrapper": (servers.hypercorn, ["asgi:bare"]),
}


@pytest.mark.parametrize("mode", POLLED)
def test_servers_that_show_no_socket_are_served_by_polling(start, mode):
    command, options = POLLED[mode]
    server = start(command, *options)
    path = f"{HUB_PATH}?topic=t"
    assert poll(server, path, 1) == []
    _, body, _ = server.request("GET", path)
    cursor = next(line[4:] for line in body.split("\n") if line.startswith("id: "))
    for number in range(50):
        server.publish("t" if number % 2 else "other", str(number))
    status, body, _ = server.request("GET", path, headers={"Last-Event-ID": cursor})
    data = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
    assert (status, data) == (200, [str(n) for n in range(50) if n % 2]), "in order, each once"
    last = [line[4:] for line in body.split("\n") if line.startswith("id: ")][-1]
    _, body, _ = server.request("GET", path, headers={"Last-Event-ID": last})
    assert "data: " not in body, "nothing twice"
    assert "served by polling" in server.log
    assert "shows no socket" in server.log or "does not expose the client's socket" in server.log
    assert "Traceback" not in server.log


def test_werkzeug_processes_are_refused_and_polled(start, tmp_path):
    run = "from app import app; import sys; port = int(sys.argv[1]); "
    run += "app.run(port=port, processes=2, threaded=False)"
    server = start(lambda port: [servers.script("python"), "-c", run, str(port)])
    _, body, _ = server.request("GET", f"{HUB_PATH}?topic=t")
    assert body.startswith("retry: ")
    assert "use threads, not processes" in server.log


def test_tls_of_the_development_server_is_streamed_by_a_thread(start, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    import subprocess

    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject]
    output = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *output], check=True, capture_output=True)
    run = (
        "from app import app; import sys; from threading import Thread; from werkzeug.serving "
        "import make_server; Thread(target=make_server('127.0.0.1', int(sys.argv[2]), app, "
        "threaded=True, ssl_context=(sys.argv[3], sys.argv[4])).serve_forever, daemon=True)"
        ".start(); app.run(port=int(sys.argv[1]))"
    )
    secure = servers.free_port()
    arguments = [str(secure), str(certificate), str(key)]
    server = start(lambda port: [servers.script("python"), "-c", run, str(port), *arguments])
    trust = ssl.create_default_context(cafile=str(certificate))
    trust.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", secure), timeout=20)
    stream = Stream.on(trust.wrap_socket(plain), f"{HUB_PATH}?topic=t")
    assert stream.status == 200
    server.publish("t", "1")
    while not stream.data:
        stream.receive()
    assert "1" in stream.data[0]
    assert "streamed by a thread" in server.log
    stream.close()


def test_the_test_client_polls_in_silence(app, caplog):
    app.testing = True
    answer = app.test_client().get(f"{HUB_PATH}?topic=t")
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert caplog.messages == []


def test_head_and_refusals_do_not_touch_the_connection(start):
    server = start(servers.gunicorn)
    assert server.request("HEAD", f"{HUB_PATH}?topic=t")[0] == 200
    status, body, headers = server.request("GET", HUB_PATH)
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert "names no topic" in body
    bad = {"Authorization": "Bearer nonsense"}
    status, _, headers = server.request("GET", f"{HUB_PATH}?topic=t", headers=bad)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_without_descriptors_ordinary_requests_still_work(start):
    limited = "ulimit -n 64; exec "
    server = start(lambda port: ["sh", "-c", limited + " ".join(servers.gunicorn(port, "-w", "1"))])
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    assert stream.status == 200
    for _ in range(80):
        assert server.request("GET", "/ping")[0] == 200, server.log
    stream.close()
