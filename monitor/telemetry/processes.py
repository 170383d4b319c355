"""Memory, processor time and open files of our own processes, from /proc; and what they run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric

from understudy import __version__
from understudy.monitor.telemetry.families import counter, gauge

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


def process_families(process_uses: Iterable[tuple[str, int, ProcessUse]]) -> Iterator[Metric]:
    """``process_uses`` as of :func:`uses`; and the version."""
    used = list(process_uses)
    yield gauge(
        "process_resident_memory_bytes",
        "Resident memory of our processes.",
        ("process",),
        [([name], use.memory_bytes) for name, _, use in used],
    )
    yield counter(
        "process_cpu_seconds",
        "User and system time of our processes.",
        ("process",),
        [([name], use.cpu_seconds) for name, _, use in used],
    )
    yield gauge(
        "process_open_fds",
        "Open file descriptors of our processes.",
        ("process",),
        [([name], use.open_files) for name, _, use in used],
    )
    yield gauge(
        "build_info",
        "Always 1; what is running.",
        ("version", "python"),
        [([__version__, platform.python_version()], 1)],
    )
