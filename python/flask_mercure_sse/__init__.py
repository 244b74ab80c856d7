"""Server push for Flask, by the Mercure protocol.

``MercureSSE(app)`` adds a hub to the application, ``mercure.publish(topic, data)`` sends an update,
and every browser with ``new EventSource("{{ mercure_hub_url(topic) }}")`` gets it.
"""

from importlib.metadata import PackageNotFoundError, version

from .errors import (
    ConfigurationError,
    HubRefused,
    HubUnavailable,
    InvalidUpdate,
    MercureError,
    PublishError,
)
from .extension import MercureSSE, mercure_hub_url, mercure_publish
from .state import MercureSSEState

try:
    __version__ = version("flask-mercure-sse")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ConfigurationError",
    "HubRefused",
    "HubUnavailable",
    "InvalidUpdate",
    "MercureError",
    "MercureSSE",
    "MercureSSEState",
    "PublishError",
    "__version__",
    "mercure_hub_url",
    "mercure_publish",
]
