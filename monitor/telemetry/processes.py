"""Memory, processor time and open files of our own processes; and what they run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import Metric

from understudy import __version__
from understudy.common import compiled
from understudy.monitor.supervisor.control_line import Supervisor
from understudy.monitor.supervisor.process_use import ProcessUse, use_of
from understudy.monitor.telemetry.families import counter, gauge


def uses(slots: Mapping[int, int], supervisor: Supervisor) -> Iterator[tuple[str, ProcessUse]]:
    """Name and use of each worker by slot, of the evaluation plane and the supervisor; those that
    run in another container as their supervisor has reported them."""
    named = [("evaluation", os.getpid())]
    if supervisor.separate:
        yield from supervisor.processes.items()
        named.append(("companion", os.getppid()))
    else:
        named += [(f"worker-{slot}", pid) for slot, pid in sorted(slots.items())]
        named.append(("supervisor", os.getppid()))
    for name, pid in named:
        use = use_of(pid) if pid > 1 or supervisor.separate else None
        if use is not None:
            yield name, use


def process_families(process_uses: Iterable[tuple[str, ProcessUse]]) -> Iterator[Metric]:
    """``process_uses`` as of :func:`uses`; and the version."""
    used = list(process_uses)
    yield gauge(
        "process_resident_memory_bytes",
        "Resident memory of our processes.",
        ("process",),
        [([name], use.memory_bytes) for name, use in used],
    )
    yield counter(
        "process_cpu_seconds",
        "User and system time of our processes.",
        ("process",),
        [([name], use.cpu_seconds) for name, use in used],
    )
    yield gauge(
        "process_open_fds",
        "Open file descriptors of our processes.",
        ("process",),
        [([name], use.open_files) for name, use in used],
    )
    yield gauge(
        "build_info",
        "Always 1; what is running.",
        ("version", "python", "data_plane"),
        [([__version__, platform.python_version(), compiled.form().name], 1)],
    )
