"""The wall time of a request's start comes from its monotonic times, whatever pauses follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest

from tests.support.proxy import OK, Message, Server, plan_for, post, sidecar
from tests.support.proxy_mirror import challenger
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.client import ClientConnection
from understudy.monitor.proxy.wall import WallClock

MS = 1_000_000
EPOCH = 1_800_000_000_000_000_000


class Clocks:
    """Two clocks that differ by ``offset``; each reading takes the next of ``pauses``."""

    def __init__(self, pauses: Iterator[int]) -> None:
        self.now = 5 * MS
        self.offset = EPOCH
        self._pauses = pauses

    def monotonic(self) -> int:
        self.now += next(self._pauses)
        return self.now

    def wall(self) -> int:
        return self.monotonic() + self.offset


def clock(pauses: Iterator[int]) -> tuple[WallClock, Clocks]:
    clocks = Clocks(pauses)
    return WallClock(clocks.monotonic, clocks.wall), clocks


def test_a_reading_with_a_pause_is_repeated() -> None:
    wall, _ = clock(iter([0, 900 * MS, 0, 0, 1000, 1000]))
    assert abs(wall.offset_ns - EPOCH) <= 1000


def test_requests_keep_their_order_while_the_clock_is_not_set() -> None:
    wall, clocks = clock(iter([1000] * 3 + [7000] * 3 + [100 * MS] * 12))
    before = wall.offset_ns
    for _ in range(2):
        wall.refresh()
        assert wall.offset_ns == before
    assert wall.at(clocks.now) == pytest.approx((clocks.now + EPOCH) / 1e9, abs=1e-5)


@pytest.mark.parametrize("seconds", [-3600, -1, 1, 3600])
def test_a_clock_that_was_set_is_followed(seconds: int) -> None:
    wall, clocks = clock(repeat(1000))
    clocks.offset += seconds * 1000 * MS
    wall.refresh()
    assert abs(wall.offset_ns - clocks.offset) <= 1000


@pytest.mark.anyio
async def test_a_pause_before_the_record_does_not_shift_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered: list[float] = []
    over: Callable[..., None] = ClientConnection.exchange_over

    def pauses(*arguments: object) -> None:
        over(*arguments)
        time.sleep(0.3)

    monkeypatch.setattr(ClientConnection, "exchange_over", pauses)

    def answer(_: Message) -> bytes:
        answered.append(time.time())
        return OK

    upstream, other = await Server(answer).start(), await Server(answer).start()
    async with sidecar(plan_for(upstream.port, challenger(other.port))) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        await side.ask(post(b"{}"))
        await side.until(lambda: len(peer.records) == 2)
        for record, at in zip(
            sorted(peer.records, key=lambda one: one.role), answered, strict=True
        ):
            # Not after its own answer, but for the error of a reading of the clock.
            assert record.started < at + 0.001
            assert record.started + record.duration_ns / 1e9 > at - 0.001
        await peer.stop()
