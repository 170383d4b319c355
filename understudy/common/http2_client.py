"""One request after another over a connection of HTTP/2, for commands that ask a server.

Blocking, and of no use for load; connections of the data plane and of load are made elsewhere.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from understudy.common import http2

_FIELDS = 1024
Pair = tuple[bytes, bytes]


@dataclass(slots=True)
class Http2Response:
    """A response; ``fields`` are its headers and trailers, with names in lower case."""

    status: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class Http2Client:
    """Asks ``host`` and ``port``, or the Unix socket ``unix``, over TLS where ``tls`` is given.

    ``timeout`` limits each request and the connection's beginning, in seconds; ``largest`` is the
    size of a body that is read, in bytes: of a larger one, the beginning.

    Raises OSError when the server cannot be reached, or does not speak HTTP/2.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        timeout: float = 5.0,
        largest: int = 4 << 20,
        unix: str | None = None,
    ) -> None:
        if not http2.AVAILABLE:
            raise OSError(http2.INSTALL)
        self._timeout, self._largest = timeout, largest
        self._scheme = b"http" if tls is None else b"https"
        try:
            self._socket = _connected(host, port, unix, timeout)
        except OSError as error:
            # Without its number, as other clients say it.
            raise OSError(error.strerror or str(error)) from error
        try:
            if tls is not None:
                tls.set_alpn_protocols(["h2"])
                secure = tls.wrap_socket(self._socket, server_hostname=server_name or host)
                self._socket = secure
                if secure.selected_alpn_protocol() != "h2":
                    raise OSError("the server does not speak HTTP/2 (ALPN)")
        except ssl.SSLError as error:
            self.close()
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise OSError(f"TLS: {why}") from error
        except OSError:
            self.close()
            raise
        self._engine = http2.client(_FIELDS)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def request(
        self, method: str, path: str, authority: str, fields: Iterable[Pair] = (), body: bytes = b""
    ) -> Http2Response:
        """Send a request and read the response, whatever its status is. Raises OSError when there
        is none."""
        until = time.monotonic() + self._timeout
        head = [
            (b":method", method.encode()),
            (b":scheme", self._scheme),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            *fields,
        ]
        found = Http2Response()
        try:
            stream = self._engine.send_request(head, end_stream=not body)
            if body:
                self._engine.send_data(stream, body, end_stream=True)
            while not self._step(stream, found, until):
                pass
        except http2.EngineError as error:
            raise OSError(f"the server does not speak HTTP/2 ({type(error).__name__})") from error
        return found

    def _step(self, stream: int, found: Http2Response, until: float) -> bool:
        """Send and receive once; whether the response is whole. Raises OSError, EngineError."""
        left = until - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        self._socket.sendall(self._engine.data_to_send())
        data = self._socket.recv(65_536)
        if not data:
            raise OSError("the server closed the connection: it may not speak HTTP/2")
        self._engine.receive_data(data)
        events: list[Any] = self._engine.events()
        for event in events:
            if getattr(event, "stream_id", 0) != stream:
                continue
            kind = type(event)
            if kind in (http2.ResponseReceived, http2.TrailersReceived):
                found.fields |= dict(event.headers)
                status = found.fields.get(b":status", b"")
                found.status = int(status) if status.isdigit() else 0
            elif kind is http2.DataReceived:
                if len(found.body) < self._largest:
                    found.body += event.data
                if event.data:
                    self._engine.acknowledge_received_data(len(event.data), stream)
            elif kind is http2.StreamClosed:
                if event.error_code and not found.status:
                    raise OSError(f"the server reset the request (code {event.error_code})")
                return True
        return False


def _connected(host: str, port: int, unix: str | None, timeout: float) -> socket.socket:
    """Raises OSError."""
    if unix is None:
        return socket.create_connection((host, port), timeout)
    found = socket.socket(socket.AF_UNIX)
    try:
        found.settimeout(timeout)
        found.connect(unix)
    except OSError:
        found.close()
        raise
    return found
