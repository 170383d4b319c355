"""How long CUSUMs run before a false alarm, and the thresholds that follow from it.

A one-sided CUSUM S = max(0, S + z - k) of standard normal z alarms at S >= h. Its average run
length from 0 solves L(u) = 1 + L(0) Phi(k - u) + integral over [0, h] of L(s) phi(s + k - u) ds
(Page 1954), which is computed by Gauss-Legendre quadrature (Nystroem's method).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import ndtr
from understudy.shadow.roots import find_root

Floats = NDArray[np.float64]
_NODES = 32
_NODES_PER_UNIT = 3.0
_MOST_NODES = 600
_CLOSED = 40.0
"""Thresholds beyond this are those of the closed form, which is within a thousandth there."""
_ROOT_2PI = math.sqrt(2.0 * math.pi)
_LOWEST = 1e-3
_HIGHEST = 1e6
_MOST_RAISED = 1.5
_GRID = 41
_HERMITE = 41
_HERMITE_SCALE = 7
_LARGEST_EXPONENT = 700.0
_WIDEST_SLACK = 4.0
_OVERLAP, _OVERLAP_AT, _OVERLAP_FALLS = 0.11, 1562.0, 0.32


@lru_cache(maxsize=4096)
def average_run_length(threshold: float, slack: float, mean: float = 0.0) -> float:
    """Rows to the first alarm of a one-sided CUSUM, on average, for z ~ N(mean, 1).

    By the integral equation; precise to about six digits for thresholds up to 60. Raises ValueError
    for a threshold that is not positive.
    """
    if threshold <= 0.0:
        raise ValueError(f"the threshold must be positive, not {threshold}")
    count = min(int(_NODES + _NODES_PER_UNIT * threshold), _MOST_NODES)
    nodes, weights = _legendre(count)
    at = (nodes + 1.0) * threshold / 2.0
    weights = weights * threshold / 2.0
    k = slack - mean
    starts = np.concatenate([[0.0], at])
    step = at[None, :] + k - starts[:, None]
    density = np.exp(-0.5 * step**2) / _ROOT_2PI * weights[None, :]
    system = np.eye(count + 1)
    system[:, 0] -= ndtr(k - starts)
    system[:, 1:] -= density
    return float(np.linalg.solve(system, np.ones(count + 1))[0])


@lru_cache(maxsize=64)
def _legendre(count: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights


@lru_cache(maxsize=8)
def _hermite(count: int) -> tuple[Floats, Floats]:
    """Nodes of a standard normal, and weights that add up to 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def siegmund(threshold: float, slack: float, mean: float = 0.0) -> float:
    """Siegmund's approximation of the same (Sequential Analysis, 1985, 2.6): a closed form that is
    within some percent, in which the mean overshoot, 0.583, moves the threshold at each end."""
    result = _siegmund(np.array([threshold]), slack, np.array([mean]))
    return float(result[0])


def _siegmund(threshold: Floats, slack: Floats | float, mean: Floats | float) -> Floats:
    drift = mean - slack
    b = threshold + 1.166
    exponent = -2.0 * drift * b
    flat = np.abs(exponent) < 1e-4
    safe = np.where(flat, 1.0, drift)
    with np.errstate(over="ignore"):
        result: Floats = (np.expm1(exponent) - exponent) / (2.0 * safe * safe)
    result[exponent > _LARGEST_EXPONENT] = np.inf
    return np.where(flat, b * b, result)


@lru_cache(maxsize=4096)
def _closed_threshold(slack: float, run_length: float) -> float:
    """The threshold by the closed form alone."""

    def excess(h: float) -> float:
        return math.log(siegmund(h, slack)) - math.log(run_length)

    if excess(_LOWEST) >= 0.0:
        return _LOWEST
    return find_root(excess, _LOWEST, _HIGHEST, xtol=1e-6)


@lru_cache(maxsize=4096)
def threshold_known(slack: float, run_length: float) -> float:
    """The one-sided threshold for a baseline that is known. Raises ValueError below 2 rows."""
    if run_length < 2.0:
        raise ValueError(f"a run length is at least 2 rows, not {run_length}")

    h = _closed_threshold(slack, run_length)
    if h > _CLOSED:
        return h
    # The integral equation corrects the approximation: log L is nearly straight in h, with slope
    # 2k.
    for _ in range(4):
        off = math.log(average_run_length(h, slack)) - math.log(run_length)
        h = max(h - off / max(2.0 * slack, 0.05), _LOWEST)
        if abs(off) < 1e-6:
            break
    return h


