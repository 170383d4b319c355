"""Counts how often in a row the evaluation plane ended by a fault soon after its start."""

from __future__ import annotations

import contextlib
from pathlib import Path

MOST_FAULTS = 3
FAULT_SECONDS = 60.0
"""After as many faults in a row, each this soon after the start, the saved state is set aside."""


class Faults:
    """A state that can be loaded, and later causes an error, an endless loop or too much memory,
    would be loaded repeatedly. Being killed by others does not count."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "faults"

    def again(self) -> bool:
        """Whether it is time to start without the state; the count then starts from zero."""
        if self._count() < MOST_FAULTS:
            return False
        self._path.unlink(missing_ok=True)
        return True

    def note(self, seconds: float) -> None:
        """The process ends by a fault, after so many seconds."""
        count = self._count() + 1 if seconds < FAULT_SECONDS else 1
        with contextlib.suppress(OSError):
            self._path.write_text(str(count), encoding="utf-8")

    def _count(self) -> int:
        try:
            return int(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
