"""Memory, processor time and open files of a process, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """``memory_bytes`` is resident memory, ``cpu_seconds`` user and system time so far."""

    memory_bytes: int
    cpu_seconds: float
    open_files: int


def use_of(pid: int) -> ProcessUse | None:
    """Use of one process; None when it is gone or not ours to see."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything, also spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None
    user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
    return ProcessUse(resident * _PAGE, (user + system) / _TICKS, files)
