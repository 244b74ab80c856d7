"""Helpers for the tests of applications.

With pytest, the fixture ``mercure_updates`` records what an ``app`` fixture publishes; without it,
:func:`record` does. :func:`failing` shows how an application copes without a hub, and
:class:`Events` reads a stream with a deadline.
"""

from .events import Event, Events
from .recording import Recorded, failing, record

__all__ = ["Event", "Events", "Recorded", "failing", "record"]
