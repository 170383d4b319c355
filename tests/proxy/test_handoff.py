"""The record hand-off: sent + dropped = eligible, exactly, whatever happens to the other side."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
import uvloop  # noqa: F401 - the worker's loop

from tests.support.patience import patient
from tests.support.proxy import INFER, OK, Server, plan_for, post, sidecar
from tests.support.proxy_mirror import challenger
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.handoff import HandOff
from understudy.monitor.records.encode import Encoded, encode
from understudy.monitor.records.record import OUTCOMES, ROLES
from understudy.monitor.routing.plan import HandOff as Limits
from understudy.monitor.stats.shared import SharedStats, walk


def record(number: int = 0, size: int = 0) -> Encoded:
    return encode(
        0, 0, 200, 0, 0, 1.5, 10, 5, 0, size, 2, b"id-%d" % number, b"t", b"", b"/", b"", b"",
        bytes(size), None,
    )  # fmt: skip


class Sender:
    """A hand-off with its numbers, in a folder."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.stats = SharedStats(folder / "worker-0.stats", 1 << 20)
        identity: dict[str, str | int] = {
            "run": "r",
            "slot": 0,
            "incarnation": self.stats.incarnation,
        }
        self.handoff = HandOff(
            folder / "records.sock",
            identity,
            self.stats,
            Limits(**limits),  # type: ignore[arg-type]
            asyncio.get_running_loop(),
        )
        self.handoff.name({"generation": 1, "models": [], "arms": ["champion"]})
        self.handoff.start()

    def numbers(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in walk(self.stats.words):
            name = entry.name.removeprefix("records_")
            if name == "dropped":
                name = entry.labels["reason"]
            found[name] = self.stats.words[entry.offset]
        return {name: value for name, value in found.items() if name != "handoff_batches"}

    def balance(self) -> int:
        """Eligible − sent − dropped: what is still under way."""
        found = self.numbers()
        dropped = sum(
            found[n] for n in ("queue_full", "evaluation_away", "worker_lost", "shutdown")
        )
        return found["eligible"] - found["sent"] - dropped

    async def linked(self, yes: bool = True) -> None:
        """Wait until the peer has welcomed it, or is gone."""
        async with asyncio.timeout(patient(10)):
            while self.handoff._welcomed != yes:
                await asyncio.sleep(0.005)

    async def settle(self) -> None:
        self.handoff.flush()
        async with asyncio.timeout(patient(10)):
            while self.handoff.pending:
                await asyncio.sleep(0.005)

    def die(self) -> None:
        """End without a word, as kill -9 does."""
        assert self.handoff._task is not None
        self.handoff._task.cancel()
        if self.handoff._link is not None and self.handoff._link.transport is not None:
            self.handoff._link.transport.abort()


@pytest.mark.anyio
async def test_everything_arrives_once_and_in_order(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "records.sock")
    await peer.start()
    sender = Sender(tmp_path)
    for i in range(1000):
        sender.handoff.add(record(i))
        if i % 100 == 0:
            await asyncio.sleep(0)
    await sender.settle()
    assert [r.request_id for r in peer.records] == [b"id-%d" % i for i in range(1000)]
    assert sender.numbers()["sent"] == 1000
    assert sender.balance() == 0
    await sender.handoff.close(1)
    await peer.stop()


@pytest.mark.anyio
async def test_records_are_kept_while_the_peer_has_not_started(tmp_path: Path) -> None:
    sender = Sender(tmp_path, max_bytes=10_000, batch_records=10)
    for i in range(1000):
        sender.handoff.add(record(i))
    numbers = sender.numbers()
    held = sender.handoff.pending
    assert held > 0
    assert numbers["evaluation_away"] == 1000 - held
    peer = Peer(tmp_path / "records.sock")
    await peer.start()
    await sender.settle()
    assert sender.numbers()["sent"] == held == peer.received
    assert sender.balance() == 0
    await sender.handoff.close(1)
    await peer.stop()


@pytest.mark.anyio
async def test_a_peer_that_never_acknowledges_fills_the_bounded_queue(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "records.sock")
    peer.acknowledge = False
    await peer.start()
    sender = Sender(tmp_path, max_bytes=20_000, batch_records=10)
    await sender.linked()
    for i in range(2000):
        sender.handoff.add(record(i))
        await asyncio.sleep(0)
    assert sender.handoff._held_bytes + sender.handoff._current_bytes <= 20_000
    numbers = sender.numbers()
    assert numbers["queue_full"] > 0
    assert numbers["eligible"] == 2000
    assert sender.balance() == sender.handoff.pending
    await sender.handoff.close(0.1)
    assert sender.numbers()["shutdown"] > 0
    assert sender.balance() == 0
    await peer.stop()


@pytest.mark.anyio
async def test_batches_are_sent_again_to_a_peer_that_lost_its_state(tmp_path: Path) -> None:
    """It dies after acknowledging, with an older state on disk: kept batches are sent again."""

    peer = Peer(tmp_path / "records.sock")
    peer.commit = False
    await peer.start()
    sender = Sender(tmp_path, batch_records=10)
    for i in range(100):
        sender.handoff.add(record(i))
    await sender.settle()
    await peer.stop()
    saved = Peer(tmp_path / "records.sock")
    saved.last_seq, saved.received = 4, 40
    await sender.linked(False)
    for i in range(100, 150):
        sender.handoff.add(record(i))
    await saved.start()
    async with asyncio.timeout(patient(10)):
        while saved.received < 150:
            await asyncio.sleep(0.01)
    await sender.settle()
    assert saved.seen == list(range(5, 16)), "nothing is sent that the state holds"
    assert [r.request_id for r in saved.records] == [b"id-%d" % i for i in range(40, 150)]
    numbers = sender.numbers()
    assert (numbers["sent"], numbers["lost"], sender.balance()) == (150, 0, 0)
    await sender.handoff.close(1)
    await saved.stop()


@pytest.mark.anyio
async def test_records_not_kept_until_saved_are_lost_and_counted(
    tmp_path: Path,
) -> None:
    peer = Peer(tmp_path / "records.sock")
    peer.commit = False
    await peer.start()
    sender = Sender(tmp_path, batch_records=10, max_bytes=8000)
    for i in range(500):
        sender.handoff.add(record(i))
        if i % 10 == 9:
            await sender.settle()
    assert sender.numbers()["sent"] == 500, "an acknowledged batch makes room for new ones"
    await peer.stop()
    saved = Peer(tmp_path / "records.sock")
    await saved.start()
    async with asyncio.timeout(patient(10)):
        # What it is sent again comes after the greeting; how much that is, only then shows.
        while saved.received == 0 or saved.received != 500 - sender.numbers()["lost"]:
            await asyncio.sleep(0.01)
    await sender.settle()
    numbers = sender.numbers()
    assert numbers["sent"] == 500
    assert numbers["lost"] > 0
    assert saved.received == 500 - numbers["lost"]
    assert sender.balance() == 0
    await sender.handoff.close(1)
    await saved.stop()


@pytest.mark.anyio
async def test_records_of_a_killed_worker_are_lost_once_when_the_state_goes_back(
    tmp_path: Path,
) -> None:
    """While the state could not be saved, the worker is killed, and later the peer; then again."""
    peer = Peer(tmp_path / "records.sock")
    peer.commit = False
    await peer.start()
    first = Sender(tmp_path, batch_records=10)
    for i in range(50):
        first.handoff.add(record(i))
    await first.settle()
    first.die()
    first.stats.close()
    second = Sender(tmp_path, batch_records=10)
    for i in range(50, 70):
        second.handoff.add(record(i))
    await second.settle()
    assert second.numbers()["lost"] == 0
    await peer.stop()
    restored = Peer(tmp_path / "records.sock")
    restored.last_seq, restored.received = 3, 30
    await restored.start()
    async with asyncio.timeout(patient(10)):
        while restored.received < 50:
            await asyncio.sleep(0.01)
    await second.settle()
    assert second.numbers()["lost"] == 20, "nothing can send the two batches of the first again"
    second.die()
    second.stats.close()
    third = Sender(tmp_path, batch_records=10)
    for i in range(70, 80):
        third.handoff.add(record(i))
    await third.settle()
    numbers = third.numbers()
    assert (numbers["sent"], numbers["lost"], third.balance()) == (80, 20, 0)
    assert restored.received == numbers["sent"] - numbers["lost"]
    await third.handoff.close(1)
    await restored.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("forgets", [False, True], ids=["peer knows", "peer died too"])
async def test_a_killed_worker_leaves_exact_counts(tmp_path: Path, forgets: bool) -> None:
    peer = Peer(tmp_path / "records.sock")
    await peer.start()
    first = Sender(tmp_path, batch_records=10)
    for i in range(50):
        first.handoff.add(record(i))
    await first.settle()
    peer.acknowledge = False
    for i in range(50, 75):
        first.handoff.add(record(i))
    async with asyncio.timeout(patient(10)):
        while peer.received < 70:
            await asyncio.sleep(0.005)
    first.die()
    held = peer.received
    assert held == 70, "two whole batches had left"
    first.stats.close()
    if forgets:
        peer.last_seq, peer.received = 3, 30
    peer.acknowledge = True
    second = Sender(tmp_path)
    assert second.stats.incarnation == 2
    for i in range(75, 100):
        second.handoff.add(record(i))
    await second.settle()
    numbers = second.numbers()
    assert numbers["eligible"] == 100
    assert numbers["worker_lost"] == (25 if forgets else 5)
    assert numbers["lost"] == (20 if forgets else 0)
    assert numbers["sent"] == (75 if forgets else 95)
    assert second.balance() == 0
    assert peer.received == numbers["sent"] - numbers["lost"]
    await second.handoff.close(1)
    await peer.stop()


@pytest.mark.anyio
async def test_a_peer_that_breaks_the_protocol_is_disconnected(tmp_path: Path) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x00\x00\x00\x00 nonsense")
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        ended.set()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_unix_server(nonsense, str(tmp_path / "records.sock"))
    sender = Sender(tmp_path)
    sender.handoff.add(record())
    await ended.wait()
    server.close()
    peer = Peer(tmp_path / "records.sock")
    await peer.start()
    await sender.settle()
    assert peer.received == 1
    await sender.handoff.close(1)
    await peer.stop()


@pytest.mark.anyio
async def test_what_a_worker_records() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    async with sidecar(plan_for(champion.port, challenger(other.port))) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        trace = b"a" * 32
        await side.ask(
            post(b'{"a":1}', b"Content-Type: application/json", b"x-request-id: r1",
                 b"traceparent: 00-" + trace + b"-" + b"b" * 16 + b"-01")
        )  # fmt: skip
        await side.until(lambda: len(peer.records) == 2)
        by_role = {ROLES[r.role]: r for r in peer.records}
        primary, mirror = by_role["primary"], by_role["mirror"]
        for r in (primary, mirror):
            assert (r.request_id, r.trace_id, r.status) == (b"r1", trace, 200)
            assert r.sampled
            assert OUTCOMES[r.outcome] == "ok"
            assert r.target == INFER.encode()
            assert r.response_body == b"ok"
            assert r.duration_ns >= r.first_byte_ns > 0
            assert (r.request_size, r.response_size) == (7, 2)
        assert primary.request_body == b'{"a":1}'
        assert primary.request_headers == b"Content-Type: application/json"
        assert mirror.request_body is None
        assert (primary.arm, mirror.arm) == (0, 1)
        assert peer.names[0]["arms"] == ["champion", "candidate"]
        assert peer.hellos[0]["slot"] == 0
        await peer.stop()
