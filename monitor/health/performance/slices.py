"""Search for the slices with the highest loss, without declared segments.

A search over thousands of slices always finds a bad one. So one half of the rows is searched, top
down: single conditions first, then pairs of the worst; and the other half, which the search has not
seen, tests the few candidates, corrected for their number (Holm 1979). What is
reported are the figures of the second half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import betaln, logsumexp, ndtr
from understudy.monitor.baseline.calibration.codes import FeatureCodes

Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SUPPORT = 0.02
"""Smallest share of the rows that a slice may hold."""
FEWEST = 50
"""Smallest number of rows of a slice, in either half."""
PAIRED = 40
"""Single conditions that are put into pairs."""
TESTED = 20
"""Slices that reach the test."""
_ALIKE = 0.7
_TWO_SIDED_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Condition:
    """``feature`` has one of the codes from ``first`` to ``last``; ``words`` is the text."""

    feature: int
    first: int
    last: int
    words: str

    def holds(self, codes: Codes) -> Mask:
        """For each row of ``codes`` (n, F)."""
        column = codes[:, self.feature]
        result: Mask = (column >= self.first) & (column <= self.last)
        return result


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows for which all ``conditions`` hold. ``loss`` and ``rest`` are the mean losses in the
    slice and outside of it, ``gap`` their difference in [``low``, ``high``] (95 %), ``p`` its
    probability if there were none, corrected for all that were tested. ``rows`` of the half that
    tested."""

    conditions: tuple[Condition, ...]
    rows: int
    loss: float
    rest: float
    gap: float
    low: float
    high: float
    p: float

    @property
    def words(self) -> str:
        """The conditions."""
        return " and ".join(c.words for c in self.conditions)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "slice": self.words,
            "rows": self.rows,
            "loss": self.loss,
            "rest": self.rest,
            "gap": self.gap,
            "low": self.low,
            "high": self.high,
            "p": self.p,
        }


def worst_slices(
    codes: Codes,
    losses: Floats,
    features: FeatureCodes,
    rng: np.random.Generator,
    alpha: float = 0.05,
    smallest: float = 0.0,
) -> list[Slice]:
    """Slices in which the mean loss is higher than outside of them by more than ``smallest``.

    ``codes`` (n, F) by ``features``, ``losses`` (n,): 0 or 1, or any number. At most
    :data:`TESTED`, the largest gap first; with no slice that is worse, any is reported with a
    probability of at most ``alpha`` (for other losses than 0 and 1, asymptotically). Work: some
    twenty passes over the rows for each feature, and at most 780 pairs. Raises ValueError for codes
    of another shape.
    """
    if codes.shape != (len(losses), len(features.features)):
        raise ValueError(f"codes have shape {codes.shape}, not those of {len(losses)} losses")
    here = np.isfinite(losses)
    codes, losses = codes[here], losses[here]
    fewest = max(FEWEST, math.ceil(SUPPORT * len(losses) / 2.0))
    if len(losses) < 4 * fewest:
        return []
    searching = rng.permutation(len(losses)) < len(losses) // 2
    candidates = _search(codes[searching], losses[searching], features, fewest, smallest)
    return _tested(candidates, codes[~searching], losses[~searching], alpha, smallest, fewest)


def _search(
    codes: Codes, losses: Floats, features: FeatureCodes, fewest: int, smallest: float
) -> list[tuple[Condition, ...]]:
    """At most :data:`TESTED` slices that look worst, unlike each other."""
    deviation = max(float(losses.std()), 1e-12)
    scored: list[tuple[float, tuple[Condition, ...], Mask]] = []

    def score(mask: Mask) -> float:
        count = int(mask.sum())
        if count < fewest or len(losses) - count < fewest:
            return -math.inf
        inside = float(losses[mask].mean())
        outside = float(losses[~mask].mean())
        error = deviation * math.sqrt(1.0 / count + 1.0 / (len(losses) - count))
        return (inside - outside - smallest) / error

    for condition in _conditions(features):
        mask = condition.holds(codes)
        result = score(mask)
        if result > 0.0:
            scored.append((result, (condition,), mask))
    scored.sort(key=lambda item: -item[0])
    singles = scored[:PAIRED]
    for index, (one, (a,), mask_a) in enumerate(singles):
        for other, (b,), mask_b in singles[index + 1 :]:
            if a.feature == b.feature:
                continue
            mask = mask_a & mask_b
            result = score(mask)
            if result > max(one, other):
                scored.append((result, (a, b), mask))
    scored.sort(key=lambda item: -item[0])
    selected: list[tuple[tuple[Condition, ...], Mask]] = []
    for _, conditions, mask in scored:
        if all(_overlap(mask, other) < _ALIKE for _, other in selected):
            selected.append((conditions, mask))
            if len(selected) == TESTED:
                break
    return [conditions for conditions, _ in selected]


