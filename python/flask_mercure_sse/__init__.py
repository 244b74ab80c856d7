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
from .extension import MercureSSE, mercure_publish, publish_signal
from .publishing import Publisher
from .signals import publish_failed, update_published
from .state import MercureSSEState
from .templates import mercure_authentified_hub_url, mercure_hub_url, mercure_subscriber_jwt
from .topics import as_topic, subscription_topic

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
    "Publisher",
    "__version__",
    "as_topic",
    "mercure_authentified_hub_url",
    "mercure_hub_url",
    "mercure_publish",
    "mercure_subscriber_jwt",
    "publish_failed",
    "publish_signal",
    "subscription_topic",
    "update_published",
]
