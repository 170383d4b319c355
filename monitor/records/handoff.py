"""The evaluation plane's end of the record hand-off: a Unix socket that workers connect to.

Each connection belongs to one worker slot. A duplicate batch is acknowledged and not passed on, so
a worker may resend whatever it is not sure about. Batches are passed to the sink one at a time, and
the event loop runs in between.

Sockets are used directly, not through asyncio's transports: when the peer has died, the next write
fails, and a transport then discards data that was received and not yet read.

When a worker is restarted, data of its predecessor may still be in the socket. The old connection
is read to its end before the new worker is welcomed, so that ``received`` is exact and the new
worker can count what was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.monitor.errors import ProtocolError
from understudy.monitor.records import frames
from understudy.monitor.records.slots import Slot, Slots

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
HELLO_SECONDS = 10.0
DRAIN_SECONDS = 5.0
"""How long reading the predecessor's connection to its end may take."""
MAX_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class SplitNames:
    """How the requests of a model are split: ``weights`` are shares by arm, active in that worker
    since ``since`` (unix seconds) and decided at ``epoch``. A record assigned to the arm with index
    ``i`` has the number ``first + i``."""

    experiment: str
    model: int
    weights: tuple[float, ...]
    since: float
    epoch: float
    first: int = 1


_OTHER_MODEL = ("other", "", "auto")


