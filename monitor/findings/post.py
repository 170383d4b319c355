"""One request to a receiver of findings: with a deadline and TLS, without redirects."""

from __future__ import annotations

import asyncio
import importlib
import re
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from understudy import __version__
from understudy.common.http import options, reason
from understudy.monitor.errors import DeliveryError

if TYPE_CHECKING:
    import httpx

_MAX_TEXT = 500
_MAX_READ = 4096
_TEXT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Reply:
    """The response: ``text`` is the beginning of its body, on one line; ``retry_after`` is in
    seconds."""

    status: int
    text: str
    retry_after: float = 0.0


def context(ca: str | None, verify: bool) -> ssl.SSLContext:
    """The TLS settings: ``ca`` is a file of authorities, None for those of the system; ``verify``
    checks certificates. Takes some milliseconds. Raises DeliveryError when the file is invalid."""
    try:
        tls = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise DeliveryError(f"{ca}: cannot be used: {error}") from error
    if not verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_seconds: float,
    tls: ssl.SSLContext | None = None,
    method: str = "POST",
) -> Reply:
    """Send ``body``; returns the response, whatever its status.

    Uses the proxy of the environment, if there is one for that address. The whole exchange, from
    name resolution to the response, takes ``timeout_seconds`` at most. Raises DeliveryError when
    there is no response; of the url, the message contains host and port only.
    """
    authority = _authority(url)
    lines = {
        "User-Agent": f"understudy/{__version__}",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if any("\r" in value or "\n" in value for value in lines.values()):
        raise DeliveryError("a header of the request contains a line break")
    encoded = [(name.encode(), value.encode("utf-8", "replace")) for name, value in lines.items()]
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _exchange(method, url.strip(), body, encoded, tls)
    except TimeoutError as error:
        raise DeliveryError(f"{authority}: no answer within {timeout_seconds:g} s") from error
    except DeliveryError as error:
        raise DeliveryError(f"{authority}: {error}") from error.__cause__


async def _exchange(
    method: str,
    url: str,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    tls: ssl.SSLContext | None,
) -> Reply:
    if "httpx" not in sys.modules:  # the import is slow: keep it off the event loop
        await asyncio.to_thread(importlib.import_module, "httpx")
    import httpx

    try:
        async with (
            # The caller limits the whole exchange.
            httpx.AsyncClient(timeout=None, **options(url, tls, outside=True)) as client,  # noqa: S113
            client.stream(method, url, content=body, headers=headers) as response,
        ):
            status = response.status_code
            if status > 599:
                raise DeliveryError("the response is not HTTP")
            text = await _text(response) if status >= 300 and method != "HEAD" else ""
            after = response.headers.get("retry-after", "").strip()
            return Reply(status, text, float(after[:9]) if after.isdecimal() else 0.0)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise DeliveryError(reason(error)) from error


async def _text(response: httpx.Response) -> str:
    """The beginning of the body, as far as it arrives in time; the status is known already."""
    import httpx

    body = b""
    try:
        async with asyncio.timeout(_TEXT_SECONDS):
            async for part in response.aiter_raw(_MAX_READ):
                body += part
                if len(body) >= _MAX_READ:
                    break
    except (OSError, httpx.HTTPError):  # TimeoutError is an OSError
        pass
    return _line(body)


def _authority(url: str) -> str:
    """Host and port, for messages. Raises DeliveryError for an invalid url."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise DeliveryError("the url is not valid") from error
    plain = url.strip().isascii() and not re.search(r"[\x00-\x20\x7f]", url.strip())
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise DeliveryError("the url must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise DeliveryError("the url contains a name or password: use token_env")
    authority = f"[{host}]" if ":" in host else host
    return authority + (f":{port}" if port is not None else "")


def _line(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MAX_TEXT]
