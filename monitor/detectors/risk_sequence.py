"""Has a risk ever become too large? An alarm that is ever false with probability alpha.

A confidence sequence holds a lower limit of the mean risk at every row at the same time. It alarms
when that limit passes the baseline's upper limit plus a tolerance; while the risk given the past
stays within these, the probability that it ever does is at most alpha (Podkopaev & Ramdas,
arXiv:2110.06177, section 2). The price: after many good rows it takes about as many bad ones, so
the e-detectors, which forget, are the ones for a watch without end.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import xlogy
from understudy.monitor.detectors.evidence import Evidence
from understudy.shadow.roots import find_root
from understudy.shadow.sequential import BettingInterval, Interval
from understudy.shadow.state import Config, FieldError, Saved, Stateful

Floats = NDArray[np.float64]
_STEP = 4
"""The limits of a betting interval are taken after so many values."""


def source_bound(total: float, rows: float, alpha: float) -> float:
    """Upper limit, at 1 - ``alpha``, of a mean risk in [0, 1]; ``total`` is the sum of the losses.

    By the relative entropy (Hoeffding 1963, Theorem 1), for any losses in [0, 1]. Raises ValueError
    for a sum outside of [0, rows] and an alpha outside of (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    if rows <= 0.0:
        return 1.0
    if not 0.0 <= total <= rows:
        raise ValueError(f"a sum of {rows} losses in [0, 1] is not {total}")
    mean = total / rows
    goal = -math.log(alpha) / rows

    def excess(bound: float) -> float:
        entropy = xlogy(mean, mean / bound) + xlogy(1.0 - mean, (1.0 - mean) / (1.0 - bound))
        return float(entropy) - goal

    highest = 1.0 - 1e-12
    if mean >= highest or excess(highest) <= 0.0:
        return 1.0
    return find_root(excess, max(mean, 1e-300), highest, xtol=1e-12)


class RiskSequence(Stateful):
    """One for each of S risks, each with a source mean of ``totals / rows``, (S,).

    ``tolerance`` is the growth of the mean that does not matter, a number or (S,). ``alpha`` is the
    probability that any of the S ever alarms wrongly, half of it for the baselines' limits.
    Batches are (n, S) of losses in [0, 1]; NaN says nothing. Raises ValueError for sums, alphas and
    tolerances that are none.
    """

    series: Config[int]
    alpha: Config[float]
    bounds: Config[Floats]
    _sequences: Saved[list[BettingInterval]]

    def __init__(
        self,
        totals: Floats,
        rows: Floats,
        tolerance: float | Floats = 0.0,
        alpha: float = 0.01,
    ) -> None:
        self.series = len(totals)
        self.alpha = alpha
        allowed = np.broadcast_to(np.asarray(tolerance, np.float64), (self.series,))
        if (allowed < 0.0).any():
            raise ValueError("a tolerance is not below 0")
        each = alpha / max(self.series, 1) / 2.0
        bounds = [source_bound(float(t), float(n), each) for t, n in zip(totals, rows, strict=True)]
        self.bounds = np.minimum(np.array(bounds, np.float64) + allowed, 1.0)
        # One side alone errs with half of an interval's alpha.
        self._sequences = [BettingInterval(alpha=2.0 * each) for _ in range(self.series)]

    def _restored(self) -> None:
        if len(self._sequences) != self.series:
            raise FieldError("sequences", f"must be of {self.series} series")

    def update(self, x: Floats) -> Evidence:
        """Take the rows of a batch, in their order. An alarm is for good: see :meth:`reset`.

        ``crossed`` is the row after which the limit was seen to have passed, as it is looked at
        after every fourth value. Raises ValueError for another width and for values outside of
        [0, 1].
        """
        if x.ndim != 2 or x.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {x.shape}")
        if ((x < 0.0) | (x > 1.0)).any():
            raise ValueError("losses lie between 0 and 1")
        crossed = np.full(self.series, -1, np.intp)
        for number in range(self.series):
            crossed[number] = self._take(number, x[:, number])
        lower = np.array([one.interval().lower for one in self._sequences], np.float64)
        direction = np.where(lower >= self.bounds, 1, 0).astype(np.int8)
        return Evidence(lower, self.bounds, crossed, direction)

    def _take(self, number: int, values: Floats) -> int:
        here = np.flatnonzero(np.isfinite(values))
        sequence, bound = self._sequences[number], self.bounds[number]
        if not len(here):
            return -1
        if sequence.interval().lower >= bound:
            sequence.update(values[here])
            return -1
        before = copy.deepcopy(sequence)
        sequence.update(values[here])
        if sequence.interval().lower < bound:
            return -1
        first = _STEP - before.n % _STEP
        for end in range(first, len(here) + 1, _STEP):
            before.update(values[here[max(0, end - _STEP) : end]])
            if before.interval().lower >= bound:
                return int(here[end - 1])
        return int(here[-1])

    def intervals(self) -> list[Interval]:
        """Limits of each mean risk so far; each alone errs with alpha / S, both sides together."""
        return [one.interval() for one in self._sequences]

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (S,); alpha is then spent once more."""
        for number in np.flatnonzero(series):
            self._sequences[number] = BettingInterval(alpha=self._sequences[number].alpha)
