"""One membership in a group of consumers: read, process, write, all in transactions.

What is written and how far was read are committed together, under the membership that read it: who
is no member any more, because it was paused or cut off, cannot commit (KIP-447). After a failure
nothing that is in memory is used again; the next member begins with what is committed.

The group's callbacks come from the client's own thread, so that a lock is around everything that
they share with the loop. They commit and let go; partitions are taken over by the loop, which then
begins to read where the committed offsets are.
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
from understudy.monitor.kafka.committed import Committed
from understudy.monitor.kafka.connect import Topics
from understudy.monitor.kafka.inputs import Options
from understudy.monitor.kafka.patches import close_now, keep_rejoining, last_heard
from understudy.monitor.kafka.snapshots import Pointer, chunks_of

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
_SILENT_SESSIONS = 3.0
"""After so many sessions without a word from the coordinator a member begins anew."""
_UNASSIGNED_SECONDS = 60.0
"""And after so long without a share of the partitions, even an empty one; or that many sessions."""
_LONG_SECONDS = 2.0
"""A partition that takes longer to take over is worth a line in the log."""
_PULSE_SECONDS = 1.0
"""So often who takes over for long says that it is alive, and hears whether that is in vain."""
Found = Mapping[TopicPartition, Sequence[Any]]
State = dict[str, Any]


class _SharedAnewError(Exception):
    """What is being taken over is somebody else's by now."""


