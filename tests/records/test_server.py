"""The evaluation plane's end of the hand-off, spoken to over a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import patient
from understudy.monitor.errors import StateError
from understudy.monitor.records import frames
from understudy.monitor.records.handoff import HandOffServer, Names
from understudy.monitor.records.slots import MAX_SLOTS, Slots

NAMES = {
    "generation": 3,
    "models": [{"name": "delays", "version": "1", "protocol": "auto"}],
    "arms": ["champion", "candidate"],
}


class Worker:
    """What a worker says, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._cutter = frames.FrameReader()
        self._inbox: list[tuple[int, bytes]] = []
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Worker:
        return cls(*await asyncio.open_unix_connection(str(path)))

    def hello(self, slot: int = 0, incarnation: int = 1, run: str = "r1") -> None:
        data = {"run": run, "slot": slot, "incarnation": incarnation, "pid": 1}
        self.send(frames.HELLO, json.dumps(data).encode())

    def names(self) -> None:
        self.send(frames.NAMES, json.dumps(NAMES).encode())

    def batch(self, seq: int, count: int, records: bytes = b"") -> None:
        self.send(frames.BATCH, frames.BATCH_HEAD.pack(seq, count) + records)

    def send(self, kind: int, payload: bytes) -> None:
        self.writer.write(frames.frame(kind, payload))

    async def receive(self) -> tuple[int, bytes]:
        while not self._inbox:
            data = await asyncio.wait_for(self._reader.read(65536), patient(10))
            if not data:
                raise ConnectionResetError
            self._inbox.extend(self._cutter.feed(data))
        return self._inbox.pop(0)

    async def welcome(self) -> dict[str, int]:
        kind, payload = await self.receive()
        assert kind == frames.WELCOME
        told: dict[str, int] = json.loads(payload)
        return told

    async def acknowledged(self, seq: int) -> None:
        while True:
            kind, payload = await self.receive()
            assert kind == frames.ACK
            (number,) = frames.SEQ.unpack(payload)
            assert number <= seq
            if number == seq:
                return

    async def ended(self) -> None:
        async def read_on() -> None:
            while True:
                await self.receive()

        with pytest.raises(ConnectionError):
            await read_on()


Taken = list[tuple[Names, int, bytes, str]]
Scene = Callable[[HandOffServer, Taken], Awaitable[None]]


async def play(
    path: Path, scene: Scene, slots: Slots | None = None, **options: Any
) -> HandOffServer:
    """Run ``scene`` against a listening server."""
    taken: Taken = []
    server = HandOffServer(path, slots or Slots(), lambda *batch: taken.append(batch), **options)
    await server.start()
    await asyncio.wait_for(scene(server, taken), patient(30))
    await server.stop(0)
    return server


