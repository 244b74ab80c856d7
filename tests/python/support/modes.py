"""Servers whose subscriptions leave the worker: how each is started."""

from __future__ import annotations

from . import servers

MODES = {
    "werkzeug": (servers.flask_run, []),
    "werkzeug, one thread": (servers.flask_run, ["--without-threads"]),
    "werkzeug, reloader and debugger": (servers.flask_run, ["--debug"]),
    "gunicorn sync": (servers.gunicorn, []),
    "gunicorn sync, preloaded": (servers.gunicorn, ["--preload", "-w", "2"]),
    "gunicorn gevent": (servers.gunicorn, ["-k", "gevent"]),
    "gunicorn gevent_pywsgi": (servers.gunicorn, ["-k", "gevent_pywsgi"]),
    "waitress": (servers.waitress, []),
    "uWSGI": (servers.uwsgi, []),
    "uWSGI, threads": (servers.uwsgi, ["--threads", "2"]),
    "uWSGI, router": (servers.uwsgi, ["--http", "PORT"]),
    "gevent.pywsgi": (servers.own, ["pywsgi"]),
    "eventlet.wsgi": (servers.own, ["eventlet"]),
    "cheroot": (servers.own, ["cheroot"]),
    "wsgiref": (servers.own, ["wsgiref"]),
    "uvicorn": (servers.uvicorn, ["asgi:wrapped"]),
    "hypercorn": (servers.hypercorn, ["asgi:wrapped"]),
    "granian": (servers.granian, ["asgi", "asgi:wrapped"]),
    "gunicorn gthread": (servers.gunicorn, ["-k", "gthread", "--threads", "4"]),
}