def false_alarm_rate(
    threshold: float, slack: float, baseline_rows: float, mean_rows: float | None = None
) -> float:
    """False alarms per row, averaged over the error of a baseline.

    With n rows, its mean is off by N(0, 1/n) standard deviations and its standard deviation by
    N(0, 1/(2n)) of itself, as they are for normal values, and independently. ``mean_rows`` is
    the number of rows behind the mean alone, where that is more.
    """
    known = baseline_rows if mean_rows is None else mean_rows
    return float(_rates(np.array([threshold]), slack, baseline_rows, known)[0])


def _rates(thresholds: Floats, slack: float, baseline_rows: float, mean_rows: float) -> Floats:
    (off, weights), (wide, more) = _hermite(_HERMITE), _hermite(_HERMITE_SCALE)
    # Values that are wider than the baseline says, by s, are as a chart of h / s and k / s.
    scale = np.maximum(1.0 + wide / math.sqrt(2.0 * baseline_rows), 0.1)
    mean = (off / math.sqrt(mean_rows))[:, None] / scale
    rates = 1.0 / _siegmund(thresholds[:, None, None] / scale, slack / scale, mean)
    result: Floats = np.einsum("tms,m,s->t", rates, weights, more)
    return result


@lru_cache(maxsize=4096)
def chart(
    slack: float,
    run_length: float,
    baseline_rows: float = math.inf,
    mean_rows: float | None = None,
) -> tuple[float, float]:
    """Slack and threshold of a one-sided CUSUM whose false alarms come once in ``run_length`` rows
    at most, on average over the error of a baseline that was estimated from ``baseline_rows``;
    ``mean_rows`` is the number of rows behind its mean, where that is more.

    A baseline that is off looks like a small shift for ever. The threshold is raised to make up
    for it; where no threshold can, because the slack is of the size of the error, the slack grows.
    """
    if math.isinf(baseline_rows):
        return slack, threshold_known(slack, run_length)
    known = baseline_rows if mean_rows is None else mean_rows
    wider = slack
    while wider < _WIDEST_SLACK:
        closed = _closed_threshold(wider, run_length)
        # Beyond this the error of the baseline weighs more than the threshold can make up for.
        raised = closed * np.linspace(1.0, _MOST_RAISED, _GRID)
        excess = np.log(_rates(raised, wider, baseline_rows, known) * run_length)
        enough = np.flatnonzero(excess <= 0.0)
        if len(enough):
            index = int(enough[0])
            result = float(raised[index])
            if index:
                part = excess[index - 1] / (excess[index - 1] - excess[index])
                result = float(raised[index - 1] + part * (raised[index] - raised[index - 1]))
            return wider, result + max(threshold_known(wider, run_length) - closed, 0.0)
        wider += 0.5 / math.sqrt(known)
    return wider, threshold_known(wider, run_length)


def counted_once(slacks: Sequence[float], run_length: float) -> float:
    """False alarms of a series over the sum of those of its two-sided charts, at most 1.

    Charts of neighbouring slacks alarm at the same rows now and then, which a sum counts twice. For
    slacks k, 2k, 4k, by importance sampling (rows drift by twice a chart's slack from a random one
    on; Siegmund & Yakir 2008), the part that is counted twice is 0.11, 0.054, 0.027 and 0.011 for
    run lengths of 1e5 to 1e8 at k = 1/8: about 0.11 x^-0.32 with x = L k^2 / 1562, in which
    charts of other slacks are alike. 1 for slacks of other ratios.
    """
    ordered = sorted(slacks)
    if len(ordered) != 3 or any(abs(b / a - 2.0) > 1e-9 for a, b in pairwise(ordered)):
        return 1.0
    scaled = run_length * ordered[0] ** 2 / _OVERLAP_AT
    return 1.0 - _OVERLAP * math.pow(max(scaled, 1.0), -_OVERLAP_FALLS)
