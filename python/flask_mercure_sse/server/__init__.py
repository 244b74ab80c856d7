"""``python -m flask_mercure_sse.server``: the stand-alone hub, by the options of 0.4."""
