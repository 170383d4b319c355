"""Anytime-valid intervals of the metrics, from the sums of a tally alone.

Nothing is stored besides the tally, so windows and merged replicas have intervals too. Shares of
rows (accuracy, precision, recall, positive rate) are counts: the beta-binomial mixture (Robbins
1970; Howard & Ramdas 2022), exact at every moment. F1 is a share as well: of the rows in which the
label or the answer is yes, J have both, and F1 = 2 J / (1 + J). Means of losses (Brier, log loss,
MAE, bias, squared error) and the area under the curve use the asymptotic confidence sequence
(Waudby-Smith et al., arXiv:2103.06476, eq. 9), and have none below a hundred rows. The calibration
error adds up the intervals of its bins. That of R^2 takes the spread of the labels as it was seen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.health.performance.tallies import (
    BinaryTally,
    ClassTally,
    NumberTally,
    Tally,
)
from understudy.shadow.sequential import (
    asymptotic_precision,
    asymptotic_radius,
    bernoulli_interval,
    tuned_concentration,
)

Floats = NDArray[np.float64]
Ends = tuple[float, float]
PLANNED = 2_000.0
"""Rows at which the intervals are tightest."""
_FEWEST = 100
_ECE_BINS = 10


def share(hits: float, rows: float, alpha: float) -> Ends:
    """Anytime-valid interval of a probability with ``hits`` in ``rows`` independent draws."""
    if rows <= 0.0:
        return 0.0, 1.0
    concentration = tuned_concentration(PLANNED, alpha)
    interval = bernoulli_interval(round(hits), round(rows), alpha, concentration)
    return max(0.0, interval.lower), min(1.0, interval.upper)


def intervals(tally: Tally, alpha: float = 0.05) -> dict[str, Ends]:
    """The interval of each metric of the tally that has one, each at level ``alpha``."""
    if not tally.count:
        return {}
    if isinstance(tally, BinaryTally):
        return _binary(tally, alpha)
    return _classes(tally, alpha) if isinstance(tally, ClassTally) else _numbers(tally, alpha)


def _binary(tally: BinaryTally, alpha: float) -> dict[str, Ends]:
    (tn, fp), (fn, tp) = tally.table.tolist()
    total = tn + fp + fn + tp
    result = {
        "accuracy": share(tp + tn, total, alpha),
        "error_rate": share(fp + fn, total, alpha),
        "positive_rate": share(tp + fn, total, alpha),
    }
    if tp + fp:
        result["precision"] = share(tp, tp + fp, alpha)
    if tp + fn:
        result["recall"] = share(tp, tp + fn, alpha)
    if tp + fp + fn:
        low, high = share(tp, tp + fp + fn, alpha)
        result["f1"] = 2.0 * low / (1.0 + low), 2.0 * high / (1.0 + high)
    if total < _FEWEST:
        return result
    log_loss, brier, log_squares, brier_squares = (tally.losses / total).tolist()
    result["log_loss"] = _mean(log_loss, log_squares, total, alpha, 0.0, math.inf)
    result["brier"] = _mean(brier, brier_squares, total, alpha, 0.0, 1.0)
    result["ece"] = _ece(tally, total, alpha)
    area = _auc(tally.histogram, alpha)
    return result if area is None else result | {"auc": area}


def _mean(mean: float, square: float, rows: float, alpha: float, low: float, high: float) -> Ends:
    deviation = math.sqrt(max(square - mean**2, 0.0) + 1.0 / rows**2)
    radius = float(asymptotic_radius(rows, deviation, alpha, asymptotic_precision(PLANNED, alpha)))
    return max(low, mean - radius), min(high, mean + radius)


def _ece(tally: BinaryTally, total: float, alpha: float) -> Ends:
    """The gap of a bin is the mean of label - score, whose variance is at most that of the label
    and the score together: a quarter each way, or what the rates of the bin say."""
    grouped = (tally.histogram.sum(0), tally.histogram[1], tally.scores)
    counts, positives, scores = (a.reshape(_ECE_BINS, -1).sum(1) for a in grouped)
    nonempty = counts > 0.0
    counts, positives, scores = counts[nonempty], positives[nonempty], scores[nonempty]
    rate = (positives + 1.0) / (counts + 2.0)
    width = 0.5 / _ECE_BINS  # the score's largest deviation within its bin
    deviation = np.sqrt(rate * (1.0 - rate)) + width
    precision = asymptotic_precision(PLANNED / _ECE_BINS, alpha / _ECE_BINS)
    radius = asymptotic_radius(counts, deviation, alpha / _ECE_BINS, precision)
    gaps = np.abs(positives - scores) / counts
    weight = counts / total
    low = float((weight * np.maximum(gaps - radius, 0.0)).sum())
    return low, min(1.0, float((weight * (gaps + radius)).sum()))


def area_under_curve(histogram: Floats) -> tuple[float, float] | None:
    """Area under the curve of counts (2, B) of negatives and positives by bin, ties within a bin
    half, and its variance times the number of rows (DeLong, DeLong & Clarke-Pearson 1988). None
    with fewer than thirty of either."""
    negatives, positives = histogram
    m, n = float(positives.sum()), float(negatives.sum())
    if min(m, n) < 30.0:
        return None
    below = (np.cumsum(negatives) - negatives / 2.0) / n
    above = (m - np.cumsum(positives) + positives / 2.0) / m
    area = float((positives * below).sum()) / m
    of_positives = float((positives * (below - area) ** 2).sum()) / m
    of_negatives = float((negatives * (above - area) ** 2).sum()) / n
    rows = m + n
    return area, rows * (of_positives / m + of_negatives / n)


def _auc(histogram: Floats, alpha: float) -> Ends | None:
    """As an asymptotic sequence with the variance of :func:`area_under_curve`."""
    estimate = area_under_curve(histogram)
    if estimate is None:
        return None
    area, variance = estimate
    rows = float(histogram.sum())
    deviation = math.sqrt(variance + 1.0 / rows)
    radius = float(asymptotic_radius(rows, deviation, alpha, asymptotic_precision(PLANNED, alpha)))
    return max(0.0, area - radius), min(1.0, area + radius)


def _classes(tally: ClassTally, alpha: float) -> dict[str, Ends]:
    """Of the accuracy; the means over classes have one where every class has labels, each class at
    its part of ``alpha``."""
    total = float(tally.count)
    right = float(sum(row.get(name, 0) for name, row in tally.table.items()))
    result = {
        "accuracy": share(right, total, alpha),
        "error_rate": share(total - right, total, alpha),
    }
    each = alpha / max(1, len(tally.table))
    recalls = [
        share(row.get(name, 0), sum(row.values()), each) for name, row in tally.table.items()
    ]
    columns = {name: sum(row.get(name, 0) for row in tally.table.values()) for name in tally.table}
    precisions = [
        share(tally.table[name].get(name, 0), count, each)
        for name, count in columns.items()
        if count
    ]
    for metric, ends in (("recall", recalls), ("precision", precisions)):
        if ends:
            low, high = (float(np.mean([end[k] for end in ends])) for k in (0, 1))
            result[metric] = low, high
    return result


def _numbers(tally: NumberTally, alpha: float) -> dict[str, Ends]:
    count = float(tally.count)
    result: dict[str, Ends] = {}
    if tally.tolerance is not None:
        near = float(tally.sums[6])
        result["accuracy"] = share(near, count, alpha)
        result["error_rate"] = share(count - near, count, alpha)
    if count < _FEWEST:
        return result
    _, absolute, error, squares, label, label_squares, _, fourth = (tally.sums / count).tolist()
    result["mae"] = _mean(absolute, squares, count, alpha, 0.0, math.inf)
    result["bias"] = _mean(error, squares, count, alpha, -math.inf, math.inf)
    low, high = _mean(squares, fourth, count, alpha, 0.0, math.inf)
    result["rmse"] = math.sqrt(low), math.sqrt(high)
    variance = label_squares - label**2
    if variance > 0.0:
        result["r2"] = 1.0 - high / variance, 1.0 - low / variance
    return result
