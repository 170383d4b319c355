"""Notices processes that hang or take too much memory.

A process raises its heartbeat as long as its event loop runs. Its *silence* is the time for which
it has not, as far as it could have. Time in which this process did not run either (the machine or
the container was paused) does not count, nor does time in which it waited for a processor. So a
process does not look as if it hung because the machine sleeps or is slow, but does when it was
stopped, waits for a lock, or is in an endless loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol

CHECK_SECONDS = 0.25
"""Time between two checks."""
MOST_SECONDS = 2 * CHECK_SECONDS
"""What one check adds to a silence at most: the rest is a gap of this process."""
SUSPECT_SECONDS = 1.0
"""Silence after which a process counts as unresponsive."""
MEMORY_SHARE = 0.7
"""The evaluation plane's part of the memory that the container, or the machine, may use."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_STATES = {
    "R": "it runs, and its event loop does not",
    "S": "it waits",
    "D": "it waits for a disk",
    "T": "it is stopped",
    "t": "a debugger has stopped it",
}


@dataclass(frozen=True, slots=True)
class Activity:
    """What a process does: state of its main thread as in ``/proc``, whether one of its threads
    could run, and the processor seconds of all so far."""

    state: str
    runnable: bool
    cpu_seconds: float

    @property
    def text(self) -> str:
        """For a message: what it does instead of responding."""
        return _STATES.get(self.state, f"state {self.state}")


def activity_of(pid: int) -> Activity | None:
    """None when the process is gone."""
    try:
        fields = _fields(f"/proc/{pid}/stat")
        states = set()
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, IndexError):
                states.add(_fields(f"/proc/{pid}/task/{thread}/stat")[0])
        return Activity(fields[0], "R" in states, (int(fields[11]) + int(fields[12])) / _TICKS)
    except (OSError, IndexError):
        return None


def _fields(path: str) -> list[str]:
    with open(path, encoding="ascii", errors="replace") as file:
        # The name in parentheses may hold anything, also spaces and parentheses.
        return file.read().rpartition(")")[2].split()


def private_bytes(pid: int) -> int:
    """Resident memory of a process without what it shares with others; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE


def usable_memory() -> int:
    """Bytes of memory that the container, or the machine, may use."""
    found = [os.sysconf("SC_PHYS_PAGES") * _PAGE]
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text(encoding="ascii")))
    return min(found)


class Silence:
    """For how long a process has not raised its heartbeat; see the module."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._beats = -1
        self._cpu_seconds = 0.0

    def observe(self, beats: int, elapsed: float, activity: Callable[[], Activity | None]) -> None:
        """Look again, ``elapsed`` seconds after the last time."""
        now = activity()
        if now is None:
            return
        if beats != self._beats:
            self.seconds = 0.0
        else:
            counted = min(elapsed, MOST_SECONDS)
            if now.runnable:
                counted = min(counted, now.cpu_seconds - self._cpu_seconds)
            self.seconds += counted
        self._beats = beats
        self._cpu_seconds = now.cpu_seconds


class Watched(Protocol):
    """A process that is watched."""

    def check(self, elapsed: float) -> None:
        """Look at it, ``elapsed`` seconds after the last time, and replace it if it has to be."""


async def watch(processes: Callable[[], Iterable[Watched]]) -> None:
    """Check all processes periodically, until cancelled."""
    before = monotonic()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        now = monotonic()
        elapsed, before = now - before, now
        for process in processes():
            process.check(elapsed)
