"""Energy of the machine's processors, from the kernel's RAPL counters.

They count the energy of whole packages, for all processes, in microjoules, and wrap around at a
maximum. So the energy per prediction is an estimate, which is valid when only the model server and
the sidecar run on the machine. Reading them needs permission on most systems; without it, or
without counters, as in virtual machines, the energy is absent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

ROOT = Path("/sys/class/powercap")
_LEAST = 1.0
_LONGEST = 300.0


class Rapl:
    """The sum over all packages. ``root`` is the folder of the kernel's counters."""

    def __init__(self, root: Path = ROOT, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Domains within a package (cores, memory) are part of it and have a second colon.
        found = sorted(root.glob("*-rapl:*")) if root.is_dir() else []
        self._packages = [path for path in found if path.name.count(":") == 1]
        self._last: list[int] = []
        self._joules = 0.0
        self._samples: deque[tuple[float, float]] = deque()

    def watts(self) -> float | None:
        """Average power in watts since the oldest sample of the last five minutes; None before two
        samples, and without counters."""
        now = self._clock()
        if not self._samples or now - self._samples[-1][0] >= _LEAST:
            counters = self._read()
            if counters is None:
                return None
            for package, before, after in zip(self._packages, self._last, counters, strict=False):
                step = after - before
                self._joules += (step if step >= 0 else step + _range(package)) * 1e-6
            self._last = counters
            self._samples.append((now, self._joules))
        while len(self._samples) > 2 and now - self._samples[0][0] > _LONGEST:
            self._samples.popleft()
        (begun, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - begun) if ended > begun else None

    def _read(self) -> list[int] | None:
        try:
            counters = [int((path / "energy_uj").read_text()) for path in self._packages]
        except (OSError, ValueError):
            return None
        return counters or None


def _range(package: Path) -> int:
    try:
        return int((package / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return 0
