"""A counter in memory that a process shares with its supervisor.

The process raises it as long as its event loop runs; the supervisor reads it. Nothing is sent, so a
process that hangs, or a supervisor that is paused, holds up neither of them. The memory is
anonymous: it needs no disk, and outlives the process.

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

import mmap
import os

_BYTES = 8


def create() -> int:
    """A file descriptor of a new counter, to be inherited by the process that raises it."""
    fd = os.memfd_create("heartbeat")
    os.pwrite(fd, bytes(_BYTES), 0)
    return fd


def beats(fd: int) -> int:
    """The counter's value."""
    return int.from_bytes(os.pread(fd, _BYTES, 0), "little")


class Heartbeat:
    """The end of the process that raises the counter; without a descriptor nothing reads it."""

    def __init__(self, fd: int | None) -> None:
        memory = mmap.mmap(-1 if fd is None else fd, _BYTES)
        self._words = memoryview(memory).cast("Q")

    def beat(self) -> None:
        """Say that the process runs."""
        self._words[0] += 1
