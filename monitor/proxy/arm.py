"""One model server of a worker: its connection pool, statistics and request heads."""

from __future__ import annotations

import asyncio
from time import monotonic

from understudy.monitor.proxy.head import RequestHead
from understudy.monitor.proxy.outgoing import RequestFilter
from understudy.monitor.proxy.pool import Pool
from understudy.monitor.proxy.turns import Turns
from understudy.monitor.routing.plan import Upstream
from understudy.monitor.stats.shared import SharedStats


class Arm:
    """A model server. ``index`` is the arm's index in :attr:`Plan.arms`, 0 for the champion."""

    def __init__(
        self,
        index: int,
        upstream: Upstream,
        role: str,
        stats: SharedStats,
        loop: asyncio.AbstractEventLoop,
        turns: Turns,
    ) -> None:
        self.index = index
        self.upstream = upstream
        self.pool = Pool(
            upstream,
            loop,
            turns,
            self._on_connect,
            self._on_retry,
            self._on_exhausted,
            self._refused,
        )
        self.words = stats.words
        self._stats = stats
        self._label = label = {"arm": upstream.name}
        self.in_flight = stats.gauge("in_flight", {**label, "role": role})
        self._cold_start_us = stats.gauge("cold_start_us", label)
        for name in ("upstream_connects", "upstream_connect_failures", "retries", "cold_starts"):
            stats.counter(name, label)  # so that it is zero until then
        pool = {**label, "role": role}
        self._gauges = [stats.gauge(f"pool_{what}", pool) for what in ("idle", "busy", "waiting")]
        stats.hold(self)
        self._away_since: float | None = None
        self._prefix = upstream.path_prefix.encode()
        self._host = b"Host: " + upstream.host_header.encode() if upstream.host_header else None
        self._own_host = b"Host: " + _authority(upstream)
        self._added = [f"{name}: {value}".encode() for name, value in upstream.headers]
        removed = RequestFilter(upstream)
        self._filter = removed if removed.needed else None
        self._filters_ours = removed.names_ours
        self._removed = stats.sink
        if upstream.credential_headers:
            self._removed = stats.counter("credentials_removed", label)

    def request(self, head: RequestHead, extra: list[bytes], framing: bytes | None = None) -> bytes:
        """The head to send, with ``extra`` lines at its end.

        ``framing`` (a line, or empty for a request without a body) replaces the client's framing
        and its ``Expect``: the body is sent whole.
        """
        lines, target = head.lines, head.target
        if framing is not None:
            lines = [
                line for line in lines if line is not head.framing_line and line is not head.expect
            ]
            if framing:
                lines.append(framing)
        if self._host is not None:
            lines = [self._host, *(line for line in lines if line is not head.host_line)]
        elif head.host_line is None:
            # An HTTP/1.0 client need not send one, but what goes out is HTTP/1.1.
            lines = [self._own_host, *lines]
        if (removed := self._filter) is not None:
            lines = [*removed.lines(lines), *self._added]
            if self._filters_ours:
                extra = removed.lines(extra)
            if b"?" in target:
                target = removed.target(target)
            if removed.credentials:
                removed.credentials = False
                self.words[self._removed] += 1
        prefix = self._prefix
        if prefix and target == b"*":
            prefix = b""
        first = b"%b %b%b HTTP/1.1" % (head.method, prefix, target)
        return b"\r\n".join((first, *lines, *extra, b"", b""))

    def answered(self) -> None:
        """An inference succeeded; if the server had been unreachable, this ends a cold start."""
        if self._away_since is not None:
            self.words[self._cold_start_us] = int((monotonic() - self._away_since) * 1e6)
            self._count("cold_starts")
            self._away_since = None

    def publish(self) -> None:
        """Update the gauges."""
        pool = self.pool
        for gauge, value in zip(
            self._gauges, (len(pool.idle), pool.busy, len(pool.waiting)), strict=True
        ):
            self.words[gauge] = value

    def retire(self) -> None:
        """Send no new requests to it; those in flight continue. Sets its gauges to zero."""
        self.pool.close()
        for gauge in (*self._gauges, self._cold_start_us):
            self.words[gauge] = 0

    def forget(self, index: int) -> None:
        """The entry with this index is freed: the arm is gone from the plan."""
        sink = self._stats.sink
        if index == self._removed:
            self._removed = self._stats.counter("credentials_removed", {"arm": "other"})
        if index == self.in_flight:
            self.in_flight = sink
        if index == self._cold_start_us:
            self._cold_start_us = sink
        self._gauges = [sink if gauge == index else gauge for gauge in self._gauges]

    def _count(self, name: str) -> None:
        # Looked up each time: this is rare, and the entry of a removed arm may be freed.
        self.words[self._stats.counter(name, self._label)] += 1

    def _on_connect(self, ok: bool) -> None:
        if ok:
            self._count("upstream_connects")
            return
        self._count("upstream_connect_failures")
        if self._away_since is None:
            self._away_since = monotonic()

    def _on_retry(self) -> None:
        self._count("retries")

    def _on_exhausted(self) -> None:
        self.words[self._stats.counter("descriptors_exhausted", {"where": "connect"})] += 1

    def _refused(self, reason: str) -> None:
        labels = {"arm": self.upstream.name, "reason": reason}
        self.words[self._stats.counter("responses_refused", labels)] += 1


def _authority(upstream: Upstream) -> bytes:
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    default = 443 if upstream.tls is not None else 80
    return (host if upstream.port == default else f"{host}:{upstream.port}").encode()
