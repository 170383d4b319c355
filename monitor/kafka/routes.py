"""Routes from evaluators to sidecars: the compacted topic ``<prefix>.routes``, of one partition.

The key of a message is an experiment, its value the active assignment; a message without a value
ends the experiment, and one more message lists all experiments. Two mechanisms ensure that only one
controller writes at a time:

* Controllers share a transactional id. When one starts, the broker rejects all further writes of
  the previous one.
* A controller first writes a claim. The claim's offset is the controller's *epoch*: it is part of
  each of its messages and grows from controller to controller. Readers reject messages of an epoch
  below the newest that they know.
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
    """The controller's end. Call :meth:`claim` before :meth:`publish`.

    ``who`` names the controller in messages and logs. Methods wait for Kafka, so call them from a
    thread. They raise FencedError once another controller has claimed, and KafkaTroubleError when
    Kafka cannot be reached; construct a new writer after either.
    """

    def __init__(self, kafka: Kafka, who: str) -> None:
        self.who = who
        self.epoch: int | None = None
        """Offset of this controller's claim; None before the claim."""
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
        """Become the controller and fence off the previous one; return the new epoch."""
        value = {"version": _VERSION, "who": self.who, "at": time.time()}
        try:
            self._producer.init_transactions()
            self.epoch = self._write([(_CLAIM, value)])
        except KafkaError as error:
            raise self._error(error) from error
        return self.epoch

    def publish(
        self,
        assignments: Mapping[str, Assignment],
        ended: Iterable[str] = (),
        declared: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Publish assignments by experiment, in one transaction.

        Assignments published since the claim stay active, so the first call must include all.
        ``declared`` are the experiments that are in no configuration file, as plain data; ``ended``
        are the experiments that have ended."""
        if self.epoch is None:
            raise FencedError(f"{self._topic}: {self.who} has not claimed it")
        header = {"version": _VERSION, "epoch": self.epoch, "who": self.who, "at": time.time()}
        messages: list[tuple[bytes, dict[str, Any] | None]] = [
            (
                name.encode(),
                {
                    **header,
                    "assignment": assignment.to_dict(),
                    "declared": (declared or {}).get(name),
                },
            )
            for name, assignment in assignments.items()
        ]
        ended_names = set(ended)
        names = (self._names | set(assignments)) - ended_names
        messages += [(name.encode(), None) for name in sorted(ended_names)]
        messages.append((_INDEX, {**header, "experiments": sorted(names)}))
        try:
            self._write(messages)
        except KafkaError as error:
            raise self._error(error) from error
        self._names = names

    def close(self) -> None:
        """Close the producer. The next to claim becomes the controller."""
        self._producer.close(timeout=1)

    def _write(self, messages: Iterable[tuple[bytes, dict[str, Any] | None]]) -> int:
        """Write messages in one transaction; return the offset of the first."""
        # A message without a value can carry the epoch only in its headers.
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
            for future in sent:  # the cause is more specific than the failed commit
                if future.failed() and isinstance(future.exception, _FENCED):
                    raise future.exception from None
            raise
        return int(sent[0].get(timeout=10).offset)

    def _error(self, error: KafkaError) -> KafkaTroubleError:
        if isinstance(error, _FENCED) or _is_fenced(error):
            self.epoch = None
            return FencedError(f"{self._topic}: {self.who} is no longer the controller")
        return KafkaTroubleError(f"{self._topic}: {describe_error(error)}")


def _is_fenced(error: KafkaError) -> bool:
    cause = error.__cause__ or error.__context__
    return any(name in repr(error) for name in ("Fenced", "InvalidProducerEpoch")) or isinstance(
        cause, _FENCED
    )


@dataclass(slots=True)
class RouteTable:
    """The state of the topic: assignments by experiment, under the newest epoch.

    ``names`` are all experiments; None until a controller has published them. ``refused`` counts
    messages of replaced controllers, ``faulty`` messages that could not be read.
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
        """Apply a message; return whether the assignments have changed."""
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
                log.warning("routes of %r rejected: epoch %d, current %d", name, epoch, self.epoch)
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
            log.error("routes: message at offset %d cannot be read: %r", offset, error)
            return False
        self.epoch = epoch
        self.who = str(data.get("who", ""))
        previous = self.assignments.get(name), self.declared.get(name)
        self.assignments[name] = assignment
        if declared is not None:
            self.declared[name] = dict(declared)
        else:
            self.declared.pop(name, None)
        return previous != (assignment, self.declared.get(name))

    def _claimed(self, offset: int, data: Mapping[str, Any] | None) -> None:
        if data is not None and offset > self.epoch:
            self.epoch = offset
            self.who = str(data.get("who", ""))

    def routes(self) -> Routes:
        """Routes for the supervisor, without experiments that have ended."""
        names = self.names or frozenset()
        return Routes(
            {name: one for name, one in self.assignments.items() if name in names},
            tuple(data for name, data in self.declared.items() if name in names),
        )


class RouteReader:
    """A sidecar's end: reads the topic from its beginning, then follows it.

    ``apply`` is called, on the reader's thread, with the routes once the whole topic has been read
    and after each change; when it returns False or raises, it is called again. Messages of a
    replaced controller follow its successor's claim, which compaction keeps, so a reader that
    starts from the beginning rejects them too. ``caught_up`` is whether the end of the topic was
    reached, ``error`` the current error.
    """

    def __init__(self, kafka: Kafka, apply: Callable[[Routes], bool]) -> None:
        self._kafka = kafka
        self._topic = Topics(kafka.prefix).routes
        self._apply = apply
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-routes", daemon=True)
        self.table = RouteTable()
        self.caught_up = False
        self.error: str | None = None
        self.applied = 0
        """Number of times that routes were applied."""

    def start(self) -> None:
        """Start the reader's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; waits only briefly, since the thread may be waiting for a broker."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = 0.5
        while not self._stopping.is_set():
            try:
                self._read()
                pause = 0.5
            except Exception as error:  # retried; the active routes stay
                text = f"{self._topic}: {describe_error(error)}"
                if text != self.error:
                    log.error("%s; the current routes stay active", text)
                self.error = text
                self._stopping.wait(pause)
                pause = min(pause * 2, 10.0)

    def _read(self) -> None:
        """Follow the topic until an error occurs."""
        table = RouteTable(refused=self.table.refused, faulty=self.table.faulty)
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
            tp = TopicPartition(self._topic, 0)
            if not consumer.partitions_for_topic(self._topic):
                raise KafkaTroubleError(
                    "there is no such topic; `understudy kafka init` creates it"
                )
            consumer.assign([tp])
            consumer.seek_to_beginning(tp)
            end = consumer.end_offsets([tp])[tp]
            self.table, self.caught_up = table, False
            unapplied = True
            while not self._stopping.is_set():
                for records in consumer.poll(timeout_ms=round(_POLL_SECONDS * 1000)).values():
                    for record in records:
                        headers = dict(record.headers or ())
                        unapplied |= table.take(record.offset, record.key, record.value, headers)
                self.error = None
                if not self.caught_up and consumer.position(tp) >= end:
                    self.caught_up = True
                # Without a controller there are no routes to apply.
                has_routes = self.caught_up and table.names is not None
                if has_routes and unapplied and self._apply(table.routes()):
                    self.applied += 1
                    unapplied = False
        finally:
            consumer.close()
