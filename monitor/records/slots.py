"""What the evaluation plane has received from each worker slot.

A slot is one worker's place in one run of the service; the worker in it may be restarted and goes
on with the numbering of its batches. Part of the saved state: after a restart a worker learns from
it which batches to send again, and none is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from understudy.monitor.errors import StateError

MAX_SLOTS = 1024
"""More slots than this are not remembered; the oldest is forgotten."""


@dataclass(slots=True)
class Slot:
    """Number of the last batch that was taken in, and how many records there were in all."""

    last_seq: int = 0
    received: int = 0


class Slots:
    """Slots by (run, number)."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, int], Slot] = {}

    def of(self, run: str, number: int) -> Slot:
        """The slot, made when it is new."""
        key = (run, number)
        slot = self._slots.get(key)
        if slot is None:
            while len(self._slots) >= MAX_SLOTS:
                del self._slots[next(iter(self._slots))]
            slot = self._slots[key] = Slot()
        return slot

    def __iter__(self) -> Iterator[tuple[tuple[str, int], Slot]]:
        return iter(self._slots.items())

    def dump_state(self) -> list[dict[str, Any]]:
        """Plain data, for the state file."""
        return [
            {"run": run, "slot": number, "last_seq": slot.last_seq, "received": slot.received}
            for (run, number), slot in self._slots.items()
        ]

    @classmethod
    def from_state(cls, data: list[Mapping[str, Any]], run: str) -> Slots:
        """The slots of ``run``; those of earlier runs have no worker any more.

        Raises StateError when the data have another shape.
        """
        slots = cls()
        try:
            for item in data:
                if item["run"] == run:
                    slot = slots.of(run, int(item["slot"]))
                    slot.last_seq = int(item["last_seq"])
                    slot.received = int(item["received"])
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"slots in the saved state: {error!r}") from error
        return slots
