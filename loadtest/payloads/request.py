"""HTTP requests of a load test."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from understudy.loadtest.errors import PlanError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED = frozenset(("host", "content-length", "connection", "transfer-encoding"))


@dataclass(frozen=True, slots=True)
class Payload:
    """A request. ``expect`` are the values of the response by JSON pointer; ``at`` is when it was
    recorded, in unix seconds. ``start``: it is sent by itself, and not as what follows another one;
    ``then`` is the index of the payload that follows it, ``think`` seconds (its own, of what
    follows) after the end of this one. Its client leaves ``leaves`` seconds after it was sent."""

    body: bytes
    method: str = "POST"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    at: float | None = None
    start: bool = True
    then: int | None = None
    think: float = 0.0
    leaves: float | None = None

    def to_bytes(self, host: str) -> bytes:
        """The whole request for a keep-alive connection to ``host``. Raises PlanError for an
        invalid method, path or header."""
        if not _TOKEN.fullmatch(self.method):
            raise PlanError(f"not a valid HTTP method: {self.method!r}")
        path = quote(self.path, safe="/?&=%:@!$'()*+,;~-._[]")
        if not path.startswith("/"):
            raise PlanError(f"path: {self.path!r} must start with /")
        lines = [f"{self.method} {path} HTTP/1.1", f"host: {host}"]
        names = {name.lower() for name in self.headers}
        if self.body and "content-type" not in names:
            lines.append("content-type: application/json")
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or any(c in value for c in "\r\n\0"):
                raise PlanError(f"header {name!r}: name or value cannot be sent")
            if name.lower() not in _RESERVED:
                lines.append(f"{name}: {value}")
        lines.append(f"content-length: {len(self.body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + self.body


def as_body(value: Any) -> bytes:
    """The bytes of a body: bytes and text as they are, other values as JSON."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
