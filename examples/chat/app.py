"""A chat in a few lines: a public room, private messages, history without a gap.

Run it under any server, with any number of workers: ``gunicorn -w 4 app:app``.
"""

import contextlib
import os
import secrets
from pathlib import Path
from urllib.parse import quote

from flask import Flask, abort, redirect, render_template, request, session, url_for
from store import Store

from flask_mercure_sse import MercureSSE

ROOM = "https://chat.example/rooms/lobby"
MAX_NAME = 32
MAX_BODY = 2000


def user_topic(name):
    """Where the private messages of a user go."""
    return f"https://chat.example/users/{quote(name, safe='')}"


def secret_key(folder):
    """A key that all workers share and that survives a restart."""
    path = folder / "secret_key"
    if not path.exists():
        new = folder / f"secret_key.{os.getpid()}"
        new.touch(mode=0o600)
        new.write_text(secrets.token_hex(32))
        # Complete or not there at all: of several workers that start at once, one wins.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
        new.unlink()
    return path.read_text()


app = Flask(__name__)
folder = Path(os.environ.get("CHAT_FOLDER", app.instance_path))
folder.mkdir(parents=True, exist_ok=True)
app.config.update(
    SECRET_KEY=secret_key(folder),
    SESSION_COOKIE_SAMESITE="Strict",
    MAX_CONTENT_LENGTH=64 * 1024,
)
app.config.from_prefixed_env()
mercure = MercureSSE(app)
store = Store(folder / "chat.sqlite")


@app.get("/")
def room():
    name = session.get("name")
    if name is None:
        return render_template("login.html", max_name=MAX_NAME)
    # First the cursor, then the messages: what is sent in between is in both, and shown once.
    cursor = mercure.last_event_id()
    messages = store.visible_to(name)
    return render_template(
        "room.html",
        name=name,
        messages=messages,
        people=store.names(),
        topics=[ROOM, user_topic(name)],
        cursor=cursor,
        max_body=MAX_BODY,
    )


@app.post("/login")
def login():
    name = " ".join(request.form.get("name", "").split())
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        error = f"A name has 1 to {MAX_NAME} characters."
        return render_template("login.html", error=error, max_name=MAX_NAME), 422
    session["name"] = name
    # From now on this browser may read the private messages of this user, and nobody else's.
    mercure.set_authz_session(subscribe=user_topic(name))
    return redirect(url_for("room"))


@app.post("/logout")
def logout():
    session.clear()
    return redirect(url_for("room"))


@app.get("/messages")
def messages():
    """What came after a message: for a page that was offline for too long."""
    name = session.get("name") or abort(401)
    return store.visible_to(name, after=request.args.get("after", 0, type=int))


@app.post("/messages")
def send():
    name = session.get("name") or abort(401)
    body = request.form.get("body", "").strip()
    recipient = " ".join(request.form.get("to", "").split()) or None
    if not 1 <= len(body) <= MAX_BODY or len(recipient or "") > MAX_NAME:
        abort(422)
    message = store.add(name, recipient, body)
    if recipient is None:
        mercure.publish(ROOM, message, id=f"urn:chat:{message['id']}")
    else:
        # One event, for the addressee and for the sender's own other windows.
        topics = list(dict.fromkeys([user_topic(recipient), user_topic(name)]))
        mercure.publish(topics, message, private=True, id=f"urn:chat:{message['id']}")
    return message, 201
