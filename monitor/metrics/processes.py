"""Memory, processor time and open files of our own processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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


def uses(slots: Mapping[int, int]) -> Iterator[tuple[str, int, ProcessUse]]:
    """``(name, pid, use)`` of each worker by slot, of the evaluation plane and the supervisor."""
    named = [(f"worker-{slot}", pid) for slot, pid in sorted(slots.items())]
    named += [("evaluation", os.getpid()), ("supervisor", os.getppid())]
    for name, pid in named:
        use = use_of(pid) if pid > 1 else None
        if use is not None:
            yield name, pid, use
