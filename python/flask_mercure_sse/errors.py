"""Every exception the extension raises, by who must react."""

from __future__ import annotations


class MercureError(Exception):
    """Anything that went wrong between the application and its hub."""


class ConfigurationError(MercureError, RuntimeError):
    """The application's configuration does not allow what was asked; the text names the fix."""


class PublishError(MercureError):
    """An update was not published."""


class InvalidUpdate(PublishError, ValueError):
    """The update breaks a rule of the protocol: a mistake of the caller."""


class HubUnavailable(PublishError):
    """The hub could not be reached, or cannot accept updates right now."""


class HubRefused(PublishError):
    """The hub answered, and refused.

    :param status: the HTTP status code of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
