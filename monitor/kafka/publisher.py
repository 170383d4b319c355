"""What a sidecar publishes: records and labels, by way of a spool on disk.

Records are gathered in open blocks. At each flush all of them are closed, and go into the spool in
one write, together with how far each worker was taken in: after a crash either all of that is
there, or none, and then the workers send it again. Only what is synced to disk is committed to the
workers. The sender takes it from there, so Kafka can be away for as long as the spool has room.
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

MOST_RECORDS = 1024
"""In one block."""
MOST_UNSAVED = 64 * 1024 * 1024
"""Bytes that wait in memory while the disk refuses them; then the oldest are dropped."""
HANDOFF_SECONDS = 2.0
"""How old a record may be when a worker hands it over; heartbeats do not speak for the time since.
A worker that was held up may hand over older ones, which then come late."""
EARLY_RECORDS = 16_384
"""Records in closed blocks at which a flush does not wait for its time."""


class _Batch:
    """What one flush writes."""

    __slots__ = ("committed", "complete", "last", "mark", "parcels", "records", "size", "weights")

    def __init__(self, committed: dict[tuple[str, int], int], complete: float) -> None:
        self.committed = committed
        self.complete = complete
        self.last: dict[int, int] = {}
        self.mark = b""
        self.parcels: list[bytes] = []
        self.weights: list[int] = []
        self.size = 0
        self.records = 0

    def add(self, parcel: OutboxMessage, weight: int) -> None:
        data = parcel.pack()
        self.parcels.append(data)
        self.weights.append(weight)
        self.size += len(data)


class Publisher:
    """``run`` is the supervisor's; slots of another run have no workers any more. Raises LogError
    for a spool that cannot be used.

    To be used from the event loop's thread, but for :meth:`start` and :meth:`stop`. ``taken``
    counts the records that were handed over: published, dropped and waiting ones add up to it.
    """

    def __init__(self, kafka: Kafka, state_dir: Path, run: str) -> None:
        self.kafka = kafka
        folder = Path(kafka.spool.path) if kafka.spool.path else state_dir / "spool"
        # Each flush is synced before it is committed, so the spool need not do it by itself.
        self.spool = Spool(folder, kafka.spool.max_size, sync_seconds=None)
        known = _mark(self.spool.mark)
        if known.get("run") != run:
            known = {}
        self._run = run
        self.id = str(known.get("id") or f"{run[:40]}-{secrets.token_hex(4)}")
        """What blocks call this run; a spool that was lost makes another one of it."""
        self.slots = Slots.from_state(known.get("slots") or [], run)
        self.committed = {key: slot.last_seq for key, slot in self.slots}
        """Last batch by (run, slot) that is on disk."""
        self.source = kafka.source or socket.gethostname()
        last = _numbers(known.get("last"))
        self._builder = Builder(
            self.source, self.id, kafka.partitions, MOST_RECORDS, kafka.linger, last
        )
        self._labels = Builder(
            self.source,
            f"{self.id}-labels",
            kafka.partitions,
            last=_numbers(known.get("last_labels")),
        )
        self._origin = Origin(source=f"urn:understudy:{self.source}")
        self.dropped: Counter[str] = Counter()
        """Records and labels by reason, beside those that the spool and the sender count."""
        self.taken = 0
        self.recovered = self.spool.pending
        """Records and labels that an earlier process left in the spool."""
        self.labels = 0
        self.error: str | None = None
        self._closed: list[RecordBlock] = []
        self._closed_records = 0
        self._events: list[tuple[OutboxMessage, int]] = []
        self._events_records = 0
        self._unsaved: deque[_Batch] = deque()
        self._saved_state = self._state()
        self._writing = asyncio.Lock()
        self._reached: deque[tuple[int, float, dict[int, int]]] = deque()
        """By index in the spool: when all before it is sent, what a heartbeat may say."""
        self._lock = threading.Lock()
        # What an earlier process left in the spool comes first.
        self._reached.append((self.spool.end, 0.0, last))
        self._complete: tuple[float, dict[int, int]] = (0.0, {})
        self._acknowledged(self.spool.cursor)
        self.sender = Sender(kafka, self.spool, self._heartbeats, self._acknowledged)
        self.early = asyncio.Event()
        """Set when a flush should not wait for its time."""

    def start(self) -> None:
        """Begin to send."""
        self.sender.start()

    async def stop(self, patience: float) -> None:
        """Flush, wait up to ``patience`` seconds for Kafka to have all, and let go of the spool."""
        await self.flush()
        until = time.monotonic() + patience
        while self.spool.cursor < self.spool.end and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self.sender.stop)
        waiting = self.spool.pending
        if waiting:
            log.warning("%d records wait in %s for the next start", waiting, self.kafka.prefix)
        self.spool.close()

    # Records ------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Records and labels that Kafka does not have yet."""
        return (
            self._builder.waiting
            + self._closed_records
            + self._events_records
            + sum(batch.records for batch in self._unsaved)
            + self.spool.pending
        )

    @property
    def decodes(self) -> bool:
        """Whether records are decoded for :meth:`extend`; else :meth:`add_raw` takes them."""
        return self.kafka.format == "blocks"

    def extend(
        self, names: Names, rows: Sequence[tuple[Record, Decoded, Decoded]], now: float
    ) -> None:
        """Take in decoded records, for blocks; ``now`` is unix seconds."""
        self.taken += len(rows)
        for block in self._builder.extend(names, rows, now):
            self._closed.append(block)
            self._closed_records += block.count
            if self._closed_records >= EARLY_RECORDS:
                self.early.set()

    def add_raw(self, names: Names, record: Record) -> None:
        """Take in a record with its payloads, for CloudEvents."""
        self.taken += 1
        events = events_of_record(names, record, self._origin)
        if not events:
            self.dropped["no_payload"] += 1
            return
        partition = partition_of(record.request_id, self.kafka.partitions)
        for number, (headers, key, value) in enumerate(events):
            parcel = OutboxMessage(RECORDS, partition, value, key, tuple(headers))
            self._events.append((parcel, 0 if number else 1))
        self._events_records += 1
        if self._events_records >= EARLY_RECORDS:
            self.early.set()

    async def add_labels(self, labels: Sequence[Label]) -> None:
        """Have labels in the spool, on disk. Raises StateError, and none has been taken then."""
        await asyncio.shield(asyncio.ensure_future(self._add_labels(labels)))

    async def _add_labels(self, labels: Sequence[Label]) -> None:
        now = time.time()
        async with self._writing:
            before = dict(self._labels.last)
            blocks = self._labels.labels([(now, label) for label in labels], now)
            batch = _Batch({}, 0.0)
            state = {**self._saved_state, "last_labels": self._labels.last}
            batch.mark = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
            # While records could not be written, their numbers may not be overtaken by the mark.
            if self._unsaved or not await asyncio.to_thread(self._write, blocks, batch, True):
                self._labels.last = before
                raise StateError(f"the spool cannot be written: {self.spool.error}")
            self._saved_state = state
            self.labels += len(labels)
        self.sender.wake()

    async def flush(self) -> bool:
        """Write all that was taken in; False when the disk refuses it, and it is kept."""
        # Who waits may be cancelled; the writing may not.
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
                self._reach(now)
                return True
            batch = self._unsaved[-1] if self._unsaved and not new else None
            if batch is None:
                batch = _Batch(committed, now - HANDOFF_SECONDS)
                batch.last = dict(self._builder.last)
                batch.mark = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
                batch.records = sum(block.count for block in blocks)
                for parcel, weight in events:
                    batch.add(parcel, weight)
                    batch.records += weight
                self._unsaved.append(batch)
            if not await asyncio.to_thread(self._write, blocks, batch, False):
                self._refused()
                return False
            self._saved_state = state
            self.committed = committed
            self.error = None
        self.sender.wake()
        return True

    def _write(self, blocks: Sequence[RecordBlock | LabelBlock], batch: _Batch, only: bool) -> bool:
        """On another thread: encode, append what waits, sync."""
        for block in blocks:
            kind, weight = (
                (RECORDS, block.count)
                if isinstance(block, RecordBlock)
                else (LABELS, len(block.labels))
            )
            try:
                batch.add(OutboxMessage(kind, block.head.partition, encode(block)), weight)
            except Exception:  # its number is missing then, and evaluators count it as lost
                log.exception("a block of %d records cannot be encoded", weight)
                self.dropped["internal"] += weight
        try:
            for one in [batch] if only else list(self._unsaved):
                if not self.spool.append(one.parcels, one.weights, one.mark):
                    return False
                if not only:
                    with self._lock:
                        self._reached.append((self.spool.end, one.complete, one.last))
                    self._unsaved.popleft()
            self.spool.sync()
        except OSError as error:
            self.error = f"{self.kafka.spool.path or 'spool'}: {error}"
            return False
        return self.spool.error is None

    def _refused(self) -> None:
        error = self.spool.error or self.error or "the spool cannot be written"
        if self.error != error:
            log.error("%s; workers keep their records", error)
        self.error = error
        while len(self._unsaved) > 1 and sum(one.size for one in self._unsaved) > MOST_UNSAVED:
            # Its mark is not lost: each later one says as much and more.
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

    def _reach(self, now: float) -> None:
        """Nothing came since the last flush, which all the same is a word on the time until now."""
        with self._lock:
            end, complete = self.spool.end, now - HANDOFF_SECONDS
            if self._reached and self._reached[-1][0] == end:
                self._reached[-1] = (end, complete, self._reached[-1][2])
            elif self.spool.cursor >= end and not self._reached:
                self._complete = complete, self._complete[1]

    def _acknowledged(self, index: int) -> None:
        """On the sender's thread: entries before ``index`` are in Kafka, or dropped."""
        with self._lock:
            while self._reached and self._reached[0][0] <= index:
                _, complete, last = self._reached.popleft()
                self._complete = complete, last

    def _heartbeats(self, now: float) -> list[Heartbeat]:
        """On the sender's thread, while all that was written is sent."""
        if not self.decodes:
            return []
        self._acknowledged(self.spool.cursor)  # an answer may be quicker than the note of it
        with self._lock:
            complete, last = self._complete
        speaking = Builder(self.source, self.id, self.kafka.partitions, last=last)
        return speaking.heartbeats(now, complete, self.lost)

    # Figures ------------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """Records and labels that were dropped, for whatever reason."""
        return sum(self.drops().values())

    def drops(self) -> dict[str, int]:
        """Records and labels that will not reach Kafka, by reason."""
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
        found = orjson.loads(data)
        if isinstance(found, dict):
            return found
    return {}


def _numbers(data: object) -> dict[int, int]:
    return {int(key): int(value) for key, value in data.items()} if isinstance(data, dict) else {}
