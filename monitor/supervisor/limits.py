"""What a child process may take: memory, priority, and time without a sign of life."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass

_LOWEST_PRIORITY = 19
_OOM_SCORE = 300
"""Added for a child with a memory limit, so that the kernel ends it before those without."""
_MOST_OOM_SCORE = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take.

    It is killed and replaced after ``silence`` seconds without a heartbeat, or ``start`` seconds
    when it is not ready yet, and when it has more than ``memory`` private bytes. ``nice`` is
    added to the priority number of this process: a larger number is a lower priority.
    """

    silence: float = 5.0
    start: float = 60.0
    nice: int = 0
    memory: int | None = None

    def apply(self, pid: int) -> None:
        """Set priority and memory limits of a process that has just been started, as far as the
        system allows it."""
        if self.nice:
            with contextlib.suppress(OSError):
                priority = os.getpriority(os.PRIO_PROCESS, 0) + self.nice
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.setpriority(os.PRIO_PROCESS, int(thread), min(priority, _LOWEST_PRIORITY))
        if self.memory is not None:
            with contextlib.suppress(OSError, ValueError):
                # What grows slowly is noticed by its size; this stops one large allocation.
                _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
                most = 2 * self.memory + (256 << 20)
                resource.prlimit(pid, resource.RLIMIT_DATA, (most, hard))
            with (
                contextlib.suppress(OSError, ValueError),
                open(f"/proc/{pid}/oom_score_adj", "r+", encoding="ascii") as file,
            ):
                score = min(int(file.read()) + _OOM_SCORE, _MOST_OOM_SCORE)
                file.seek(0)
                file.write(str(score))
