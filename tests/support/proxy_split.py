"""Sidecars that divide their traffic, and who was answered by whom."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from tests.support.proxy import Message, Server, Sidecar, plan_for, post, sidecar
from tests.support.proxy_peer import Peer
from understudy.monitor.records.record import Record
from understudy.monitor.routing.plan import Breaker, Challenger, Plan, Split, Upstream
from understudy.shadow.assignment import Allocation, point

SALT = "salt"


NAMES = (b"champion", b"candidate")
BY_REQUEST = {"unit": "request", "unit_name": ""}
"""As an experiment without a unit has it; tests that need to know the arm split by a header."""


def says(name: bytes) -> bytes:
    """An answer whose body tells who gave it."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


@dataclass
class Divided:
    """A worker with an experiment, its two model servers, and who takes its records."""

    side: Sidecar
    peer: Peer
    champion: Server
    other: Server

    async def records(self, count: int) -> list[Record]:
        """All records, once there are ``count``."""
        await self.side.until(lambda: len(self.peer.records) >= count)
        assert len(self.peer.records) == count
        return self.peer.records

    async def record(self, raw: bytes) -> tuple[Message, Record]:
        """The answer to one request, and its record."""
        before = self.side.counter("records_eligible")
        await self.records(before)
        message = await self.side.ask(raw)
        return message, (await self.records(before + 1))[-1]

    def unassigned(self, reason: str = "no_unit") -> int:
        return self.side.counter("unassigned", experiment="trial", reason=reason)

    def diverted(self) -> int:
        return self.side.counter("diverted", experiment="trial")


def split_plan(
    champion: int,
    other: int,
    weights: tuple[float, ...] = (0.5, 0.5),
    copies: float = 0.0,
    breaker: Breaker | None = None,
    serving: dict[str, Any] | None = None,
    **split: Any,
) -> Plan:
    allocation = Allocation().reweighed(weights)
    options = {"host_header": "new", "idle_timeout": 60.0} | (serving or {})
    upstream = Upstream("candidate", "127.0.0.1", other, **options)
    one = Challenger(upstream, copies, breaker=breaker or Breaker(), serving=upstream)
    by = {"unit": "header", "unit_name": "x-request-id"}
    changes = {"starts": allocation.starts, "arms": allocation.arms, **by} | split
    return replace(plan_for(champion, one), splits=(Split("trial", 0, SALT, **changes),))


@contextlib.asynccontextmanager
async def divided(
    change: Callable[[Plan], Plan] = lambda plan: plan,
    champion: Server | None = None,
    other: Server | None = None,
    **options: Any,
) -> AsyncIterator[Divided]:
    """A running experiment between two servers that say who they are."""
    champion = await (champion or Server(says(NAMES[0]))).start()
    other = await (other or Server(says(NAMES[1]))).start()
    plan = change(split_plan(champion.port, other.port, **options))
    async with sidecar(plan) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        try:
            yield Divided(side, peer, champion, other)
        finally:
            await peer.stop()
            await champion.stop()
            await other.stop()


def arm_of(unit: bytes, weights: tuple[float, ...] = (0.5, 0.5)) -> int:
    """What understudy.shadow.assignment says, worked out without the proxy."""
    salt = blake2b(SALT.encode(), digest_size=32).digest()
    return Allocation().reweighed(weights).arm(point(salt, unit))


def unit_of(arm: int, weights: tuple[float, ...] = (0.5, 0.5)) -> bytes:
    """A unit that belongs to ``arm``."""
    return next(u for u in (b"unit-%d" % i for i in range(10_000)) if arm_of(u, weights) == arm)


def asks_by(by: str, unit: bytes) -> bytes:
    if by == "header":
        return post(b"{}", b"X-USER:  " + unit + b" ")
    if by == "cookie":
        return post(b"{}", b"Cookie: a=1; uid=" + unit + b"; uidx=2")
    if by == "pointer":
        return post(b'{"a": [{"u/v": "' + unit + b'"}]}')
    assert by == "id", by  # the header by which requests are split unless a test says otherwise
    return post(b"{}", b"x-request-id: " + unit)
