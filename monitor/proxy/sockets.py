"""What the kernel holds of a connection: bytes that the peer has not acknowledged, and bytes that
were received and not read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from array import array
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Final

_READ_SIZE: Final = 64 * 1024
_LEAST_RECEIVE_BUFFER: Final = 16 * 1024


def unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that were sent and that the peer has not acknowledged; 0 where that is not known."""
    count = array("i", [0])
    try:
        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, count)
    except (AttributeError, OSError, ValueError):
        return 0
    return count[0]


def receive_little(transport: asyncio.Transport) -> None:
    """Let the kernel keep only a few KiB of what the peer still sends: by default it keeps several
    MiB for each connection that is read slowly."""
    with contextlib.suppress(AttributeError, OSError):
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_RECEIVE_BUFFER
        )


def unread(transport: asyncio.Transport, limit: int) -> bytes:
    """At most ``limit`` bytes that were received and not read; empty for a TLS connection."""
    if transport.get_extra_info("sslcontext") is not None:
        return b""
    try:
        return os.read(transport.get_extra_info("socket").fileno(), min(limit, _READ_SIZE))
    except (AttributeError, OSError, ValueError):
        return b""
