"""Control charts: Shewhart's with runs rules, and the EWMA.

They take points: standardised means or rates of groups of rows (:func:`mean_points`,
:func:`rate_points`), or standardised values one by one. Their run lengths are in points, and are
computed: Markov chains for the rules 1-4 (Champ & Woodall, Technometrics 29, 1987), an integral
equation for the EWMA (Crowder, Technometrics 29, 1987).

The rules are those of Western Electric (Statistical Quality Control Handbook, 1956): 1, a point
beyond three standard deviations; 2, two of three beyond two on the same side; 3, four of five
beyond one on the same side; 4, eight in a row on the same side. And the sensitising ones that
Montgomery (Introduction to Statistical Quality Control, 5.3) adds: 5, six in a row steadily rising
or falling; 6, fifteen in a row within one; 7, fourteen in a row alternately up and down; 8, eight
in a row beyond one, on either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import betainc, ndtr, ndtri
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.runs_rules import FOUR, MEMORY, broken
from understudy.shadow.roots import find_root
from understudy.shadow.state import Config, Converter, FieldError, Saved, Stateful, Transient

Floats = NDArray[np.float64]
_NODES = 31
_NODES_PER_UNIT = 4.0
_HERMITE = 21
_WIDEST = 8.0
_LONGEST = 1e12
_BLOCK = 64
_FARTHEST = 38.0
"""Standard deviations, beyond which a probability is none in double precision."""


def mean_points(counts: Floats, sums: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Groups of rows as points: ``counts`` and ``sums`` (n, S), the baseline's mean and standard
    deviation (S,). NaN where a group is empty or nothing varies."""
    with np.errstate(invalid="ignore", divide="ignore"):
        points: Floats = (sums / counts - mean) * np.sqrt(counts) / deviation
    return np.where(np.isfinite(points), points, np.nan)


def rate_points(counts: Floats, events: Floats, rate: Floats) -> Floats:
    """Groups of rows as points of a chart for rates: ``events`` of ``counts`` (n, S), the
    baseline's ``rate`` (S,), which lies between 0 and 1.

    The normal score of the middle of the binomial probability of as many events (mid-p, Lancaster
    1961), so that limits mean the same for rare and for common events.
    """
    n, x = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(events, np.float64))
    p = np.broadcast_to(np.clip(rate, 1e-12, 1.0 - 1e-12), n.shape)
    # P(X < x) + P(X = x) / 2, and the same from above, each precise in its own tail.
    below = np.where(x > 0.0, betainc(n - x + 1.0, np.maximum(x, 0.5), 1.0 - p), 0.0)
    at_most = np.where(x < n, betainc(np.maximum(n - x, 0.5), x + 1.0, 1.0 - p), 1.0)
    above = np.where(x < n, betainc(x + 1.0, np.maximum(n - x, 0.5), p), 0.0)
    at_least = np.where(x > 0.0, betainc(np.maximum(x, 0.5), n - x + 1.0, p), 1.0)
    low, high = (below + at_most) / 2.0, (above + at_least) / 2.0
    points = np.where(low < high, ndtri(low), -ndtri(high))
    result: Floats = np.where(n > 0.0, np.clip(points, -_FARTHEST, _FARTHEST), np.nan)
    return result


_Recent = Annotated[
    list[Floats],
    Converter(
        lambda recent: [one.tolist() for one in recent],
        lambda name, value, now: [np.array(o, np.float64).reshape(-1)[-MEMORY:] for o in value],
    ),
]


