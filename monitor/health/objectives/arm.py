"""The objectives of the configuration, tested on the requests of one arm as they come.

An objective about a quantile is one about a share: p99 is at most 50 ms when at most 1 % of the
requests take longer. For a mean, times are cut at :data:`_CUT` times the limit, which only lowers
it. So each objective has values in [0, 1] and a largest mean that it allows.

Requests are not independent: those during one pause are slow together. So the test takes means of
blocks, of at least :data:`BLOCK` seconds and :data:`FEWEST` requests, and how the requests of a
block depend on each other does not matter. Null: given the past, the expected mean of each block is
at most what the objective allows. The Shiryaev-Roberts e-detector of these means raises a false
alarm at most once in ``run_length`` blocks on average, whatever their distribution, however they
depend on each other and however often the result is read (Shin, Ramdas & Rinaldo, arXiv:2203.03532,
Theorem 2.4).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.objective import Objective
from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.stats.buckets import BUCKETS
from understudy.monitor.stats.distribution import MIDDLES, UPPER_EDGES, Distribution
from understudy.shadow.sequential.asymptotic import asymptotic_precision, asymptotic_radius
from understudy.shadow.sequential.logspace import log_beta_mixture
from understudy.shadow.sequential.proportions import bernoulli_interval, tuned_concentration
from understudy.shadow.sequential.quantile import quantile_shapes
from understudy.shadow.state import Config, Count, Saved, Stateful

Floats = NDArray[np.float64]
BLOCK = 10.0
"""Shortest block, in seconds."""
FEWEST = 20
"""Fewest requests of a block."""
WINDOW = 30
"""Blocks that the shown figures are about; an alarm lasts at least so many."""
ALPHA = 0.05
"""Of the intervals of the shown figures."""
_CUT = 10.0
_SMALLEST_NULL = 1e-12
_PLANNED = 1000.0
"""Requests at which intervals are tightest."""
_BETS = (0.95, 0.6, 0.3, 0.15, 0.06, 0.02)
"""Of 1 / null. The larger ones are best for many requests in a block, whose mean varies little, the
smaller ones for few."""
_ERRORS, _MEAN, _QUANTILE = "error_rate", "latency_mean", "latency_p"


def is_tested(objective: Objective) -> bool:
    """Whether an objective is tested on requests: at most so many errors, or so much time. Labels,
    prices, energy and the rate of requests are not facts about a request."""
    if not objective.less or objective.limit < 0.0:
        return False
    if objective.metric == _ERRORS:
        return objective.limit < 1.0
    return objective.metric.startswith("latency") and objective.limit > 0.0


def _level(objective: Objective) -> float:
    """The level of the quantile: 0.99 of ``latency_p99``."""
    return float(f"{float(objective.metric.removeprefix(_QUANTILE)) / 100.0:.12g}")


def _null(objective: Objective) -> float:
    """The largest mean that a tested objective allows its values, in (0, 1)."""
    if objective.metric == _ERRORS:
        return max(objective.limit, _SMALLEST_NULL)
    return 1.0 / _CUT if objective.metric == _MEAN else 1.0 - _level(objective)


def _values(objective: Objective, seconds: Floats, failed: Floats) -> Floats:
    """By request, what the objective limits the mean of, in [0, 1]."""
    if objective.metric == _ERRORS:
        return failed
    if objective.metric == _MEAN:
        result: Floats = np.minimum(seconds / (_CUT * objective.limit), 1.0)
        return result
    return (seconds > objective.limit).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of a block: ``sums`` of the values of each objective, seconds of all together, and
    the latency sketch's ``buckets`` that are not empty with their ``counts``."""

    requests: int
    sums: tuple[float, ...]
    seconds: float
    buckets: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """An objective that is missed. ``since`` is an estimate, in unix seconds. ``value`` is in the
    unit of the metric, with its confidence interval, and ``share`` is that of requests beyond the
    limit (None for a mean), both of the last ``requests``; ``allowed`` is the largest share."""

    objective: Objective
    since: float
    value: float
    low: float | None
    high: float | None
    share: float | None
    allowed: float
    requests: int


