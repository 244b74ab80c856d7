"""Messages on the companion's second socket: four bytes of length, then that many bytes."""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence


def connect(path: str, timeout: float | None) -> socket.socket:
    """Connects to a Unix socket.

    :param timeout: for each operation on it, in seconds.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def send(connection: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Sends a message, and descriptors along with its first byte."""
    framed = struct.pack("!I", len(message)) + message
    ancillary = []
    if descriptors:
        rights = array.array("i", descriptors)
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights))
    sent = connection.sendmsg([framed], ancillary)
    connection.sendall(framed[sent:])


def receive(connection: socket.socket) -> bytes:
    """Waits for a message.

    :raises ConnectionResetError: if the other side has closed.
    """
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise ConnectionResetError("the companion closed the connection")
        received += chunk
    return bytes(received)
