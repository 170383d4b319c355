"""Does a percentile meet its limit? An anytime-valid test: it can be evaluated at every moment.

Whether the p-th percentile lies within a limit is whether the share of requests over the limit is
at most 1 - p. So two counts are sufficient: n requests, k of them over the limit. Against
"exactly the share q over it" a mixture over all other shares bets,

    E = B(a + k, b + n - k) / (B(a, b) q^k (1 - q)^(n - k)),

which is a martingale under the null (Robbins 1970; Ville 1939): it reaches 1 / alpha with
probability at most alpha, however often it is evaluated. One-sided mixtures restrict the bets to
shares below q (to show that the limit is met) or above it (to show that it is not).

A share near q takes longest to tell, and there the beta mixture spends most on shares that it is
not. So a part of the stake is on two separate points. No test with these guarantees can do much
better: a share of r q takes -log(alpha) / KL(r q, q) requests in the mean, whatever the test (Wald
1947), even one that knows r; at r = 0.75 that is 2.4 times what LoadGen's rule takes when it is
looked at all the time, which costs that rule its guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from understudy.common.special import betainc, betaincc, betaln, xlog1py, xlogy

Verdict = Literal["met", "missed", "open"]
_POINTS = ((0.5, 0.2), (0.75, 0.5))
"""Shares over the limit, as parts of what is allowed, with their parts of the stake; what is left
is on the beta mixture."""
_SPARE = 0.9
"""Part of alpha that is used: a pass is what a wrong one costs most of, and the bound is tight."""


@dataclass(frozen=True, slots=True)
class Percentile:
    """The objective that a share ``p`` of the requests takes at most a limit. ``alpha`` bounds the
    probability of ever returning "met" when it does not hold, and of "missed" when it does.
    ``easy`` is the share over the limit, as a part of 1 - p, for which a pass should come soonest;
    the mixture is centred there. Raises ValueError unless all three lie between 0 and 1."""

    p: float
    alpha: float = 0.01
    easy: float = 0.25

    def __post_init__(self) -> None:
        if not (0.0 < self.p < 1.0 and 0.0 < self.alpha < 1.0 and 0.0 < self.easy < 1.0):
            raise ValueError(f"{self}: p, alpha and easy lie between 0 and 1")

    @property
    def share(self) -> float:
        """The share of requests that may take longer."""
        return 1.0 - self.p

    def log_met(self, n: int, over: int) -> float:
        """Log of the evidence that fewer than the share take longer; ``over`` of ``n`` did."""
        rest = 1.0 - sum(weight for _, weight in _POINTS)
        bets = [math.log(rest) + _log_evidence(n, over, self.share, self.easy * self.share, True)]
        for part, weight in _POINTS:
            bets.append(math.log(weight) + _log_ratio(n, over, part * self.share, self.share))
        highest = max(bets)
        return highest + math.log(sum(math.exp(bet - highest) for bet in bets))

    def log_missed(self, n: int, over: int) -> float:
        """Log of the evidence that more than the share take longer."""
        high = min((1.0 + self.share) / 2.0, 3.0 * self.share)
        return _log_evidence(n, over, self.share, high, False)

    def verdict(self, n: int, over: int) -> Verdict:
        """The verdict for ``over`` of ``n`` requests over the limit. The guarantee holds for the
        first verdict that is not "open"."""
        if self.log_met(n, over) >= -math.log(_SPARE * self.alpha):
            return "met"
        return "missed" if self.log_missed(n, over) >= -math.log(self.alpha) else "open"

    @property
    def fewest(self) -> int:
        """The smallest number of requests that can prove the objective, with none over the
        limit."""
        return _fewest(self)


def _log_evidence(n: int, over: int, q: float, centre: float, below: bool) -> float:
    """A beta mixture around ``centre``, cut off at ``q``; its weight is one share in two."""
    if not 0 <= over <= n:
        raise ValueError(f"{over} of {n} requests cannot be over the limit")
    if not n:
        return 0.0
    a = 0.5
    b = a * (1.0 - centre) / centre
    part = betainc if below else betaincc
    before = float(part(a, b, q))
    after = float(part(a + over, b + n - over, q))
    if after <= 0.0:
        return -math.inf
    null = float(xlogy(over, q) + xlog1py(n - over, -q))
    mixed = float(betaln(a + over, b + n - over) - betaln(a, b))
    return mixed + math.log(after) - math.log(before) - null


def _log_ratio(n: int, over: int, share: float, q: float) -> float:
    """Log likelihood ratio of a share against q."""
    return over * math.log(share / q) + (n - over) * (math.log1p(-share) - math.log1p(-q))


@lru_cache(maxsize=256)
def _fewest(objective: Percentile) -> int:
    high = 1
    while objective.verdict(high, 0) != "met":
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        if objective.verdict(middle, 0) != "met":
            low = middle
        else:
            high = middle
    return high


def queries_needed(p: float, over: int, confidence: float = 0.99, tolerance: float = 0.0) -> int:
    """LoadGen's early stopping: how many queries there must be when ``over`` were over the limit.

    The smallest h + over with I(p - tolerance; h, over + 1) <= 1 - confidence (MLPerf LoadGen,
    early stopping; the binomial test of a share of p). It holds for one planned
    test: testing again later passes falsely more often than 1 - confidence.
    """
    if not (0.0 < p < 1.0 and 0.0 < confidence < 1.0) or over < 0 or not 0.0 <= tolerance < p:
        raise ValueError("p and confidence lie between 0 and 1, and over is not negative")
    high = 1
    while betainc(high, over + 1, p - tolerance) > 1.0 - confidence:
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        if betainc(middle, over + 1, p - tolerance) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high + over


def loadgen_verdict(p: float, n: int, over: int, confidence: float = 0.99) -> Verdict:
    """Whether so many queries are enough by LoadGen's rule."""
    return "met" if n >= queries_needed(p, over, confidence) else "open"