@dataclass(frozen=True, slots=True)
class Names:
    """The names that the records of a batch index."""

    generation: int = 0
    models: tuple[tuple[str, str, str], ...] = ()
    """(name, version, protocol)"""
    arms: tuple[str, ...] = ()
    splits: tuple[SplitNames, ...] = ()

    def model(self, index: int) -> tuple[str, str, str]:
        """(name, version, protocol) of a model; that of ``other`` for an unknown index."""
        return self.models[index] if index < len(self.models) else _OTHER_MODEL

    def arm(self, index: int) -> str:
        """The name of an arm; ``other`` for an unknown index."""
        return self.arms[index] if index < len(self.arms) else "other"

    @classmethod
    def from_json(cls, payload: bytes) -> Names:
        """Parse the payload of a NAMES frame. Raises ProtocolError."""
        try:
            data = json.loads(payload)
            return cls(
                int(data["generation"]),
                tuple(
                    (str(m["name"]), str(m["version"]), str(m["protocol"])) for m in data["models"]
                ),
                tuple(str(arm) for arm in data["arms"]),
                tuple(
                    SplitNames(
                        str(split["experiment"]),
                        int(split["model"]),
                        tuple(float(weight) for weight in split["weights"]),
                        float(split["since"]),
                        float(split["epoch"]),
                        int(split.get("first", 1)),
                    )
                    for split in data.get("splits", ())
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"NAMES frame: {error!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_json` reads as JSON."""
        return {
            "generation": self.generation,
            "models": [
                {"name": name, "version": version, "protocol": protocol}
                for name, version, protocol in self.models
            ],
            "arms": list(self.arms),
            "splits": [
                {
                    "experiment": split.experiment,
                    "model": split.model,
                    "weights": list(split.weights),
                    "since": split.since,
                    "epoch": split.epoch,
                    "first": split.first,
                }
                for split in self.splits
            ],
        }


Sink = Callable[[Names, int, bytes, str], None]
"""Called with the names, the announced count, the encoded records and the id of a batch: the same
when it is sent again, and empty for records that no worker sent. Must not raise."""


def batch_id(run: str, slot: int, seq: int) -> str:
    """The id of batch number ``seq`` of a worker."""
    return f"{run}-{slot}-{seq}"


class _Connection:
    """One worker's socket. Writing never waits, and a failed write does not end reading."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = asyncio.Event()
        self.names = Names()
        self.key: tuple[str, int] | None = None
        self.welcomed = False
        self.unacknowledged = False
        self.committed = 0
        self._unsent = b""

    def send(self, kind: int, payload: bytes) -> bool:
        """Send a frame; False if the worker does not read. A later frame supersedes it."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
            if self._unsent:
                return False
            data = frames.frame(kind, payload)
            self._unsent = data[self.sock.send(data) :]
        except OSError:
            return False  # full or closed; reading continues
        return True

    def shut_down(self) -> None:
        """End the stream after the data that is already in the socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class HandOffServer:
    """Receives batches from workers at the Unix socket ``path`` and passes them to ``sink``.

    ``slots`` holds the progress of each worker; ``drain_seconds`` is how long reading the
    connection of a restarted worker may take."""

    def __init__(
        self, path: Path, slots: Slots, sink: Sink, drain_seconds: float = DRAIN_SECONDS
    ) -> None:
        self.path = path
        self.slots = slots
        self.protocol_errors = 0
        self.duplicate_batches = 0
        self._sink = sink
        self._drain_seconds = drain_seconds
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._by_slot: dict[tuple[str, int], _Connection] = {}

    @property
    def connections(self) -> int:
        """Number of connected workers."""
        return sum(connection.welcomed for connection in self._connections)

    async def start(self) -> None:
        """Listen; the socket file of a previous process is replaced."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        umask = os.umask(0o177)
        try:
            listener.bind(str(self.path))
        finally:
            os.umask(umask)
        listener.listen(MAX_CONNECTIONS)
        self._listener = listener
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    async def stop(self, patience: float) -> None:
        """Receive what workers still send, for up to ``patience`` seconds, then disconnect."""
        if self._listener is None or self._accepting is None:
            return
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._listener.close()
        self._listener = None
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for connection in self._connections:
            connection.shut_down()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of file descriptors, or a peer that left at once
                log.warning("hand-off: cannot accept a worker: %s", error)
                await asyncio.sleep(0.1)
                continue
            sock.setblocking(False)
            if len(self._connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            task = loop.create_task(self._serve(_Connection(sock)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def commit(self, saved: Mapping[tuple[str, int], int]) -> None:
        """Tell each worker that its batches up to ``saved[run, slot]`` are in the saved state.

        Call it repeatedly, also when nothing changed: a worker that did not read gets it then.
        """
        for connection in self._connections:
            if connection.welcomed and connection.key is not None:
                seq = saved.get(connection.key, 0)
                if seq > connection.committed and connection.send(
                    frames.COMMIT, frames.SEQ.pack(seq)
                ):
                    connection.committed = seq

    async def _serve(self, connection: _Connection) -> None:
        self._connections.add(connection)
        try:
            await self._read(connection)
        except ProtocolError as error:
            self.protocol_errors += 1
            log.warning("hand-off from %s: %s; connection closed", connection.key, error)
        except (OSError, TimeoutError):
            pass  # the kernel delivers all data before it reports a reset
        finally:
            self._connections.discard(connection)
            if connection.key is not None and self._by_slot.get(connection.key) is connection:
                del self._by_slot[connection.key]
            connection.sock.close()
            connection.closed.set()

    async def _read(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        reader = frames.FrameReader()
        while True:
            async with asyncio.timeout(None if connection.welcomed else HELLO_SECONDS):
                data = await loop.sock_recv(connection.sock, READ_BYTES)
            if not data:
                return
            for kind, payload in reader.feed(data):
                if kind == frames.BATCH:
                    self._batch(connection, payload)
                    await asyncio.sleep(0)
                elif kind == frames.NAMES:
                    connection.names = Names.from_json(payload)
                elif kind == frames.HELLO:
                    await self._hello(connection, payload)
                else:
                    raise ProtocolError(f"frame of type {kind}")
            self._acknowledge(connection)

    async def _hello(self, connection: _Connection, payload: bytes) -> None:
        try:
            data = json.loads(payload)
            key = (str(data["run"]), int(data["slot"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"HELLO frame: {error!r}") from error
        if connection.key is not None:
            raise ProtocolError("a second HELLO")
        predecessor = self._by_slot.get(key)
        connection.key = key
        self._by_slot[key] = connection
        if predecessor is not None:
            await self._drain(predecessor, key)
        slot = self.slots.of(*key)
        connection.welcomed = True
        welcome = {"last_seq": slot.last_seq, "received": slot.received}
        connection.send(frames.WELCOME, json.dumps(welcome).encode())

    async def _drain(self, predecessor: _Connection, key: tuple[str, int]) -> None:
        try:
            async with asyncio.timeout(self._drain_seconds):
                await predecessor.closed.wait()
        except TimeoutError:
            log.warning("slot %s: the old connection did not end; disconnecting it", key)
            predecessor.shut_down()
            await predecessor.closed.wait()

    def _slot(self, connection: _Connection) -> Slot:
        if connection.key is None or not connection.welcomed:
            raise ProtocolError("a batch before HELLO")
        return self.slots.of(*connection.key)

    def _batch(self, connection: _Connection, payload: bytes) -> None:
        slot = self._slot(connection)
        assert connection.key is not None
        if len(payload) < frames.BATCH_HEAD.size:
            raise ProtocolError(f"BATCH frame of {len(payload)} bytes")
        seq, count = frames.BATCH_HEAD.unpack_from(payload)
        connection.unacknowledged = True
        if seq <= slot.last_seq:
            self.duplicate_batches += 1
            return
        records = payload[frames.BATCH_HEAD.size :]
        self._sink(connection.names, count, records, batch_id(*connection.key, seq))
        slot.last_seq = seq
        slot.received += count

    def _acknowledge(self, connection: _Connection) -> None:
        if connection.unacknowledged:
            connection.unacknowledged = False
            seq = frames.SEQ.pack(self._slot(connection).last_seq)
            connection.send(frames.ACK, seq)
