"""Mean, variance, skew, kurtosis and lag-1 correlation of a stream, mergeable and stable.

Central sums are updated and merged by Pebay's formulas (Sandia report SAND2008-6212, equations 2.1
and 3.1), which do not cancel however large the mean is.
"""

from __future__ import annotations

import math

import numpy as np

from understudy.shadow.sequential.common import Array
from understudy.shadow.state import Count, FieldError, Saved, Stateful


class CentralMoments(Stateful):
    """n, mean and the sums of (x - mean)^k, k = 2, 3, 4, and of squared successive differences."""

    __slots__ = ("last", "m2", "m3", "m4", "mean", "n", "pairs", "steps")
    state_as_list = True

    n: Saved[Count]
    mean: Saved[float]
    m2: Saved[float]
    m3: Saved[float]
    m4: Saved[float]
    pairs: Saved[Count]
    """Successive records that were seen together."""
    steps: Saved[float]
    """The sum of their squared differences."""
    last: Saved[float | None]

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.m2 = self.m3 = self.m4 = 0.0
        self.pairs = 0
        self.steps = 0.0
        self.last = None

    def _restored(self) -> None:
        if min(self.m2, self.m4, self.steps) < 0.0:
            raise FieldError("moments", "must not hold negative sums of squares")

    @property
    def variance(self) -> float:
        """The unbiased variance; 0 with fewer than two records."""
        return self.m2 / (self.n - 1) if self.n > 1 else 0.0

    @property
    def skewness(self) -> float:
        """Third standardised moment; 0 without spread."""
        return math.sqrt(self.n) * self.m3 / self.m2**1.5 if self.m2 > 0.0 else 0.0

    @property
    def effective(self) -> float:
        """Effective number of records behind the variance: n / kurtosis.

        A third of n for normal data, the number of events for rare ones, a handful when one record
        dominates; 0 without spread.
        """
        return self.m2 * self.m2 / self.m4 if self.m4 > 0.0 else 0.0

    @property
    def autocorrelation(self) -> float:
        """Correlation of successive records, 1 - (mean squared step) / (2 variance).

        von Neumann's ratio; 0 before there is spread and a pair.
        """
        if self.m2 <= 0.0 or not self.pairs:
            return 0.0
        return 1.0 - 0.5 * (self.steps / self.pairs) / (self.m2 / self.n)

    def add(self, x: Array) -> None:
        """Take a batch in its order of arrival."""
        if not x.size:
            return
        if x.size == 1:
            self._add_one(float(x[0]))
            return
        if self.last is not None:
            self.steps += (float(x[0]) - self.last) ** 2
            self.pairs += 1
        d = np.diff(x)
        self.steps += float(np.dot(d, d))
        self.pairs += x.size - 1
        self.last = float(x[-1])
        mean = float(x.mean())
        gap = x - mean
        square = gap * gap
        self._join(
            int(x.size),
            mean,
            float(square.sum()),
            float(np.dot(square, gap)),
            float(np.dot(square, square)),
        )

    def _add_one(self, x: float) -> None:
        if self.last is not None:
            self.steps += (x - self.last) ** 2
            self.pairs += 1
        self.last = x
        self._join(1, x, 0.0, 0.0, 0.0)

    def _join(self, n: int, mean: float, m2: float, m3: float, m4: float) -> None:
        if not n:
            return
        a, b, both = float(self.n), float(n), float(self.n + n)
        gap = mean - self.mean
        d = gap / both
        ab = a * b
        self.m4 += (
            m4
            + gap * d**3 * ab * (a * a - ab + b * b)
            + 6.0 * d * d * (a * a * m2 + b * b * self.m2)
            + 4.0 * d * (a * m3 - b * self.m3)
        )
        self.m3 += m3 + gap * d * d * ab * (a - b) + 3.0 * d * (a * m2 - b * self.m2)
        self.m2 += m2 + gap * d * ab
        self.mean += d * b
        self.n += n

    def merge(self, other: CentralMoments) -> CentralMoments:
        """Moments of the union; the successive pair across the seam is unknown and not counted."""
        both = CentralMoments()
        for part in (self, other):
            both._join(part.n, part.mean, part.m2, part.m3, part.m4)
            both.pairs += part.pairs
            both.steps += part.steps
        return both
