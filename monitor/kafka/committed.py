"""Reads what a group has committed, with a client that is not a member of it.

The group's callbacks run on the member's own client and wait for the member's lock, so requests
made under that lock need another client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError, LeaderNotAvailableError

from understudy.monitor.kafka.snapshots import Pointer, read_state

FETCH_BYTES = 8 * 1024 * 1024
"""Maximum bytes of one fetch from one partition."""
PATIENCE_SECONDS = 30.0
"""How long brokers may send nothing while there is more to read."""


class CommittedReader:
    """A context manager. ``common`` are kafka-python settings, ``group`` is the group whose offsets
    are read, ``states`` the state topic. ``keep_alive`` is called repeatedly while messages are
    read; what it raises ends the reading. ``patience`` is in seconds."""

    def __init__(
        self,
        common: dict[str, Any],
        group: str,
        states: str,
        keep_alive: Callable[[], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._states = states
        self._keep_alive = keep_alive
        self._patience = patience
        self._consumer = KafkaConsumer(
            **common,
            group_id=group,  # to read its committed offsets; this client does not join
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # where retention has deleted the offset
            fetch_max_bytes=FETCH_BYTES * 4,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    def __enter__(self) -> CommittedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1000)

    def offset(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        """The committed offset, once no open transaction can change it; None if there is none."""
        result = self._consumer.committed(tp, metadata=True)
        return result if result is not None and result.offset >= 0 else None

    def begin(self, tp: TopicPartition) -> tuple[int, Pointer | None]:
        """The offset to resume from, and a pointer to the state saved with it, if any."""
        result = self.offset(tp)
        if result is None:
            return self._first_offset(tp), None
        return result.offset, Pointer.parse(result.metadata or "")

    def state(self, name: str, pointer: Pointer) -> dict[str, Any]:
        """The state ``name``. Raises SnapshotError when it is missing or damaged."""
        return read_state(name, pointer, self._pairs)

    def _pairs(self, partition: int, begin: int) -> Iterator[tuple[bytes, bytes]]:
        for message in self.messages(TopicPartition(self._states, partition), begin):
            yield message.key or b"", message.value or b""

    def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The end offset of each partition: the last offset plus one. Raises KafkaError."""
        with _requires_leader():
            result: dict[TopicPartition, int] = self._consumer.end_offsets(list(tps))
            return result

    def _first_offset(self, tp: TopicPartition) -> int:
        with _requires_leader():
            result: int = self._consumer.beginning_offsets([tp])[tp]
            return result

    def at(self, tp: TopicPartition, moment: float) -> int:
        """The offset from which to read all messages since unix time ``moment``: of the first such
        message, or the first offset of the partition if that is unknown."""
        if moment <= 0.0:
            return self._first_offset(tp)
        result = self._consumer.offsets_for_times({tp: int(moment * 1000)}).get(tp)
        # kafka-python returns None if there is none, and also for a partition without a leader.
        return result.offset if result is not None else self._first_offset(tp)

    def messages(self, tp: TopicPartition, begin: int) -> Iterator[Any]:
        """All messages from offset ``begin`` to the present end.

        Raises KafkaTimeoutError when brokers stop sending before the end, so that missing messages
        are never mistaken for the end.
        """
        consumer = self._consumer
        consumer.assign([tp])
        consumer.seek(tp, begin)
        end = self.ends([tp])[tp]
        last_progress = time.monotonic()
        while (position := consumer.position(tp)) < end:
            for messages in consumer.poll(timeout_ms=200).values():
                for message in messages:
                    self._keep_alive()
                    yield message
            self._keep_alive()
            if consumer.position(tp) > position:  # also by what was compacted away or aborted
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > self._patience:
                raise KafkaTimeoutError(
                    f"{tp.topic}/{tp.partition}: brokers are silent at offset {position} of {end}"
                )


@contextmanager
def _requires_leader() -> Iterator[None]:
    try:
        yield
    except KeyError as error:  # kafka-python's error for a partition without a leader
        raise LeaderNotAvailableError(f"{error}") from error
