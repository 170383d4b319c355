"""One HTTP/1.1 POST on asyncio: to the deadline, with TLS, without redirects."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from understudy import __version__
from understudy.monitor.errors import DeliveryError

_MAX_HEAD = 64 * 1024
_MAX_TEXT = 500
_TEXT_SECONDS = 0.5
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r\n)")


@dataclass(frozen=True, slots=True)
class Reply:
    """``text`` is the beginning of the answer, on one line; ``retry_after`` is in seconds."""

    status: int
    text: str
    retry_after: float = 0.0


def context(ca: str | None, verify: bool) -> ssl.SSLContext:
    """How certificates are checked. Takes some milliseconds. Raises DeliveryError."""
    try:
        made = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise DeliveryError(f"{ca}: cannot be used: {error}") from error
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_seconds: float,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """Send ``body``; the answer, whatever its status is.

    All of it, from the look-up of the name to the answer, takes ``timeout_seconds`` at most. Raises
    DeliveryError when there is no answer; its message has no part of the url but host and port.
    """
    host, port, secure, target, authority = _split(url)
    lines = {
        "Host": authority,
        "User-Agent": f"understudy/{__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    if any("\r" in value or "\n" in value for value in lines.values()):
        raise DeliveryError("a header of the request would hold a line break")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "replace") + body
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _exchange(host, port, tls if secure else None, secure, request)
    except TimeoutError as error:
        raise DeliveryError(f"{authority}: no answer within {timeout_seconds:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise DeliveryError(f"{authority}: certificate: {error.verify_message}") from error
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DeliveryError(f"{authority}: {reason}") from error


async def _exchange(
    host: str, port: int, tls: ssl.SSLContext | None, secure: bool, request: bytes
) -> Reply:
    security = (tls or ssl.create_default_context()) if secure else None
    reader, writer = await asyncio.open_connection(host, port, ssl=security, limit=_MAX_HEAD)
    try:
        writer.write(request)
        try:
            await writer.drain()
        except ConnectionError:
            pass  # It may have answered before it had read everything.
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            match = _STATUS.match(head)
            if match is None:
                raise EOFError("the answer is no HTTP")
            status = int(match[1])
            if status >= 200:
                break
        return Reply(status, await _text(reader) if status >= 300 else "", _retry_after(head))
    finally:
        writer.close()
        # With TLS the other side may never say goodbye: nobody waits for it.
        with contextlib.suppress(Exception):
            writer.transport.abort()


async def _text(reader: asyncio.StreamReader) -> str:
    """The beginning of the body, if it comes: the status is known and is what counts."""
    try:
        async with asyncio.timeout(_TEXT_SECONDS):
            return _line(await reader.read(4096))
    except OSError:  # TimeoutError is one
        return ""


def _split(url: str) -> tuple[str, int, bool, str, str]:
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise DeliveryError("the url cannot be read") from error
    plain = url.strip().isascii() and not re.search(r"[\x00-\x20\x7f]", url.strip())
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise DeliveryError("the url is not one that begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise DeliveryError("the url holds a name or password: use token_env")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = f"[{host}]" if ":" in host else host
    authority += f":{port}" if port is not None else ""
    return host, port or (443 if secure else 80), secure, target, authority


def _line(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MAX_TEXT]


def _retry_after(head: bytes) -> float:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"retry-after" and value.strip().isdigit():
            return float(value.strip()[:9])
    return 0.0
