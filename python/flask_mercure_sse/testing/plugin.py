"""Fixtures for pytest, found by themselves once the package is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from .recording import Recorded


@pytest.fixture
def mercure_updates(app: Flask) -> Iterator[list[Recorded]]:
    """Records what the application of the fixture ``app`` publishes; nothing reaches a hub."""
    # Not before: this module is imported for every test run, Flask need not be.
    from .recording import record

    with record(app) as updates:
        yield updates
