"""What asks a model server, by its URL."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from understudy.monitor.config.fields import server_address
from understudy.monitor.discovery.asking import Asker
from understudy.monitor.discovery.calls import CallAsker, Http2Asker


def asker_of(
    url: str,
    timeout: float = 5.0,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    http2: bool = False,
) -> Asker | Http2Asker:
    """Asks by gRPC calls where the scheme is ``grpc`` or ``grpcs``, over HTTP/2 where it is ``h2c``
    or ``http2``, else over HTTP/1.1; see :class:`Asker`. Raises OSError when a server over HTTP/2
    cannot be reached."""
    if url.startswith(("grpc://", "grpcs://")):
        return CallAsker(url, timeout, headers, tls, server_name)
    if http2 or server_address(url).http2:
        return Http2Asker(url, timeout, headers, tls, server_name)
    return Asker(url, timeout, headers, tls, server_name)
