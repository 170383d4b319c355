"""Brings topics of others into ours: read, map, publish, in transactions.

Messages of the configured sources become blocks of records and labels in the partitions where they
meet, as if a sidecar had published them; evaluators know no difference. The halves of CloudEvents
that wait for each other are committed with what was read. The next membership begins at what is
committed, as another run.
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
from understudy.monitor.kafka.committed import Committed
from understudy.monitor.kafka.inputs import Options
from understudy.monitor.kafka.membership import Found, Membership, State
from understudy.monitor.labels.label import Label


class Importer(Membership):
    """Joins the group ``<prefix>.import`` when it is made. Raises KafkaError."""

    prefix = "import/"

    def __init__(self, config: Config, options: Options) -> None:
        self.records = 0
        self.labels = 0
        self._committed: Counter[str] = Counter()
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
        self._seen: dict[TopicPartition, float] = {}
        """Unix time of the last message that was read."""
        self._closed: list[RecordBlock] = []
        self._bytes = 0
        """Of messages that are in blocks which are still open."""
        self._labels: list[tuple[float, Label]] = []
        super().__init__(options, f"{options.group}.import", sorted(self._sources), partitions)

    @property
    def holds(self) -> bool:
        """Whether something was taken over."""
        return bool(self._readers)

    @property
    def _due_to_write(self) -> bool:
        return self.holds  # evaluators have to hear that nothing has come

    # In -------------------------------------------------------------------------------------------

    def _process(self, found: Found) -> int:
        count = 0
        for place, messages in found.items():
            count += len(messages)
            reader = self._readers.get(place)
            if reader is not None:  # else: not ours any more
                for one in messages:
                    self._take(place, reader, one)
                self._read(place, messages)
        return count

    def _take(self, place: TopicPartition, reader: TopicReader, one: Any) -> None:
        at = one.timestamp / 1e3 if one.timestamp and one.timestamp > 0 else None
        # The time of the message, so that whoever reads it again finds the same.
        now = at if at is not None else time.time()
        try:
            taken = reader.read(Message(one.value, one.key, one.headers or (), at), now)
        except SourceError as error:
            self._bury(one, error.reason, error.detail)
            return
        for names, record, of_request, of_response in taken.rows:
            self._closed += self._builder.add(names, record, of_request, of_response, now)
        self._bytes += len(one.value or b"")
        if self._bytes > MOST_BYTES:  # its records say nothing of the size of what they hold
            self._closed += self._builder.flush(now, everything=True)
            self._bytes = 0
        self._labels += taken.labels
        self.records += len(taken.rows)
        self.labels += len(taken.labels)
        self._seen[place] = now

    # Out ------------------------------------------------------------------------------------------

    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        now = time.time()
        blocks: list[Block] = [*self._closed, *self._builder.flush(now, everything=True)]
        self._closed, self._bytes = [], 0
        for block in (*blocks, *self._builder.heartbeats(now, self._complete(now))):
            self._send(self.topics.records, block)
        for of_labels in self._label_builder.labels(self._labels, now):
            self._send(self.topics.labels, of_labels)
        self._labels = []
        return {place: (self.positions[place], self._waiting(place)) for place in self._dirty}

    def _send(self, topic: str, block: Block) -> None:
        self.producer.send(topic, value=encode(block), partition=block.head.partition)

    def _complete(self, now: float) -> float:
        """Up to when all that was logged is published; what is logged later is late, or new."""
        behind = [
            self._seen.get(place, 0.0)
            for place in self._readers
            if (high := self.consumer.highwater(place)) is None
            or high > self.positions.get(place, 0)
        ]
        return min([now, *behind])

    def _waiting(self, place: TopicPartition) -> State | None:
        """The halves that wait, to be kept."""
        pairs = self._readers[place].pairs
        return {"pairs": pairs.dump_state()} if pairs.waiting else None

    def _written(self) -> None:
        dead = sum(self.dead.values())
        self._committed = Counter(records=self.records, labels=self.labels, dead=dead)

    def taken(self) -> Counter[str]:
        """Records, labels and messages that could not be used, as far as they are committed."""
        return self._committed

    # Coming and going -----------------------------------------------------------------------------

    def _take_over(
        self, place: TopicPartition, begin: int, state: State | None, committed: Committed
    ) -> None:
        if state is not None:
            reader = self._reader(place)
            try:
                reader.pairs.load_state(state["pairs"])
            except (KeyError, TypeError, ValueError) as error:
                self._set_aside(place, SnapshotError(f"the state has another shape: {error!r}"))
                reader = self._reader(place)
        else:
            reader = self._reader(place)
        self._readers[place] = reader

    def _reader(self, place: TopicPartition) -> TopicReader:
        return TopicReader(self._sources[place.topic], self._declared, self._decoder)

    def _drop(self) -> None:
        self._readers.clear()
        self._seen.clear()
        super()._drop()

    def left(self) -> int | None:
        """Messages that wait in the partitions that are ours, as the brokers say; None while that
        is not known."""
        with self._lock:
            if self._fresh is not None or not self._readers:
                return None
            positions = dict(self.positions)
        with self._onlooker() as committed:
            ends = committed.ends(positions)
        left = 0
        for place, at in positions.items():
            left += max(0, ends[place] - at)
        return left
