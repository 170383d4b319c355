"""Which targets may be loaded: this machine, private networks, and public addresses if
confirmed."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from understudy.common.http2 import AVAILABLE, INSTALL
from understudy.loadtest.engine.pool import Target
from understudy.loadtest.errors import TargetError
from understudy.loadtest.gate.plan import Engine

_SCHEMES = {
    "http": (False, False, False),
    "https": (True, False, False),
    "h2c": (False, True, False),
    "grpc": (False, True, True),
    "grpcs": (True, True, True),
}
"""Of targets: whether they speak TLS, HTTP/2, gRPC."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed target; ``path`` is a prefix of the paths of payloads. ``http2``: it is asked over
    HTTP/2; ``grpc``: payloads are calls."""

    host: str
    port: int
    tls: bool
    path: str
    http2: bool = False
    grpc: bool = False

    @property
    def scheme(self) -> str:
        """The scheme of its URL."""
        return next(name for name, known in _SCHEMES.items() if known == self._kind)

    @property
    def _kind(self) -> tuple[bool, bool, bool]:
        return self.tls, self.http2, self.grpc

    @property
    def authority(self) -> str:
        """Host and port as in a Host header."""
        default = 443 if self.tls else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Parse the URL of a target. Raises TargetError if it is not valid."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in _SCHEMES or not parts.hostname or port == -1:
        raise TargetError(
            f"target: not a valid server URL: {url!r} (write http://host:port or grpc://host:port)"
        )
    if parts.username or parts.query or parts.fragment:
        raise TargetError(f"target: {url!r}: must not have a user, query or fragment")
    tls, http2, grpc = _SCHEMES[parts.scheme]
    path = parts.path.rstrip("/")
    if http2 and not AVAILABLE:
        raise TargetError(f"target: {url!r}: {INSTALL}")
    if grpc and path:
        raise TargetError(f"target: {url!r}: must not have a path, since calls have their own")
    return Address(parts.hostname, port or (443 if tls else 80), tls, path, http2, grpc)


def allowed(address: Address, own: bool) -> None:
    """Raise TargetError for an unknown host, and for a public address unless ``own`` confirms that
    it is yours."""
    try:
        addresses = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(f"target: {address.host}: {error.strerror or error}") from error
    for *_, sockaddr in addresses:
        ip = ipaddress.ip_address(str(sockaddr[0]).split("%")[0])
        if not own and not (ip.is_loopback or ip.is_private or ip.is_link_local):
            raise TargetError(
                f"target: {address.host} is {ip}, a public address. Load testing servers of other "
                "people is an attack. If it is yours, add --i-own-this-target"
            )


def target_of(address: Address, engine: Engine) -> Target:
    """The target for the engine."""
    ca_file = str(engine.ca_file) if engine.ca_file is not None else None
    return Target(
        address.host, address.port, address.tls, engine.verify, ca_file, engine.connections,
        engine.timeout, address.http2, engine.streams,
    )  # fmt: skip


def reachable(address: Address, timeout: float = 5.0) -> None:
    """Raise TargetError if the target does not accept a connection within ``timeout`` seconds."""
    try:
        socket.create_connection((address.host, address.port), timeout).close()
    except OSError as error:
        raise TargetError(
            f"target: {address.authority} cannot be reached: {error.strerror or error}"
        ) from error
