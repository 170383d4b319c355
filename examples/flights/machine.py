"""Who uses the machine: the demo, or others. What others take is no fault of the model servers."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> list[str]:
    """The fields of a process after its name, which may hold anything; none of one that has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def ours() -> float:
    """CPU seconds of this process and all below it, with those of their ended children."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for path in PROC.glob("[0-9]*/stat"):
        fields = _fields(path)
        if len(fields) > 14:
            pid = int(path.parent.name)
            parents[pid] = int(fields[1])
            seconds[pid] = sum(map(int, fields[11:15])) / _TICKS
    total = 0.0
    for pid in parents:
        at = pid
        while at not in (os.getpid(), 0):
            at = parents.get(at, 0)
        total += seconds[pid] if at else 0.0
    return total


def busy() -> float:
    """CPU seconds of the whole machine that were not idle, with those that its host took away."""
    fields = (PROC / "stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _waiting, interrupt, soft, stolen = map(int, fields)
    return (user + nice + system + interrupt + soft + stolen) / _TICKS


class Others:
    """The share of the machine's processors that others use, since the last look."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._seen = self._now()

    def _now(self) -> tuple[float, float, float]:
        uptime = float((PROC / "uptime").read_text().split()[0])
        return uptime, busy(), ours()

    def share(self) -> float:
        """Between 0 and 1."""
        before, self._seen = self._seen, self._now()
        seconds, used, mine = (now - then for now, then in zip(self._seen, before, strict=True))
        if seconds <= 0.0:
            return 0.0
        return min(1.0, max(0.0, (used - mine) / (seconds * self._cores)))
