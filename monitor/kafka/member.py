"""An evaluator as a member of its group: partitions of the input are prepared, places judged."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kafka import TopicPartition

from understudy.monitor.config.model import Config
from understudy.monitor.errors import BlockError, EvidenceError, SnapshotError
from understudy.monitor.evidence.blocks import decode
from understudy.monitor.evidence.partition import Partition, PartitionRestore
from understudy.monitor.kafka.assignor import CoPartitionAssignor
from understudy.monitor.kafka.committed import FETCH_BYTES, Committed
from understudy.monitor.kafka.consumer import EvidenceConsumer, files_of
from understudy.monitor.kafka.inputs import Options
from understudy.monitor.kafka.membership import Found, Membership, State
from understudy.monitor.kafka.messages import decode_message, messages_of
from understudy.monitor.kafka.partitions import EXPERIMENTS, costs, owned, place_of, places
from understudy.monitor.kafka.routes import RouteWriter


class Member(Membership):
    """Joins the group when it is made. ``partitions`` are those of the topics there, by name.

    Raises KafkaError for what the brokers refuse, or when there is none.
    """

    def __init__(self, config: Config, options: Options, partitions: dict[str, int]) -> None:
        self.config = config
        self.partitions = partitions
        self.inputs: dict[int, Partition] = {}
        """By partition of records and labels."""
        self.judges: dict[int, EvidenceConsumer] = {}
        """By partition of the evidence."""
        self.records = 0
        self._writer: RouteWriter | None = None
        topics = options.topics
        self.evidence = partitions[topics.evidence]
        """How many partitions it has."""
        self._together = CoPartitionAssignor(
            (topics.records, topics.labels),
            topics.evidence,
            costs(config, self.evidence),
            options.url,
        )
        super().__init__(
            options,
            options.group,
            [topics.records, topics.labels, topics.evidence],
            partitions[topics.state],
            partition_assignment_strategy=[self._together],
            fetch_max_bytes=FETCH_BYTES * 4,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    @property
    def holds(self) -> bool:
        """Whether something was taken over."""
        return bool(self.inputs or self.judges)

    # In -------------------------------------------------------------------------------------------

    def _process(self, found: Found) -> int:
        count = 0
        # Evidence last: in the same step the first stage may have made more.
        for place in sorted(found, key=lambda tp: (tp.topic == self.topics.evidence, tp)):
            messages = found[place]
            count += len(messages)
            if place.topic == self.topics.evidence:
                self._take_evidence(place, messages)
            else:
                self._take_input(place, messages)
        for judge in self.judges.values():
            judge.advance()
        return count

    def _take_input(self, place: TopicPartition, messages: Any) -> None:
        partition = self.inputs.get(place.partition)
        if partition is None:
            return  # not ours any more; who takes it over begins at what is committed
        for message in messages:
            try:
                self.records += partition.take(
                    decode(message.value or b""),
                    message.offset,
                    of_labels=place.topic == self.topics.labels,
                )
            except BlockError as error:
                self._bury(message, error.reason, str(error))
        self._read(place, messages)

    def _take_evidence(self, place: TopicPartition, messages: Any) -> None:
        judge = self.judges.get(place.partition)
        if judge is None:
            return
        known = judge.read
        for message in messages:
            try:
                evidence = decode_message(message.value or b"")
            except EvidenceError as error:
                if message.offset >= known:
                    self._bury(message, "evidence", str(error))
                    judge.read = message.offset + 1
                continue
            if message.offset < known:
                judge.take_again(evidence, message.offset)
            else:
                judge.take(evidence, message.offset)
        self._read(place, messages)

    # Out ------------------------------------------------------------------------------------------

    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        judged = self.topics.evidence
        found: dict[TopicPartition, tuple[int, State | None]] = {}
        for number in {place.partition for place in self._dirty if place.topic != judged}:
            partition = self.inputs[number]
            self._hand_over(partition)
            # One state for both topics: what is here of records and labels belongs together.
            place = TopicPartition(self.topics.records, number)
            found[place] = self.positions[place], partition.dump_state()
            place = TopicPartition(self.topics.labels, number)
            if place in self.positions:
                found[place] = self.positions[place], None
        for place in [place for place in self._dirty if place.topic == judged]:
            judge = self.judges[place.partition]
            found[place] = judge.needed, judge.dump_state()
        return found

    def _hand_over(self, partition: Partition) -> None:
        by_place: dict[int, list[Any]] = {place: [] for place in places(self.evidence)}
        for batch in partition.drain():
            by_place[place_of(partition.is_for_experiment(batch), self.evidence)].append(batch)
        for place, mine in by_place.items():
            for message in messages_of(partition.name, partition.complete, mine):
                if message.batches or message.complete is not None:
                    self.producer.send(
                        self.topics.evidence,
                        value=message.encode(),
                        key=partition.name.encode(),
                        partition=place,
                    )

    def _written(self) -> None:
        """Tell the sidecars what has changed, now that it is committed. Who takes the judge over
        tells all of it again, so nothing is lost if we die here."""
        for judge in self.judges.values():
            if judge.moved and self._writer is not None:
                self._writer.publish(judge.assignments())
            judge.moved = False

    # Coming and going -----------------------------------------------------------------------------

    def _take_over(
        self, place: TopicPartition, begin: int, state: State | None, committed: Committed
    ) -> None:
        number = place.partition
        if place.topic == self.topics.evidence:
            judge = self.judges[number] = self._judge(place, begin, state)
            if number == EXPERIMENTS:
                self._claim(judge)
        elif place.topic == self.topics.records:
            self.inputs[number] = self._partition(place, begin, state, committed)

    def _judge(self, place: TopicPartition, begin: int, state: State | None) -> EvidenceConsumer:
        config = owned(self.config, place.partition, self.evidence)
        topic = self.topics.records
        inputs = [f"{topic}/{number}" for number in range(self.partitions[topic])]
        if state is None:
            return EvidenceConsumer(config, inputs, begin=begin)
        try:
            return EvidenceConsumer(config, inputs, state)
        except SnapshotError as error:
            self._set_aside(place, error)
            return EvidenceConsumer(config, inputs, begin=begin, files=files_of(state))

    def _claim(self, judge: EvidenceConsumer) -> None:
        """Become the controller of the routes, and fence off who was it before."""
        self._writer = RouteWriter(self.options.kafka, self.options.instance)
        self._writer.claim()
        if judge.experiments.live:
            self._writer.publish(judge.assignments())
        judge.moved = False

    def _partition(
        self, place: TopicPartition, offset: int, state: State | None, committed: Committed
    ) -> Partition:
        partition = Partition(self.config, f"{place.topic}/{place.partition}")
        if state is None:
            return partition
        try:
            partition.load_state(state)
        except SnapshotError as error:
            partition.close()
            self._set_aside(place, error)
            return Partition(self.config, partition.name)
        try:
            self._read_again(partition, place, offset, committed)
        except BaseException:
            partition.close()
            raise
        return partition

    def _read_again(
        self,
        partition: Partition,
        place: TopicPartition,
        offset: int,
        committed: Committed,
    ) -> None:
        """Read again what waits there."""
        restoring = partition.restoring()
        if partition.wants_labels:
            labels = TopicPartition(self.topics.labels, place.partition)
            told = committed.offset(labels)
            since = restoring.since
            begin = min([*restoring.offsets[:1], committed.at(place, since)])
            _again(committed, place, begin, offset, restoring)
            begin = committed.at(labels, since)
            _again(committed, labels, begin, told.offset if told is not None else 0, restoring)
        else:
            for at in restoring.offsets:
                if at < offset:
                    message = next(committed.messages(place, at), None)
                    if message is not None and message.offset == at:
                        _give(message, restoring)
        restoring.done()

    def _drop(self) -> None:
        for partition in self.inputs.values():
            partition.close()
        for judge in self.judges.values():
            judge.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.inputs.clear()
        self.judges.clear()
        super()._drop()

    def taken(self) -> Counter[str]:
        """Records and labels."""
        return Counter(records=self.records)

    # For those who look ---------------------------------------------------------------------------

    def touch(self, place: int) -> None:
        """A command has changed what is judged there: it has to be committed."""
        if place in self.judges:
            self._dirty.add(TopicPartition(self.topics.evidence, place))

    def owner(self, place: int) -> str | None:
        """Where who judges a place can be asked (a URL); None while that is not known."""
        return self._together.owners.get(place)


def _again(
    committed: Committed, place: TopicPartition, begin: int, end: int, restoring: PartitionRestore
) -> None:
    """Read again what was read before, from one offset up to another."""
    if begin >= end:
        return
    for message in committed.messages(place, begin):
        if message.offset >= end:
            break
        _give(message, restoring)


def _give(message: Any, restoring: PartitionRestore) -> None:
    try:
        restoring.take(decode(message.value or b""), message.offset)
    except BlockError:
        pass  # buried when it was read first
