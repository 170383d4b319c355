"""What of a client's request is not sent to a model server: headers and credentials.

Only model servers that have such settings use this; the head of other requests is sent as it is.
"""

from __future__ import annotations

from typing import Final, TypeVar

from understudy.monitor.proxy.fields import CACHE_LINE_BYTES, CACHE_LINES
from understudy.monitor.records.credentials import matcher, names_in, normal
from understudy.monitor.routing.plan import Upstream

T = TypeVar("T")

_OURS = frozenset((b"traceparent", b"tracestate", b"x-request-id", b"x-understudy-mirror"))
_KEPT: Final = 0
_REMOVED: Final = 1
_CREDENTIAL: Final = 2


class RequestFilter:
    """Removes header lines and query parameters of requests to ``upstream``.

    ``credentials`` tells whether the last request had credentials that were removed; it stays true
    until it is reset.
    """

    def __init__(self, upstream: Upstream) -> None:
        names = (*upstream.removed_headers, *(name for name, _ in upstream.headers))
        self._names = {normal(name.encode()) for name in names}
        self._is_credential = matcher(upstream.credential_headers)
        self._is_secret = matcher(upstream.credential_query)
        self._has_query = bool(upstream.credential_query)
        self._kept: dict[bytes, bool] = {}
        """Lines that are sent, all true; those that are removed are not remembered."""
        self._verdicts: dict[bytes, int] = {}
        """By name as it was spelled."""
        self.credentials = False

    @property
    def needed(self) -> bool:
        """Whether there is anything to remove."""
        return bool(self._names) or self._has_query

    @property
    def names_ours(self) -> bool:
        """Whether headers that the proxy adds are among those to remove or replace."""
        return not self._names.isdisjoint(_OURS)

    def lines(self, lines: list[bytes]) -> list[bytes]:
        """The header lines to send."""
        kept = self._kept
        return [line for line in lines if line in kept or self._keeps(line)]

    def _keeps(self, line: bytes) -> bool:
        name = line.partition(b":")[0]
        verdict = self._verdicts.get(name)
        if verdict is None:
            verdict = self._judge(name)
            _remember(self._verdicts, name, verdict)
        if verdict == _KEPT:
            _remember(self._kept, line, True)
            return True
        if verdict == _CREDENTIAL:
            self.credentials = True
        return False

    def _judge(self, name: bytes) -> int:
        if normal(name) in self._names:
            return _REMOVED
        return _CREDENTIAL if self._is_credential(name) else _KEPT

    def target(self, target: bytes) -> bytes:
        """The request target to send: without credentials in its query."""
        path, _, query = target.partition(b"?")
        if not self._has_query:
            return target
        parts = query.split(b"&")
        kept = [left for part in parts if (left := self._without(part)) is not None]
        if kept == parts:
            return target
        self.credentials = True
        return path + b"?" + b"&".join(kept) if kept else path

    def _without(self, part: bytes) -> bytes | None:
        """A part of the query; None if nothing is left of it. Some servers take ; for &."""
        pairs = part.split(b";")
        kept = [pair for pair in pairs if not any(map(self._is_secret, names_in(pair)))]
        return b";".join(kept) if kept else None


def _remember(known: dict[bytes, T], key: bytes, value: T) -> None:
    if len(key) <= CACHE_LINE_BYTES:
        if len(known) >= CACHE_LINES:
            known.clear()
        known[key] = value
