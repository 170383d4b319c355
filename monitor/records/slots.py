"""What the evaluation plane has received from each worker slot.

A slot is the position of one worker in one run of the service; a restarted worker continues the
numbering of its batches. Slots are part of the saved state: after a restart a worker learns from
it which batches to resend, and none is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.monitor.errors import StateError

MAX_SLOTS = 1024
"""Maximum number of slots kept; the oldest is dropped."""


@dataclass(slots=True)
class Slot:
    """Number of the last batch received, and total number of records received."""

    last_seq: int = 0
    received: int = 0


class Slots:
    """Slots by (run, number)."""

    def __init__(self, known: bool = True) -> None:
        self._slots: dict[tuple[str, int], Slot] = {}
        self._earlier: dict[tuple[str, int], Slot] = {}
        """Slots of earlier runs, until their accounts are settled."""
        self._known = known

    def of(self, run: str, number: int) -> Slot:
        """The slot, created if it is new."""
        key = (run, number)
        slot = self._slots.get(key)
        if slot is None:
            while len(self._slots) >= MAX_SLOTS:
                del self._slots[next(iter(self._slots))]
            slot = self._slots[key] = Slot()
        return slot

    def received(self, run: str) -> int | None:
        """Records of an earlier run that the saved state includes; None if there was no readable
        state."""
        if not self._known:
            return None
        return sum(slot.received for (name, _), slot in self._earlier.items() if name == run)

    def forget(self, run: str) -> None:
        """The accounts of an earlier run are settled."""
        for key in [key for key in self._earlier if key[0] == run]:
            del self._earlier[key]

    def __iter__(self) -> Iterator[tuple[tuple[str, int], Slot]]:
        return iter(self._slots.items())

    def dump_state(self) -> list[dict[str, Any]]:
        """Plain data, for the state file."""
        return [
            {"run": run, "slot": number, "last_seq": slot.last_seq, "received": slot.received}
            for (run, number), slot in (*self._earlier.items(), *self._slots.items())
        ]

    @classmethod
    def from_state(cls, data: Sequence[Mapping[str, Any]], run: str) -> Slots:
        """The slots of ``run``, and those of earlier runs whose accounts are not settled.

        Raises StateError when the format differs.
        """
        slots = cls()
        try:
            for item in data:
                key = str(item["run"]), int(item["slot"])
                slot = Slot(int(item["last_seq"]), int(item["received"]))
                if key[0] == run:
                    slots._slots[key] = slot
                elif len(slots._earlier) < MAX_SLOTS:
                    slots._earlier[key] = slot
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"slots in the saved state: {error!r}") from error
        return slots
