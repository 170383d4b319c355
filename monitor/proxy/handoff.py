"""The worker's end of the record hand-off: bounded, never blocking, with exact counts.

Every record offered is *eligible*. It becomes *sent* when the evaluation plane acknowledges it, or
*dropped* by reason when it cannot be kept here any longer; every record is one of the two, apart
from those in transit. Batches stay here until they are part of the evaluation plane's saved state
and are sent again after it crashed; records that could not be kept that long are *lost*, and
counted.

The counts live in shared memory, so they survive a worker that is killed; its successor computes
from them, and from what the evaluation plane has received, how many records were lost with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Final, cast

from understudy.monitor.errors import ProtocolError
from understudy.monitor.records.encode import Encoded
from understudy.monitor.records.frames import (
    ACK,
    BATCH,
    BATCH_HEAD,
    COMMIT,
    HEAD,
    HELLO,
    NAMES,
    SEQ,
    WELCOME,
    FrameReader,
    frame,
)
from understudy.monitor.routing.plan import HandOff as Limits
from understudy.monitor.stats.shared import SharedStats

_RETRY_SECONDS = (0.05, 1.0)
_MAX_UNCOMMITTED: Final = 10_000
"""Batches awaiting a saved state; when saving fails for long, the oldest counts are merged."""


class Batch:
    """A batch of records. ``data`` is the whole frame, or None after its bytes were freed."""

    __slots__ = ("acknowledged", "count", "data", "names", "seq", "size")

    def __init__(self, seq: int, count: int, data: bytes, names: int) -> None:
        self.seq = seq
        self.count = count
        self.data: bytes | None = data
        self.size = len(data)
        self.names = names
        self.acknowledged = False


class HandOff:
    """Sends the records passed to :meth:`add` to the evaluation plane, on the event loop."""

    def __init__(
        self,
        path: Path,
        identity: dict[str, str | int],
        stats: SharedStats,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._path = path
        self._identity = identity
        self._loop = loop
        self.limits = limits
        words = self._words = stats.words
        self._eligible = stats.counter("records_eligible")
        self._sent = stats.counter("records_sent")
        self._lost = stats.counter("records_lost")
        self._dropped = {
            reason: stats.counter("records_dropped", {"reason": reason})
            for reason in ("queue_full", "evaluation_away", "worker_lost", "shutdown")
        }
        self._seq = stats.counter("handoff_batches")
        # Counts that the predecessor in this slot left behind, resolved at the first WELCOME.
        dropped = sum(words[index] for index in self._dropped.values())
        self._inherited: int | None = words[self._eligible] - dropped
        self._current: list[bytes] = []
        self._current_bytes = 0
        self._current_count = 0
        self._held_bytes = 0
        self._unsent: deque[Batch] = deque()
        self._unacknowledged: deque[Batch] = deque()
        self._uncommitted: deque[Batch] = deque()
        self._names: dict[int, bytes] = {}
        self._names_current = 0
        self._names_told = -1
        self._link: _Link | None = None
        self._welcomed = False
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Start connecting."""
        self._task = self._loop.create_task(self._keep_connected())

    def name(self, names: dict[str, object]) -> None:
        """Set the names that the indices in the following records refer to."""
        self._cut()
        batches = (*self._unsent, *self._unacknowledged, *self._uncommitted)
        needed = {batch.names for batch in batches}
        self._names = {number: one for number, one in self._names.items() if number in needed}
        self._names_current += 1
        self._names[self._names_current] = frame(NAMES, json.dumps(names).encode())

    def add(self, encoded: Encoded) -> None:
        """Offer a record; it is queued or counted as dropped, without blocking."""
        words = self._words
        words[self._eligible] += 1
        size, parts = encoded
        if self._held_bytes + self._current_bytes + size > self.limits.max_bytes:
            self._free_acknowledged(size)
            if self._held_bytes + self._current_bytes + size > self.limits.max_bytes:
                words[self._dropped["queue_full" if self._welcomed else "evaluation_away"]] += 1
                return
        self._current += parts
        self._current_count += 1
        self._current_bytes += size
        if (
            self._current_count >= self.limits.batch_records
            or self._current_bytes >= self.limits.batch_bytes
        ):
            self._cut()

    def flush(self) -> None:
        """Send the records collected so far."""
        if self._current:
            self._cut()

    @property
    def pending(self) -> int:
        """Records that are neither sent nor dropped."""
        waiting = sum(b.count for b in (*self._unsent, *self._unacknowledged) if not b.acknowledged)
        return self._current_count + waiting

    async def close(self, patience: float) -> None:
        """Send the rest, for at most ``patience`` seconds; count what is left as dropped."""
        self._closing = True
        self.flush()
        until = monotonic() + patience
        while self.pending and monotonic() < until:
            await asyncio.sleep(0.01)
        for batch in (*self._unsent, *self._unacknowledged):
            if not batch.acknowledged:
                self._words[self._dropped["shutdown"]] += batch.count
        if self._inherited is not None:
            # Without a WELCOME, the fate of the predecessor's records is unknown.
            left = self._inherited - self._words[self._sent]
            self._words[self._dropped["worker_lost"]] += max(0, left)
            self._inherited = None
        if self._task is not None:
            self._task.cancel()
        if self._link is not None and self._link.transport is not None:
            self._link.transport.close()

    # Batches ------------------------------------------------------------------------------------

    def _cut(self) -> None:
        if not self._current:
            return
        self._words[self._seq] += 1
        seq = self._words[self._seq]
        count = self._current_count
        # The only copy of a payload in the hand-off.
        length = 1 + BATCH_HEAD.size + self._current_bytes
        head = (HEAD.pack(length, BATCH), BATCH_HEAD.pack(seq, count))
        batch = Batch(seq, count, b"".join((*head, *self._current)), self._names_current)
        self._current = []
        self._current_bytes = 0
        self._current_count = 0
        self._held_bytes += batch.size
        self._unsent.append(batch)
        self._pump()

    def _pump(self) -> None:
        link = self._link
        if link is None or not self._welcomed or link.transport is None:
            return
        while self._unsent and not link.full:
            batch = self._unsent.popleft()
            if batch.names != self._names_told:
                self._names_told = batch.names
                link.transport.write(self._names[batch.names])
            assert batch.data is not None
            link.transport.write(batch.data)
            self._unacknowledged.append(batch)

    def _free_acknowledged(self, size: int) -> None:
        """Free the bytes of batches that the evaluation plane has acknowledged."""
        for batch in self._uncommitted:
            if batch.data is not None:
                batch.data = None
                self._held_bytes -= batch.size
                if self._held_bytes + self._current_bytes + size <= self.limits.max_bytes:
                    return

    # The link -----------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        wait = _RETRY_SECONDS[0]
        while True:
            try:
                _, link = await self._loop.create_unix_connection(
                    lambda: _Link(self), str(self._path)
                )
            except OSError:
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_SECONDS[1])
                continue
            wait = _RETRY_SECONDS[0]
            await link.closed.wait()
            await asyncio.sleep(wait)

    def linked(self, link: _Link) -> None:
        """The link is connected: send HELLO."""
        self._link = link
        self._names_told = -1
        assert link.transport is not None
        link.transport.write(
            frame(HELLO, json.dumps({**self._identity, "pid": os.getpid()}).encode())
        )

    def unlinked(self) -> None:
        """The link to the evaluation plane is lost."""
        self._link = None
        self._welcomed = False

    def received(self, kind: int, payload: bytes) -> None:
        """Handle a frame of the evaluation plane. Raises ProtocolError for an unexpected one."""
        if kind == WELCOME:
            told = json.loads(payload)
            self._welcome(int(told["last_seq"]), int(told["received"]))
        elif kind == ACK:
            self._acknowledge(SEQ.unpack(payload)[0])
        elif kind == COMMIT:
            self._commit(SEQ.unpack(payload)[0])
        else:
            raise ProtocolError(f"unexpected frame {kind}")

    def pump(self) -> None:
        """The link is writable again."""
        self._pump()

    def _welcome(self, last_seq: int, received: int) -> None:
        words = self._words
        if self._inherited is not None:
            arrived = received + words[self._lost]
            if arrived > words[self._sent]:
                words[self._sent] = min(arrived, self._inherited)
            words[self._dropped["worker_lost"]] += max(0, self._inherited - words[self._sent])
            self._inherited = None
            words[self._seq] = max(words[self._seq], last_seq)
        again = (*self._uncommitted, *self._unacknowledged)
        self._uncommitted.clear()
        self._unacknowledged.clear()
        resend: list[Batch] = []
        for batch in again:
            if batch.seq <= last_seq:
                self._count_sent(batch)
                self._forget(batch)
            elif batch.data is not None:
                resend.append(batch)
        # What was sent is received, or lost before, or is sent again; also that of a predecessor,
        # whose batches nothing can send again.
        again_sent = sum(batch.count for batch in resend if batch.acknowledged)
        missing = words[self._sent] - words[self._lost] - received - again_sent
        if missing > 0:
            words[self._lost] += missing
        self._unsent.extendleft(reversed(resend))
        self._welcomed = True
        self._pump()

    def _count_sent(self, batch: Batch) -> None:
        if not batch.acknowledged:
            batch.acknowledged = True
            self._words[self._sent] += batch.count

    def _forget(self, batch: Batch) -> None:
        if batch.data is not None:
            batch.data = None
            self._held_bytes -= batch.size

    def _acknowledge(self, seq: int) -> None:
        queue = self._unacknowledged
        while queue and queue[0].seq <= seq:
            batch = queue.popleft()
            self._count_sent(batch)
            self._uncommitted.append(batch)
        if len(self._uncommitted) > _MAX_UNCOMMITTED:
            oldest = self._uncommitted.popleft()
            self._forget(oldest)
            self._uncommitted[0].count += oldest.count

    def _commit(self, seq: int) -> None:
        self._acknowledge(seq)
        queue = self._uncommitted
        while queue and queue[0].seq <= seq:
            self._forget(queue.popleft())


class _Link(asyncio.Protocol):
    """The connection to the evaluation plane."""

    def __init__(self, owner: HandOff) -> None:
        self._owner = owner
        self._reader = FrameReader()
        self.transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        self._owner.linked(self)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.feed(data):
                self._owner.received(kind, payload)
        except (ProtocolError, ValueError, KeyError, TypeError, struct.error):
            # The peer breaks the protocol: reconnect.
            if self.transport is not None:
                self.transport.abort()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._owner.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._owner.unlinked()
        self.closed.set()
