"""One membership in the group of evaluators: read, process, write, all in transactions.

What is written (evidence, states, what could not be read) and how far was read are committed
together, under the membership that read it: who is no member any more, because it was paused or cut
off, cannot commit. After a failure nothing that is in memory is used again; the next member begins
with what is committed.

The group's callbacks come from the client's own thread, so that a lock is around everything that
they share with the loop. They commit and let go; partitions are taken over by the loop, which then
begins to read where the committed offsets are.
"""

from __future__ import annotations

import logging
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
from monitor.errors import BlockError, EvidenceError
from monitor.evaluator.assignor import Together
from monitor.evaluator.judge import Judge, owned
from monitor.evaluator.messages import decode_message, messages_of
from monitor.evaluator.partition import Partition, Restoring
from monitor.evaluator.snapshots import Pointer, chunks_of, read_state
from monitor.evaluator.topics import Options
from monitor.transport.blocks import decode, partition_of
from monitor.transport.kafka.connect import Topics
from monitor.transport.kafka.routes import RouteWriter

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
_FETCH_BYTES = 8 * 1024 * 1024


class Lost(Exception):
    """This membership is over: what it did since its last commit is void."""


class Member:
    """Joins the group when it is made. ``topics_there`` are partitions by topic.

    Raises KafkaError for what the brokers refuse, or when there is none.
    """

    def __init__(self, config: Config, options: Options, partitions: dict[str, int]) -> None:
        self.config = config
        self.options = options
        self.topics: Topics = options.topics
        self.partitions = partitions
        self.inputs: dict[int, Partition] = {}
        """By partition of records and labels."""
        self.judges: dict[int, Judge] = {}
        """By partition of the evidence."""
        self.records = 0
        self.commits = 0
        self.dead: Counter[str] = Counter()
        self._writer: RouteWriter | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._dirty: set[TopicPartition] = set()
        """Where something was read since the last commit."""
        self._graves: list[tuple[str, Any]] = []
        self._membership: Any = None
        self._lost = ""
        self._fresh: list[TopicPartition] | None = None
        self.lock = threading.RLock()
        self._due = time.monotonic() + options.commit_seconds
        busy = {partition_of(m.name, partitions[self.topics.evidence]) for m in config.models}
        assignor = Together(
            (self.topics.records, self.topics.labels),
            self.topics.evidence,
            frozenset(busy) or frozenset((0,)),
        )
        self._common = common = options.client()
        self.producer = KafkaProducer(
            **common,
            transactional_id=f"{options.group}.{options.instance}",
            transaction_timeout_ms=int(options.transaction_seconds * 1000),
            max_request_size=16 * 1024 * 1024,
            linger_ms=5,
            batch_size=512 * 1024,
            max_block_ms=int(options.transaction_seconds * 1000),
            delivery_timeout_ms=int(options.transaction_seconds * 1000) + 30_000,
        )
        self.producer.init_transactions()
        session = int(options.session_seconds * 1000)
        self.consumer = KafkaConsumer(
            **{**common, "request_timeout_ms": max(common["request_timeout_ms"], session + 1000)},
            group_id=options.group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[assignor],
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 5,
            max_poll_records=options.most_messages,
            fetch_max_bytes=_FETCH_BYTES * 4,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        self.consumer.subscribe(
            [self.topics.records, self.topics.labels, self.topics.evidence],
            listener=_Listener(self),
        )

    # The loop -----------------------------------------------------------------------------------

    def step(self, seconds: float = POLL_SECONDS) -> int:
        """Read and process what is there, and commit when it is time; how many messages there
        were. Raises Lost or KafkaError: then call :meth:`abandon`."""
        found = self.consumer.poll(timeout_ms=int(seconds * 1000))
        with self.lock:
            return self._process(found)

    def _process(self, found: dict[TopicPartition, list[Any]]) -> int:
        self._check()
        if self._fresh is not None:
            places, self._fresh = self._fresh, None
            self._take_over(places)
            return 0  # what was read is read again, from where we took over
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
        if time.monotonic() >= self._due:
            self.commit()
        return count

    def _check(self) -> None:
        if self._lost:
            raise Lost(self._lost)

    def _take_input(self, place: TopicPartition, messages: list[Any]) -> None:
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
        self._positions[place] = messages[-1].offset + 1
        self._dirty.add(place)

    def _take_evidence(self, place: TopicPartition, messages: list[Any]) -> None:
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
        self._positions[place] = messages[-1].offset + 1
        self._dirty.add(place)

    def _bury(self, message: Any, reason: str, detail: str) -> None:
        self.dead[reason] += 1
        log.warning(
            "%s, partition %d, offset %d: %s", message.topic, message.partition, message.offset,
            detail,
        )  # fmt: skip
        self._graves.append((reason, (message, detail)))

    # Commit -------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Write and commit everything since the last time. Raises Lost or KafkaError."""
        self._due = time.monotonic() + self.options.commit_seconds
        judged = self.topics.evidence
        if not self._dirty:
            return
        producer = self.producer
        producer.begin_transaction()
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        pending: list[tuple[TopicPartition, int, Any, int, int]] = []
        for number in {place.partition for place in self._dirty if place.topic != judged}:
            partition = self.inputs[number]
            self._hand_over(partition)
            # One state for both topics: what is here of records and labels belongs together.
            place = TopicPartition(self.topics.records, number)
            position = self._positions[place]
            pending.append((place, position, *self._save(place, partition.to_dict())))
            place = TopicPartition(self.topics.labels, number)
            if place in self._positions:
                offsets[place] = OffsetAndMetadata(self._positions[place], "")
        for place in [place for place in self._dirty if place.topic == judged]:
            judge = self.judges[place.partition]
            pending.append((place, judge.needed, *self._save(place, judge.to_dict())))
        for place, position, future, chunks, checksum in pending:
            producer.flush()
            told = future.get(timeout=self.options.transaction_seconds)
            pointer = Pointer(told.partition, told.offset, chunks, checksum)
            offsets[place] = OffsetAndMetadata(position, str(pointer))
        graves, self._graves = self._graves, []
        for reason, (message, detail) in graves:
            self._send_dead(reason, message, detail)
        producer.flush()
        producer.send_offsets_to_transaction(offsets, self._membership)
        producer.commit_transaction()
        self._dirty.clear()
        self.commits += 1
        self._steer()
        self._due = time.monotonic() + self.options.commit_seconds

    def _steer(self) -> None:
        """Tell the sidecars what has changed, now that it is committed. Who takes the judge over
        tells all of it again, so nothing is lost if we die here."""
        for judge in self.judges.values():
            if judge.moved and self._writer is not None:
                self._writer.publish(judge.assignments())
            judge.moved = False

    def _claim(self, judge: Judge) -> None:
        """Become the controller of the routes, and fence off who was it before."""
        self._writer = RouteWriter(self.options.kafka, self.options.instance)
        self._writer.claim()
        if judge.experiments.live:
            self._writer.publish(judge.assignments())
        judge.moved = False

    def _save(self, place: TopicPartition, state: dict[str, Any]) -> tuple[Any, int, int]:
        """Send a state; the future of its first chunk, their number and the checksum."""
        name = f"{place.topic}/{place.partition}"
        chunks, checksum = chunks_of(name, state)
        where = place.partition % self.partitions[self.topics.state]
        futures = [
            self.producer.send(self.topics.state, key=key, value=value, partition=where)
            for key, value in chunks
        ]
        return futures[0], len(chunks), checksum

    def _hand_over(self, partition: Partition) -> None:
        sheets = partition.drain()
        many = self.partitions[self.topics.evidence]
        by_judge: dict[int, list[Any]] = {judge: [] for judge in self._busy()}
        for sheet in sheets:
            by_judge.setdefault(partition_of(partition.model_of(sheet), many), []).append(sheet)
        for judge, mine in by_judge.items():
            for message in messages_of(partition.name, partition.complete, mine):
                if message.sheets or message.complete is not None:
                    self.producer.send(
                        self.topics.evidence,
                        value=message.encode(),
                        key=partition.name.encode(),
                        partition=judge,
                    )

    def _busy(self) -> set[int]:
        many = self.partitions[self.topics.evidence]
        return {partition_of(m.name, many) for m in self.config.models} or {0}

    def _send_dead(self, reason: str, message: Any, detail: str) -> None:
        headers = [
            ("reason", reason.encode()),
            ("detail", detail.encode()[:1000]),
            ("topic", message.topic.encode()),
            ("partition", str(message.partition).encode()),
            ("offset", str(message.offset).encode()),
        ]
        self.producer.send(self.topics.dead, key=message.key, value=message.value, headers=headers)

    # Coming and going ---------------------------------------------------------------------------

    def revoked(self, lost: bool) -> None:
        """The group is about to share out anew, or has done so without us."""
        with self.lock:
            self._fresh = None
            if not lost and not self._lost:
                try:
                    self.commit()
                except Exception as error:
                    lost = True
                    log.warning("what was under way could not be committed: %r", error)
            if lost and (self.inputs or self.judges):
                self._lost = "the group went on without this evaluator"
            self._drop()

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
        self._positions.clear()
        self._dirty.clear()
        self._graves.clear()

    def assigned(self, places: list[TopicPartition]) -> None:
        """The group has shared out."""
        with self.lock:
            self._fresh = places

    def _take_over(self, places: list[TopicPartition]) -> None:
        """Go on where others left off."""
        membership = self.consumer.group_metadata()
        if membership.generation_id < 0 or not membership.member_id:
            raise Lost("the membership ended before anything was taken over")
        self._drop()
        self._membership = membership
        began = time.monotonic()
        with _Reader(self._common, self.options.group) as reader:
            for place in sorted(places):
                begin, state = self._committed(place, reader)
                if place.topic == self.topics.evidence:
                    judge = self.judges[place.partition] = self._judge(place, state)
                    if place.partition == 0:
                        self._claim(judge)
                elif place.topic == self.topics.records:
                    self.inputs[place.partition] = self._partition(place, begin, state, reader)
                self._positions[place] = begin
                self.consumer.seek(place, begin)
        log.info(
            "took over partitions %s and judges %s in %.1f s",
            sorted(self.inputs), sorted(self.judges), time.monotonic() - began,
        )  # fmt: skip

    def _committed(
        self, place: TopicPartition, reader: _Reader
    ) -> tuple[int, dict[str, Any] | None]:
        """The offset to go on from, and the state there."""
        found = reader.committed(place)
        if found is None or found.offset < 0:
            return reader.beginning(place), None
        pointer = Pointer.parse(found.metadata or "")
        if pointer is None:
            return found.offset, None
        name = f"{place.topic}/{place.partition}"
        return found.offset, read_state(
            name, pointer, lambda where, at: reader.pairs(self.topics.state, where, at)
        )

    def _judge(self, place: TopicPartition, state: dict[str, Any] | None) -> Judge:
        many = self.partitions[self.topics.evidence]
        inputs = [f"{self.topics.records}/{n}" for n in range(self.partitions[self.topics.records])]
        return Judge(owned(self.config, place.partition, many), inputs, state)

    def _partition(
        self, place: TopicPartition, offset: int, state: dict[str, Any] | None, reader: _Reader
    ) -> Partition:
        partition = Partition(self.config, f"{place.topic}/{place.partition}")
        if state is None:
            return partition
        restoring = partition.restore(state)
        if partition.wants_labels:
            since = partition.sources.complete - self.config.feedback.horizon
            labels = TopicPartition(self.topics.labels, place.partition)
            told = reader.committed(labels)
            reader.again(place, since, offset, restoring)
            reader.again(labels, since, told.offset if told is not None else 0, restoring)
        else:
            for at in restoring.offsets:
                if at < offset:
                    reader.one(place, at, restoring)
        restoring.done()
        return partition

    def leave(self) -> None:
        """Finish, commit and leave the group. Raises Lost or KafkaError."""
        try:
            with self.lock:
                self._check()
                self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave without a commit: what was not committed is somebody else's."""
        with self.lock:
            self._lost = self._lost or "it was abandoned"
            self._drop()
        try:
            self.consumer.close(autocommit=False, timeout_ms=3000)
        except Exception as error:
            log.debug("while closing: %r", error)
        try:
            self.producer.close(timeout=0)
        except Exception as error:
            log.debug("while closing: %r", error)

    def touch(self) -> None:
        """Somebody has changed what is judged: it has to be committed."""
        for number in self.judges:
            self._dirty.add(TopicPartition(self.topics.evidence, number))

    def lag(self) -> dict[str, int]:
        """Messages that wait, by topic and partition."""
        found = {}
        for place in self.consumer.assignment():
            high = self.consumer.highwater(place)
            position = self._positions.get(place)
            if high is not None and position is not None:
                found[f"{place.topic}/{place.partition}"] = max(0, high - position)
        return found


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, member: Member) -> None:
        self._member = member

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._member.revoked(lost=False)

    def on_partitions_lost(self, lost: Any) -> None:
        self._member.revoked(lost=True)

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._member.assigned(list(assigned))


