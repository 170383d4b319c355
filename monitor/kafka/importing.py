"""Imports the configured source topics: read, map, publish, in transactions.

Messages of the sources become blocks of records and labels, as if a sidecar had published them.
CloudEvents that wait for their other half are committed together with the offsets. The next
membership resumes from the last commit, as another run.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from typing import Any

from kafka import TopicPartition

from understudy.monitor.config.model import Config
from understudy.monitor.errors import SnapshotError, SourceError
from understudy.monitor.evidence.blocks import Block, Builder, RecordBlock, encode
from understudy.monitor.evidence.blocks.builder import MOST_BYTES
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.ingest.records import KnownModels
from understudy.monitor.ingest.topics import Message, TopicReader
from understudy.monitor.kafka.committed import CommittedReader
from understudy.monitor.kafka.membership import Membership, Polled, State
from understudy.monitor.kafka.options import Options
from understudy.monitor.labels.label import Label


class Importer(Membership):
    """Joins the group ``<prefix>.import`` when constructed. Raises KafkaError."""

    prefix = "import/"

    def __init__(self, config: Config, options: Options) -> None:
        self.records = 0
        self.labels = 0
        self._committed_counts: Counter[str] = Counter()
        self._sources = {source.topic: source for source in config.sources}
        settings = Settings.from_json(config.model_dump(mode="json", by_alias=True))
        self._decoder = Decoder(settings)
        models = [(m.name, m.version, m.protocol) for m in settings.models]
        self._declared = KnownModels(models, settings.arms)
        source, run = f"import:{options.instance}", secrets.token_hex(8)
        partitions = options.kafka.partitions
        self._builder = Builder(source, run, partitions)
        self._label_builder = Builder(source, f"{run}-labels", partitions)
        self._readers: dict[TopicPartition, TopicReader] = {}
        self._last_read: dict[TopicPartition, float] = {}
        """Unix time of the last message read, by partition."""
        self._full_blocks: list[RecordBlock] = []
        self._bytes = 0
        """Bytes of the messages whose records are in open blocks."""
        self._labels: list[tuple[float, Label]] = []
        super().__init__(options, f"{options.group}.import", sorted(self._sources), partitions)

    @property
    def has_partitions(self) -> bool:
        """Whether at least one partition was taken over."""
        return bool(self._readers)

    @property
    def _has_output(self) -> bool:
        return self.has_partitions  # heartbeats tell evaluators that nothing has come

    # Input ----------------------------------------------------------------------------------------

    def _process(self, polled: Polled) -> int:
        count = 0
        for tp, messages in polled.items():
            count += len(messages)
            reader = self._readers.get(tp)
            if reader is not None:  # else it was revoked
                for one in messages:
                    self._take(tp, reader, one)
                self._mark_read(tp, messages)
        return count

    def _take(self, tp: TopicPartition, reader: TopicReader, one: Any) -> None:
        at = one.timestamp / 1e3 if one.timestamp and one.timestamp > 0 else None
        # The message's time, so that reading it again gives the same result.
        now = at if at is not None else time.time()
        try:
            result = reader.read(Message(one.value, one.key, one.headers or (), at), now)
        except SourceError as error:
            self._dead_letter(one, error.reason, error.detail)
            return
        for names, record, request, response in result.rows:
            self._full_blocks += self._builder.add(names, record, request, response, now)
        self._bytes += len(one.value or b"")
        if self._bytes > MOST_BYTES:  # a record's size in memory is not known
            self._full_blocks += self._builder.flush(now, everything=True)
            self._bytes = 0
        self._labels += result.labels
        self.records += len(result.rows)
        self.labels += len(result.labels)
        self._last_read[tp] = now

    # Output ---------------------------------------------------------------------------------------

    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        now = time.time()
        blocks: list[Block] = [*self._full_blocks, *self._builder.flush(now, everything=True)]
        self._full_blocks, self._bytes = [], 0
        for block in (*blocks, *self._builder.heartbeats(now, self._complete(now))):
            self._send(self.topics.records, block)
        for label_block in self._label_builder.labels(self._labels, now):
            self._send(self.topics.labels, label_block)
        self._labels = []
        return {tp: (self.positions[tp], self._pending_state(tp)) for tp in self._dirty}

    def _send(self, topic: str, block: Block) -> None:
        self.producer.send(topic, value=encode(block), partition=block.head.partition)

    def _complete(self, now: float) -> float:
        """Unix time up to which all source messages are published."""
        behind = [
            self._last_read.get(tp, 0.0)
            for tp in self._readers
            if (high := self.consumer.highwater(tp)) is None or high > self.positions.get(tp, 0)
        ]
        return min([now, *behind])

    def _pending_state(self, tp: TopicPartition) -> State | None:
        """State: CloudEvents that wait for their other half."""
        pairs = self._readers[tp].pairs
        return {"pairs": pairs.dump_state()} if pairs.waiting else None

    def _after_commit(self) -> None:
        dead = sum(self.dead.values())
        self._committed_counts = Counter(records=self.records, labels=self.labels, dead=dead)

    def counts(self) -> Counter[str]:
        """Committed numbers of records, labels and messages that could not be read (``dead``)."""
        return self._committed_counts

    # Rebalance ------------------------------------------------------------------------------------

    def _take_over(
        self, tp: TopicPartition, begin: int, state: State | None, committed: CommittedReader
    ) -> None:
        reader = self._topic_reader(tp)
        if state is not None:
            try:
                reader.pairs.load_state(state["pairs"])
            except (KeyError, TypeError, ValueError) as error:
                self._set_aside(tp, SnapshotError(f"the state has another format: {error!r}"))
                reader = self._topic_reader(tp)
        self._readers[tp] = reader

    def _topic_reader(self, tp: TopicPartition) -> TopicReader:
        return TopicReader(self._sources[tp.topic], self._declared, self._decoder)

    def _drop(self) -> None:
        self._readers.clear()
        self._last_read.clear()
        super()._drop()

    def remaining(self) -> int | None:
        """Number of unread messages in the assigned partitions, asked of the brokers; None while it
        is unknown."""
        with self._lock:
            if self._assigned is not None or not self._readers:
                return None
            positions = dict(self.positions)
        with self._reader() as committed:
            ends = committed.ends(positions)
        remaining = 0
        for tp, at in positions.items():
            remaining += max(0, ends[tp] - at)
        return remaining
