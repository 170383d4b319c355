"""Assignments on their way back: the compacted topic ``<prefix>.routes``, of one partition.

The key of a message is an experiment, its value the assignment that is in force for it; a message
without a value ends the experiment, and one more says which experiments there are. One controller
writes at a time, which two things make sure of:

* Controllers share a transactional id. When one begins, the broker refuses whatever an earlier one
  still wants to write.
* A controller first writes a claim, and the offset that Kafka gives to it is the controller's
  *epoch*: it stands in each of its messages and grows from controller to controller. Readers refuse
  a message of an epoch below the newest that they know of, wherever it comes from.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import FencedError, KafkaTroubleError
from understudy.monitor.kafka.client import describe_error
from understudy.monitor.kafka.connect import Topics, connection
from understudy.monitor.routing.routes import Assignment, Routes

log = logging.getLogger(__name__)

_VERSION = 1
_CLAIM = b"\x00controller"
_INDEX = b"\x00experiments"
_POLL_SECONDS = 0.5
_STOP_SECONDS = 1.0
_FENCED = (ProducerFencedError, InvalidProducerEpochError)


class RouteWriter:
    """The controller's end. Nothing may be published before :meth:`claim`.

    ``who`` names the controller in messages and logs. Methods wait for Kafka, so call them from a
    thread; they raise FencedError once another controller has claimed, and KafkaTroubleError where
    Kafka cannot be reached. After either make a new writer.
    """

    def __init__(self, kafka: Kafka, who: str) -> None:
        self.who = who
        self.epoch: int | None = None
        """Offset of our claim."""
        self._names: set[str] = set()
        self._topic = Topics(kafka.prefix).routes
        milliseconds = round(kafka.timeout * 1000)
        try:
            self._producer = KafkaProducer(
                **connection(kafka),
                transactional_id=f"{kafka.prefix}.controller",
                transaction_timeout_ms=max(10_000, milliseconds),
                max_block_ms=3 * milliseconds,
                delivery_timeout_ms=3 * milliseconds,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        except KafkaError as error:
            raise KafkaTroubleError(f"{self._topic}: {describe_error(error)}") from error

    def claim(self) -> int:
        """Become the controller, and fence off the one before; the new epoch."""
        value = {"version": _VERSION, "who": self.who, "at": time.time()}
        try:
            self._producer.init_transactions()
            self.epoch = self._write([(_CLAIM, value)])
        except KafkaError as error:
            raise self._trouble(error) from error
        return self.epoch

    def publish(
        self,
        assignments: Mapping[str, Assignment],
        ended: Iterable[str] = (),
        declared: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Put assignments into force, by experiment, all at once; those that were published since
        the claim stay. So the first call must hold all. ``declared`` are those of them that no
        configuration file holds, as plain data; ``ended`` are experiments no more."""
        if self.epoch is None:
            raise FencedError(f"{self._topic}: {self.who} has not claimed it")
        said = {"version": _VERSION, "epoch": self.epoch, "who": self.who, "at": time.time()}
        messages: list[tuple[bytes, dict[str, Any] | None]] = [
            (
                name.encode(),
                {
                    **said,
                    "assignment": assignment.to_dict(),
                    "declared": (declared or {}).get(name),
                },
            )
            for name, assignment in assignments.items()
        ]
        gone = set(ended)
        names = (self._names | set(assignments)) - gone
        messages += [(name.encode(), None) for name in sorted(gone)]
        messages.append((_INDEX, {**said, "experiments": sorted(names)}))
        try:
            self._write(messages)
        except KafkaError as error:
            raise self._trouble(error) from error
        self._names = names

    def close(self) -> None:
        """Let go of it; whoever claims next is the controller."""
        self._producer.close(timeout=1)

    def _write(self, messages: Iterable[tuple[bytes, dict[str, Any] | None]]) -> int:
        """One transaction; the offset of its first message."""
        # A message without a value cannot carry an epoch but in its headers.
        headers = [] if self.epoch is None else [("epoch", str(self.epoch).encode())]
        self._producer.begin_transaction()
        sent = [
            self._producer.send(
                self._topic,
                None if value is None else json.dumps(value).encode(),
                key=key,
                partition=0,
                headers=headers,
            )
            for key, value in messages
        ]
        try:
            self._producer.commit_transaction()
        except KafkaError:
            for future in sent:  # what it was that failed says more than that the commit did
                if future.failed() and isinstance(future.exception, _FENCED):
                    raise future.exception from None
            raise
        return int(sent[0].get(timeout=10).offset)

    def _trouble(self, error: KafkaError) -> KafkaTroubleError:
        if isinstance(error, _FENCED) or _mentions_fence(error):
            self.epoch = None
            return FencedError(f"{self._topic}: {self.who} is not the controller any more")
        return KafkaTroubleError(f"{self._topic}: {describe_error(error)}")


