"""Sends the spool to Kafka, on a separate thread, in the order in which blocks were numbered.

At most one batch of blocks per partition is in flight. A message that fails is sent again before
the next one, also by a new producer, so a consumer sees the numbers of a source increase: a number
that it has seen is a duplicate, and a gap is a loss. Throughput comes from partitions and from
blocks that hold many records.
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
from understudy.monitor.kafka.client import describe_error, forget_errors, is_credentials_error
from understudy.monitor.kafka.connect import Topics, connection
from understudy.monitor.kafka.outbox import LABELS, RECORDS, OutboxMessage
from understudy.monitor.kafka.patches import close_now
from understudy.monitor.kafka.topics import MOST_MESSAGE_BYTES
from understudy.monitor.records.log import Spool

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
MAX_UNACKNOWLEDGED_BYTES = 16 * 1024 * 1024
"""Bytes of entries that were read from the spool and are not acknowledged."""
MAX_UNACKNOWLEDGED_ENTRIES = 8192
MAX_BLOCKS_IN_FLIGHT = 64
"""Blocks of one partition that the client may hold: it sends them as one batch, so a backlog in the
spool is sent much faster than one by one."""
MAX_EVENTS_IN_FLIGHT = 256
"""CloudEvents of one partition that may be in flight: they carry no numbers."""
_STOP_SECONDS = 1.0
_PAUSES = (0.25, 5.0)
_NEVER_MS = 2**31 - 1

Target = tuple[int, int]
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
    """By class name of the error."""
    connected: bool = False
    last_answer: float = 0.0
    error: str | None = None


@dataclass(slots=True)
class _Waiting:
    index: int
    message: OutboxMessage
    records: int


class Sender:
    """Sends the entries of ``spool``.

    ``heartbeats(now)`` returns the heartbeats to send; it is called while nothing waits.
    ``acknowledged(index)`` is called when all entries before ``index`` are in Kafka or dropped."""

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
        self._max_in_flight = (
            MAX_BLOCKS_IN_FLIGHT if kafka.format == "blocks" else MAX_EVENTS_IN_FLIGHT
        )
        self._events: queue.SimpleQueue[tuple[Target, _Waiting, Any] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._credentials_error: str | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-sender", daemon=True)
        self._reset()

    def start(self) -> None:
        """Start the sender's thread."""
        self._thread.start()

    def wake(self) -> None:
        """Signal that the spool has new entries."""
        self._events.put(None)

    def stop(self) -> None:
        """Stop; entries that are not acknowledged stay in the spool."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)  # it may be waiting for a broker; nothing is lost

    @property
    def state(self) -> str:
        """``connecting``, ``sending``, ``stalled`` (Kafka does not answer) or ``error``."""
        if self.figures.error is not None:
            return "error"
        if not self.figures.connected:
            return "connecting"
        silent = time.monotonic() - max(self.figures.last_answer, self._since)
        return "stalled" if self._total_in_flight and silent > self._kafka.timeout else "sending"

    # ---------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._queues: dict[Target, deque[_Waiting]] = {}
        self._in_flight: Counter[Target] = Counter()
        self._total_in_flight = 0
        self._order: deque[int] = deque()
        """Indices of entries that were read from the spool and are not acknowledged."""
        self._finished: set[int] = set()
        self._unacknowledged_bytes = 0
        self._unacknowledged = 0
        self._since = time.monotonic()
        self._round = object()
        """Identifies the producer; responses to an earlier one are ignored."""

    def _run(self) -> None:
        forget_errors()  # earlier errors are of other connections
        pause = _PAUSES[0]
        while not self._stopping.is_set():
            producer = None
            try:
                self._spool.rewind()
                self._reset()
                producer = self._connect()
                forget_errors()
                self.figures.connected, self.figures.error, self._credentials_error = (
                    True,
                    None,
                    None,
                )
                pause = _PAUSES[0]
                self._serve(producer)
            except (KafkaError, KafkaTroubleError, ConfigError, LogError, OSError) as error:
                self._report(error)
            except Exception as error:
                log.exception("the sender of blocks failed")
                self._report(error)
            finally:
                self.figures.connected = False
                if producer is not None:
                    # None of its messages may arrive after those of the next producer.
                    close_now(producer)
            self._stopping.wait(pause)
            pause = min(pause * 2, _PAUSES[1])

    def _report(self, error: Exception) -> None:
        name = type(error).__name__
        text = describe_error(error)
        self.figures.failures[name] += 1
        if self._credentials_error is None and is_credentials_error(error):
            self._credentials_error = text
        # Report wrong credentials, the cause, not how later attempts end.
        text = self._credentials_error or text
        if text != self.figures.error:
            log.error("Kafka: %s; records stay in the spool until it is reachable", text)
        self.figures.error = text

    def _connect(self) -> KafkaProducer:
        kafka = self._kafka
        events = kafka.format != "blocks"
        producer = KafkaProducer(
            **connection(kafka),
            acks="all",
            enable_idempotence=True,
            # Only the spool drops messages, and counts them.
            delivery_timeout_ms=_NEVER_MS,
            max_block_ms=round(kafka.timeout * 1000),
            max_request_size=MOST_MESSAGE_BYTES,
            batch_size=256 * 1024,
            linger_ms=20 if events else 5,
            # One batch at a time: blocks are numbered and must stay in order.
            max_in_flight_requests_per_connection=5 if events else 1,
            compression_type=None
            if not events or kafka.compression == "none"
            else kafka.compression,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            for topic in self._topics.values():
                count = len(producer.partitions_for(topic) or ())
                if count != kafka.partitions:
                    actual = f"has {count} partitions" if count else "there is no such topic"
                    raise KafkaTroubleError(
                        f"{topic}: {actual}, but kafka.partitions is {kafka.partitions}; see"
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
                for target in list(self._queues):
                    self._send(producer, target)
            now = time.monotonic()
            if now >= due:
                due = now + HEARTBEAT_SECONDS
                if not self._total_in_flight and not self._unacknowledged:
                    self._send_heartbeats(producer)
            self._wait(producer, max(0.0, due - now))

    def _fill(self) -> bool:
        """Read from the spool up to the bounds; return whether there is something to send."""
        while (
            self._unacknowledged_bytes < MAX_UNACKNOWLEDGED_BYTES
            and self._unacknowledged < MAX_UNACKNOWLEDGED_ENTRIES
        ):
            entries = self._spool.read(MAX_UNACKNOWLEDGED_BYTES // 4)
            if not entries:
                break
            for entry in entries:
                message = OutboxMessage.unpack(entry.data)
                target = message.kind, message.partition
                waiting = _Waiting(entry.index, message, entry.records)
                self._queues.setdefault(target, deque()).append(waiting)
                self._order.append(entry.index)
                self._unacknowledged_bytes += len(message.value)
                self._unacknowledged += 1
        return bool(self._queues)

    def _send(self, producer: KafkaProducer, target: Target) -> None:
        waiting = self._queues[target]
        while waiting and self._in_flight[target] < self._max_in_flight:
            entry = waiting.popleft()
            message, round_ = entry.message, self._round
            self._in_flight[target] += 1
            self._total_in_flight += 1
            try:
                future = producer.send(
                    self._topics[message.kind],
                    message.value,
                    key=message.key,
                    partition=message.partition,
                    headers=list(message.headers),
                )
            except MessageSizeTooLargeError as error:
                self._events.put((target, entry, (round_, error)))
                continue
            future.add_both(self._answered, target, entry, round_)
        if not waiting:
            del self._queues[target]

    def _answered(self, target: Target, entry: _Waiting, round_: object, result: Any) -> None:
        """On the producer's thread."""
        self._events.put((target, entry, (round_, result)))

    def _wait(self, producer: KafkaProducer, patience: float) -> None:
        """Handle responses and send more; returns when the spool may have new entries."""
        try:
            event = self._events.get(timeout=patience)
            while True:
                if event is not None and event[2][0] is self._round:
                    target, entry, (_, result) = event
                    self._finish(target, entry, result)
                    if target in self._queues:
                        self._send(producer, target)
                event = self._events.get_nowait()
        except queue.Empty:
            pass
        self._acknowledge()

    def _finish(self, target: Target, entry: _Waiting, result: Any) -> None:
        figures = self.figures
        self._in_flight[target] -= 1
        self._total_in_flight -= 1
        if isinstance(result, MessageSizeTooLargeError):
            figures.failures[type(result).__name__] += 1
            figures.too_large += entry.records
            log.error(
                "a message of %d bytes is too large for Kafka: dropped", len(entry.message.value)
            )
        elif isinstance(result, BaseException):
            raise result
        else:
            figures.last_answer = time.monotonic()
            if entry.index >= self._spool.cursor:  # the spool counts what it dropped
                figures.messages += 1
                figures.bytes += len(entry.message.value)
                if entry.message.kind == LABELS:
                    figures.labels += entry.records
                else:
                    figures.records += entry.records
        self._unacknowledged_bytes -= len(entry.message.value)
        self._unacknowledged -= 1
        self._finished.add(entry.index)

    def _acknowledge(self) -> None:
        """Release finished entries, up to the first that is not."""
        index = -1
        while self._order and self._order[0] in self._finished:
            index = self._order.popleft()
            self._finished.remove(index)
        if index >= 0:
            self._spool.acknowledge(index + 1)
            self._acknowledged(index + 1)

    def _send_heartbeats(self, producer: KafkaProducer) -> None:
        for beat in self._heartbeats(time.time()):
            producer.send(self._topics[RECORDS], encode(beat), partition=beat.head.partition)
            self.figures.heartbeats += 1
