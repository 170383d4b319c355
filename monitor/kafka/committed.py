"""What a group has committed, read by a client that is no member of it.

The group's callbacks come from the member's own client and wait for the member's lock, so whatever
is asked under that lock has to be asked of another client.
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
"""Of one partition at once."""
PATIENCE_SECONDS = 30.0
"""How long brokers may say nothing while there is more to read."""


class Committed:
    """``group`` is whose offsets they are, ``states`` the topic of the states; ``pulse`` is called
    again and again while much is read, and raises what it is to end with."""

    def __init__(
        self,
        common: dict[str, Any],
        group: str,
        states: str,
        pulse: Callable[[], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._states = states
        self._pulse = pulse
        self._patience = patience
        self._consumer = KafkaConsumer(
            **common,
            group_id=group,  # to ask what is committed; it does not join
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # where retention was quicker than we are
            fetch_max_bytes=FETCH_BYTES * 4,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    def __enter__(self) -> Committed:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1000)

    def offset(self, place: TopicPartition) -> OffsetAndMetadata | None:
        """What is committed, once no transaction is open that may still change it."""
        found = self._consumer.committed(place, metadata=True)
        return found if found is not None and found.offset >= 0 else None

    def begin(self, place: TopicPartition) -> tuple[int, Pointer | None]:
        """The offset to go on from, and where the state lies that belongs to it."""
        found = self.offset(place)
        if found is None:
            return self._first(place), None
        return found.offset, Pointer.parse(found.metadata or "")

    def state(self, name: str, pointer: Pointer) -> dict[str, Any]:
        """The state ``name``. Raises SnapshotError when it is damaged."""
        return read_state(name, pointer, self._pairs)

    def _pairs(self, partition: int, begin: int) -> Iterator[tuple[bytes, bytes]]:
        for message in self.messages(TopicPartition(self._states, partition), begin):
            yield message.key or b"", message.value or b""

    def ends(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """One more than the offset of the last message. Raises KafkaError."""
        with _led():
            found: dict[TopicPartition, int] = self._consumer.end_offsets(list(places))
            return found

    def _first(self, place: TopicPartition) -> int:
        with _led():
            found: int = self._consumer.beginning_offsets([place])[place]
            return found

    def at(self, place: TopicPartition, moment: float) -> int:
        """Where to read from for all messages since a unix time: at the first of them, or, where it
        is not known which that is, at the first of all."""
        if moment <= 0.0:
            return self._first(place)
        found = self._consumer.offsets_for_times({place: int(moment * 1000)}).get(place)
        # kafka-python says None where there is none, and also of a partition without a leader.
        return found.offset if found is not None else self._first(place)

    def messages(self, place: TopicPartition, begin: int) -> Iterator[Any]:
        """All from an offset to what is the end now.

        Raises KafkaTimeoutError when brokers fall silent before: who took that for the end would go
        on without what is missing.
        """
        consumer = self._consumer
        consumer.assign([place])
        consumer.seek(place, begin)
        end = self.ends([place])[place]
        heard = time.monotonic()
        while (position := consumer.position(place)) < end:
            for messages in consumer.poll(timeout_ms=200).values():
                for message in messages:
                    self._pulse()
                    yield message
            self._pulse()
            if consumer.position(place) > position:  # also by what was compacted away or aborted
                heard = time.monotonic()
            elif time.monotonic() - heard > self._patience:
                raise KafkaTimeoutError(
                    f"{place.topic}/{place.partition}: brokers are silent at offset {position}"
                    f" of {end}"
                )


@contextmanager
def _led() -> Iterator[None]:
    try:
        yield
    except KeyError as error:  # what kafka-python makes of a partition without a leader
        raise LeaderNotAvailableError(f"{error}") from error