class Shewhart(Stateful):
    """Points (n, S) against limits at ``limit`` standard deviations and against runs ``rules``.

    NaN and infinities are ignored. The statistic is the size of the last point over the limit, or
    1 where another rule is broken by it; ``rule`` (S,) says which was broken first in the last
    batch, 0 for none.
    """

    series: Config[int]
    rules: Config[tuple[int, ...]]
    limit: Config[float]
    rule: Transient[NDArray[np.int8]]
    """Of the last batch."""
    _recent: Saved[_Recent]
    """The last points of each series."""

    def __init__(self, series: int, rules: Sequence[int] = FOUR, limit: float = 3.0) -> None:
        if not rules or not set(rules) <= set(range(1, 9)):
            raise ValueError(f"rules are numbers from 1 to 8, not {list(rules)}")
        if not limit > 0.0:
            raise ValueError(f"the limit must be positive, not {limit}")
        self.series = series
        self.rules = tuple(sorted(set(rules)))
        self.limit = limit
        self.rule = np.zeros(series, np.int8)
        self._recent = [np.zeros(0) for _ in range(series)]

    def _restored(self) -> None:
        if len(self._recent) != self.series:
            raise FieldError("recent", f"must be of {self.series} series")

    def update(self, points: Floats) -> Evidence:
        """Take points in their order. Raises ValueError for another number of series."""
        if points.ndim != 2 or points.shape[1] != self.series:
            raise ValueError(f"points have shape (n, {self.series}), not {points.shape}")
        crossed = np.full(self.series, -1, np.intp)
        direction = np.zeros(self.series, np.int8)
        statistic = np.zeros(self.series)
        self.rule = np.zeros(self.series, np.int8)
        here = np.isfinite(points)
        for number in range(self.series):
            indices = np.flatnonzero(here[:, number])
            recent = self._recent[number]
            x = np.concatenate([recent, points[indices, number]])
            if not len(x):
                continue
            result = broken(x, self.rules, self.limit)[len(recent) :]
            self._recent[number] = x[-MEMORY:]
            statistic[number] = abs(x[-1]) / self.limit
            if not len(result):
                continue
            if result[-1]:
                statistic[number] = max(statistic[number], 1.0)
            first = int(np.argmax(result > 0))
            if result[first]:
                crossed[number] = indices[first]
                self.rule[number] = result[first]
                direction[number] = _side(int(result[first]), x[: len(recent) + first + 1])
        return Evidence(statistic, np.ones(self.series), crossed, direction)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Forget the points of some of the series, a mask (S,)."""
        for number in np.flatnonzero(series):
            self._recent[number] = np.zeros(0)


def _side(rule: int, points: Floats) -> int:
    """Up or down; rules about spread or alternation have no side."""
    if rule in (6, 7, 8):
        return 0
    if rule == 5:
        return 1 if points[-1] > points[-2] else -1
    return 1 if points[-1] > 0.0 else -1


class Ewma(Stateful):
    """E = (1 - weight) E + weight * point, two-sided, for points (n, S).

    It alarms at ``limit`` standard deviations of E in the long run; :func:`ewma_limit` finds that
    for a run length. Small weights find small shifts: 0.05 to 0.25 are usual. NaN and infinities
    are ignored. (Roberts, Technometrics 1, 1959; Lucas & Saccucci, Technometrics 32, 1990.)
    """

    series: Config[int]
    weight: Config[float]
    deviation: Config[float]
    threshold: Config[Floats]
    _kept: Config[Floats]
    _effect: Config[Floats]
    _level: Saved[Floats]

    def __init__(self, series: int, weight: float, limit: float | Floats) -> None:
        if not 0.0 < weight <= 1.0:
            raise ValueError(f"the weight lies above 0 and at most at 1, not at {weight}")
        self.series = series
        self.weight = weight
        self.deviation = math.sqrt(weight / (2.0 - weight))
        limits = np.broadcast_to(np.asarray(limit, np.float64), (series,))
        self.threshold = limits * self.deviation
        self._level = np.zeros(series)
        kept = (1.0 - weight) ** np.arange(_BLOCK + 1, dtype=np.float64)
        later = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
        self._kept = kept[1:, None]
        self._effect = np.where(later >= 0, weight * kept[np.maximum(later, 0)], 0.0)

    def update(self, points: Floats) -> Evidence:
        """Take points in their order. Raises ValueError for another number of series."""
        if points.ndim != 2 or points.shape[1] != self.series:
            raise ValueError(f"points have shape (n, {self.series}), not {points.shape}")
        crossed = np.full(self.series, -1, np.intp)
        direction = np.zeros(self.series, np.int8)
        gone = ~np.isfinite(points)
        partial = gone.any(axis=0)
        whole = np.flatnonzero(~partial)
        if len(whole) and len(points):
            self._take(whole, points[:, whole], np.arange(len(points)), crossed, direction)
        for number in np.flatnonzero(partial):
            indices = np.flatnonzero(~gone[:, number])
            here = np.array([number])
            self._take(here, points[indices, number, None], indices, crossed, direction)
        return Evidence(np.abs(self._level), self.threshold.copy(), crossed, direction)

    def _take(
        self,
        series: NDArray[np.intp],
        points: Floats,
        indices: NDArray[np.intp],
        crossed: NDArray[np.intp],
        direction: NDArray[np.int8],
    ) -> None:
        """Some series, without gaps; ``indices`` are their rows in the batch."""
        for start in range(0, len(points), _BLOCK):
            part = points[start : start + _BLOCK]
            n = len(part)
            levels = self._effect[:n, :n] @ part + self._kept[:n] * self._level[series]
            self._level[series] = levels[-1]
            over = np.abs(levels) >= self.threshold[series]
            for index in np.flatnonzero(over.any(axis=0)):
                number, row = series[index], int(np.argmax(over[:, index]))
                if crossed[number] < 0:
                    crossed[number] = indices[start + row]
                    direction[number] = 1 if levels[row, index] > 0.0 else -1

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (S,)."""
        self._level[series] = 0.0


