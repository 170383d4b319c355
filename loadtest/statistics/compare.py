"""Is B worse than A? Compares alternating repeats, with a smallest difference that matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.loadtest.statistics.intervals import Interval, mean

FEWEST = 3
ComparisonVerdict = Literal["better", "worse", "no difference that matters", "not enough repeats"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``ratio`` of B to A with its interval; ``margin`` is the smallest relative difference that
    matters, as 0.05. More is worse, as of latencies."""

    metric: str
    ratio: Interval | None
    margin: float
    verdict: ComparisonVerdict

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        interval = self.ratio
        return {
            "metric": self.metric,
            "ratio": interval.value if interval else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "margin": self.margin,
            "said": self.verdict,
        }


def compare(
    metric: str, a: Sequence[float], b: Sequence[float], margin: float, level: float = 0.95
) -> Comparison:
    """Compare repeats ``a`` and ``b``, (n,) each, that ran alternately, so that drift of the
    machine affects both. The interval is that of the mean log ratio (Student's t) at ``level``.

    Worse: the whole interval lies above 1 + margin. No difference: it lies within the margin on
    both sides. In between more repeats are needed. Raises ValueError for unequal numbers and for
    values that are not positive.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} repeats of one and {len(b)} of the other")
    if any(not v > 0.0 or not math.isfinite(v) for v in (*a, *b)):
        raise ValueError(f"{metric}: repeats must be positive numbers")
    if len(a) < FEWEST:
        return Comparison(metric, None, margin, "not enough repeats")
    logs = np.log(np.array(b, np.float64) / np.array(a, np.float64))
    result = mean(logs.tolist(), level)
    assert result is not None
    ratio = Interval(math.exp(result.value), math.exp(result.low), math.exp(result.high))
    verdict: ComparisonVerdict = "not enough repeats"
    if ratio.low > 1.0 + margin:
        verdict = "worse"
    elif ratio.high < 1.0 / (1.0 + margin):
        verdict = "better"
    elif ratio.high < 1.0 + margin and ratio.low > 1.0 / (1.0 + margin):
        verdict = "no difference that matters"
    return Comparison(metric, ratio, margin, verdict)
