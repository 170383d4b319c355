"""The listening sockets: one per worker, opened by the supervisor and kept over restarts."""

from __future__ import annotations

import socket
from typing import Any

from understudy.monitor.config.fields import split_address
from understudy.monitor.errors import UnderstudyError

BACKLOG = 4096


class ListenError(UnderstudyError):
    """An address cannot be used; the message starts with the key of the setting."""

    exit_code = 2


def reserve(setting: str, address: str) -> str:
    """``address``, with a free port in place of port 0.

    No socket is kept open. Raises ListenError when the address is in use.
    """
    try:
        family, where = _resolve(address)
        # Without SO_REUSEPORT: with it, two services could share a port unnoticed.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
            return shown(probe.getsockname())
    except OSError as error:
        raise _failed(setting, address, error) from error


def listen(setting: str, address: str, count: int) -> list[socket.socket]:
    """``count`` sockets that share ``address``; the kernel spreads connections over them.

    Raises ListenError.
    """
    sockets: list[socket.socket] = []
    try:
        family, where = _resolve(reserve(setting, address))
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(where)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise _failed(setting, address, error) from error
    return sockets


def shown(name: tuple[object, ...]) -> str:
    """``host:port`` of a socket's name, with brackets around an IPv6 address."""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _resolve(address: str) -> tuple[int, tuple[Any, ...]]:
    host, port = split_address(address)
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = addresses[0]
    return family, where


def _failed(setting: str, address: str, error: OSError) -> ListenError:
    return ListenError(f"{setting}: {address}: {error.strerror or error}")
