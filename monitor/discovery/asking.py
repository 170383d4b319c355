"""GET and POST requests to a model server that is not known yet, with short time limits."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from understudy.common.http import options, reason
from understudy.monitor.config.fields import ServerAddress, server_address

LARGEST = 4 << 20
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with any ``status``; names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Asks(Protocol):
    """What :mod:`understudy.monitor.discovery.server` asks with."""

    def get(self, path: str) -> Reply:
        """GET ``path``. Raises OSError, with the reason, when the server does not answer."""

    def post(self, path: str, document: Any) -> Reply:
        """POST a document as JSON; bytes are sent as they are. Raises OSError."""


class Asker:
    """Asks the server at ``url`` (http, https, or a Unix socket), directly and without redirects.

    ``timeout`` limits each step of a request, in seconds; ``headers`` are sent with each.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        import httpx

        self.address: ServerAddress = server_address(url)
        scheme = "https" if self.address.secure else "http"
        self.base = f"{scheme}://{self.address.authority}{self.address.path}"
        transport: dict[str, Any] = {}
        if self.address.socket is not None:
            transport["transport"] = httpx.HTTPTransport(uds=self.address.socket)
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        self._client = httpx.Client(
            timeout=timeout,
            headers=dict(headers or {}),
            **options(self.base, tls, outside=False),
            **transport,
        )

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Reply:
        """GET ``path``. Raises OSError, with the reason, when the server does not answer."""
        return self._ask("GET", path, None)

    def post(self, path: str, document: Any) -> Reply:
        """POST a document as JSON; bytes are sent as they are. Raises OSError."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self._ask("POST", path, raw)

    def _ask(self, method: str, path: str, body: bytes | None) -> Reply:
        import httpx

        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            with self._client.stream(
                method, self.base + path, content=body, headers=headers, extensions=self._extensions
            ) as found:
                data = b""
                for part in found.iter_bytes():
                    data += part
                    if len(data) > LARGEST:
                        break
                return Reply(found.status_code, dict(found.headers), data[:LARGEST])
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
            raise OSError(reason(error)) from error
