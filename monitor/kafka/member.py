"""An evaluator as a member of its group.

Stage one prepares the partitions of records and labels that the group assigned to this member;
stage two evaluates its partitions of the evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka import TopicPartition

from understudy.monitor.config.model import Config
from understudy.monitor.errors import BlockError, EvidenceError, SnapshotError
from understudy.monitor.evidence.blocks import decode
from understudy.monitor.evidence.partition import Partition, PartitionRestore
from understudy.monitor.kafka.assignor import CoPartitionAssignor
from understudy.monitor.kafka.committed import FETCH_BYTES, CommittedReader
from understudy.monitor.kafka.consumer import EvidenceConsumer, files_of
from understudy.monitor.kafka.membership import Membership, Polled, State
from understudy.monitor.kafka.messages import decode_message, messages_of
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.partitions import (
    EXPERIMENTS,
    costs,
    evidence_partition,
    evidence_partitions,
    partition_config,
)
from understudy.monitor.kafka.routes import RouteWriter

Attach = Callable[[Partition | EvidenceConsumer], None]


class Member(Membership):
    """Joins the group when constructed. ``partitions`` are the partition counts by topic name.
    ``attach`` is called with each partition that is taken over, before it evaluates anything.

    Raises KafkaError when no broker answers or a broker refuses a request.
    """

    def __init__(
        self,
        config: Config,
        options: Options,
        partitions: dict[str, int],
        attach: Attach | None = None,
    ) -> None:
        self.config = config
        self._attach = attach
        self.partitions = partitions
        self.inputs: dict[int, Partition] = {}
        """Stage one, by partition of records and labels."""
        self.consumers: dict[int, EvidenceConsumer] = {}
        """Stage two, by partition of the evidence."""
        self.records = 0
        self._writer: RouteWriter | None = None
        topics = options.topics
        self.evidence_partitions = partitions[topics.evidence]
        """Number of partitions of the evidence topic."""
        self._assignor = CoPartitionAssignor(
            (topics.records, topics.labels),
            topics.evidence,
            costs(config, self.evidence_partitions),
            options.url,
        )
        super().__init__(
            options,
            options.group,
            [topics.records, topics.labels, topics.evidence],
            partitions[topics.state],
            partition_assignment_strategy=[self._assignor],
            fetch_max_bytes=FETCH_BYTES * 4,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    @property
    def has_partitions(self) -> bool:
        """Whether at least one partition was taken over."""
        return bool(self.inputs or self.consumers)

    # Input ----------------------------------------------------------------------------------------

    def _process(self, polled: Polled) -> int:
        count = 0
        # Evidence last: stage one may have produced more in the same step.
        for tp in sorted(polled, key=lambda tp: (tp.topic == self.topics.evidence, tp)):
            messages = polled[tp]
            count += len(messages)
            if tp.topic == self.topics.evidence:
                self._read_evidence(tp, messages)
            else:
                self._read_input(tp, messages)
        for consumer in self.consumers.values():
            consumer.advance()
        return count

    def _read_input(self, tp: TopicPartition, messages: Any) -> None:
        partition = self.inputs.get(tp.partition)
        if partition is None:
            return  # revoked; its next owner starts at the committed offset
        for message in messages:
            try:
                self.records += partition.take(
                    decode(message.value or b""),
                    message.offset,
                    of_labels=tp.topic == self.topics.labels,
                )
            except BlockError as error:
                self._dead_letter(message, error.reason, str(error))
        self._mark_read(tp, messages)

    def _read_evidence(self, tp: TopicPartition, messages: Any) -> None:
        consumer = self.consumers.get(tp.partition)
        if consumer is None:
            return
        known = consumer.next_offset
        for message in messages:
            try:
                evidence = decode_message(message.value or b"")
            except EvidenceError as error:
                if message.offset >= known:
                    self._dead_letter(message, "evidence", str(error))
                    consumer.next_offset = message.offset + 1
                continue
            if message.offset < known:
                consumer.replay(evidence, message.offset)
            else:
                consumer.take(evidence, message.offset)
        self._mark_read(tp, messages)

    # Output ---------------------------------------------------------------------------------------

    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        evidence = self.topics.evidence
        written: dict[TopicPartition, tuple[int, State | None]] = {}
        for number in {tp.partition for tp in self._dirty if tp.topic != evidence}:
            partition = self.inputs[number]
            self._send_evidence(partition)
            # One state for both topics: records and labels of a partition are joined.
            tp = TopicPartition(self.topics.records, number)
            written[tp] = self.positions[tp], partition.dump_state()
            tp = TopicPartition(self.topics.labels, number)
            if tp in self.positions:
                written[tp] = self.positions[tp], None
        for tp in [tp for tp in self._dirty if tp.topic == evidence]:
            consumer = self.consumers[tp.partition]
            written[tp] = consumer.resume_offset, consumer.dump_state()
        return written

    def _send_evidence(self, partition: Partition) -> None:
        count = self.evidence_partitions
        by_number: dict[int, list[Any]] = {number: [] for number in evidence_partitions(count)}
        for batch in partition.drain():
            number = evidence_partition(partition.is_for_experiment(batch), count)
            by_number[number].append(batch)
        for number, batches in by_number.items():
            for message in messages_of(partition.name, partition.complete, batches):
                if message.batches or message.complete is not None:
                    self.producer.send(
                        self.topics.evidence,
                        value=message.encode(),
                        key=partition.name.encode(),
                        partition=number,
                    )

    def _after_commit(self) -> None:
        """Publish routes that have changed, now that the change is committed. A crash before that
        loses nothing: the next owner of the partition publishes all routes."""
        for consumer in self.consumers.values():
            if consumer.routes_changed and self._writer is not None:
                self._writer.publish(consumer.assignments())
            consumer.routes_changed = False

    # Rebalance ------------------------------------------------------------------------------------

    def _take_over(
        self, tp: TopicPartition, begin: int, state: State | None, committed: CommittedReader
    ) -> None:
        number = tp.partition
        if tp.topic == self.topics.evidence:
            consumer = self.consumers[number] = self._consumer(tp, begin, state)
            if self._attach is not None:
                self._attach(consumer)
            if number == EXPERIMENTS:
                self._claim(consumer)
            else:
                consumer.findings_loop.watches.labels = self.label_figures
        elif tp.topic == self.topics.records:
            self.inputs[number] = self._partition(tp, begin, state, committed)

    def _consumer(self, tp: TopicPartition, begin: int, state: State | None) -> EvidenceConsumer:
        config = partition_config(self.config, tp.partition, self.evidence_partitions)
        topic = self.topics.records
        inputs = [f"{topic}/{number}" for number in range(self.partitions[topic])]
        if state is None:
            return EvidenceConsumer(config, inputs, begin=begin)
        try:
            return EvidenceConsumer(config, inputs, state)
        except SnapshotError as error:
            self._set_aside(tp, error)
            return EvidenceConsumer(config, inputs, begin=begin, files=files_of(state))

    def label_figures(self) -> dict[str, dict[str, int]]:
        """How many of the last labels match a prediction, over the partitions of this process."""
        figures = [one for each in self.inputs.values() if (one := each.feedback()) is not None]
        return {
            "unmatched": {
                name: sum(one["unmatched"][name] for one in figures)
                for name in ("last", "orphan", "late")
            }
        }

    def _claim(self, consumer: EvidenceConsumer) -> None:
        """Become the controller of the routes, and fence off the previous one."""
        self._writer = RouteWriter(self.options.kafka, self.options.instance)
        self._writer.claim()
        if consumer.experiments.live:
            self._writer.publish(consumer.assignments())
        consumer.routes_changed = False

    def _partition(
        self, tp: TopicPartition, offset: int, state: State | None, committed: CommittedReader
    ) -> Partition:
        partition = self._new_partition(tp)
        if state is None:
            return partition
        try:
            partition.load_state(state)
        except SnapshotError as error:
            partition.close()
            self._set_aside(tp, error)
            return self._new_partition(tp)
        try:
            self._replay_waiting(partition, tp, offset, committed)
        except BaseException:
            partition.close()
            raise
        return partition

    def _new_partition(self, tp: TopicPartition) -> Partition:
        partition = Partition(self.config, f"{tp.topic}/{tp.partition}")
        if self._attach is not None:
            self._attach(partition)
        return partition

    def _replay_waiting(
        self,
        partition: Partition,
        tp: TopicPartition,
        offset: int,
        committed: CommittedReader,
    ) -> None:
        """Read again the messages whose rows still wait in the restored state."""
        restoring = partition.restoring()
        if partition.wants_labels:
            labels = TopicPartition(self.topics.labels, tp.partition)
            committed_labels = committed.offset(labels)
            since = restoring.since
            begin = min([*restoring.offsets[:1], committed.at(tp, since)])
            _replay(committed, tp, begin, offset, restoring)
            begin = committed.at(labels, since)
            _replay(
                committed,
                labels,
                begin,
                committed_labels.offset if committed_labels is not None else 0,
                restoring,
            )
        else:
            for at in restoring.offsets:
                if at < offset:
                    message = next(committed.messages(tp, at), None)
                    if message is not None and message.offset == at:
                        _replay_message(message, restoring)
        restoring.done()

    def _drop(self) -> None:
        for partition in self.inputs.values():
            partition.close()
        for consumer in self.consumers.values():
            consumer.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.inputs.clear()
        self.consumers.clear()
        super()._drop()

    def counts(self) -> Counter[str]:
        """Records and labels processed by this member."""
        return Counter(records=self.records)

    # For the API thread ---------------------------------------------------------------------------

    def mark_changed(self, number: int) -> None:
        """Include partition ``number`` of the evidence in the next commit: a command changed it."""
        if number in self.consumers:
            self._dirty.add(TopicPartition(self.topics.evidence, number))

    def owner(self, number: int) -> str | None:
        """URL of the evaluator that owns partition ``number`` of the evidence; None if unknown."""
        return self._assignor.owners.get(number)


def _replay(
    committed: CommittedReader,
    tp: TopicPartition,
    begin: int,
    end: int,
    restoring: PartitionRestore,
) -> None:
    """Read the messages from offset ``begin`` up to ``end`` again."""
    if begin >= end:
        return
    for message in committed.messages(tp, begin):
        if message.offset >= end:
            break
        _replay_message(message, restoring)


def _replay_message(message: Any, restoring: PartitionRestore) -> None:
    try:
        restoring.take(decode(message.value or b""), message.offset)
    except BlockError:
        pass  # became a dead letter when it was first read
