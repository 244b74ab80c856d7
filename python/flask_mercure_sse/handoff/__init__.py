"""Getting a client's connection out of the WSGI server and into the hub."""

from .pipe import Exit
from .response import HandoffResponse
from .sockets import Client, Unsupported
from .way import way_out

__all__ = ["Client", "Exit", "HandoffResponse", "Unsupported", "way_out"]
