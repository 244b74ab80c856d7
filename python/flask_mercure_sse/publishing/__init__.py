"""Publishing: what happens to an update between the application and its hub."""

from . import external
from .external import ExternalHub
from .hubs import HubTarget, OnFailure
from .publisher import Publisher
from .spool import Spool

__all__ = ["ExternalHub", "HubTarget", "OnFailure", "Publisher", "Spool", "external"]
