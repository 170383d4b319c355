"""HTTP requests by httpx: directly to Understudy's services, to others by the proxy settings.

The environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``) applies to external services only.
Requests to Understudy's own services and to loopback addresses never use a proxy, which would
resolve the address on its own machine. Redirects are not followed, so that a token is not sent
elsewhere. httpx is imported with the first request."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

for _name in ("httpx", "httpcore"):
    # They log addresses and headers of requests, which may be secrets.
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Response:
    """A response with any ``status``."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)


def call(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_seconds: float,
    outside: bool = False,
) -> Response:
    """Send one request and read the response, whatever its status is.

    ``outside``: the service is not one of Understudy's, so the proxy settings of the environment
    apply. ``timeout_seconds`` limits each step: connecting, sending, each read of the response.
    Raises OSError when there is no response; the message does not contain the url."""
    import httpx

    try:
        with httpx.Client(timeout=timeout_seconds, **options(url, outside=outside)) as client:
            found = client.request(method, url, content=body, headers=dict(headers or {}))
            return Response(found.status_code, found.content)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
        raise OSError(reason(error)) from error


def options(url: str, tls: ssl.SSLContext | None = None, *, outside: bool) -> dict[str, Any]:
    """Arguments of an httpx client for ``url``: certificates, and whether proxies apply."""
    parts = urlsplit(url)
    if tls is None:
        secure = parts.scheme.lower() == "https"
        # Without TLS nothing is verified; an empty store is quicker to make, and trusts nothing.
        tls = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return {"verify": tls, "trust_env": outside and not is_loopback(parts.hostname or "")}


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, is loopback."""
    host = host.strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reason(error: BaseException) -> str:
    """Why there is no response, as a text that contains no part of the request."""
    import httpx

    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"certificate: {one.verify_message}"
        if isinstance(one, OSError) and one.strerror:
            # asyncio puts its own words there; those of TLS and name resolution say more.
            if isinstance(one, (ssl.SSLError, socket.gaierror)) or one.errno is None:
                return str(one.strerror)
            return os.strerror(one.errno)
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refused: {error}"
    if isinstance(error, httpx.RemoteProtocolError):
        if "disconnected" in str(error):
            return "disconnected without a response"
        return "the response is not HTTP"
    if isinstance(error, httpx.NetworkError):
        return str(error) or "the connection was lost"
    if isinstance(error, ImportError):
        return "the proxy of the environment needs a package (SOCKS: pip install socksio)"
    # Other texts may contain a header, or the address of the proxy with its password.
    return f"the request cannot be sent ({type(error).__name__})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
