"""Means: latency, a field of the answer, reward, cost.

Unbounded values are compared by asymptotic confidence sequences behind their gate; bounded ones in
pairs by betting, which needs no gate. A relative margin r is a statement about x_1 - r x_0.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array, Measure, NullBoundary
from understudy.shadow.sequential import BettingInterval, BettingTest, Gate, Interval
from understudy.shadow.sequential.asymptotic import asymptotic_radius
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.normal_mixture import log_normal_mixture
from understudy.shadow.state import Config, Saved, Two

_ARMS = ("champion", "challenger")
_CELLS = 31
"""Of the interval of a bounded mean, so that the state of a measure stays within 4 KB."""


class Mean(Measure):
    """Asymptotic comparison of two means, of pairs or of split traffic.

    With pairs the variance of x_1 - r x_0 takes the covariance into account. Units of assignment
    enter as their sums and counts (the ratio estimator and its linearised variance). Equations 9
    and 134 of arXiv:2103.06476; there is no interval before the gate of
    :mod:`understudy.shadow.sequential.asymptotic` opens.
    """

    kind = "mean"

    _gate: Config[Gate]
    _arms: Saved[Two[CentralMoments]]
    _gap: Saved[CentralMoments]
    """Of x_1 - x_0, with pairs."""
    _sizes: Saved[Two[CentralMoments]]
    """Records per unit, where units are what is assigned."""
    _cross: Saved[Two[float]]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._gate = Gate()
        self._restart()

    def _restart(self) -> None:
        self._arms = [CentralMoments(), CentralMoments()]
        self._gap = CentralMoments()
        self._sizes = [CentralMoments(), CentralMoments()]
        self._cross = [0.0, 0.0]

    def begin_epoch(self) -> None:
        self._carry()
        self._restart()

    def _inside(self, *columns: Array) -> Array:
        """Which rows lie within the declared bounds in all columns."""
        bounds = self.hypothesis.bounds
        keep = np.ones(columns[0].size, dtype=bool)
        if bounds is not None:
            for x in columns:
                keep &= (x >= bounds[0]) & (x <= bounds[1])
            self.outside += int(keep.size - np.count_nonzero(keep))
        return keep

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        keep = self._inside(champion, challenger)
        champion, challenger = champion[keep], challenger[keep]
        self._count_pairs(champion.size)
        self.time_blocks.add_pairs([champion], [challenger])
        self._arms[0].add(champion)
        self._arms[1].add(challenger)
        self._gap.add(challenger - champion)

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        keep = self._inside(values)
        if not keep.all():
            arms, values, share = arms[keep], values[keep], share[keep]
        self._add_split(arms, values, share)

    def _add_split(self, arms: Array, values: Array, share: Array) -> None:
        self._count_split(arms)
        self.time_blocks.add_split(arms, [values], share)
        chosen = arms == 1.0
        self._arms[0].add(values[~chosen])
        self._arms[1].add(values[chosen])

    def update_units(self, arms: Array, sums: Array, counts: Array, share: Array) -> None:
        self._count_split(arms)
        self.time_blocks.add_split(arms, [sums], share, counts)
        for side in (0, 1):
            chosen = arms == side
            u, v = sums[chosen], counts[chosen]
            if not u.size:
                continue
            a, size = self._arms[side], self._sizes[side]
            inner = float(np.dot(u - u.mean(), v - v.mean()))
            if a.n:
                gap = (float(u.mean()) - a.mean) * (float(v.mean()) - size.mean)
                inner += gap * a.n * u.size / (a.n + u.size)
            self._cross[side] += inner
            a.add(u)
            size.add(v)

    def _arm(self, side: int) -> tuple[float, float]:
        """Mean of an arm and the variance of that mean."""
        m, size = self._arms[side], self._sizes[side]
        if not size.n:
            return m.mean, m.variance / m.n
        mean = m.mean / size.mean
        squares = m.m2 - 2.0 * mean * self._cross[side] + mean * mean * size.m2
        return mean, max(squares, 0.0) / (m.n - 1) / size.mean**2 / m.n

    def _summary(self, ratio: float) -> tuple[float, float, float] | None:
        """t, the estimate of mu_1 - ratio mu_0, and the standard deviation of one of t terms."""
        if min(m.n for m in self._arms) < 2:
            return None
        (mean0, v0), (mean1, v1) = self._arm(0), self._arm(1)
        n = float(self._arms[0].n if self.paired else self._arms[0].n + self._arms[1].n)
        variance = v1 + ratio * ratio * v0 - 2.0 * ratio * self._between()
        if not variance > 0.0:
            return None
        return n, mean1 - ratio * mean0, math.sqrt(n * variance)

    def _between(self) -> float:
        """Covariance of the two arms' means: 0 unless both answered the same requests."""
        if not self.paired:
            return 0.0
        (_, v0), (_, v1) = self._arm(0), self._arm(1)
        return 0.5 * (v0 + v1 - self._gap.variance / self._gap.n)

    def _gated(self) -> tuple[dict[str, CentralMoments], str]:
        if self.paired:
            return {"the difference": self._gap}, "pairs"
        unit = "units" if self._sizes[0].n else "records"
        return dict(zip(_ARMS, self._arms, strict=True)), unit

    def _readiness(self) -> tuple[bool, str]:
        readiness = self._gate.enough(*self._gated())
        return readiness.ready, readiness.reason

    def _events(self) -> float | None:
        return min(part.effective for part in self._gated()[0].values())

    def _suspect(self) -> bool:
        return self._gate.dependent(*self._gated()) is not None

    def _note(self) -> str:
        return self._readiness()[1]

    def _log_es(self) -> tuple[float, float]:
        if not self._readiness()[0]:
            return 0.0, 0.0
        return self._log_e(self.to_pass), self._log_e(self.to_harm)

    def _log_e(self, null: NullBoundary) -> float:
        summary = self._summary(null.ratio)
        if summary is None:
            return 0.0
        n, centre, deviation = summary
        s = n * (centre - null.shift) / deviation
        if null.alternative == "less":
            s = -s
        return float(log_normal_mixture(s, n, 1.0 / self._precision, sided=1))

    def estimates(self) -> tuple[float | None, float | None]:
        return (
            self._arm(0)[0] if self._arms[0].n else None,
            self._arm(1)[0] if self._arms[1].n else None,
        )

    def difference(self, alpha: float) -> Interval:
        summary = self._summary(1.0) if self._readiness()[0] else None
        if summary is None:
            return Interval()
        n, centre, deviation = summary
        radius = float(asymptotic_radius(n, deviation, alpha, self._precision))
        return Interval(centre - radius, centre + radius)

    def ratio(self, alpha: float) -> Interval | None:
        """Every r for which 0 is in the interval of mu_1 - r mu_0 (Fieller's argument).

        None where values may be negative, for which a ratio means nothing.
        """
        if not min(m.n for m in self._arms):
            return Interval(0.0, math.inf)
        if self._arms[0].mean <= 0.0 or self._arms[1].mean < 0.0:
            return None
        whole = Interval(0.0, math.inf)
        at = self._summary(1.0) if self._readiness()[0] else None
        if at is None:
            return whole
        c = float(asymptotic_radius(at[0], 1.0, alpha, self._precision)) / math.sqrt(at[0])
        (mean0, v0), (mean1, v1) = self._arm(0), self._arm(1)
        half = self._between()
        a = mean0 * mean0 - c * c * v0
        b = mean0 * mean1 - c * c * half
        d = b * b - a * (mean1 * mean1 - c * c * v1)
        if a <= 0.0 or d < 0.0:
            return whole
        return Interval(max(0.0, (b - math.sqrt(d)) / a), (b + math.sqrt(d)) / a)

    def _merge_into(self, both: Self, other: Self) -> None:
        both._arms = [a.merge(b) for a, b in zip(self._arms, other._arms, strict=True)]
        both._gap = self._gap.merge(other._gap)
        both._sizes = [a.merge(b) for a, b in zip(self._sizes, other._sizes, strict=True)]
        for side in (0, 1):
            a, b = self._arms[side], other._arms[side]
            cross = self._cross[side] + other._cross[side]
            if a.n and b.n and self._sizes[side].n:
                gap = (a.mean - b.mean) * (self._sizes[side].mean - other._sizes[side].mean)
                cross += gap * a.n * b.n / (a.n + b.n)
            both._cross[side] = cross