def _mentions_fence(error: KafkaError) -> bool:
    cause = error.__cause__ or error.__context__
    return any(name in repr(error) for name in ("Fenced", "InvalidProducerEpoch")) or isinstance(
        cause, _FENCED
    )


@dataclass(slots=True)
class Board:
    """What the messages of the topic add up to: assignments by experiment, under the newest epoch.

    ``names`` are the experiments that there are; None while no controller has said so. ``refused``
    counts messages of controllers that had been replaced, ``faulty`` those that could not be read.
    """

    epoch: int = -1
    who: str = ""
    assignments: dict[str, Assignment] = field(default_factory=dict)
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: frozenset[str] | None = None
    refused: int = 0
    faulty: int = 0

    def take(
        self, offset: int, key: bytes, value: bytes | None, headers: Mapping[str, bytes]
    ) -> bool:
        """Take in a message; whether assignments are others now."""
        try:
            data = None if value is None else json.loads(value)
            if data is not None and data["version"] != _VERSION:
                raise ValueError(f"version {data['version']!r} is not known")
            if key == _CLAIM:
                self._claimed(offset, data)
                return False
            epoch = int(headers["epoch"] if data is None else data["epoch"])
            name = key.decode()
            if epoch < self.epoch:
                self.refused += 1
                log.warning(
                    "routes of %r refused: epoch %d is over, %d is", name, epoch, self.epoch
                )
                return False
            if data is None:
                known = self.assignments.pop(name, None) is not None
                return (self.declared.pop(name, None) is not None) or known
            if key == _INDEX:
                before = self.names
                self.names, self.epoch = frozenset(map(str, data["experiments"])), epoch
                return self.names != before
            assignment = Assignment.from_dict(data["assignment"])
            declared = data.get("declared")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.faulty += 1
            log.error("a message at offset %d of the routes cannot be used: %r", offset, error)
            return False
        self.epoch = epoch
        self.who = str(data.get("who", ""))
        known_as = self.assignments.get(name), self.declared.get(name)
        self.assignments[name] = assignment
        if declared is not None:
            self.declared[name] = dict(declared)
        else:
            self.declared.pop(name, None)
        return known_as != (assignment, self.declared.get(name))

    def _claimed(self, offset: int, data: Mapping[str, Any] | None) -> None:
        if data is not None and offset > self.epoch:
            self.epoch = offset
            self.who = str(data.get("who", ""))

    def routes(self) -> Routes:
        """As the supervisor reads them; what is left of experiments no more is left out."""
        names = self.names or frozenset()
        return Routes(
            {name: one for name, one in self.assignments.items() if name in names},
            tuple(data for name, data in self.declared.items() if name in names),
        )


class RouteReader:
    """A sidecar's end: reads the topic from its beginning, then whatever comes.

    ``apply`` is called, on the reader's thread, with the routes once all of the topic has been read
    and after each change; what it could not do (it returns False or raises) is tried again. What a
    controller wrote that had been replaced stands after its successor's claim, which compaction
    keeps, so a reader that starts from the beginning refuses it as well. ``caught_up`` says whether
    the end of the topic was reached, ``error`` what the trouble is.
    """

    def __init__(self, kafka: Kafka, apply: Callable[[Routes], bool]) -> None:
        self._kafka = kafka
        self._topic = Topics(kafka.prefix).routes
        self._apply = apply
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-routes", daemon=True)
        self.board = Board()
        self.caught_up = False
        self.error: str | None = None
        self.applied = 0
        """Times that routes were put into force."""

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End; waits for it only shortly, since it may wait for a broker."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = 0.5
        while not self._stopping.is_set():
            try:
                self._read()
                pause = 0.5
            except Exception as error:  # another try; the assignment in force stays
                text = f"{self._topic}: {describe_error(error)}"
                if text != self.error:
                    log.error("%s; the present routes stay in force", text)
                self.error = text
                self._stopping.wait(pause)
                pause = min(pause * 2, 10.0)

    def _read(self) -> None:
        """Follow the topic until there is trouble."""
        board = Board(refused=self.board.refused, faulty=self.board.faulty)
        consumer = KafkaConsumer(
            **connection(self._kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            place = TopicPartition(self._topic, 0)
            if not consumer.partitions_for_topic(self._topic):
                raise KafkaTroubleError(
                    "there is no such topic; `understudy kafka init` creates it"
                )
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            end = consumer.end_offsets([place])[place]
            self.board, self.caught_up = board, False
            untold = True
            while not self._stopping.is_set():
                for records in consumer.poll(timeout_ms=round(_POLL_SECONDS * 1000)).values():
                    for record in records:
                        headers = dict(record.headers or ())
                        untold |= board.take(record.offset, record.key, record.value, headers)
                self.error = None
                if not self.caught_up and consumer.position(place) >= end:
                    self.caught_up = True
                # Where nobody ever steered there is nothing to put into force.
                steered = self.caught_up and board.names is not None
                if steered and untold and self._apply(board.routes()):
                    self.applied += 1
                    untold = False
        finally:
            consumer.close()