@lru_cache(maxsize=4096)
def ewma_run_length(weight: float, limit: float, mean: float = 0.0) -> float:
    """Points to the first alarm of an EWMA, on average, for points N(mean, 1), by the integral
    equation L(u) = 1 + 1/w int L(y) phi((y - (1 - w) u) / w - mean) dy over [-h, h]."""
    if not limit > 0.0:
        raise ValueError(f"the limit must be positive, not {limit}")
    h = limit * math.sqrt(weight / (2.0 - weight))
    # The kernel is as wide as the weight; the nodes must be closer to each other than that.
    count = int(_NODES + _NODES_PER_UNIT * h / weight)
    nodes, weights = np.polynomial.legendre.leggauss(count)
    at, share = nodes * h, weights * h
    starts = np.concatenate([[0.0], at])
    step = (at[None, :] - (1.0 - weight) * starts[:, None]) / weight - mean
    density = np.exp(-0.5 * step**2) / math.sqrt(2.0 * math.pi) / weight * share[None, :]
    inner = np.linalg.solve(np.eye(count) - density[1:], np.ones(count))
    result = float(1.0 + density[0] @ inner)
    # Beyond this the system is singular as far as double precision can tell.
    return result if 0.0 < result < _LONGEST else math.inf


@lru_cache(maxsize=512)
def ewma_limit(weight: float, run_length: float, baseline_rows: float = math.inf) -> float:
    """The limit of an EWMA whose false alarms come once in ``run_length`` points at most.

    ``baseline_rows``: what the mean was estimated from, in points; the rate of false alarms is
    averaged over its error. Raises ValueError where no limit can be found, since the error of so
    few rows is larger than what a chart of such a weight looks for.
    """
    if run_length < 2.0:
        raise ValueError(f"a run length is at least 2 points, not {run_length}")
    nodes, shares = np.array([0.0]), np.array([1.0])
    if math.isfinite(baseline_rows):
        nodes, shares = np.polynomial.hermite_e.hermegauss(_HERMITE)
        keep = shares > shares.sum() * 1e-9
        nodes, shares = nodes[keep] / math.sqrt(baseline_rows), shares[keep] / shares.sum()

    def excess(limit: float) -> float:
        # Even in the mean, so that half of the nodes are enough; the cache knows the other half.
        rates = [1.0 / ewma_run_length(weight, limit, round(abs(float(m)), 12)) for m in nodes]
        return math.log(max(float(np.dot(shares, rates)) * run_length, 1e-30))

    low = 0.05
    if excess(low) <= 0.0:
        return low
    if excess(_WIDEST) > 0.0:
        raise ValueError(
            f"{baseline_rows:g} rows are too few for an EWMA of weight {weight:g} with a run "
            f"length of {run_length:g}: choose a larger weight, or a larger baseline"
        )
    return find_root(excess, low, _WIDEST, xtol=1e-4)


def shewhart_limit(run_length: float) -> float:
    """The two-sided limit of rule 1 alone for a run length in points."""
    if run_length < 2.0:
        raise ValueError(f"a run length is at least 2 points, not {run_length}")
    return find_root(lambda at: 2.0 * ndtr(-at) - 1.0 / run_length, 0.0, 40.0)


def shewhart(kind: str, options: Mapping[str, Any], baseline_points: float) -> Shewhart:
    """A chart of one series with the ``options`` of the configuration."""
    return Shewhart(1, **options)


def ewma(kind: str, options: Mapping[str, Any], baseline_points: float) -> Ewma:
    """A chart of one series with the ``options`` of the configuration: ``run_length`` in points;
    the mean of the baseline is that of ``baseline_points`` points."""
    weight = float(options.get("weight", 0.1))
    run_length = float(options.get("run_length", 10_000.0))
    return Ewma(1, weight, ewma_limit(weight, run_length, baseline_points))