class ArmObjectives(Stateful):
    """The ``objectives`` of an arm, on requests of one role. ``run_length`` is in blocks, for each
    objective."""

    objectives: Config[tuple[Objective, ...]]
    detector: Saved[SrDetector]
    alarmed: Saved[list[bool]]
    newest: Saved[float]
    """Unix time of the newest request."""
    _began: Saved[list[float]]
    """By objective, the time at which the excess below began to grow."""
    _excess: Saved[list[float]]
    """By objective, how far the means of blocks have been above the allowed one, as a CUSUM."""
    _lasted: Saved[list[Count]]
    """By objective, blocks since the alarm."""
    _window: Saved[deque[Block]]
    _start: Saved[float]
    _requests: Saved[Count]
    """Requests of the present block, which began at ``_start``; likewise the following sums."""
    _sums: Saved[list[float]]
    _seconds: Saved[float]
    _counts: Saved[dict[int, Count]]

    def __init__(self, objectives: Sequence[Objective], run_length: float) -> None:
        self.objectives = tuple(objectives)
        nulls = np.array([_null(one) for one in self.objectives])
        bets = np.array(_BETS) / nulls[:, None]
        self.detector = SrDetector(nulls, run_length, bets=bets)
        count = len(self.objectives)
        self.alarmed = [False] * count
        self.newest = 0.0
        self._began = [0.0] * count
        self._excess = [0.0] * count
        self._lasted = [0] * count
        self._window = deque(maxlen=WINDOW)
        self._clear()

    def _clear(self) -> None:
        self._start = 0.0
        self._requests = 0
        self._sums = [0.0] * len(self.objectives)
        self._seconds = 0.0
        self._counts = {}

    # Requests -----------------------------------------------------------------------------------

    def add(self, at: Floats, seconds: Floats, failed: Floats) -> None:
        """Take requests that ended at unix times ``at``, in their order; ``seconds`` each took, and
        ``failed`` is 1 for one that the arm is charged with."""
        if not len(at):
            return
        values = np.array([_values(one, seconds, failed) for one in self.objectives])
        buckets = np.minimum(np.searchsorted(UPPER_EDGES, seconds), BUCKETS - 1)
        done = 0
        while done < len(at):
            if not self._requests:
                self._start = float(at[done])
            end = done + int(np.searchsorted(at[done:], self._start + BLOCK))
            end = min(max(end, done + FEWEST - self._requests), len(at))
            self._requests += end - done
            for number, part in enumerate(values[:, done:end].sum(axis=1).tolist()):
                self._sums[number] += part
            self._seconds += float(seconds[done:end].sum())
            found, counts = np.unique(buckets[done:end], return_counts=True)
            for bucket, count in zip(found.tolist(), counts.tolist(), strict=True):
                self._counts[bucket] = self._counts.get(bucket, 0) + count
            if end < len(at):
                self._close_block()
            done = end
        self.newest = max(self.newest, float(at[-1]))

    def _close_block(self) -> None:
        means = np.array(self._sums) / self._requests
        evidence = self.detector.update(np.clip(means, 0.0, 1.0)[None, :])
        buckets = tuple(sorted(self._counts))
        counts = tuple(self._counts[bucket] for bucket in buckets)
        self._window.append(
            Block(self._requests, tuple(self._sums), self._seconds, buckets, counts)
        )
        above = (means - self.detector.null).tolist()
        for number, alarm in enumerate(evidence.alarms.tolist()):
            if self._excess[number] <= 0.0:
                self._began[number] = self._start
            self._excess[number] = max(0.0, self._excess[number] + above[number])
            self._lasted[number] = self._lasted[number] + 1 if self.alarmed[number] else 0
            if alarm:
                self.alarmed[number] = True
        self._recover()
        self._clear()

    def _recover(self) -> None:
        """End alarms of objectives that the requests of the whole window have met."""
        if not any(self.alarmed):
            return
        requests = sum(block.requests for block in self._window)
        recovered = np.zeros(len(self.objectives), np.bool_)
        for number, null in enumerate(self.detector.null.tolist()):
            if self.alarmed[number] and self._lasted[number] >= WINDOW:
                mean = sum(block.sums[number] for block in self._window) / requests
                recovered[number] = mean <= null
        for number in np.flatnonzero(recovered).tolist():
            self.alarmed[number] = False
            self._excess[number] = 0.0
        if recovered.any():
            self.detector.reset(recovered)

    # Figures ------------------------------------------------------------------------------------

    def missed(self) -> Iterator[Missed]:
        """The objectives that are missed at present."""
        if not any(self.alarmed):
            return
        requests = sum(block.requests for block in self._window)
        times = Distribution()
        for block in self._window:
            times.counts[list(block.buckets)] += np.array(block.counts)
            times.sum_ns += int(block.seconds * 1e9)
        for number, objective in enumerate(self.objectives):
            if not self.alarmed[number]:
                continue
            total = sum(block.sums[number] for block in self._window)
            share: float | None = total / requests
            if objective.metric == _ERRORS:
                value, low, high = _rate(round(total), requests)
            elif objective.metric == _MEAN:
                share = None
                value, low, high = _mean(times)
            else:
                value, low, high = _quantile(times, _level(objective))
            null = float(self.detector.null[number])
            yield Missed(objective, self._began[number], value, low, high, share, null, requests)


_Estimate = tuple[float, float | None, float | None]
"""A value with the ends of its confidence interval; None where there is none."""


def _rate(count: int, requests: int) -> _Estimate:
    found = bernoulli_interval(count, requests, ALPHA, tuned_concentration(_PLANNED, ALPHA))
    return count / requests, found.lower, found.upper


def _mean(times: Distribution) -> _Estimate:
    """By the asymptotic confidence sequence of Waudby-Smith et al., arXiv:2103.06476."""
    mean, requests = times.mean or 0.0, times.count
    spread = math.sqrt(float((times.counts * (MIDDLES - mean) ** 2).sum()) / requests)
    radius = float(
        asymptotic_radius(requests, spread, ALPHA, asymptotic_precision(_PLANNED, ALPHA))
    )
    return mean, max(0.0, mean - radius), mean + radius


def _quantile(times: Distribution, level: float) -> _Estimate:
    """By the confidence sequence of :mod:`understudy.shadow.sequential.quantile`: an edge is
    excluded where the count at or below it cannot be that of the quantile."""
    (value,) = times.quantiles((level,)) or (0.0,)
    below = np.cumsum(times.counts)
    requests = float(below[-1])
    a, b = quantile_shapes(level, _PLANNED, ALPHA)
    excluded = log_beta_mixture(below, requests, level, a, b) >= -math.log(ALPHA)
    lower = np.flatnonzero(excluded & (below < level * requests))
    upper = np.flatnonzero(excluded & (below > level * requests))
    low = float(UPPER_EDGES[lower[-1]]) if lower.size else None
    high = float(UPPER_EDGES[upper[0]]) if upper.size else None
    return value, low, high