@pytest.mark.anyio
async def test_batches_arrive_with_their_names_and_are_acknowledged(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        worker = await Worker.connect(server.path)
        worker.hello()
        assert await worker.welcome() == {"last_seq": 0, "received": 0}
        worker.names()
        worker.batch(1, 2, b"ab")
        worker.batch(2, 3, b"cde")
        await worker.acknowledged(2)
        assert [(count, data) for _, count, data, _ in taken] == [(2, b"ab"), (3, b"cde")]
        assert taken[0][0] == Names(3, (("delays", "1", "auto"),), ("champion", "candidate"))
        assert server.connections == 1

    server = await play(tmp_path / "s", scene)
    assert not (tmp_path / "s").exists()
    assert dict(server.slots)["r1", 0].received == 5


@pytest.mark.anyio
async def test_a_batch_sent_again_is_acknowledged_but_not_taken_twice(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        worker = await Worker.connect(server.path)
        worker.hello()
        await worker.welcome()
        worker.names()
        for seq in (1, 2, 1, 2, 3):
            worker.batch(seq, 10)
        await worker.acknowledged(3)
        assert len(taken) == 3
        again = await Worker.connect(server.path)
        worker.writer.close()
        again.hello()
        assert await again.welcome() == {"last_seq": 3, "received": 30}
        again.names()
        again.batch(3, 10)
        await again.acknowledged(3)
        assert len(taken) == 3
        assert server.duplicate_batches == 3

    await play(tmp_path / "s", scene)


@pytest.mark.anyio
async def test_slots_and_runs_are_told_apart(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        for run, slot in (("r1", 0), ("r1", 1), ("r2", 0)):
            worker = await Worker.connect(server.path)
            worker.hello(slot, run=run)
            assert (await worker.welcome())["received"] == 0
            worker.names()
            worker.batch(7, 1)
            await worker.acknowledged(7)
        assert len(taken) == 3

    await play(tmp_path / "s", scene)


@pytest.mark.anyio
async def test_the_predecessors_unread_batches_count_before_the_successor_is_welcomed(
    tmp_path: Path,
) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        old = await Worker.connect(server.path)
        old.hello()
        await old.welcome()
        old.names()
        # Everything is written in one go and the worker dies; its successor is quicker than the
        # evaluation plane at reading what is left.
        for seq in range(1, 401):
            old.batch(seq, 2, bytes(5000))
        await old.writer.drain()
        old.writer.close()
        new = await Worker.connect(server.path)
        new.hello(incarnation=2)
        assert await new.welcome() == {"last_seq": 400, "received": 800}
        assert len(taken) == 400

    await play(tmp_path / "s", scene)


@pytest.mark.anyio
async def test_a_worker_that_never_reads_is_still_read(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        worker = await Worker.connect(server.path)
        worker.hello()
        worker.names()
        transport = worker.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        for seq in range(1, 60_001):
            worker.batch(seq, 1)
            if seq % 16 == 0:
                await worker.writer.drain()
                await asyncio.sleep(0)
        await worker.writer.drain()
        while len(taken) < 60_000:
            await asyncio.sleep(0.01)
        transport.resume_reading()
        await worker.welcome()
        server.commit({("r1", 0): 60_000})
        while (await worker.receive())[0] != frames.COMMIT:
            server.commit({("r1", 0): 60_000})

    await play(tmp_path / "s", scene)


@pytest.mark.anyio
async def test_a_predecessor_that_does_not_end_is_cut(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        old = await Worker.connect(server.path)
        old.hello()
        await old.welcome()
        old.names()
        old.batch(1, 4)
        await old.acknowledged(1)
        new = await Worker.connect(server.path)
        new.hello(incarnation=2)
        assert await new.welcome() == {"last_seq": 1, "received": 4}
        await old.ended()

    await play(tmp_path / "s", scene, drain_seconds=0.2)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "said",
    [
        frames.frame(frames.BATCH, frames.BATCH_HEAD.pack(1, 1)),
        frames.frame(frames.HELLO, b"{"),
        frames.frame(frames.HELLO, b"[]"),
        frames.frame(frames.HELLO, b'{"run": "r1", "slot": "x"}'),
        frames.frame(frames.ACK, frames.SEQ.pack(1)),
        frames.frame(99, b""),
        frames.HEAD.pack(0, 1),
        frames.HEAD.pack(0xFFFFFFFF, 1),
        frames.frame(frames.NAMES, b'{"generation": 1}'),
    ],
)
async def test_a_broken_peer_is_cut_and_counted_and_others_go_on(
    tmp_path: Path, said: bytes
) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        good = await Worker.connect(server.path)
        good.hello()
        await good.welcome()
        bad = await Worker.connect(server.path)
        bad.writer.write(said)
        await bad.ended()
        good.names()
        good.batch(1, 1)
        await good.acknowledged(1)
        assert server.protocol_errors == 1

    await play(tmp_path / "s", scene)


@pytest.mark.anyio
async def test_commit_goes_to_the_slots_that_were_saved(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        workers = []
        for slot in (0, 1):
            worker = await Worker.connect(server.path)
            worker.hello(slot)
            await worker.welcome()
            worker.names()
            worker.batch(5, 1)
            await worker.acknowledged(5)
            workers.append(worker)
        server.commit({("r1", 1): 5, ("gone", 0): 3})
        assert await workers[1].receive() == (frames.COMMIT, frames.SEQ.pack(5))
        workers[0].batch(6, 1)
        await workers[0].acknowledged(6)  # and no COMMIT came before it

    await play(tmp_path / "s", scene)


@pytest.mark.anyio
async def test_stop_takes_in_what_was_already_written(tmp_path: Path) -> None:
    async def scene(server: HandOffServer, taken: Taken) -> None:
        worker = await Worker.connect(server.path)
        worker.hello()
        await worker.welcome()
        worker.names()
        for seq in range(1, 51):
            worker.batch(seq, 1, bytes(1000))
        await worker.writer.drain()
        worker.writer.close()
        await server.stop(5)
        assert len(taken) == 50

    await play(tmp_path / "s", scene)


def test_slots_survive_a_trip_through_json() -> None:
    slots = Slots()
    slots.of("r1", 0).last_seq = 4
    slots.of("r1", 0).received = 40
    slots.of("r0", 0).received = 9
    restored = Slots.from_state(json.loads(json.dumps(slots.dump_state())), "r1")
    assert [(key, slot.last_seq, slot.received) for key, slot in restored] == [(("r1", 0), 4, 40)]
    with pytest.raises(StateError):
        Slots.from_state([{"run": "r1"}], "r1")


def test_the_number_of_slots_is_bounded() -> None:
    slots = Slots()
    for number in range(MAX_SLOTS + 10):
        slots.of("r", number)
    assert len(list(slots)) == MAX_SLOTS
