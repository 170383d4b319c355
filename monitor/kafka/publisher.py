"""Publishes the records and labels of a sidecar, through a spool on disk.

Records are collected in open blocks. Each flush closes all blocks and appends them to the spool in
one write, together with the progress of each worker: after a crash either both are there or
neither, and then the workers send the records again. Only what is synced to disk is committed to
the workers. The sender reads the spool, so Kafka can be down for as long as the spool has room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import StateError
from understudy.monitor.evidence.blocks import (
    Builder,
    Heartbeat,
    LabelBlock,
    RecordBlock,
    encode,
    partition_of,
)
from understudy.monitor.evidence.blocks.block import Decoded
from understudy.monitor.kafka.cloudevents import Origin, events_of_record
from understudy.monitor.kafka.outbox import LABELS, RECORDS, OutboxMessage
from understudy.monitor.kafka.sender import Sender
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import Spool
from understudy.monitor.records.record import Record
from understudy.monitor.records.slots import Slots

log = logging.getLogger(__name__)

MAX_BLOCK_RECORDS = 1024
"""Maximum number of records in one block."""
MAX_UNSAVED_BYTES = 64 * 1024 * 1024
"""Bytes kept in memory while the disk cannot be written; beyond that the oldest are dropped."""
HANDOFF_SECONDS = 2.0
"""How old a record may be when a worker sends it; a heartbeat covers the time before that.
A worker that was delayed may send older records, which then count as late."""
EARLY_RECORDS = 16_384
"""Number of records in closed blocks that triggers a flush before it is due."""


class _Batch:
    """The output of one flush."""

    __slots__ = ("committed", "complete", "last", "mark", "messages", "records", "size", "weights")

    def __init__(self, committed: dict[tuple[str, int], int], complete: float) -> None:
        self.committed = committed
        self.complete = complete
        self.last: dict[int, int] = {}
        self.mark = b""
        self.messages: list[bytes] = []
        self.weights: list[int] = []
        self.size = 0
        self.records = 0

    def add(self, message: OutboxMessage, weight: int) -> None:
        data = message.pack()
        self.messages.append(data)
        self.weights.append(weight)
        self.size += len(data)


class Publisher:
    """Call its methods from the event loop's thread.

    ``state_dir`` is the folder of the spool, unless ``kafka.spool.path`` is set. ``run`` names the
    supervisor's run; the workers of other runs are gone. ``taken`` counts the records received:
    published, dropped and waiting records add up to it. Raises LogError for a spool that cannot be
    used.
    """

    def __init__(self, kafka: Kafka, state_dir: Path, run: str) -> None:
        self.kafka = kafka
        folder = Path(kafka.spool.path) if kafka.spool.path else state_dir / "spool"
        # Each flush is synced before it is committed, so the spool need not do it by itself.
        self.spool = Spool(folder, kafka.spool.max_size, sync_seconds=None)
        saved = _mark(self.spool.mark)
        received = saved.get("slots")
        if saved.get("run") != run:
            saved = {}
        self._run = run
        self.id = str(saved.get("id") or f"{run[:40]}-{secrets.token_hex(4)}")
        """The run as blocks name it; a new one if the spool was lost."""
        self.slots = Slots(known=False) if received is None else Slots.from_state(received, run)
        self.committed = {key: slot.last_seq for key, slot in self.slots}
        """Number of the last batch on disk, by (run, slot)."""
        self.source = kafka.source or socket.gethostname()
        last = _numbers(saved.get("last"))
        self._builder = Builder(
            self.source, self.id, kafka.partitions, MAX_BLOCK_RECORDS, kafka.linger, last
        )
        self._labels = Builder(
            self.source,
            f"{self.id}-labels",
            kafka.partitions,
            last=_numbers(saved.get("last_labels")),
        )
        self._origin = Origin(source=f"urn:understudy:{self.source}")
        self.dropped: Counter[str] = Counter()
        """Dropped records and labels by reason, except those that spool and sender count."""
        self.taken = 0
        self.recovered = self.spool.pending
        """Number of records and labels that an earlier process left in the spool."""
        self.labels = 0
        self.error: str | None = None
        self._closed: list[RecordBlock] = []
        self._closed_records = 0
        self._events: list[tuple[OutboxMessage, int]] = []
        self._events_records = 0
        self._unsaved: deque[_Batch] = deque()
        self._saved_state = self._state()
        self._writing = asyncio.Lock()
        self._heartbeat_marks: deque[tuple[int, float, dict[int, int]]] = deque()
        """(index in the spool, complete, last numbers): the heartbeat once all before is sent."""
        self._lock = threading.Lock()
        # What an earlier process left in the spool comes first.
        self._heartbeat_marks.append((self.spool.end, 0.0, last))
        self._complete: tuple[float, dict[int, int]] = (0.0, {})
        self._acknowledged(self.spool.cursor)
        self.sender = Sender(kafka, self.spool, self._heartbeats, self._acknowledged)
        self.early = asyncio.Event()
        """Set when a flush should run before it is due."""

    def start(self) -> None:
        """Start the sender."""
        self.sender.start()

    async def stop(self, patience: float) -> None:
        """Flush, wait up to ``patience`` seconds for Kafka to accept all, and close the spool."""
        await self.flush()
        until = time.monotonic() + patience
        while self.spool.cursor < self.spool.end and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self.sender.stop)
        waiting = self.spool.pending
        if waiting:
            log.warning(
                "%s: %d records stay in the spool until the next start", self.kafka.prefix, waiting
            )
        self.spool.close()

    # Records ------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of records and labels that Kafka does not have yet."""
        return (
            self._builder.waiting
            + self._closed_records
            + self._events_records
            + sum(batch.records for batch in self._unsaved)
            + self.spool.pending
        )

    @property
    def decodes(self) -> bool:
        """Whether records are decoded, for :meth:`extend`; otherwise use :meth:`add_raw`."""
        return self.kafka.format == "blocks"

    def extend(
        self, names: Names, rows: Sequence[tuple[Record, Decoded, Decoded]], now: float
    ) -> None:
        """Add decoded records to blocks; ``now`` is unix seconds."""
        self.taken += len(rows)
        for block in self._builder.extend(names, rows, now):
            self._closed.append(block)
            self._closed_records += block.count
            if self._closed_records >= EARLY_RECORDS:
                self.early.set()

    def add_raw(self, names: Names, record: Record) -> None:
        """Add a record with its payloads, as CloudEvents."""
        self.taken += 1
        events = events_of_record(names, record, self._origin)
        if not events:
            self.dropped["no_payload"] += 1
            return
        partition = partition_of(record.request_id, self.kafka.partitions)
        for number, (headers, key, value) in enumerate(events):
            message = OutboxMessage(RECORDS, partition, value, key, tuple(headers))
            self._events.append((message, 0 if number else 1))
        self._events_records += 1
        if self._events_records >= EARLY_RECORDS:
            self.early.set()

    async def add_labels(self, labels: Sequence[Label]) -> None:
        """Write labels to the spool, on disk. Raises StateError; then no label was accepted."""
        await asyncio.shield(asyncio.ensure_future(self._add_labels(labels)))

    async def _add_labels(self, labels: Sequence[Label]) -> None:
        now = time.time()
        async with self._writing:
            before = dict(self._labels.last)
            blocks = self._labels.labels([(now, label) for label in labels], now)
            batch = _Batch({}, 0.0)
            state = {**self._saved_state, "last_labels": self._labels.last}
            batch.mark = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
            # The mark must not overtake the numbers of records that could not be written.
            if self._unsaved or not await asyncio.to_thread(self._write, blocks, batch, True):
                self._labels.last = before
                raise StateError(f"the spool cannot be written: {self.spool.error}")
            self._saved_state = state
            self.labels += len(labels)
        self.sender.wake()

    async def flush(self) -> bool:
        """Write all received records to the spool. False when that failed; they are kept."""
        # The caller may be cancelled; the write may not.
        return await asyncio.shield(asyncio.ensure_future(self._flush()))

    async def _flush(self) -> bool:
        async with self._writing:
            self.early.clear()
            now = time.time()
            blocks = [*self._closed, *self._builder.flush(now, everything=True)]
            self._closed, self._closed_records = [], 0
            events, self._events, self._events_records = self._events, [], 0
            state = self._state()
            committed = {key: slot.last_seq for key, slot in self.slots}
            new = bool(blocks or events or state != self._saved_state)
            if not new and not self._unsaved:
                self._advance_heartbeat(now)
                return True
            batch = self._unsaved[-1] if self._unsaved and not new else None
            if batch is None:
                batch = _Batch(committed, now - HANDOFF_SECONDS)
                batch.last = dict(self._builder.last)
                batch.mark = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
                batch.records = sum(block.count for block in blocks)
                for message, weight in events:
                    batch.add(message, weight)
                    batch.records += weight
                self._unsaved.append(batch)
            if not await asyncio.to_thread(self._write, blocks, batch, False):
                self._report_refused()
                return False
            self._saved_state = state
            self.committed = committed
            self.error = None
        self.sender.wake()
        return True

    def _write(self, blocks: Sequence[RecordBlock | LabelBlock], batch: _Batch, only: bool) -> bool:
        """On another thread: encode, append, sync."""
        for block in blocks:
            kind, weight = (
                (RECORDS, block.count)
                if isinstance(block, RecordBlock)
                else (LABELS, len(block.labels))
            )
            try:
                batch.add(OutboxMessage(kind, block.head.partition, encode(block)), weight)
            except Exception:  # evaluators notice the missing number and count it as lost
                log.exception("a block of %d records cannot be encoded", weight)
                self.dropped["internal"] += weight
        try:
            for one in [batch] if only else list(self._unsaved):
                if not self.spool.append(one.messages, one.weights, one.mark):
                    return False
                if not only:
                    with self._lock:
                        self._heartbeat_marks.append((self.spool.end, one.complete, one.last))
                    self._unsaved.popleft()
            self.spool.sync()
        except OSError as error:
            self.error = f"{self.kafka.spool.path or 'spool'}: {error}"
            return False
        return self.spool.error is None

    def _report_refused(self) -> None:
        error = self.spool.error or self.error or "the spool cannot be written"
        if self.error != error:
            log.error("%s; workers keep their records until it can", error)
        self.error = error
        while len(self._unsaved) > 1 and sum(one.size for one in self._unsaved) > MAX_UNSAVED_BYTES:
            # Its mark is not lost: each later mark includes it.
            self.dropped["disk"] += self._unsaved.popleft().records

    def _state(self) -> dict[str, Any]:
        return {
            "run": self._run,
            "id": self.id,
            "slots": self.slots.dump_state(),
            "last": dict(self._builder.last),
            "last_labels": dict(self._labels.last),
        }

    # Heartbeats ---------------------------------------------------------------------------------

    def _advance_heartbeat(self, now: float) -> None:
        """No records since the last flush: advance the time that heartbeats cover."""
        with self._lock:
            end, complete = self.spool.end, now - HANDOFF_SECONDS
            if self._heartbeat_marks and self._heartbeat_marks[-1][0] == end:
                self._heartbeat_marks[-1] = (end, complete, self._heartbeat_marks[-1][2])
            elif self.spool.cursor >= end and not self._heartbeat_marks:
                self._complete = complete, self._complete[1]

    def _acknowledged(self, index: int) -> None:
        """On the sender's thread: entries before ``index`` are in Kafka or were dropped."""
        with self._lock:
            while self._heartbeat_marks and self._heartbeat_marks[0][0] <= index:
                _, complete, last = self._heartbeat_marks.popleft()
                self._complete = complete, last

    def _heartbeats(self, now: float) -> list[Heartbeat]:
        """On the sender's thread, while everything in the spool is sent."""
        if not self.decodes:
            return []
        self._acknowledged(self.spool.cursor)  # the cursor may be ahead of the callback
        with self._lock:
            complete, last = self._complete
        builder = Builder(self.source, self.id, self.kafka.partitions, last=last)
        return builder.heartbeats(now, complete, self.lost)

    # Figures ------------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """Number of records and labels that were dropped, for any reason."""
        return sum(self.drops().values())

    def drops(self) -> dict[str, int]:
        """Number of records and labels that will not reach Kafka, by reason."""
        return {
            "spool_full": self.spool.dropped,
            "too_large": self.sender.figures.too_large,
            "disk": self.dropped["disk"],
            "no_payload": self.dropped["no_payload"],
            "internal": self.dropped["internal"],
        }

    def summary(self) -> dict[str, Any]:
        """For the status document."""
        figures = self.sender.figures
        return {
            "source": self.source,
            "run": self.id,
            "prefix": self.kafka.prefix,
            "format": self.kafka.format,
            "state": self.sender.state,
            "error": self.error or figures.error,
            "taken": self.taken,
            "recovered": self.recovered,
            "labels": self.labels,
            "published": figures.records,
            "published_labels": figures.labels,
            "published_bytes": figures.bytes,
            "messages": figures.messages,
            "waiting": self.waiting,
            "spool_bytes": self.spool.size,
            "dropped": self.drops(),
        }


def _mark(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    with contextlib.suppress(orjson.JSONDecodeError):
        result = orjson.loads(data)
        if isinstance(result, dict):
            return result
    return {}


def _numbers(data: object) -> dict[int, int]:
    return {int(key): int(value) for key, value in data.items()} if isinstance(data, dict) else {}
