"""The application for ASGI servers: with the wrapper, and without."""

from a2wsgi import WSGIMiddleware
from app import app

from flask_mercure_sse.asgi import MercureASGI

wrapped = MercureASGI(WSGIMiddleware(app))
bare = WSGIMiddleware(app)
