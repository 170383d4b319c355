"""Two counters in memory that a process shares with its supervisor.

The process raises the first as long as its event loop runs, and the supervisor the second while it
watches; each reads that of the other. Nothing is sent, so a
process that hangs, or a supervisor that is paused, holds up neither of them. The memory is
anonymous: it needs no disk, and outlives the process.

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

import mmap
import os

_WORD = 8


def create() -> int:
    """A file descriptor of new counters, to be inherited by the process."""
    fd = os.memfd_create("heartbeat")
    os.pwrite(fd, bytes(2 * _WORD), 0)
    return fd


def beats(fd: int) -> int:
    """The counter of the process."""
    return int.from_bytes(os.pread(fd, _WORD, 0), "little")


def watch(fd: int, count: int) -> None:
    """Set the counter of the supervisor."""
    os.pwrite(fd, count.to_bytes(_WORD, "little"), _WORD)


class Heartbeat:
    """The end of the process; without a descriptor it is not watched."""

    def __init__(self, fd: int | None) -> None:
        self.watched = fd is not None
        memory = mmap.mmap(-1 if fd is None else fd, 2 * _WORD)
        self._words = memoryview(memory).cast("Q")

    def beat(self) -> None:
        """Say that the process runs."""
        self._words[0] += 1

    def watches(self) -> int:
        """The counter of the supervisor."""
        return self._words[1]
