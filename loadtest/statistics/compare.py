"""Is B worse than A? Repeats of both in turns, and a smallest difference that matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.loadtest.statistics.intervals import Interval, mean

FEWEST = 3
Said = Literal["better", "worse", "no difference that matters", "not enough repeats"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``ratio`` of B to A with its interval; ``margin`` is the smallest relative difference that
    matters, as 0.05. More is worse, as of latencies."""

    metric: str
    ratio: Interval | None
    margin: float
    said: Said

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        interval = self.ratio
        return {
            "metric": self.metric,
            "ratio": interval.value if interval else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "margin": self.margin,
            "said": self.said,
        }


def compare(
    metric: str, a: Sequence[float], b: Sequence[float], margin: float, level: float = 0.95
) -> Comparison:
    """Pairs of repeats that ran next to each other, (A, B); what drifts meanwhile, as the machine's
    speed, is the same for both. The interval is that of the mean log ratio (Student's t).

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
    found = mean(logs.tolist(), level)
    assert found is not None
    ratio = Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high))
    said: Said = "not enough repeats"
    if ratio.low > 1.0 + margin:
        said = "worse"
    elif ratio.high < 1.0 / (1.0 + margin):
        said = "better"
    elif ratio.high < 1.0 + margin and ratio.low > 1.0 / (1.0 + margin):
        said = "no difference that matters"
    return Comparison(metric, ratio, margin, said)
