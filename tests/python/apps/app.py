"""The application that the servers of the tests run."""

import logging
import os
import time
from urllib.request import Request, urlopen

from flask import Flask, Response, request, session

from flask_mercure_sse import MercureSSE

logging.basicConfig(level=logging.INFO)

app = Flask(__name__)
app.config["SECRET_KEY"] = "a secret for tests, long enough to be one"
app.config.from_prefixed_env()
mercure = MercureSSE(app)


@app.get("/ping")
def ping():
    time.sleep(request.args.get("hold", default=0.0, type=float))
    return f"pong {os.getpid()}"


@app.post("/publish")
def publish():
    form = request.form
    return mercure.publish(form["topic"], form["data"], private="private" in form) or (
        "failed",
        502,
    )


@app.post("/login/<name>")
def login(name):
    mercure.set_authz_session(subscribe=f"users/{name}")
    return "ok"


@app.get("/token")
def token():
    return mercure.create_subscription_jwt(request.args["topic"])


@app.get("/subscriptions")
def subscriptions():
    return mercure.get_subscriptions()


@app.get("/status")
def status():
    time.sleep(request.args.get("hold", default=0.0, type=float))
    return app.extensions["mercure"].companion().request("GET", "/status").body


@app.get("/cookie")
def cookie():
    """A token's cookie, with whatever a careless view may set on it."""
    options = {name: request.args[name] for name in ("domain", "path") if name in request.args}
    secure = True if "secure" in request.args else None
    return mercure.set_authz_cookie(Response("ok"), "t", secure=secure, **options)


@app.get("/through-a-view")
def through_a_view():
    """The hub's stream, passed on by a worker: what one should not do."""
    hub = f"{app.config['MERCURE_HUB_URL']}?{request.query_string.decode()}"
    upstream = Request(hub, headers={"Authorization": request.headers.get("Authorization", "")})
    answer = urlopen(upstream)
    return Response(iter(lambda: answer.read1(), b""), mimetype="text/event-stream")


@app.after_request
def count(response):
    """Something that every response gets: a header, and a session cookie on subscriptions."""
    response.headers["X-App"] = "here"
    if request.args.get("guard"):
        response.status_code = 403
        response.set_data("denied")
    if request.path.endswith("/mercure") and request.args.get("cookie"):
        session["visits"] = session.get("visits", 0) + 1
    return response
