"""One model server of a worker: its connection pool, statistics and request heads."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from understudy.monitor.proxy.head import RequestHead
from understudy.monitor.proxy.http2.pool import Http2Pool
from understudy.monitor.proxy.memory import Memory
from understudy.monitor.proxy.outgoing import RequestFilter
from understudy.monitor.proxy.pool import FAILURES, RETRIES, Pool
from understudy.monitor.proxy.resolver import Resolver
from understudy.monitor.proxy.rewriting import Rewriter
from understudy.monitor.proxy.turns import Turns
from understudy.monitor.routing.plan import Upstream
from understudy.monitor.stats.shared import SharedStats

log = logging.getLogger(__name__)

_GAUGES = ("pool_idle", "pool_busy", "pool_waiting", "addresses_ready", "addresses_aside")


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
        memory: Memory,
        resolver: Resolver,
    ) -> None:
        self.index = index
        self.upstream = upstream
        kind: type[Pool] = Http2Pool if upstream.http2 else Pool
        self.pool = kind(upstream, loop, turns, memory, resolver, self)
        self.words = stats.words
        self._stats = stats
        self._label = label = {"arm": upstream.name}
        self.in_flight = stats.gauge("in_flight", {**label, "role": role})
        self._cold_start_us = stats.gauge("cold_start_us", label)
        # So that they are zero until then.
        for name in ("upstream_connects", "cold_starts"):
            stats.counter(name, label)
        for reason in FAILURES:
            stats.counter("upstream_connect_failures", {**label, "reason": reason})
        for reason in RETRIES:
            stats.counter("retries", {**label, "reason": reason})
        pool = {**label, "role": role}
        self._gauges = [stats.gauge(name, pool) for name in _GAUGES]
        self._away_since: float | None = None
        self._prefix = upstream.path_prefix.encode()
        self.rewriter: Rewriter | None = None
        """What names another model in requests to this server."""
        if upstream.rewrites or upstream.rewrite is not None:
            prefixes = [(old.encode(), new.encode()) for old, new in upstream.rewrites]
            self.rewriter = Rewriter(prefixes, upstream.rewrite)
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
        if (rewriter := self.rewriter) is not None:
            target = rewriter.target(target)[0]
            lines = rewriter.lines(lines)
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
        aside = pool.endpoints.aside
        values = (
            *(pool.idle, pool.busy, len(pool.waiting)),
            *(len(pool.endpoints.all) - aside, aside),
        )
        for gauge, value in zip(self._gauges, values, strict=True):
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

    def _count(self, name: str, **labels: str) -> None:
        # Looked up each time: this is rare, and the entry of a removed arm may be freed.
        self.words[self._stats.counter(name, {**self._label, **labels})] += 1

    # See Events of the pool ---------------------------------------------------------------------

    def connected(self, failure: str) -> None:
        """An attempt to connect ended."""
        if not failure:
            self._count("upstream_connects")
            return
        self._count("upstream_connect_failures", reason=failure)

    def unreachable(self) -> None:
        """None of the addresses could be connected to."""
        if self._away_since is None:
            self._away_since = monotonic()

    def retried(self, reason: str) -> None:
        """A request gets another attempt."""
        self._count("retries", reason=reason)

    def exhausted(self) -> None:
        """There was no descriptor for a connection."""
        self.words[self._stats.counter("descriptors_exhausted", {"where": "connect"})] += 1

    def refused(self, reason: str) -> None:
        """A response broke a rule of HTTP or a limit."""
        self._count("responses_refused", reason=reason)

    def looked_up(self, found: bool) -> None:
        """The server's name was looked up."""
        self._count("upstream_lookups", outcome="ok" if found else "failed")

    def certificates_changed(self, error: str) -> None:
        """The server's TLS files have changed."""
        self._count("certificate_changes", outcome="failed" if error else "ok")
        if error:
            name = self.upstream.name
            log.warning("the TLS files of %s cannot be used, the ones before stay: %s", name, error)


def _authority(upstream: Upstream) -> bytes:
    if upstream.socket is not None:
        return b"localhost"
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    default = 443 if upstream.tls is not None else 80
    return (host if upstream.port == default else f"{host}:{upstream.port}").encode()
