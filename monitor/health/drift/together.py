"""Joint drift: changes in the relations between features.

The error of a reconstruction by principal components is one more series under CUSUMs, and costs
next to nothing. The maximum mean discrepancy sees any difference, and is
switched on in the configuration. Drift of single features is found and reported by their charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.scores import normal_scores, spread_scores, tail_factor
from understudy.monitor.baseline.together import JointProfile
from understudy.monitor.detectors.cusum import CusumUnion
from understudy.monitor.detectors.kernel import BLOCKS, KernelBlocks
from understudy.monitor.detectors.packed import Packed
from understudy.monitor.health.drift.limits import run_lengths
from understudy.monitor.health.latches import SPAN, Latches
from understudy.shadow.state import IF_BOTH, Config, Count, Saved, Stateful, Transient

Floats = NDArray[np.float64]
_AT_ONCE = 1024
"""Rows that are evaluated together, unless a flush comes first."""
_QUIET = 2 * BLOCKS[-1]
"""Rows without an alarm after which the discrepancy counts as gone."""


@dataclass(frozen=True, slots=True)
class JointAlarm:
    """An alarm: ``rule`` is the detector; ``at`` is the number of the row with which it alarmed;
    ``weights`` are the contributions by series, empty where they are unknown."""

    rule: str
    at: int
    weights: Mapping[str, float]


class JointDrift(Stateful):
    """``indices`` are the numbers of its series among those of the rows' scores; ``run_length`` in
    rows is that of both detectors together. The baseline's figures were made of independent rows:
    ``inflation`` is the variance of long sums over that of such."""

    known: Config[JointProfile]
    indices: Config[Any]
    _tables: Config[Floats]
    cusum: Saved[CusumUnion]
    latch: Saved[Latches]
    kernel: Saved[Annotated[KernelBlocks | None, IF_BOTH]]
    kernel_at: Saved[int]
    """Number of the row with which the discrepancy last alarmed."""
    _shares: Saved[Packed]
    """Recent mean of the squared error of each series."""
    _rows: Saved[Count]
    _waiting: Transient[list[Floats]]
    _held: Transient[int]

    def __init__(
        self,
        known: JointProfile,
        indices: Sequence[int],
        run_length: float,
        slacks: Sequence[float],
        kernel: bool,
        inflation: float = 1.0,
    ) -> None:
        self.known = known
        self.indices = np.array(indices, np.intp)
        each = run_length * (2.0 if kernel else 1.0)
        profile = known.errors
        shares = profile.counts / max(int(profile.counts.sum()), 1)
        location = normal_scores(shares)
        self._tables = np.stack([location, spread_scores(location, shares)])
        factors = np.array(
            [
                [max(tail_factor(t, shares, k), tail_factor(-t, shares, k)) for k in slacks]
                for t in self._tables
            ]
        )
        lengths = run_lengths(1, each)
        rows = float(profile.count)
        self.cusum = CusumUnion(2, lengths, rows, slacks, factors, inflation, refine=True)
        self.latch = Latches(2)
        self.kernel = (
            KernelBlocks(
                known.features, known.mean, known.spectrum, float(known.rows), each, inflation
            )
            if kernel
            else None
        )
        self.kernel_at = -1
        self._shares = known.shares.copy()
        self._rows = 0
        self._waiting = []
        self._held = 0

    def widen(self, inflation: float) -> None:
        """Raise the thresholds for rows that depend on each other more than it seemed at first."""
        self.cusum.widen(inflation)
        if self.kernel is not None:
            self.kernel.widen(inflation)

    def update(self, scores: Floats) -> None:
        """Location scores (n, S) of all series; NaN where a value is missing."""
        self._waiting.append(scores[:, self.indices])
        self._held += len(scores)
        if self._held >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Evaluate the buffered rows."""
        if not self._held:
            return
        x = np.concatenate(self._waiting)
        self._waiting.clear()
        self._held = 0
        missing = np.isnan(x)
        if missing.any():
            x = np.where(missing, 0.0, x)
        outside = self.known.subspace.outside(x) ** 2
        code = self.known.errors.edges.searchsorted(outside.sum(axis=1))
        z = self._tables[:, code].T
        self.latch.update(self.cusum.update(z), z, self._rows)
        keep = (1.0 - 1.0 / SPAN) ** len(x)
        self._shares = keep * self._shares + (1.0 - keep) * outside.mean(axis=0)
        if self.kernel is not None:
            crossed = int(self.kernel.update(x).crossed[0])
            if crossed >= 0:
                self.kernel_at = self._rows + crossed
        self._rows += len(x)

    def recover(self, tolerance: float) -> None:
        """End the alarm when the errors are back within ``tolerance``."""
        opened = self.latch.recovered(np.zeros(1), tolerance)
        if opened.any():
            self.cusum.reset(opened)

    @property
    def statistic(self) -> float:
        """Score of the reconstruction error; it alarms at 1."""
        return float(self.cusum.evidence().statistic.max())

    def alarms(self) -> list[JointAlarm]:
        """Detectors that have alarmed and have not recovered."""
        result = []
        if self.latch.alarmed.any():
            grown = np.maximum(self._shares - self.known.shares, 0.0)
            total = float(grown.sum()) or 1.0
            weights = dict(zip(self.known.series, (grown / total).tolist(), strict=True))
            at = int(self.latch.at[self.latch.alarmed].min())
            result.append(JointAlarm("reconstruction", at, weights))
        if self.kernel_at >= 0 and self._rows - self.kernel_at < _QUIET:
            result.append(JointAlarm("discrepancy", self.kernel_at, {}))
        return result
