"""What a chart of a series shows: shares by value, on an axis of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.profiles import NumericProfile, below
from understudy.monitor.health.report.current import quantile_of
from understudy.monitor.health.report.numbers import shown
from understudy.monitor.health.report.verdicts import Series, common_counts

Floats = NDArray[np.float64]
_BINS = 24
_BARS = 10
_FEW = 24
_LONG_TAIL = 30.0


def histogram_of(one: Series) -> dict[str, Any]:
    """As JSON: ``reference`` and ``current`` are shares.

    ``kind`` is ``categories``, with their ``labels`` and which are ``new``; ``values``, single ones
    ``at`` these numbers; or ``bins`` between ``edges``, of which the outer ones hold what lies
    ``below`` and ``above`` as well, on a ``log`` axis or a plain one.
    """
    if not isinstance(one.reference, NumericProfile):
        return _categories(one)
    assert isinstance(one.current, NumericProfile)
    values = _values(one)
    return values if values is not None else _bins(one, one.reference, one.current)


def _categories(one: Series) -> dict[str, Any]:
    assert not isinstance(one.reference, NumericProfile)
    assert not isinstance(one.current, NumericProfile)
    before, now = one.reference, one.current
    n, m = max(before.count, 1), max(now.count, 1)
    # A category that one side dropped among its rare ones is a rare one for both.
    named = [
        name
        for name in {**before.counts, **now.counts}
        if (name in before.counts or not before.other) and (name in now.counts or not now.other)
    ]
    named.sort(key=lambda k: (-before.counts.get(k, 0) / n - now.counts.get(k, 0) / m, k))
    moved = sorted(
        named, key=lambda k: (-abs(before.counts.get(k, 0) / n - now.counts.get(k, 0) / m), k)
    )
    # The heaviest ones, and those that changed most.
    kept = set(named[: _BARS - 3])
    for name in moved:
        if len(kept) >= min(_BARS, len(named)):
            break
        kept.add(name)
    labels = [name for name in named if name in kept]
    p = [before.counts.get(name, 0) / n for name in labels]
    q = [now.counts.get(name, 0) / m for name in labels]
    a, b = common_counts(before, now)
    if len(labels) < len(named) or a[-1] or b[-1]:
        labels.append(f"all {'other' if labels else ''} values".replace("  ", " "))
        p.append(float(a.sum()) / n - sum(p))
        q.append(float(b.sum()) / m - sum(q))
    new = [name not in before.counts and not before.other for name in labels]
    return {
        "kind": "categories",
        "labels": labels,
        "new": [flag and index < len(kept) for index, flag in enumerate(new)],
        "reference": _rounded(p),
        "current": _rounded(q),
    }


def _values(one: Series) -> dict[str, Any] | None:
    """Single values, where both have few."""
    assert isinstance(one.reference, NumericProfile)
    before = one.reference
    few = one.thinned.few(_FEW) if one.thinned is not None else None
    known = [*before.edges.tolist(), before.maximum] if before.count else []
    if len(known) > _FEW or (few is None and one.current.count):
        return None
    now = few or {}
    values = sorted({*known, *now})
    if not values or len(values) > _FEW:
        return None
    counts = dict(zip(known, before.counts.tolist(), strict=True))
    total = sum(now.values()) or 1
    return {
        "kind": "values",
        "at": values,
        "labels": [shown(value) for value in values],
        "reference": _rounded([counts.get(v, 0) / max(before.count, 1) for v in values]),
        "current": _rounded([now.get(v, 0) / total for v in values]),
    }


def _bins(one: Series, before: NumericProfile, now: NumericProfile) -> dict[str, Any]:
    """Bins of one width; what lies far out is in the outer ones."""
    spans = [_span(before)] if before.count else []
    quantiles = one.thinned.quantiles((0.005, 0.25, 0.5, 0.75, 0.995)) if one.thinned else None
    if quantiles is not None:
        spans.append(quantiles)
    low, high = min(s[0] for s in spans), max(s[-1] for s in spans)
    middle = [s[2] for s in spans]
    log = low > 0.0 and high > _LONG_TAIL * max(low, min(middle))
    if not high > low:
        high = low + max(abs(low), 1.0) * 1e-9
    edges = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    p = np.diff(below(before, edges[1:-1]) / max(before.count, 1), prepend=0.0, append=1.0)
    q = np.zeros(_BINS)
    if one.thinned is not None and now.count:
        q = one.thinned.histogram(edges[1:-1])
    if not before.count:
        p = np.zeros(_BINS)
    least = min([before.minimum] * bool(before.count) + [now.minimum] * bool(now.count))
    most = max([before.maximum] * bool(before.count) + [now.maximum] * bool(now.count))
    return {
        "kind": "bins",
        "log": bool(log),
        "edges": [float(edge) for edge in edges],
        "below": bool(least < low),
        "above": bool(most > high),
        "least": _finite(least),
        "most": _finite(most),
        "reference": _rounded(p.tolist()),
        "current": _rounded(q.tolist()),
    }


def _span(profile: NumericProfile) -> list[float]:
    return [quantile_of(profile, at) for at in (0.005, 0.25, 0.5, 0.75, 0.995)]


def _rounded(shares: list[float]) -> list[float]:
    return [round(max(0.0, share), 6) for share in shares]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
