"""Getting a client's connection out of the WSGI server and into the hub."""

from .response import HandoffResponse
from .sockets import Unsupported, client_socket

__all__ = ["HandoffResponse", "Unsupported", "client_socket"]
