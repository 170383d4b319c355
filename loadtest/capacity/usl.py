"""The Universal Scalability Law (Gunther 2007): throughput against concurrency, and its knee.

X(N) = gamma N / (1 + alpha (N - 1) + beta N (N - 1)): alpha is contention, beta
coherency. The peak is at N = sqrt((1 - alpha) / beta). A fit extrapolates badly from
measurements below the knee. So the knee has a bootstrap interval, and is not reported if the
measurements do not bound that interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from understudy.loadtest.statistics.intervals import Interval

Floats = NDArray[np.float64]
FEWEST = 5
"""The smallest number of different concurrencies for three parameters."""
FURTHEST = 1.5
"""Largest upper end of an interval, as a multiple of the highest measured concurrency."""
_RESAMPLED = 400
_NO_END = 1e12


@dataclass(frozen=True, slots=True)
class Scalability:
    """``gamma`` in requests per second at one; ``knee`` is the concurrency with the most throughput
    and ``most`` that throughput, None where the measurements do not reach far enough; ``why_not``
    is the reason."""

    gamma: float
    alpha: float
    beta: float
    knee: Interval | None
    most: Interval | None
    why_not: str = ""

    def throughput(self, n: Floats) -> Floats:
        """Predicted throughput per second, (n,), at concurrencies ``n``."""
        values: Floats = self.gamma * n / (1.0 + self.alpha * (n - 1.0) + self.beta * n * (n - 1.0))
        return values

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""

        def ends(interval: Interval | None) -> dict[str, float] | None:
            if interval is None:
                return None
            return {"value": interval.value, "low": interval.low, "high": interval.high}

        return {
            "gamma": self.gamma,
            "alpha": self.alpha,
            "beta": self.beta,
            "knee": ends(self.knee),
            "most": ends(self.most),
            "why_not": self.why_not,
        }


def fit(concurrency: Sequence[float], throughput: Sequence[float], seed: int = 0) -> Scalability:
    """Fit the law to measurements, (n,) each; concurrencies may repeat.

    Least squares of N / X, which is linear in the parameters, none of them negative, by relative
    error; the interval from resampled residuals. Raises ValueError for too few concurrencies.
    """
    n, x = np.array(concurrency, np.float64), np.array(throughput, np.float64)
    if len(n) != len(x) or (n <= 0.0).any() or (x <= 0.0).any():
        raise ValueError("concurrencies and throughputs must be positive, of equal number")
    if len(np.unique(n)) < FEWEST:
        raise ValueError(
            f"{len(np.unique(n))} different concurrencies are too few, {FEWEST} are needed"
        )
    gamma, alpha, beta = _solve(n, x)
    scalability = Scalability(gamma, alpha, beta, None, None)
    residuals = np.log(x / scalability.throughput(n))
    residuals = residuals * math.sqrt(len(n) / max(1.0, len(n) - 3.0))
    rng = np.random.default_rng(seed)
    knees, peaks = [], []
    for _ in range(_RESAMPLED):
        drawn = scalability.throughput(n) * np.exp(rng.choice(residuals, len(n)))
        _, a, b = (g := _solve(n, drawn))
        knee = math.sqrt(max(1.0 - a, 0.0) / b) if b > 0.0 else math.inf
        knees.append(knee)
        peaks.append(_at(g, knee) if math.isfinite(knee) else math.inf)
    low, high = np.quantile(np.minimum(knees, _NO_END), [0.025, 0.975])
    furthest = FURTHEST * float(n.max())
    if high > furthest:
        shown = "has no upper end" if high >= _NO_END / 2.0 else f"reaches to {high:,.0f}"
        return Scalability(
            gamma, alpha, beta, None, None,
            f"the knee's interval {shown}, beyond the measured {n.max():g}: measure "
            "higher concurrencies",
        )  # fmt: skip
    knee = math.sqrt(max(1.0 - alpha, 0.0) / beta) if beta > 0.0 else float(np.median(knees))
    most = np.quantile(np.minimum(peaks, _NO_END), [0.025, 0.975])
    return Scalability(
        gamma, alpha, beta,
        Interval(knee, float(low), float(high)),
        Interval(_at((gamma, alpha, beta), knee), float(most[0]), float(most[1])),
    )  # fmt: skip


def _at(found: tuple[float, float, float], n: float) -> float:
    gamma, alpha, beta = found
    return gamma * n / (1.0 + alpha * (n - 1.0) + beta * n * (n - 1.0))


def _solve(n: Floats, x: Floats) -> tuple[float, float, float]:
    # N / X = 1/gamma + (alpha/gamma) (N - 1) + (beta/gamma) N (N - 1)
    design = np.column_stack([np.ones_like(n), n - 1.0, n * (n - 1.0)])
    weight = x / n
    parts, _ = nnls(design * weight[:, None], np.ones_like(n))
    if parts[0] <= 0.0:
        parts[0] = float((n / x).min())
    return 1.0 / float(parts[0]), float(parts[1] / parts[0]), float(parts[2] / parts[0])
