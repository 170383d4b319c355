"""What became of all that should be sent, in memory that outlives a process that is killed."""

from __future__ import annotations

import logging
import mmap
import threading
from pathlib import Path

from understudy.monitor.config.otel import SIGNALS, Signal

log = logging.getLogger(__name__)

OFFERED, SENT, FAILED, DROPPED, LOST = range(5)
OUTCOMES = {"sent": SENT, "failed": FAILED, "dropped": DROPPED, "lost": LOST}
"""All but those that wait."""
_WORDS = 5
_SIZE = 8 * _WORDS * len(SIGNALS)


class Counts:
    """Counts of one signal since the first process began; any thread may add to them."""

    def __init__(self, words: memoryview | None = None) -> None:
        self._words = memoryview(bytearray(8 * _WORDS)).cast("Q") if words is None else words
        self._lock = threading.Lock()

    def add(self, which: int, number: int) -> None:
        """Add to OFFERED, SENT, FAILED, DROPPED or LOST."""
        with self._lock:
            self._words[which] += number

    def __getitem__(self, which: int) -> int:
        return self._words[which]

    @property
    def open(self) -> int:
        """Those that were offered, of which nothing else is known."""
        return self[OFFERED] - sum(self[which] for which in OUTCOMES.values())


def counts_in(path: Path | None) -> dict[Signal, Counts]:
    """The counts of all signals, in a file that the next process opens again. What waited in a
    process that was killed is counted as lost. Without a path, or if the file cannot be used, the
    counts are of this process."""
    words: list[memoryview | None] = [None] * len(SIGNALS)
    if path is not None:
        try:
            with path.open("a+b") as file:
                file.truncate(_SIZE)
                whole = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")
            words = [whole[at : at + _WORDS] for at in range(0, len(whole), _WORDS)]
        except OSError as error:
            log.warning("%s: cannot be used: %s", path, error.strerror)
    found: dict[Signal, Counts] = {}
    for signal, its in zip(SIGNALS, words, strict=True):
        counts = found[signal] = Counts(its)
        if counts.open > 0:
            counts.add(LOST, counts.open)
    return found
