"""Options of a model's watch."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.monitor.config.detectors import Detector


@dataclass(frozen=True, slots=True)
class Options:
    """``run_length`` in rows, of all tests together; ``smallest_shift`` in standard deviations of
    the ranks; ``window`` in rows; ``segments`` are names of features; ``stale`` in seconds;
    ``declared`` names features that are watched although they look like an identifier, a timestamp
    or a counter."""

    run_length: float = 1_000_000.0
    smallest_shift: float = 0.25
    smallest_rate: float = 0.005
    window: int = 1000
    segments: tuple[str, ...] = ()
    max_segments: int = 20
    stale: float | None = None
    kernel: bool = False
    detectors: tuple[Detector, ...] = ()
    declared: tuple[str, ...] = ()

    @property
    def slacks(self) -> tuple[float, ...]:
        """Slacks of the CUSUMs: half, one and two times the smallest shift."""
        return tuple(self.smallest_shift * factor for factor in (0.5, 1.0, 2.0))
