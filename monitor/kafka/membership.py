"""One membership in a consumer group: read, process and write, all in transactions.

Output and offsets are committed together, under the membership that read the input: a process that
was paused or cut off, and has lost its membership, cannot commit (KIP-447). After a failure nothing
in memory is used again; the next member starts from the last commit.

The group's callbacks run on the client's own thread, so a lock guards everything that they share
with the loop. They commit and release partitions. The loop takes partitions over, and then reads
from the committed offsets.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.coordinator.base import MemberState

from understudy.monitor.errors import LostError, SnapshotError
from understudy.monitor.kafka.commands import CommandQueue
from understudy.monitor.kafka.committed import CommittedReader
from understudy.monitor.kafka.connect import Topics
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.patches import close_now, keep_rejoining, last_heard
from understudy.monitor.kafka.snapshots import Pointer, chunks_of

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
_SILENT_SESSIONS = 3.0
"""Sessions without a response from the coordinator after which a member leaves and rejoins."""
_UNASSIGNED_SECONDS = 60.0
"""It also rejoins when it has had no assignment, not even an empty one, for this long, or for
:data:`_SILENT_SESSIONS` sessions if that is longer."""
_SLOW_SECONDS = 2.0
"""Taking over a partition is logged when it takes longer."""
_KEEP_ALIVE_SECONDS = 1.0
"""How often a member polls while it takes partitions over, to stay in the group."""
Polled = Mapping[TopicPartition, Sequence[Any]]
State = dict[str, Any]


class _RebalanceError(Exception):
    """The group assigned other partitions while the last ones were being taken over."""


class Membership(ABC):
    """Joins ``group`` when constructed; subclasses set their own attributes before that.

    ``subscribed`` are the names of the topics to read, ``state_partitions`` is the number of
    partitions of the state topic, ``settings`` are further settings of the KafkaConsumer. Raises
    KafkaError when no broker answers or a broker refuses a request.
    """

    prefix = ""
    """Prefix of the names of states in the state topic."""

    def __init__(
        self,
        options: Options,
        group: str,
        subscribed: list[str],
        state_partitions: int,
        **settings: Any,
    ) -> None:
        self.options = options
        self.topics: Topics = options.topics
        self.group = group
        self.commits = 0
        self.dead: Counter[str] = Counter()
        """Number of messages that could not be read, by reason."""
        self.snapshots_set_aside = 0
        """Number of states that were damaged or of another version."""
        self.positions: dict[TopicPartition, int] = {}
        self.commands = CommandQueue()
        """Calls from other threads, to be run by the thread of the loop."""
        self._lock = threading.RLock()
        """Guards what the loop shares with the group's callbacks, which run on a client thread."""
        self.ending = threading.Event()
        """Set when the process stops, so that taking over can end early."""
        self._state_partitions = state_partitions
        self._dirty: set[TopicPartition] = set()
        """Partitions that were read since the last commit."""
        self._dead_letters: list[tuple[str, str, Any]] = []
        self._metadata: Any = None
        self._lost = ""
        self._assigned: list[TopicPartition] | None = None
        self._rebalances = 0
        """Number of rebalances that have started."""
        self._keep_alive_due = 0.0
        self._unassigned_since: float | None = time.monotonic()
        """When the wait for an assignment began (monotonic); None while there is one."""
        self._due = time.monotonic() + options.commit_seconds
        self._common = common = options.client()
        milliseconds = int(options.transaction_seconds * 1000)
        self.producer = KafkaProducer(
            **common,
            transactional_id=f"{group}.{options.instance}",
            transaction_timeout_ms=milliseconds,
            max_request_size=16 * 1024 * 1024,
            linger_ms=5,
            batch_size=512 * 1024,
            max_block_ms=milliseconds,
            delivery_timeout_ms=milliseconds + 30_000,
        )
        self.producer.init_transactions()
        session = int(options.session_seconds * 1000)
        self.consumer = KafkaConsumer(
            **{**common, "request_timeout_ms": max(common["request_timeout_ms"], session + 1000)},
            group_id=group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 5,
            max_poll_records=options.most_messages,
            **settings,
        )
        self.consumer.subscribe(subscribed, listener=_Listener(self))

    # For subclasses -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def has_partitions(self) -> bool:
        """Whether the member holds partitions, whose progress is lost if the membership ends."""

    @property
    def idle(self) -> bool:
        """Whether the member has partitions and nothing to commit."""
        return self.has_partitions and not self._dirty

    @property
    def _has_output(self) -> bool:
        return bool(self._dirty)

    @abstractmethod
    def _take_over(
        self, tp: TopicPartition, begin: int, state: State | None, committed: CommittedReader
    ) -> None:
        """Restore ``state``, if any, of a partition that is read from offset ``begin``. Calls
        :meth:`_set_aside` for a state that cannot be restored, and starts without it."""

    @abstractmethod
    def _process(self, polled: Polled) -> int:
        """Process messages and return their number. Calls :meth:`_mark_read` for what was read."""

    @abstractmethod
    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        """Send the output; by partition, the offset to commit and the state to save with it."""

    @abstractmethod
    def _after_commit(self) -> None:
        """Called after each commit."""

    @abstractmethod
    def counts(self) -> Counter[str]:
        """Number of items processed, by kind."""

    def _drop(self) -> None:
        """Forget everything that belongs to the current assignment."""
        self.positions.clear()
        self._dirty.clear()
        self._dead_letters.clear()

    # The loop -------------------------------------------------------------------------------------

    def step(self, seconds: float = POLL_SECONDS) -> int:
        """Poll for up to ``seconds``, process, commit when due; return the number of messages.

        Raises LostError or KafkaError; then call :meth:`abandon`."""
        polled = self.consumer.poll(timeout_ms=int(seconds * 1000))
        with self._lock:
            self._check()
            self._check_coordinator()
            if self._assigned is not None:
                tps, self._assigned = self._assigned, None
                try:
                    self._start_partitions(tps)
                except _RebalanceError:
                    log.info("rebalance started before the assignment completed")
                return 0  # what was polled is read again, from the committed offsets
            count = self._process(polled)
            if time.monotonic() >= self._due:
                self.commit()
            self.commands.run()
            return count

    def _check(self) -> None:
        if self._lost:
            raise LostError(self._lost)

    def _check_coordinator(self) -> None:
        now = time.monotonic()
        session = self.options.session_seconds
        if self._unassigned_since is not None and self._assigned is None:
            waited = now - self._unassigned_since
            if waited > max(_UNASSIGNED_SECONDS, _SILENT_SESSIONS * session):
                raise LostError(f"no partitions assigned for {waited:.0f} s: rejoining the group")
        # A member with nothing to commit would not notice that it has lost its membership.
        silent = now - last_heard(self.consumer)
        stable = self.consumer.group_metadata().state is MemberState.STABLE
        if stable and silent > _SILENT_SESSIONS * session:
            raise LostError(f"no response from the group coordinator for {silent:.0f} s")

    def _start_partitions(self, tps: list[TopicPartition]) -> None:
        metadata = self.consumer.group_metadata()
        if metadata.generation_id < 0 or not metadata.member_id:
            raise LostError("the membership ended before its partitions were taken over")
        self._drop()
        self._metadata = metadata
        began = time.monotonic()
        self._keep_alive_due = began + _KEEP_ALIVE_SECONDS
        self.consumer.pause(*tps)
        with self._reader() as committed:
            for number, tp in enumerate(sorted(tps), start=1):
                begun = time.monotonic()
                begin, pointer = committed.begin(tp)
                state = None
                if pointer is not None:
                    try:
                        state = committed.state(self._name(tp), pointer)
                    except SnapshotError as error:
                        self._set_aside(tp, error)
                self._take_over(tp, begin, state, committed)
                self.positions[tp] = begin
                self.consumer.seek(tp, begin)
                if (took := time.monotonic() - begun) > _SLOW_SECONDS:
                    done = f"{number} of {len(tps)} partitions"
                    log.info("%s: %s/%d took %.1f s", done, tp.topic, tp.partition, took)
        self.consumer.resume(*tps)
        self._unassigned_since = None
        names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(tps))
        log.info("took over %s in %.1f s", names or "nothing", time.monotonic() - began)

    def _set_aside(self, tp: TopicPartition, error: SnapshotError) -> None:
        """Start a partition without its state. The next commit replaces that state, so that the
        next takeover does not find it again."""
        self.snapshots_set_aside += 1
        self._dirty.add(tp)
        log.error(
            "%s/%d: the snapshot is set aside, the partition starts without state from the "
            "committed offset: %s",
            tp.topic, tp.partition, error,
        )  # fmt: skip

    def _reader(self) -> CommittedReader:
        return CommittedReader(self._common, self.group, self.topics.state, self._keep_alive)

    def _keep_alive(self) -> None:
        """Poll while partitions are taken over: the group removes a member that does not poll for
        five minutes, and assigns nothing meanwhile. All partitions are paused, so none are read."""
        if self.ending.is_set():
            raise LostError("stopped before the assignment was taken over")
        if time.monotonic() < self._keep_alive_due:
            return
        rebalances = self._rebalances
        self._lock.release()  # the group's callbacks need it
        try:
            self.consumer.poll(timeout_ms=0)
        finally:
            self._lock.acquire()
        self.commands.run(only_reading=True)
        self._check()
        if self._rebalances != rebalances:
            raise _RebalanceError
        self._keep_alive_due = time.monotonic() + _KEEP_ALIVE_SECONDS

    def _name(self, tp: TopicPartition) -> str:
        return f"{self.prefix}{tp.topic}/{tp.partition}"

    def _mark_read(self, tp: TopicPartition, messages: Sequence[Any]) -> None:
        self.positions[tp] = messages[-1].offset + 1
        self._dirty.add(tp)

    def _dead_letter(self, message: Any, reason: str, detail: str) -> None:
        """Send a message that cannot be read to the dead-letter topic, with the next commit."""
        self.dead[reason] += 1
        log.warning(
            "%s, partition %d, offset %d: %s", message.topic, message.partition, message.offset,
            detail,
        )  # fmt: skip
        self._dead_letters.append((reason, detail, message))

    # Commit ---------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Write and commit everything since the last commit. Raises LostError or KafkaError."""
        self._due = time.monotonic() + self.options.commit_seconds
        if not self._has_output:
            return
        producer = self.producer
        producer.begin_transaction()
        written = self._write()
        saved = {
            tp: self._send_state(tp, state)
            for tp, (_, state) in written.items()
            if state is not None
        }
        dead_letters, self._dead_letters = self._dead_letters, []
        for reason, detail, message in dead_letters:
            self._send_dead(reason, detail, message)
        producer.flush()
        offsets = {}
        for tp, (position, _) in written.items():
            pointer = self._pointer(*saved[tp]) if tp in saved else ""
            offsets[tp] = OffsetAndMetadata(position, str(pointer))
        if offsets:
            producer.send_offsets_to_transaction(offsets, self._metadata)
        producer.commit_transaction()
        self._dirty.clear()
        self.commits += 1
        self._after_commit()
        self._due = time.monotonic() + self.options.commit_seconds

    def commit_now(self) -> bool:
        """Commit for a command. False when that failed; the membership then ends."""
        try:
            self.commit()
        except Exception as error:
            self._lost = self._lost or f"a command could not be committed: {error!r}"
            return False
        return True

    def _send_state(self, tp: TopicPartition, state: State) -> tuple[Any, int, int]:
        """Send a state; the future of its first chunk, the number of chunks, the checksum."""
        chunks, checksum = chunks_of(self._name(tp), state)
        partition = tp.partition % self._state_partitions
        futures = [
            self.producer.send(self.topics.state, key=key, value=value, partition=partition)
            for key, value in chunks
        ]
        return futures[0], len(chunks), checksum

    def _pointer(self, future: Any, chunks: int, checksum: int) -> Pointer:
        metadata = future.get(timeout=self.options.transaction_seconds)
        return Pointer(metadata.partition, metadata.offset, chunks, checksum)

    def _send_dead(self, reason: str, detail: str, message: Any) -> None:
        headers = [
            ("reason", reason.encode()),
            ("detail", detail.encode()[:1000]),
            ("topic", message.topic.encode()),
            ("partition", str(message.partition).encode()),
            ("offset", str(message.offset).encode()),
        ]
        self.producer.send(self.topics.dead, key=message.key, value=message.value, headers=headers)

    # Rebalance ------------------------------------------------------------------------------------

    def revoked(self, lost: bool) -> None:
        """Callback: a rebalance starts, or (``lost``) has happened without this member."""
        keep_rejoining(self.consumer)
        with self._lock:
            self._rebalances += 1
            self._assigned = None
            self._unassigned_since = time.monotonic()
            if not lost and not self._lost:
                try:
                    self.commit()
                except Exception as error:
                    lost = True
                    log.warning("commit before the rebalance failed: %r", error)
            if lost and self.has_partitions:
                self._lost = "the group rebalanced without this member"
            self._drop()

    def assigned(self, tps: list[TopicPartition]) -> None:
        """Callback: the group has assigned partitions."""
        with self._lock:
            self._assigned = tps

    def leave(self) -> None:
        """Commit and leave the group. Raises LostError or KafkaError."""
        try:
            with self._lock:
                self._check()
                self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave without a commit: other members read again what was not committed."""
        with self._lock:
            self._lost = self._lost or "the membership was abandoned"
            self._drop()
        self.commands.close()
        try:
            self.consumer.close(autocommit=False, timeout_ms=3000)
        except Exception as error:
            log.debug("while closing: %r", error)
        try:
            close_now(self.producer)
        except Exception as error:
            log.debug("while closing: %r", error)

    def lag(self) -> dict[str, int]:
        """Number of unread messages, by ``topic/partition``."""
        polled = {}
        for tp in self.consumer.assignment():
            high = self.consumer.highwater(tp)
            position = self.positions.get(tp)
            if high is not None and position is not None:
                polled[f"{tp.topic}/{tp.partition}"] = max(0, high - position)
        return polled


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, member: Membership) -> None:
        self._member = member

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._member.revoked(lost=False)

    def on_partitions_lost(self, lost: Any) -> None:
        self._member.revoked(lost=True)

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._member.assigned(list(assigned))
