"""What every benchmark shares: its environment, its claims, and how results are written."""

from __future__ import annotations

import json
import operator
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
_OPERATORS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Claim:
    """A figure beside its target; one that is not met stays in the file."""

    claim: str
    value: float | None
    target: float
    op: str

    @property
    def met(self) -> bool:
        return self.value is not None and bool(_OPERATORS[self.op](self.value, self.target))


@dataclass
class Result:
    """One benchmark's outcome. ``tables`` are (title, header, rows) for the Markdown."""

    name: str
    environment: dict[str, Any]
    measurements: dict[str, Any] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    tables: list[tuple[str, list[str], list[list[Any]]]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "environment": self.environment,
            "measurements": self.measurements,
            "claims": [{**asdict(claim), "met": claim.met} for claim in self.claims],
        }

    def write(self, folder: Path = RESULTS) -> Path:
        """Write ``NAME.json`` and ``NAME.md``; return the first."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.document(), indent=2) + "\n")
        (folder / f"{self.name}.md").write_text(self.markdown())
        return path

    def markdown(self) -> str:
        parts = [f"# {self.name}", ""]
        parts += [f"* {key}: {value}" for key, value in self.environment.items()]
        if self.claims:
            rows = [
                [c.claim, shown(c.value), f"{c.op} {shown(c.target)}", "yes" if c.met else "**no**"]
                for c in self.claims
            ]
            parts += ["", table("Claims", ["claim", "value", "target", "met"], rows)]
        for title, header, rows in self.tables:
            parts += ["", table(title, header, rows)]
        return "\n".join(parts) + "\n"


def shown(value: Any) -> str:
    """A figure for a table: three significant digits, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table under a heading."""
    lines = [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(shown(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return float(statistics.median(values)) if values else None


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median over rounds of ours / theirs: a drift of the machine hits both of a round."""
    return median([a / b for a, b in zip(ours, theirs, strict=True) if b])


def environment(**more: Any) -> dict[str, Any]:
    """Machine and versions, as far as they can be read, with ``more`` at the end."""
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **more,
    }


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of all threads of the processes, from the scheduler, in seconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue  # a thread that ended meanwhile
    return total / 1e9


def busy_seconds() -> float:
    """Processor time that the whole machine has spent on anything, in seconds."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    pids: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        pids += [int(child) for child in (task / "children").read_text().split()]
    return pids
