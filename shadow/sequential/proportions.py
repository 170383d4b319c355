"""Success rates: a confidence sequence for one arm, and for difference and ratio of two.

One arm: Beta mixture of binomial likelihood ratios (Robbins 1970; Howard et al. 2021,
arXiv:1810.08240, Prop. 7 for the tuning). Two arms: the e-values of both arms multiply, so the
pairs (theta_0, theta_1) not excluded form a region, and the difference or ratio ranges over the
values it takes there: for a given value the worst pair counts (the simple form of Turner &
Gruenwald, arXiv:2203.09785). Counts are all that is needed, and they add.

Assumption: within an arm every record has the same success probability given the past. Where the
base rate drifts, take :class:`SplitDifference` for the interval and :class:`LabelBetting` for the
test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.roots import find_root
from understudy.shadow.sequential.common import (
    Interval,
    MergeRule,
    Process,
    SequentialError,
    binary,
    count,
    log_beta_mixture_1,
    positive,
    probability,
    same_length,
)
from understudy.shadow.state import Count, FieldError, Saved, Setting, Two


def tuned_concentration(planned: float, alpha: float = 0.05) -> float:
    """The concentration of a Beta prior that makes intervals tightest at ``planned`` records.

    planned/(2 ln(1/alpha) + ln(1 + 2 ln(1/alpha))) - 1, at least 0.001 (Howard et al. 2021, after
    Prop. 3).
    """
    log_term = -2.0 * math.log(probability("alpha", alpha))
    return max(positive("planned", planned) / (log_term + math.log1p(log_term)) - 1.0, 1e-3)


def bernoulli_interval(successes: int, n: int, alpha: float, concentration: float) -> Interval:
    """Confidence sequence for one success probability at this moment, inside [0, 1].

    All p with lnB(c p + k, c (1-p) + n - k) - lnB(c p, c (1-p)) - k ln p - (n-k) ln(1-p) below
    ln(1/alpha), c the ``concentration``: each candidate is tested by a mixture centred at itself.
    """
    k, size = count("successes", successes), count("n", n)
    if k > size:
        raise SequentialError("successes", f"must be at most n ({size}), not {k}")
    c, goal = positive("concentration", concentration), -math.log(probability("alpha", alpha))
    if size == 0:
        return Interval(0.0, 1.0)

    def excess(p: float) -> float:
        return log_beta_mixture_1(k, size, p, c * p, c * (1.0 - p)) - goal

    mode = k / size
    tiny = 1e-300
    lower, upper = 0.0, 1.0
    if k > 0 and excess(tiny) > 0.0:
        # In ln p, so that the end of a rate of 1e-9 is found to its digits.
        start = math.log(min(mode, 1.0 - 1e-12))
        root = find_root(lambda s: excess(math.exp(s)), math.log(tiny), start, xtol=1e-12)
        lower = math.exp(root - 1e-12)
    if k < size and excess(1.0 - 1e-15) > 0.0:
        upper = find_root(excess, max(mode, 1e-300), 1.0 - 1e-15, xtol=1e-14, rtol=1e-12)
        upper = min(1.0, upper * (1.0 + 1e-11))
    return Interval(lower, upper)


class BernoulliInterval(Process):
    """Success rate of one arm: counts, and the confidence sequence at any level.

    ``planned`` is the number of records for which it is tightest. Merge: additive.

    Raises SequentialError, which names the argument.

    >>> rate = BernoulliInterval(planned=1_000)
    >>> rate.update([1.0] * 30 + [0.0] * 970)
    >>> found = rate.interval(0.05)
    >>> 0.01 < found.lower < 0.03 < found.upper < 0.06
    True
    """

    kind: ClassVar[str] = "bernoulli-interval"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    planned: Setting[float]
    alpha: Setting[float]
    successes: Saved[Count]
    n: Saved[Count]

    def __init__(self, planned: float = 1000.0, alpha: float = 0.05) -> None:
        self.planned = positive("planned", planned)
        self.alpha = probability("alpha", alpha)
        self.successes = 0
        self.n = 0

    def update(self, outcomes: npt.ArrayLike) -> None:
        """Take outcomes 0 or 1."""
        y = binary("outcomes", outcomes)
        self.successes += int(np.count_nonzero(y))
        self.n += y.size

    def _restored(self) -> None:
        if self.successes > self.n:
            raise FieldError("successes", f"must be at most n ({self.n})")

    @property
    def estimate(self) -> float | None:
        """The observed rate; None before any record."""
        return self.successes / self.n if self.n else None

    def interval(self, alpha: float | None = None) -> Interval:
        """The confidence sequence now, at the level it was tuned for or another."""
        level = self.alpha if alpha is None else alpha
        c = tuned_concentration(self.planned, self.alpha)
        return bernoulli_interval(self.successes, self.n, level, c)

    def merge(self, other: Self) -> Self:
        """Add the counts."""
        both = self.begin_merge(other)
        both.successes = self.successes + other.successes
        both.n = self.n + other.n
        return both


class TwoProportions(Process):
    """Difference and ratio of two success rates, challenger against champion.

    Each arm's e-value at theta is the mixture over Beta(c r, c (1-r)) with r the ``base_rate`` and
    c the ``concentration``, in the numerator only; the default Beta(1/2, 1/2) knows nothing, while
    a declared base rate with c about 10 narrows the interval by about a tenth. Merge: additive.
    """

    kind: ClassVar[str] = "two-proportions"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    base_rate: Setting[float]
    concentration: Setting[float]
    successes: Saved[Two[Count]]
    n: Saved[Two[Count]]

    def __init__(self, base_rate: float = 0.5, concentration: float = 1.0) -> None:
        self.base_rate = probability("base_rate", base_rate)
        self.concentration = positive("concentration", concentration)
        self.successes = [0, 0]
        self.n = [0, 0]

    def update(self, arms: npt.ArrayLike, outcomes: npt.ArrayLike) -> None:
        """Take records: ``arms`` 1 for the challenger, 0 for the champion; ``outcomes`` 0 or 1."""
        arm, y = binary("arms", arms), binary("outcomes", outcomes)
        same_length(("arms", "outcomes"), arm, y)
        served, won = int(arm.sum()), int(arm @ y)
        self.update_counts((arm.size - served, served), (int(y.sum()) - won, won))

    def update_counts(self, records: tuple[int, int], successes: tuple[int, int]) -> None:
        """Take numbers of records, and of successes among them, of champion and challenger."""
        self.n = [a + b for a, b in zip(self.n, records, strict=True)]
        self.successes = [a + b for a, b in zip(self.successes, successes, strict=True)]

    def _restored(self) -> None:
        if any(k > n for k, n in zip(self.successes, self.n, strict=True)):
            raise FieldError("successes", "must be at most n in each arm")

    def rates(self) -> tuple[float | None, float | None]:
        """Observed rates of champion and challenger; None where there is no record."""
        champion, challenger = (
            k / n if n else None for k, n in zip(self.successes, self.n, strict=True)
        )
        return champion, challenger

    def _log_e(self, arm: int) -> Callable[[float], float]:
        """ln E of one arm as a (convex) function of its success probability."""
        k, n = self.successes[arm], self.n[arm]
        a = self.concentration * self.base_rate
        b = self.concentration - a
        if n == 0:
            return lambda theta: 0.0
        # Around the observed rate, where the two large terms cancel: a constant minus the KL.
        mode = min(max(k / n, 1e-300), 1.0 - 1e-16)
        at_mode = log_beta_mixture_1(k, n, mode, a, b)

        def log_e(theta: float) -> float:
            gain = special.kl_div(k / n, theta) + special.kl_div(1.0 - k / n, 1.0 - theta)
            return at_mode + n * float(gain)

        return log_e

    def difference(self, alpha: float = 0.05) -> Interval:
        """The confidence sequence for theta_1 - theta_0 now, inside [-1, 1]."""
        goal = -math.log(probability("alpha", alpha))
        lower = -self._extreme(goal, up=0, down=1, ratio=False)
        return Interval(lower, self._extreme(goal, up=1, down=0, ratio=False))

    def ratio(self, alpha: float = 0.05) -> Interval:
        """The confidence sequence for theta_1 / theta_0 now; [0, inf) before anything is known."""
        goal = -math.log(probability("alpha", alpha))
        inverse = self._extreme(goal, up=0, down=1, ratio=True)
        return Interval(1.0 / inverse, self._extreme(goal, up=1, down=0, ratio=True))

    def _extreme(self, goal: float, *, up: int, down: int, ratio: bool) -> float:
        """The largest theta_up - theta_down (or ratio) with ln E_up + ln E_down below the goal.

        On the region's edge the two functions have opposite slopes, in theta or in ln theta; for a
        common slope s both thetas are roots of a quadratic, and the sum grows with s.
        """
        k1, n1, k0, n0 = self.successes[up], self.n[up], self.successes[down], self.n[down]
        g1, g0 = self._log_e(up), self._log_e(down)
        if ratio and k0 == 0:
            return math.inf

        def pair(slope: float) -> tuple[float, float]:
            if ratio:
                return (k1 + slope) / (n1 + slope), (k0 - slope) / (n0 - slope)
            return _at_slope(k1, n1, slope), _at_slope(k0, n0, -slope)

        def excess(log_slope: float) -> float:
            theta1, theta0 = pair(math.exp(log_slope))
            return g1(theta1) + g0(theta0) - goal

        def value(slope: float) -> float:
            theta1, theta0 = pair(slope)
            return theta1 / theta0 if ratio else theta1 - theta0

        low, high = -30.0, (math.log(k0) - 1e-13 if ratio else 60.0)
        if excess(low) >= 0.0:
            return value(math.exp(low))
        if excess(high) < 0.0:
            if not ratio:
                return value(math.exp(high))
            # Only when every record of that arm succeeded: at this slope its theta is free.
            theta1 = pair(math.exp(high))[0]
            return theta1 * math.exp((goal - g1(theta1) - g0(1.0)) / k0)
        root = find_root(excess, low, high, xtol=1e-10)
        return value(math.exp(min(root + 1e-10, high)))

    def merge(self, other: Self) -> Self:
        """Add the counts."""
        both = self.begin_merge(other)
        both.successes = [a + b for a, b in zip(self.successes, other.successes, strict=True)]
        both.n = [a + b for a, b in zip(self.n, other.n, strict=True)]
        return both


def _at_slope(k: int, n: int, slope: float) -> float:
    """The theta in [0, 1] at which -k/theta + (n-k)/(1-theta) equals ``slope``."""
    linear = n - slope
    root = math.sqrt(max(0.0, linear * linear + 4.0 * slope * k))
    if linear >= 0.0:
        return min(1.0, 2.0 * k / (linear + root)) if linear + root > 0.0 else 0.0
    return min(1.0, (root - linear) / (2.0 * slope))