def _conditions(features: FeatureCodes) -> list[Condition]:
    """Every value of a category; every bucket of a number, and everything up to or from it."""
    result = []
    for index, feature in enumerate(features.features):
        last = feature.size - 1
        for code in range(feature.size):
            words = f"{feature.name} = {feature.name_of(code)}"
            if feature.edges is not None and code < last:
                words = f"{feature.name} {feature.name_of(code)}"
            result.append(Condition(index, code, code, words))
        for cut, edge in enumerate(feature.edges or ()):
            if cut > 0:
                result.append(Condition(index, 0, cut, f"{feature.name} <= {edge:g}"))
            if cut < len(feature.edges or ()) - 1:
                result.append(Condition(index, cut + 1, last - 1, f"{feature.name} > {edge:g}"))
    return result


def _overlap(a: Mask, b: Mask) -> float:
    both = int((a | b).sum())
    return int((a & b).sum()) / both if both else 1.0


def _tested(
    candidates: Sequence[tuple[Condition, ...]],
    codes: Codes,
    losses: Floats,
    alpha: float,
    smallest: float,
    fewest: int,
) -> list[Slice]:
    result: list[Slice] = []
    for conditions in candidates:
        mask = np.logical_and.reduce([c.holds(codes) for c in conditions])
        count = int(mask.sum())
        if count < fewest // 2 or len(losses) - count < 2:
            continue
        inside, outside = losses[mask], losses[~mask]
        gap = float(inside.mean() - outside.mean())
        variance = float(inside.var()) / count + float(outside.var()) / len(outside)
        error = math.sqrt(variance + 1.0 / len(losses) ** 2)
        if smallest == 0.0 and np.isin(losses, (0.0, 1.0)).all():
            # Fisher's exact test: errors in the slice, given how many there are in all.
            hits = int(inside.sum())
            p = float(hypergeometric_tail(hits, len(losses), int(losses.sum()), count))
        else:
            p = float(ndtr((smallest - gap) / error))
        half = _TWO_SIDED_95 * error
        result.append(
            Slice(
                conditions, count, float(inside.mean()), float(outside.mean()), gap,
                gap - half, gap + half, p,
            )
        )  # fmt: skip
    return sorted(_holm(result, len(candidates), alpha), key=lambda s: -s.gap)


def _holm(slices: Sequence[Slice], tests: int, alpha: float) -> list[Slice]:
    """Those whose p, times the number of those that are not smaller, stays below ``alpha``."""
    selected = []
    adjusted = 0.0
    for index, one in enumerate(sorted(slices, key=lambda s: s.p)):
        adjusted = max(adjusted, min(1.0, one.p * (tests - index)))
        if adjusted > alpha:
            break
        selected.append(
            Slice(
                one.conditions, one.rows, one.loss, one.rest, one.gap, one.low, one.high, adjusted
            )
        )
    return selected


def hypergeometric_tail(hits: int, rows: int, errors: int, drawn: int) -> float:
    """The chance that ``drawn`` of ``rows`` rows hold at least ``hits`` of the ``errors``.

    It is the one-sided p-value of Fisher's exact test; ``scipy.stats.hypergeom.sf(hits - 1, …)``
    has the same value, and costs the service 30 MiB to import.
    """
    fewest, most = max(0, drawn - (rows - errors)), min(errors, drawn)
    if hits <= fewest:
        return 1.0
    k = np.arange(hits, most + 1, dtype=np.float64)
    good = _log_binomial(float(errors), k)
    bad = _log_binomial(float(rows - errors), drawn - k)
    chances = good + bad - _log_binomial(float(rows), np.float64(drawn))
    return min(1.0, float(np.exp(logsumexp(chances)))) if len(k) else 0.0


def _log_binomial(n: float, k: Any) -> Any:
    return -betaln(n - k + 1.0, k + 1.0) - np.log1p(n)
