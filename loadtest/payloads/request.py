"""An HTTP request as it is sent, and one that is described in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from understudy.loadtest.errors import PlanError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset(("host", "content-length", "connection", "transfer-encoding"))


@dataclass(frozen=True, slots=True)
class Payload:
    """``expect`` are values that the answer must have, by JSON pointer; within ``tolerance`` for
    numbers. ``at`` is when it was sent where it was recorded, unix seconds."""

    body: bytes
    method: str = "POST"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    at: float | None = None

    def to_bytes(self, host: str) -> bytes:
        """The whole request for a keep-alive connection to ``host``. Raises PlanError for what
        would not be one request."""
        if not _TOKEN.fullmatch(self.method):
            raise PlanError(f"{self.method!r} is no HTTP method")
        path = quote(self.path, safe="/?&=%:@!$'()*+,;~-._[]")
        if not path.startswith("/"):
            raise PlanError(f"path: {self.path!r} must begin with /")
        lines = [f"{self.method} {path} HTTP/1.1", f"host: {host}"]
        names = {name.lower() for name in self.headers}
        if self.body and "content-type" not in names:
            lines.append("content-type: application/json")
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or any(c in value for c in "\r\n\0"):
                raise PlanError(f"header {name!r}: name or value cannot be sent")
            if name.lower() not in _OURS:
                lines.append(f"{name}: {value}")
        lines.append(f"content-length: {len(self.body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + self.body


def as_body(value: Any) -> bytes:
    """A body that was given as JSON, or as text."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