class _Reader:
    """Reads what is committed, without being a member."""

    def __init__(self, common: dict[str, Any], group: str) -> None:
        self._consumer = KafkaConsumer(
            **common,
            group_id=group,  # to ask what is committed; it does not join
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_bytes=_FETCH_BYTES * 4,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1000)

    def committed(self, place: TopicPartition) -> OffsetAndMetadata | None:
        """What is committed, once no transaction is open that may still change it."""
        return self._consumer.committed(place, metadata=True)

    def beginning(self, place: TopicPartition) -> int:
        """The first offset that is there."""
        found: dict[TopicPartition, int] = self._consumer.beginning_offsets([place])
        return found[place]

    def _messages(self, place: TopicPartition, begin: int) -> Iterator[Any]:
        consumer = self._consumer
        consumer.assign([place])
        consumer.seek(place, begin)
        end = consumer.end_offsets([place])[place]
        silent = 0
        while consumer.position(place) < end and silent < 50:
            found = consumer.poll(timeout_ms=200)
            silent = 0 if found else silent + 1
            for messages in found.values():
                yield from messages

    def pairs(self, topic: str, partition: int, begin: int) -> Iterator[tuple[bytes, bytes]]:
        for message in self._messages(TopicPartition(topic, partition), begin):
            yield message.key or b"", message.value or b""

    def again(self, place: TopicPartition, since: float, end: int, restoring: Restoring) -> None:
        """What was read before, from unix time ``since`` up to the offset ``end``."""
        begin = 0
        if since > 0.0:
            at = self._consumer.offsets_for_times({place: int(since * 1000)}).get(place)
            begin = at.offset if at is not None else end
        if begin < end:
            for message in self._messages(place, begin):
                if message.offset >= end:
                    break
                self._give(message, restoring)

    def one(self, place: TopicPartition, offset: int, restoring: Restoring) -> None:
        """A single message."""
        for message in self._messages(place, offset):
            if message.offset == offset:
                self._give(message, restoring)
            break

    @staticmethod
    def _give(message: Any, restoring: Restoring) -> None:
        try:
            restoring.take(decode(message.value or b""), message.offset)
        except BlockError:
            pass  # buried when it was read first