class BoundedMeanPairs(Measure):
    """Paired values within declared bounds: hedged capital on their difference.

    Waudby-Smith & Ramdas 2024, Theorem 3. No gate, no assumption on the tails.
    """

    kind = "bounded-mean-pairs"

    _lower: Config[float]
    _upper: Config[float]
    _tests: Saved[Two[BettingTest]]
    _interval: Saved[BettingInterval]
    _sums: Saved[Two[float]]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        if hypothesis.bounds is None:
            raise ValueError("bounds are needed")
        self._lower, self._upper = hypothesis.bounds
        self._tests = [self._test(null) for null in (self.to_pass, self.to_harm)]
        width = self._upper - self._lower
        self._interval = BettingInterval(-width, width, hypothesis.alpha, _CELLS)
        self._sums = [0.0, 0.0]

    def _test(self, null: NullBoundary) -> BettingTest:
        ends = (self._lower * null.ratio, self._upper * null.ratio)
        return BettingTest(
            null.shift,
            null.alternative,
            lower=self._lower - max(ends),
            upper=self._upper - min(ends),
            alpha=self.hypothesis.alpha,
        )

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        keep = (np.minimum(champion, challenger) >= self._lower) & (
            np.maximum(champion, challenger) <= self._upper
        )
        self.outside += int(keep.size - np.count_nonzero(keep))
        champion, challenger = champion[keep], challenger[keep]
        self._count_pairs(champion.size)
        self.time_blocks.add_pairs([champion], [challenger])
        self._sums[0] += float(champion.sum())
        self._sums[1] += float(challenger.sum())
        self._interval.update(challenger - champion)
        for null, test in zip((self.to_pass, self.to_harm), self._tests, strict=True):
            test.update(challenger - null.ratio * champion)

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        raise TypeError("pairs only")

    def _log_es(self) -> tuple[float, float]:
        return self._tests[0].log_e, self._tests[1].log_e

    def estimates(self) -> tuple[float | None, float | None]:
        n = self.n[0]
        return (self._sums[0] / n, self._sums[1] / n) if n else (None, None)

    def difference(self, alpha: float) -> Interval:
        """The running intersection; it was made for the hypothesis' own level."""
        return self._interval.interval()

    def _merge_into(self, both: Self, other: Self) -> None:
        both._tests = [a.merge(b) for a, b in zip(self._tests, other._tests, strict=True)]
        both._interval = self._interval.merge(other._interval)
        both._sums = [a + b for a, b in zip(self._sums, other._sums, strict=True)]
