"""Energy and memory of a server on this machine.

Energy: the processors' own counters (RAPL, by the kernel's powercap) and those of NVIDIA's cards
(NVML, where its bindings are installed). They count whole packages, so energy per
prediction is valid only if the server has the machine to itself. Memory: the peak of the control
group, or that of the processes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy.loadtest.capacity.sizing import Figure
from understudy.loadtest.chaos.processes import process_tree

POWERCAP = Path("/sys/class/powercap")
CGROUP = Path("/sys/fs/cgroup")


class Meter:
    """Reads energy counters; ``names`` lists the available ones."""

    def __init__(self, root: Path = POWERCAP) -> None:
        # Domains within a package have a second colon, and are part of it.
        zones = sorted(root.glob("*-rapl:*")) if root.is_dir() else []
        self._packages = [path for path in zones if path.name.count(":") == 1]
        self._last = [self._microjoules(path) for path in self._packages]
        self._packages = [
            path for path, now in zip(self._packages, self._last, strict=True) if now is not None
        ]
        self._last = [now for now in self._last if now is not None]
        self._used = 0.0
        self._cards = _cards()
        self._begun = [card() for card in self._cards]
        self.names = ", ".join(
            name for name, there in (("RAPL", self._packages), ("NVML", self._cards)) if there
        )

    def joules(self) -> float | None:
        """Joules since this object was created; None without counters. Read it at least once a
        minute, because the counters wrap around."""
        if not self.names:
            return None
        for index, path in enumerate(self._packages):
            now, before = self._microjoules(path), self._last[index]
            if now is None or before is None:
                return None
            step = now - before
            if step < 0:
                step += _number(path / "max_energy_range_uj") or 0
            self._used += step * 1e-6
            self._last[index] = now
        cards = sum(card() - begun for card, begun in zip(self._cards, self._begun, strict=True))
        return self._used + cards

    @staticmethod
    def _microjoules(path: Path) -> int | None:
        return _number(path / "energy_uj")


def _cards() -> list[Callable[[], float]]:
    """For each GPU, a function that returns its energy in joules."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
        for handle in handles:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no bindings, no driver or no counter
        return []

    def reading(handle: Any) -> Callable[[], float]:
        return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3

    return [reading(handle) for handle in handles]


def energy(
    used: float | None, names: str, answered: float, rate: float | None, watts: float | None
) -> Figure:
    """Joules per prediction: measured, computed from a declared power, or absent."""
    if used is not None and answered > 0.0:
        return Figure(used / answered, "measured", f"{names}, of the whole machine")
    if watts is not None and rate:
        return Figure(
            watts / rate, "computed", f"declared power, measured capacity of {rate:.4g}/s"
        )
    return Figure(None, "absent", "no readable energy counter, and watts is not declared")


def memory(pid: int | None, cgroup: Path = CGROUP) -> Figure:
    """The peak in bytes: of the control group (version 2), else of the processes."""
    if pid is None:
        return Figure(None, "absent", "the server's processes are not known")
    try:
        group_path = Path(f"/proc/{pid}/cgroup").read_text().rpartition("::")[2].strip()
    except OSError:
        group_path = ""
    peak = None
    if group_path not in ("", "/"):
        peak = _number(cgroup / group_path.lstrip("/") / "memory.peak")
    if peak is not None:
        return Figure(float(peak), "measured", "memory.peak of its control group")
    total = 0
    for one in process_tree(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    if not total:
        return Figure(None, "absent", f"process {pid} cannot be read")
    return Figure(float(total), "measured", "peaks of its processes, added up")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
