"""Brings topics of others into ours: read, map, publish, in transactions.

Messages of the configured sources become blocks of records and labels in the partitions where they
meet, as if a sidecar had published them; evaluators know no difference. What was read and what was
written are committed together, with the halves of CloudEvents that wait for each other. After a
failure nothing that is in memory is used again: the next membership begins at what is committed, as
another run.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)

from monitor.config.model import Config
from monitor.config.sources import SourceTopic
from monitor.errors import SourceError
from monitor.evaluation.decoding import Decoder
from monitor.evaluation.settings import Settings
from monitor.evaluator.snapshots import Pointer, chunks_of, read_state
from monitor.evaluator.topics import Options
from monitor.feedback.labels import Label
from monitor.ingest.records import Declared
from monitor.ingest.topics import Message, TopicReader
from monitor.transport.blocks import Block, Builder, RecordBlock, encode

log = logging.getLogger(__name__)


class LostError(Exception):
    """This membership is over: what it did since its last commit is void."""


class Importer:
    """Joins the group ``<prefix>.import`` when it is made. Raises KafkaError."""

    def __init__(self, config: Config, options: Options) -> None:
        self.options = options
        self.topics = options.topics
        self.records = 0
        self.labels = 0
        self.dead: Counter[str] = Counter()
        self.committed = (0, 0, 0)
        """Records, labels and messages that could not be used, as far as they are committed."""
        self._sources = {source.topic: source for source in config.sources}
        settings = Settings.from_json(config.model_dump(mode="json", by_alias=True))
        self._decoder = Decoder(settings)
        models = [(m.name, m.version, m.protocol) for m in settings.models]
        self._declared = Declared(models, settings.arms)
        self._group = f"{options.group}.import"
        source, run = f"import:{options.instance}", secrets.token_hex(8)
        partitions = options.kafka.partitions
        self._builder = Builder(source, run, partitions)
        self._label_builder = Builder(source, f"{run}-labels", partitions)
        self._readers: dict[TopicPartition, TopicReader] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, float] = {}
        """Unix time of the last message that was read."""
        self._dirty: set[TopicPartition] = set()
        self._closed: list[RecordBlock] = []
        self._labels: list[tuple[float, Label]] = []
        self._graves: list[tuple[SourceError, Any]] = []
        self._fresh: list[TopicPartition] | None = None
        self._lost = ""
        self._lock = threading.RLock()
        self._due = time.monotonic()
        self._common = options.client()
        milliseconds = int(options.transaction_seconds * 1000)
        self._producer = KafkaProducer(
            **self._common,
            transactional_id=f"{self._group}.{options.instance}",
            transaction_timeout_ms=milliseconds,
            max_request_size=16 * 1024 * 1024,
            linger_ms=5,
            max_block_ms=milliseconds,
            delivery_timeout_ms=milliseconds + 30_000,
        )
        self._producer.init_transactions()
        session = int(options.session_seconds * 1000)
        self._consumer = KafkaConsumer(
            **{
                **self._common,
                "request_timeout_ms": max(self._common["request_timeout_ms"], session + 1000),
            },
            group_id=self._group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 5,
            max_poll_records=options.most_messages,
        )
        # The group's callbacks wait for our lock in the client's own thread, so whatever is asked
        # under the lock is asked of another client, which is no member.
        self._asking = KafkaConsumer(
            **self._common,
            group_id=self._group,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        self._consumer.subscribe(sorted(self._sources), listener=_Listener(self))

    # The loop -----------------------------------------------------------------------------------

    def step(self, seconds: float = 0.2) -> int:
        """Read and map what is there, and commit when it is time; how many messages there were.

        Raises LostError or KafkaError: then call :meth:`abandon`.
        """
        found = self._consumer.poll(timeout_ms=int(seconds * 1000))
        with self._lock:
            if self._lost:
                raise LostError(self._lost)
            if self._fresh is not None:
                places, self._fresh = self._fresh, None
                self._take_over(places)
                return 0  # what was read is read again, from where we took over
            count = 0
            for place, messages in found.items():
                count += len(messages)
                self._take(place, messages)
            if time.monotonic() >= self._due:
                self.commit()
            return count

    def _take(self, place: TopicPartition, messages: list[Any]) -> None:
        reader = self._readers.get(place)
        if reader is None:
            return  # not ours any more; who takes it over begins at what is committed
        for one in messages:
            at = one.timestamp / 1e3 if one.timestamp and one.timestamp > 0 else None
            # The time of the message, so that whoever reads it again finds the same.
            now = at if at is not None else time.time()
            try:
                taken = reader.read(Message(one.value, one.key, one.headers or (), at), now)
            except SourceError as error:
                self.dead[error.reason] += 1
                self._graves.append((error, one))
                continue
            for names, record, of_request, of_response in taken.rows:
                self._closed += self._builder.add(names, record, of_request, of_response, now)
            self._labels += taken.labels
            self.records += len(taken.rows)
            self.labels += len(taken.labels)
            self._seen[place] = now
        self._positions[place] = messages[-1].offset + 1
        self._dirty.add(place)

    def commit(self) -> None:
        """Write and commit everything since the last time. Raises KafkaError."""
        self._due = time.monotonic() + self.options.commit_seconds
        if not self._readers:
            return
        now, producer = time.time(), self._producer
        producer.begin_transaction()
        blocks: list[Block] = [*self._closed, *self._builder.flush(now, everything=True)]
        self._closed = []
        for block in (*blocks, *self._builder.heartbeats(now, self._complete(now))):
            self._send(self.topics.records, block)
        for of_labels in self._label_builder.labels(self._labels, now):
            self._send(self.topics.labels, of_labels)
        self._labels = []
        for error, message in self._graves:
            self._bury(error, message)
        self._graves = []
        offsets = {place: self._offset(place) for place in self._dirty}
        producer.flush()
        if offsets:
            producer.send_offsets_to_transaction(offsets, self._consumer.group_metadata())
        producer.commit_transaction()
        self._dirty.clear()
        self.committed = (self.records, self.labels, sum(self.dead.values()))

    def _send(self, topic: str, block: Block) -> None:
        self._producer.send(topic, value=encode(block), partition=block.head.partition)

    def _complete(self, now: float) -> float:
        """Up to when all that was logged is published; what is logged later is late, or new."""
        behind = [
            self._seen.get(place, 0.0)
            for place in self._readers
            if (high := self._consumer.highwater(place)) is None
            or high > self._positions.get(place, 0)
        ]
        return min([now, *behind])

    def _offset(self, place: TopicPartition) -> OffsetAndMetadata:
        """Where to go on, and where the halves that wait are saved."""
        reader, position = self._readers[place], self._positions[place]
        if not reader.pairs.waiting:
            return OffsetAndMetadata(position, "")
        chunks, checksum = chunks_of(_name(place), {"pairs": reader.pairs.to_dict()})
        where = place.partition % self.options.kafka.partitions
        futures = [
            self._producer.send(self.topics.state, key=key, value=value, partition=where)
            for key, value in chunks
        ]
        self._producer.flush()
        told = futures[0].get(timeout=self.options.transaction_seconds)
        pointer = Pointer(told.partition, told.offset, len(chunks), checksum)
        return OffsetAndMetadata(position, str(pointer))

    def _bury(self, error: SourceError, message: Any) -> None:
        log.warning(
            "%s, partition %d, offset %d: %s", message.topic, message.partition, message.offset,
            error,
        )  # fmt: skip
        headers = [
            ("reason", error.reason.encode()),
            ("detail", error.detail.encode()[:1000]),
            ("topic", message.topic.encode()),
            ("partition", str(message.partition).encode()),
            ("offset", str(message.offset).encode()),
        ]
        self._producer.send(self.topics.dead, key=message.key, value=message.value, headers=headers)

    # Coming and going ---------------------------------------------------------------------------

    def revoked(self, lost: bool) -> None:
        """The group is about to share out anew, or has done so without us."""
        with self._lock:
            if not self._readers or self._lost:
                return
            try:
                if lost:
                    raise LostError("the group went on without this importer")
                self.commit()
            except Exception as error:
                self._lost = repr(error)
            self._readers.clear()
            self._positions.clear()

    def assigned(self, places: list[TopicPartition]) -> None:
        """The group has shared out."""
        with self._lock:
            self._fresh = places

    def _take_over(self, places: list[TopicPartition]) -> None:
        """Go on where others left off."""
        self._readers.clear()
        self._seen.clear()
        for place in places:
            source: SourceTopic = self._sources[place.topic]
            reader = TopicReader(source, self._declared, self._decoder)
            found = self._asking.committed(place, metadata=True)
            if found is not None and found.offset >= 0:
                pointer = Pointer.parse(found.metadata or "")
                if pointer is not None:
                    reader.pairs.restore(read_state(_name(place), pointer, self._state)["pairs"])
                self._consumer.seek(place, found.offset)
                self._positions[place] = found.offset
            else:
                self._positions[place] = self._asking.beginning_offsets([place])[place]
                self._consumer.seek(place, self._positions[place])
            self._readers[place] = reader

    def _state(self, partition: int, begin: int) -> Iterator[tuple[bytes, bytes]]:
        asking, place = self._asking, TopicPartition(self.topics.state, partition)
        asking.assign([place])
        asking.seek(place, begin)
        end = asking.end_offsets([place])[place]
        silent = 0
        while asking.position(place) < end and silent < 50:
            found = asking.poll(timeout_ms=200)
            silent = 0 if found else silent + 1
            for messages in found.values():
                for message in messages:
                    yield message.key or b"", message.value or b""

    def lag(self) -> int | None:
        """Messages that wait in the partitions that are ours; None while that is not known."""
        with self._lock:
            if self._fresh is not None or not self._readers:
                return None
            positions = dict(self._positions)
        ends = self._asking.end_offsets(list(positions))
        left = 0
        for place, at in positions.items():
            left += max(0, int(ends[place]) - at)
        return left

    def leave(self) -> None:
        """Finish, commit and leave the group. Raises LostError or KafkaError."""
        try:
            with self._lock:
                if self._lost:
                    raise LostError(self._lost)
                self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave without a commit: what was not committed is somebody else's."""
        with self._lock:
            self._lost = self._lost or "it was abandoned"
        try:
            self._consumer.close(autocommit=False, timeout_ms=3000)
        except Exception as error:
            log.debug("while closing: %r", error)
        try:
            self._asking.close(autocommit=False, timeout_ms=1000)
        except Exception as error:
            log.debug("while closing: %r", error)
        try:
            self._producer.close(timeout=0)
        except Exception as error:
            log.debug("while closing: %r", error)


def _name(place: TopicPartition) -> str:
    return f"import/{place.topic}/{place.partition}"


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, importer: Importer) -> None:
        self._importer = importer

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._importer.revoked(lost=False)

    def on_partitions_lost(self, lost: Any) -> None:
        self._importer.revoked(lost=True)

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._importer.assigned(list(assigned))
