"""From the spool to Kafka, on a thread of its own, in the order in which blocks were numbered.

Of blocks at most one message for a partition is under way. A message that fails is sent again
before the next one, by whatever producer, so a consumer sees the numbers of a source rise: one that
it has seen is a copy, and one that is missing is missing for good. Throughput comes from partitions
and from blocks that hold many records.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import ConfigError, KafkaTroubleError, LogError
from understudy.monitor.evidence.blocks import Heartbeat, encode
from understudy.monitor.kafka.client import describe_error, forget, refused
from understudy.monitor.kafka.connect import Topics, connection
from understudy.monitor.kafka.outbox import LABELS, RECORDS, OutboxMessage
from understudy.monitor.kafka.patches import close_now
from understudy.monitor.kafka.topics import MOST_MESSAGE_BYTES
from understudy.monitor.records.log import Spool

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
AHEAD_BYTES = 16 * 1024 * 1024
"""Of entries that were read and are not acknowledged."""
AHEAD_ENTRIES = 8192
MOST_BLOCKS = 64
"""Of a partition that the client may have at once: it sends them as one batch, so that what has
waited in the spool is sent much faster than one by one."""
MOST_EVENTS = 256
"""CloudEvents of one partition that may be under way: they carry no numbers."""
_STOP_SECONDS = 1.0
_PAUSES = (0.25, 5.0)
_NEVER_MS = 2**31 - 1

Place = tuple[int, int]
"""(kind, partition)"""


@dataclass(slots=True)
class Figures:
    """Counts since the process started; ``last_answer`` is monotonic, 0 before the first."""

    messages: int = 0
    records: int = 0
    labels: int = 0
    bytes: int = 0
    heartbeats: int = 0
    too_large: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """By class of the error."""
    connected: bool = False
    last_answer: float = 0.0
    error: str | None = None


@dataclass(slots=True)
class _Waiting:
    index: int
    parcel: OutboxMessage
    records: int


class Sender:
    """Sends what ``spool`` holds. ``heartbeats(now)`` are those to send, asked for while nothing
    waits; ``acknowledged(index)`` is describe_error when entries before ``index`` are done with."""

    def __init__(
        self,
        kafka: Kafka,
        spool: Spool,
        heartbeats: Callable[[float], Sequence[Heartbeat]],
        acknowledged: Callable[[int], None] = lambda index: None,
    ) -> None:
        self.figures = Figures()
        self._kafka = kafka
        self._spool = spool
        self._heartbeats = heartbeats
        self._acknowledged = acknowledged
        topics = Topics(kafka.prefix)
        self._topics = {RECORDS: topics.records, LABELS: topics.labels}
        self._at_once = MOST_BLOCKS if kafka.format == "blocks" else MOST_EVENTS
        self._events: queue.SimpleQueue[tuple[Place, _Waiting, Any] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._refused: str | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-sender", daemon=True)
        self._reset()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is more in the spool."""
        self._events.put(None)

    def stop(self) -> None:
        """End soon; what is not acknowledged stays in the spool."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)  # it may wait for a broker, and has nothing to lose

    @property
    def state(self) -> str:
        """``connecting``, ``sending``, ``stalled`` (Kafka does not answer) or ``error``."""
        if self.figures.error is not None:
            return "error"
        if not self.figures.connected:
            return "connecting"
        silent = time.monotonic() - max(self.figures.last_answer, self._since)
        return "stalled" if self._under_way and silent > self._kafka.timeout else "sending"

    # ---------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._queues: dict[Place, deque[_Waiting]] = {}
        self._out: Counter[Place] = Counter()
        self._under_way = 0
        self._order: deque[int] = deque()
        """Indices of entries that were read and are not acknowledged."""
        self._done: set[int] = set()
        self._ahead = 0
        self._read = 0
        self._since = time.monotonic()
        self._round = object()
        """Answers of an earlier producer are none of ours."""

    def _run(self) -> None:
        forget()  # what others were describe_error is not about this connection
        pause = _PAUSES[0]
        while not self._stopping.is_set():
            producer = None
            try:
                self._spool.rewind()
                self._reset()
                producer = self._connect()
                forget()
                self.figures.connected, self.figures.error, self._refused = True, None, None
                pause = _PAUSES[0]
                self._serve(producer)
            except (KafkaError, KafkaTroubleError, ConfigError, LogError, OSError) as error:
                self._trouble(error)
            except Exception as error:
                log.exception("the sender of blocks failed")
                self._trouble(error)
            finally:
                self.figures.connected = False
                if producer is not None:
                    # Nothing of it may arrive after what the next one sends.
                    close_now(producer)
            self._stopping.wait(pause)
            pause = min(pause * 2, _PAUSES[1])

    def _trouble(self, error: Exception) -> None:
        name = type(error).__name__
        text = describe_error(error)
        self.figures.failures[name] += 1
        if self._refused is None and refused(error):
            self._refused = text
        # Wrong credentials are what there is to mend, whatever later tries end in.
        text = self._refused or text
        if text != self.figures.error:
            log.error("Kafka: %s; blocks wait in the spool", text)
        self.figures.error = text

    def _connect(self) -> KafkaProducer:
        kafka = self._kafka
        events = kafka.format != "blocks"
        producer = KafkaProducer(
            **connection(kafka),
            acks="all",
            enable_idempotence=True,
            # Only the spool gives up, and it knows what it has dropped.
            delivery_timeout_ms=_NEVER_MS,
            max_block_ms=round(kafka.timeout * 1000),
            max_request_size=MOST_MESSAGE_BYTES,
            batch_size=256 * 1024,
            linger_ms=20 if events else 5,
            # One batch after another: blocks are numbered, and must not overtake each other.
            max_in_flight_requests_per_connection=5 if events else 1,
            compression_type=None
            if not events or kafka.compression == "none"
            else kafka.compression,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            for topic in self._topics.values():
                there = len(producer.partitions_for(topic) or ())
                if there != kafka.partitions:
                    found = f"has {there} partitions" if there else "there is no such topic"
                    raise KafkaTroubleError(
                        f"{topic}: {found}, and the configuration says {kafka.partitions}; see"
                        " `understudy kafka init`"
                    )
        except BaseException:
            close_now(producer)
            raise
        return producer

    def _serve(self, producer: KafkaProducer) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            if self._fill():
                for place in list(self._queues):
                    self._send(producer, place)
            now = time.monotonic()
            if now >= due:
                due = now + HEARTBEAT_SECONDS
                if not self._under_way and not self._read:
                    self._beat(producer)
            self._wait(producer, max(0.0, due - now))

    def _fill(self) -> bool:
        """Read on, as far as there is room; whether there is something to send."""
        while self._ahead < AHEAD_BYTES and self._read < AHEAD_ENTRIES:
            entries = self._spool.read(AHEAD_BYTES // 4)
            if not entries:
                break
            for entry in entries:
                parcel = OutboxMessage.unpack(entry.data)
                place = parcel.kind, parcel.partition
                waiting = _Waiting(entry.index, parcel, entry.records)
                self._queues.setdefault(place, deque()).append(waiting)
                self._order.append(entry.index)
                self._ahead += len(parcel.value)
                self._read += 1
        return bool(self._queues)

    def _send(self, producer: KafkaProducer, place: Place) -> None:
        waiting = self._queues[place]
        while waiting and self._out[place] < self._at_once:
            one = waiting.popleft()
            parcel, this = one.parcel, self._round
            self._out[place] += 1
            self._under_way += 1
            try:
                future = producer.send(
                    self._topics[parcel.kind],
                    parcel.value,
                    key=parcel.key,
                    partition=parcel.partition,
                    headers=list(parcel.headers),
                )
            except MessageSizeTooLargeError as error:
                self._events.put((place, one, (this, error)))
                continue
            future.add_both(self._answered, place, one, this)
        if not waiting:
            del self._queues[place]

    def _answered(self, place: Place, one: _Waiting, this: object, said: Any) -> None:
        """On the producer's thread."""
        self._events.put((place, one, (this, said)))

    def _wait(self, producer: KafkaProducer, patience: float) -> None:
        """Take what comes, and send on; returns when there may be more in the spool."""
        try:
            event = self._events.get(timeout=patience)
            while True:
                if event is not None and event[2][0] is self._round:
                    place, one, (_, said) = event
                    self._finish(place, one, said)
                    if place in self._queues:
                        self._send(producer, place)
                event = self._events.get_nowait()
        except queue.Empty:
            pass
        self._acknowledge()

    def _finish(self, place: Place, one: _Waiting, said: Any) -> None:
        figures = self.figures
        self._out[place] -= 1
        self._under_way -= 1
        if isinstance(said, MessageSizeTooLargeError):
            figures.failures[type(said).__name__] += 1
            figures.too_large += one.records
            log.error(
                "a message of %d bytes is too large for Kafka: dropped", len(one.parcel.value)
            )
        elif isinstance(said, BaseException):
            raise said
        else:
            figures.last_answer = time.monotonic()
            if one.index >= self._spool.cursor:  # what the spool had dropped is counted there
                figures.messages += 1
                figures.bytes += len(one.parcel.value)
                if one.parcel.kind == LABELS:
                    figures.labels += one.records
                else:
                    figures.records += one.records
        self._ahead -= len(one.parcel.value)
        self._read -= 1
        self._done.add(one.index)

    def _acknowledge(self) -> None:
        """Release what is done with, up to the first entry that is not."""
        index = -1
        while self._order and self._order[0] in self._done:
            index = self._order.popleft()
            self._done.remove(index)
        if index >= 0:
            self._spool.acknowledge(index + 1)
            self._acknowledged(index + 1)

    def _beat(self, producer: KafkaProducer) -> None:
        for beat in self._heartbeats(time.time()):
            producer.send(self._topics[RECORDS], encode(beat), partition=beat.head.partition)
            self.figures.heartbeats += 1
