"""Many features at once: whether they still go together as they did in the baseline.

The error of a reconstruction by principal components is one more series under CUSUMs, and costs
next to nothing. The maximum mean discrepancy sees any difference, and is asked for in the
configuration. What shows in single features is found by their own charts, and said there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.scores import normal_scores, spread_scores, tail_factor
from understudy.monitor.baseline.together import JointProfile
from understudy.monitor.detectors.cusum import CusumUnion
from understudy.monitor.detectors.kernel import BLOCKS, KernelBlocks
from understudy.monitor.detectors.packed import pack, unpack
from understudy.monitor.health.drift.limits import run_lengths
from understudy.monitor.health.latches import SPAN, Latches

Floats = NDArray[np.float64]
_AT_ONCE = 1024
"""Rows that are looked at together, unless the clock says that it is time."""
_QUIET = 2 * BLOCKS[-1]
"""Rows without an alarm after which the discrepancy counts as gone."""


@dataclass(frozen=True, slots=True)
class Apart:
    """``rule`` says which of the two it is; ``at`` is the number of the row with which it alarmed;
    ``weights`` by series how much of it each is, empty where that cannot be said."""

    rule: str
    at: int
    weights: Mapping[str, float]


class JointDrift:
    """``places`` are the numbers of its series among those of the rows' scores; ``run_length`` in
    rows is that of both detectors together. The baseline's figures were made of independent rows:
    ``inflation`` is the variance of long sums over that of such."""

    def __init__(
        self,
        known: JointProfile,
        places: Sequence[int],
        run_length: float,
        slacks: Sequence[float],
        kernel: bool,
        inflation: float = 1.0,
    ) -> None:
        self.known = known
        self._places = np.array(places, np.intp)
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
        """Number of the row with which the discrepancy last alarmed."""
        self._shares: Floats = known.shares.copy()
        """Squared error of each series, lately."""
        self._rows = 0
        self._waiting: list[Floats] = []
        self._held = 0

    def update(self, scores: Floats) -> None:
        """Location scores (n, S) of all series; NaN where a value is missing."""
        self._waiting.append(scores[:, self._places])
        self._held += len(scores)
        if self._held >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Look at the rows that wait."""
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
        """Let go of what is as it used to be."""
        opened = self.latch.recovered(np.zeros(1), tolerance)
        if opened.any():
            self.cusum.reset(opened)

    @property
    def statistic(self) -> float:
        """Of the reconstruction's error; it alarms at 1."""
        return float(self.cusum.evidence().statistic.max())

    def apart(self) -> list[Apart]:
        """What has alarmed and has not recovered."""
        found = []
        if self.latch.alarmed.any():
            grown = np.maximum(self._shares - self.known.shares, 0.0)
            total = float(grown.sum()) or 1.0
            weights = dict(zip(self.known.series, (grown / total).tolist(), strict=True))
            at = int(self.latch.at[self.latch.alarmed].min())
            found.append(Apart("reconstruction", at, weights))
        if self.kernel_at >= 0 and self._rows - self.kernel_at < _QUIET:
            found.append(Apart("discrepancy", self.kernel_at, {}))
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON; nothing may wait."""
        return {
            "cusum": self.cusum.to_dict(),
            "latch": self.latch.to_dict(),
            "kernel": self.kernel.to_dict() if self.kernel is not None else None,
            "kernel_at": self.kernel_at,
            "shares": pack(self._shares),
            "rows": self._rows,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError for another shape."""
        self.cusum.restore(state["cusum"])
        self.latch.restore(state["latch"])
        if self.kernel is not None and state["kernel"] is not None:
            self.kernel.restore(state["kernel"])
        self.kernel_at = int(state["kernel_at"])
        self._shares = unpack(state["shares"], self._shares.shape)
        self._rows = int(state["rows"])
