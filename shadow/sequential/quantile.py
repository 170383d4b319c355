"""A quantile of one arm: a confidence sequence read straight off bucket counts.

The number k of n records at or below the true p-quantile is binomial(n, p), so

    E = B(a+k, b+n-k) / (B(a, b) p^k (1-p)^(n-k))

is an e-process there, and an edge x at which it reaches 1/alpha is not the quantile: too few
records at or below x put the quantile above x, too many below it. Howard & Ramdas, "Sequential
estimation of quantiles", Bernoulli 28 (2022), arXiv:1906.09712, with the beta-binomial mixture of
Howard et al. 2021 (arXiv:1810.08240, Proposition 7). Only counts at edges are needed, so the
guarantee is exact whatever the buckets; their width is the resolution of the interval.

Assumption: given the past, each record is at or below the true quantile with probability p. That
holds for independent records of one distribution, not for bursts or a drifting latency.
"""

from __future__ import annotations

from understudy.shadow.sequential.common import positive, probability
from understudy.shadow.sequential.normal_mixture import best_rho, beta_shapes


def quantile_shapes(p: float, planned: float = 10_000, alpha: float = 0.05) -> tuple[float, float]:
    """The Beta(a, b) that makes the interval for the p-quantile tightest at ``planned`` records.

    Centred on p with the weight of about planned/(2 ln(1/alpha) + ln(1 + 2 ln(1/alpha))) records:
    the normal mixture's best precision at intrinsic time planned p (1-p), carried over to counts.
    """
    p = probability("p", p)
    v = positive("planned", planned) * p * (1.0 - p)
    return beta_shapes(best_rho(v, alpha), p, 1.0 - p)


def lowest_count(n: float, p: float, a: float, b: float) -> float:
    """The (real) k at which the mixture is smallest: about the posterior count that matches p.

    The minimum is where digamma(a+k) - digamma(b+n-k) = logit p; with digamma(x) ~ ln(x - 1/2) that
    is a linear equation. ln E is flat there: being off by 1/24 of a record raises it by 1e-5.
    """
    return min(max(p * (n + a + b - 1.0) - a + 0.5, 0.0), float(n))
