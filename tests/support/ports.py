"""Ports for servers that tests start."""

from __future__ import annotations

import socket
from collections import deque

_given: deque[int] = deque(maxlen=64)
"""The last ones: the kernel may name a port again that its server does not listen on yet."""


def free_port() -> int:
    """A TCP port on loopback that no process listens on now, and that was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.append(port)
            return port