class Membership(ABC):
    """Joins ``group`` when it is made, so whoever inherits has to be whole before that.
    ``kept_in`` is how many partitions the topic of the states has; ``settings`` are more of the
    consumer's. Raises KafkaError for what the brokers refuse, or when there is none.
    """

    prefix = ""
    """Of the names of states."""

    def __init__(
        self, options: Options, group: str, subscribed: list[str], kept_in: int, **settings: Any
    ) -> None:
        self.options = options
        self.topics: Topics = options.topics
        self.group = group
        self.commits = 0
        self.dead: Counter[str] = Counter()
        """Messages that could not be read, by reason."""
        self.snapshots_set_aside = 0
        """States that were damaged or of another version."""
        self.positions: dict[TopicPartition, int] = {}
        self.commands = CommandQueue()
        """How other threads reach what belongs to this one."""
        self._lock = threading.RLock()
        """The group's callbacks come from a thread of the client."""
        self.ending = threading.Event()
        """Set when what is taken over is not needed any more."""
        self._kept_in = kept_in
        self._dirty: set[TopicPartition] = set()
        """Where something was read since the last commit."""
        self._graves: list[tuple[str, str, Any]] = []
        self._metadata: Any = None
        self._lost = ""
        self._fresh: list[TopicPartition] | None = None
        self._turn = 0
        """How often the group has begun to share out."""
        self._pulse_due = 0.0
        self._waits: float | None = time.monotonic()
        """Since when for a share of the partitions."""
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

    # What is to be done ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def holds(self) -> bool:
        """Whether there is something that is lost with the membership."""

    @property
    def idle(self) -> bool:
        """Whether something was taken over, and there is nothing to commit."""
        return self.holds and not self._dirty

    @property
    def _due_to_write(self) -> bool:
        return bool(self._dirty)

    @abstractmethod
    def _take_over(
        self, place: TopicPartition, begin: int, state: State | None, committed: Committed
    ) -> None:
        """Go on at a partition where others left off. A state that does not fit goes to
        :meth:`_set_aside`, and the partition starts without it."""

    @abstractmethod
    def _process(self, found: Found) -> int:
        """Take messages; how many there were. Says with :meth:`_read` how far it came."""

    @abstractmethod
    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        """Send what there is to write; the offsets to commit, and the states to keep with them."""

    @abstractmethod
    def _written(self) -> None:
        """It is committed."""

    @abstractmethod
    def taken(self) -> Counter[str]:
        """How much was taken, by sort."""

    def _drop(self) -> None:
        """Forget everything that belongs to this sharing-out."""
        self.positions.clear()
        self._dirty.clear()
        self._graves.clear()

    # The loop -------------------------------------------------------------------------------------

    def step(self, seconds: float = POLL_SECONDS) -> int:
        """Read and process what is there, and commit when it is time; how many messages there
        were. Raises LostError or KafkaError: then call :meth:`abandon`."""
        found = self.consumer.poll(timeout_ms=int(seconds * 1000))
        with self._lock:
            self._check()
            self._check_heard()
            if self._fresh is not None:
                places, self._fresh = self._fresh, None
                try:
                    self._begin(places)
                except _SharedAnewError:
                    log.info("the group shares out anew, before all was taken over")
                return 0  # what was read is read again, from where we took over
            count = self._process(found)
            if time.monotonic() >= self._due:
                self.commit()
            self.commands.run()
            return count

    def _check(self) -> None:
        if self._lost:
            raise LostError(self._lost)

    def _check_heard(self) -> None:
        now = time.monotonic()
        session = self.options.session_seconds
        if self._waits is not None and self._fresh is None:
            waited = now - self._waits
            if waited > max(_UNASSIGNED_SECONDS, _SILENT_SESSIONS * session):
                raise LostError(f"the group has not shared out for {waited:.0f} s")
        # Who has nothing to commit would not notice, and nobody would see it.
        silent = now - last_heard(self.consumer)
        stable = self.consumer.group_metadata().state is MemberState.STABLE
        if stable and silent > _SILENT_SESSIONS * session:
            raise LostError(f"the group's coordinator has not answered for {silent:.0f} s")

    def _begin(self, places: list[TopicPartition]) -> None:
        metadata = self.consumer.group_metadata()
        if metadata.generation_id < 0 or not metadata.member_id:
            raise LostError("the membership ended before anything was taken over")
        self._drop()
        self._metadata = metadata
        began = time.monotonic()
        self._pulse_due = began + _PULSE_SECONDS
        self.consumer.pause(*places)
        with self._onlooker() as committed:
            for number, place in enumerate(sorted(places), start=1):
                begun = time.monotonic()
                begin, pointer = committed.begin(place)
                state = None
                if pointer is not None:
                    try:
                        state = committed.state(self._name(place), pointer)
                    except SnapshotError as error:
                        self._set_aside(place, error)
                self._take_over(place, begin, state, committed)
                self.positions[place] = begin
                self.consumer.seek(place, begin)
                if (took := time.monotonic() - begun) > _LONG_SECONDS:
                    done = f"{number} of {len(places)} partitions"
                    log.info("%s: %s/%d took %.1f s", done, place.topic, place.partition, took)
        self.consumer.resume(*places)
        self._waits = None
        names = ", ".join(f"{place.topic}/{place.partition}" for place in sorted(places))
        log.info("took over %s in %.1f s", names or "nothing", time.monotonic() - began)

    def _set_aside(self, place: TopicPartition, error: SnapshotError) -> None:
        """Start a partition without its state. The next commit replaces that state, so that the
        next takeover does not find it again."""
        self.snapshots_set_aside += 1
        self._dirty.add(place)
        log.error(
            "%s/%d: the snapshot is set aside, the partition starts without state from the "
            "committed offset: %s",
            place.topic, place.partition, error,
        )  # fmt: skip

    def _onlooker(self) -> Committed:
        return Committed(self._common, self.group, self.topics.state, self._pulse)

    def _pulse(self) -> None:
        """While something is taken over: poll, since whoever does not for five minutes is put out
        of the group, and nobody else gets a share meanwhile. All partitions are paused."""
        if self.ending.is_set():
            raise LostError("it is to end, and had not taken all over yet")
        if time.monotonic() < self._pulse_due:
            return
        turn = self._turn
        self._lock.release()  # the group's callbacks need it
        try:
            self.consumer.poll(timeout_ms=0)
        finally:
            self._lock.acquire()
        self.commands.run(only_reading=True)
        self._check()
        if self._turn != turn:
            raise _SharedAnewError
        self._pulse_due = time.monotonic() + _PULSE_SECONDS

    def _name(self, place: TopicPartition) -> str:
        return f"{self.prefix}{place.topic}/{place.partition}"

    def _read(self, place: TopicPartition, messages: Sequence[Any]) -> None:
        self.positions[place] = messages[-1].offset + 1
        self._dirty.add(place)

    def _bury(self, message: Any, reason: str, detail: str) -> None:
        """Put a message that cannot be read among the dead letters, with the next commit."""
        self.dead[reason] += 1
        log.warning(
            "%s, partition %d, offset %d: %s", message.topic, message.partition, message.offset,
            detail,
        )  # fmt: skip
        self._graves.append((reason, detail, message))

    # Commit ---------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Write and commit everything since the last time. Raises LostError or KafkaError."""
        self._due = time.monotonic() + self.options.commit_seconds
        if not self._due_to_write:
            return
        producer = self.producer
        producer.begin_transaction()
        written = self._write()
        saved = {
            place: self._save(place, state)
            for place, (_, state) in written.items()
            if state is not None
        }
        graves, self._graves = self._graves, []
        for reason, detail, message in graves:
            self._send_dead(reason, detail, message)
        producer.flush()
        offsets = {}
        for place, (position, _) in written.items():
            pointer = self._pointer(*saved[place]) if place in saved else ""
            offsets[place] = OffsetAndMetadata(position, str(pointer))
        if offsets:
            producer.send_offsets_to_transaction(offsets, self._metadata)
        producer.commit_transaction()
        self._dirty.clear()
        self.commits += 1
        self._written()
        self._due = time.monotonic() + self.options.commit_seconds

    def commit_now(self) -> bool:
        """Commit for a command; False when that failed, and then this membership is over."""
        try:
            self.commit()
        except Exception as error:
            self._lost = self._lost or f"a command could not be committed: {error!r}"
            return False
        return True

    def _save(self, place: TopicPartition, state: State) -> tuple[Any, int, int]:
        """Send a state; the future of its first chunk, their number and the checksum."""
        chunks, checksum = chunks_of(self._name(place), state)
        where = place.partition % self._kept_in
        futures = [
            self.producer.send(self.topics.state, key=key, value=value, partition=where)
            for key, value in chunks
        ]
        return futures[0], len(chunks), checksum

    def _pointer(self, future: Any, chunks: int, checksum: int) -> Pointer:
        told = future.get(timeout=self.options.transaction_seconds)
        return Pointer(told.partition, told.offset, chunks, checksum)

    def _send_dead(self, reason: str, detail: str, message: Any) -> None:
        headers = [
            ("reason", reason.encode()),
            ("detail", detail.encode()[:1000]),
            ("topic", message.topic.encode()),
            ("partition", str(message.partition).encode()),
            ("offset", str(message.offset).encode()),
        ]
        self.producer.send(self.topics.dead, key=message.key, value=message.value, headers=headers)

    # Coming and going -----------------------------------------------------------------------------

    def revoked(self, lost: bool) -> None:
        """The group is about to share out anew, or has done so without us."""
        keep_rejoining(self.consumer)
        with self._lock:
            self._turn += 1
            self._fresh = None
            self._waits = time.monotonic()
            if not lost and not self._lost:
                try:
                    self.commit()
                except Exception as error:
                    lost = True
                    log.warning("what was under way could not be committed: %r", error)
            if lost and self.holds:
                self._lost = "the group went on without this member"
            self._drop()

    def assigned(self, places: list[TopicPartition]) -> None:
        """The group has shared out."""
        with self._lock:
            self._fresh = places

    def leave(self) -> None:
        """Finish, commit and leave the group. Raises LostError or KafkaError."""
        try:
            with self._lock:
                self._check()
                self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave without a commit: what was not committed is somebody else's."""
        with self._lock:
            self._lost = self._lost or "it was abandoned"
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
        """Messages that wait, by topic and partition."""
        found = {}
        for place in self.consumer.assignment():
            high = self.consumer.highwater(place)
            position = self.positions.get(place)
            if high is not None and position is not None:
                found[f"{place.topic}/{place.partition}"] = max(0, high - position)
        return found


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, member: Membership) -> None:
        self._member = member

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._member.revoked(lost=False)

    def on_partitions_lost(self, lost: Any) -> None:
        self._member.revoked(lost=True)

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._member.assigned(list(assigned))
