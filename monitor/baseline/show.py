"""A baseline as people read it, and two of them side by side."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.common.units import percent
from understudy.monitor.baseline.identifiers import ignored
from understudy.monitor.baseline.model import Baseline, CategoryProfile, Column, NumericProfile
from understudy.monitor.baseline.profiles import CategoryCounter, Profile, below
from understudy.monitor.detectors import seasons

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24
_SLOWEST = 0.125
"""Slack of the slowest chart by default."""
_NOTABLE = 1.2
_GROUPS = 20
_FLOOR = 1e-4
"""Smallest share that a group counts with in the PSI, where it would otherwise be infinite."""


def sparkline(profile: Profile) -> str:
    """A histogram of twenty-four bars: of equal width between the 1st and 99th percentile of a
    number, or the shares of its values where they are few, or of the commonest categories."""
    if isinstance(profile, CategoryProfile):
        ranked = sorted(profile.counts.values(), reverse=True)[:_WIDTH]
        return _bars(np.array(ranked, np.float64))
    if not profile.count:
        return ""
    if profile.minimum == profile.maximum:
        return _BARS[-1]
    if len(profile.edges) < _WIDTH:
        return _bars(profile.counts.astype(np.float64))
    points = np.linspace(*_range(profile), _WIDTH + 1)
    return _bars(np.diff(below(profile, points)))


def describe(profile: Profile) -> str:
    """A line of figures."""
    if isinstance(profile, CategoryProfile):
        ranked = sorted(profile.counts.items(), key=lambda item: -item[1])[:3]
        total = max(profile.count, 1)
        shown = ", ".join(f"{name} {percent(count / total, 2)}" for name, count in ranked)
        about = "about " if profile.distinct > CategoryCounter.SAMPLED else ""
        return f"{about}{profile.distinct:,} categories: {shown}"
    if not profile.count:
        return "no values"
    return (
        f"{profile.minimum:.4g} … {profile.maximum:.4g}, mean {profile.mean:.4g}, "
        f"sd {profile.deviation:.3g}"
    )


def table(baseline: Baseline) -> list[list[str]]:
    """A row for each series: name, role and kind, missing, histogram, figures."""
    rows = []
    for column in baseline.columns.values():
        for name, profile in column.series.items():
            rows.append(
                [
                    name,
                    f"{column.role}, {column.kind}",
                    _percent(_missing(column)),
                    sparkline(profile),
                    describe(profile),
                ]
            )
    return rows


def notes(baseline: Baseline) -> list[str]:
    """What a person should know before this is used."""
    result = []
    if baseline.rows < 1000:
        result.append(f"only {baseline.rows:,} rows: small changes are within its own error")
    for column in baseline.columns.values():
        if ignored(column):
            result.append(
                f"{column.name} looks like {column.extra['looks_like']}, so its values are not "
                f"compared: leave it out (--ignore {column.name}), or watch it (--declare "
                f"{column.name})"
            )
    dependent = {
        name: max(profile.location.inflation(_SLOWEST), profile.spread.inflation(_SLOWEST))
        for column in baseline.columns.values()
        if not ignored(column)
        for name, profile in column.series.items()
    }
    if baseline.seasons is not None:
        # Thresholds know what is left without the cycle.
        names = baseline.seasons["series"]
        memories = seasons.Profile.from_dict(baseline.seasons).memories
        for index, name in enumerate(names):
            both = (memories[index], memories[index + len(names)])
            dependent[name] = max(memory.inflation(_SLOWEST) for memory in both)
    notable = sorted((n for n in dependent if dependent[n] > _NOTABLE), key=lambda n: -dependent[n])
    if notable:
        result.append(
            "rows depend on the ones before them in "
            + ", ".join(f"{name} ({dependent[name]:.2g} times)" for name in notable[:6])
            + (f" and {len(notable) - 6} more" if len(notable) > 6 else "")
            + ": thresholds are raised by that factor, and a small change is found about as many "
            "times later"
        )
    constant = [
        name
        for column in baseline.columns.values()
        for name, profile in column.series.items()
        if (isinstance(profile, NumericProfile) and profile.minimum == profile.maximum)
        or (isinstance(profile, CategoryProfile) and len(profile.counts) == 1)
    ]
    if constant:
        result.append(f"never changes: {', '.join(constant[:6])}")
    if baseline.seasons is not None:
        names = baseline.seasons["series"]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        result.append(f"the hour of the week matters for {', '.join(names[:6])}{more}")
    if baseline.calibration is not None and "regions" in baseline.calibration:
        result.append("what a score means is known by region of the features")
    if baseline.duplicates is not None and baseline.duplicates > 0.01:
        result.append(f"{_percent(baseline.duplicates)} of the rows come again within 1,024 rows")
    return result


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a series is from another one. ``psi`` and ``js`` (Jensen-Shannon, base 2, 0 to 1) by
    about twenty groups and what is missing; ``shift`` of the mean in standard deviations of the
    first, None for categories; ``missing`` is by how much the share of missing values has grown."""

    series: str
    psi: float
    js: float
    shift: float | None
    missing: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def diff(a: Baseline, b: Baseline) -> tuple[list[Difference], list[str]]:
    """Series that both have, the furthest first, and what only one of them has."""
    result: list[Difference] = []
    apart: list[str] = []
    for name in dict.fromkeys((*a.columns, *b.columns)):
        mine, theirs = a.columns.get(name), b.columns.get(name)
        if mine is None or theirs is None:
            apart.append(f"{name} is only in the {'second' if mine is None else 'first'}")
            continue
        if mine.kind != theirs.kind:
            apart.append(f"{name} is {mine.kind} in the first and {theirs.kind} in the second")
            continue
        grown = _missing(theirs) - _missing(mine)
        for series in mine.series.keys() & theirs.series.keys():
            p, q = _groups(mine.series[series], theirs.series[series])
            p, q = (
                np.append(shares * (1.0 - gone), gone)
                for shares, gone in ((p, _missing(mine)), (q, _missing(theirs)))
            )
            shift = _shift(mine.series[series], theirs.series[series])
            result.append(Difference(series, _psi(p, q), _js(p, q), shift, grown))
    return sorted(result, key=lambda d: (-d.psi, d.series)), apart


def _missing(column: Column) -> float:
    return (column.missing + column.nan) / column.rows if column.rows else 0.0


def _percent(share: float) -> str:
    return percent(share, 3)


def _range(profile: NumericProfile) -> tuple[float, float]:
    sums = np.cumsum(profile.counts)
    ends = [profile.minimum, *profile.edges.tolist(), profile.maximum]
    low = ends[int(np.searchsorted(sums, 0.01 * profile.count))]
    high = ends[min(int(np.searchsorted(sums, 0.99 * profile.count)) + 1, len(ends) - 1)]
    return (low, high) if low < high else (profile.minimum, profile.maximum)


def _bars(values: NDArray[np.float64]) -> str:
    top = float(values.max()) if len(values) else 0.0
    if top <= 0.0:
        return ""
    return "".join(
        " " if v <= 0.0 else _BARS[min(len(_BARS) - 1, math.ceil(v / top * len(_BARS)) - 1)]
        for v in values
    )


def _groups(a: Profile, b: Profile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of both in the same groups."""
    if isinstance(a, CategoryProfile) and isinstance(b, CategoryProfile):
        names = list(dict.fromkeys((*a.counts, *b.counts)))
        p = np.array([a.counts.get(n, 0) for n in names] + [a.other], np.float64)
        q = np.array([b.counts.get(n, 0) for n in names] + [b.other], np.float64)
    elif isinstance(a, NumericProfile) and isinstance(b, NumericProfile):
        sums = np.cumsum(a.counts)[:-1]
        wanted = np.arange(1, _GROUPS) / _GROUPS * a.count
        indices = distinct(np.searchsorted(sums, wanted))
        edges = a.edges[indices[indices < len(a.edges)]]
        p, q = (np.diff(np.concatenate([[0.0], below(x, edges), [float(x.count)]])) for x in (a, b))
    else:
        return np.array([1.0, 0.0]), np.array([0.0, 1.0])
    return p / max(p.sum(), 1.0), q / max(q.sum(), 1.0)


def _psi(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    p, q = np.maximum(p, _FLOOR), np.maximum(q, _FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def _js(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    middle = (p + q) / 2.0
    total = 0.0
    for one in (p, q):
        held = one > 0.0
        total += float((one[held] * np.log2(one[held] / middle[held])).sum()) / 2.0
    return math.sqrt(max(total, 0.0))


def _shift(a: Profile, b: Profile) -> float | None:
    if not isinstance(a, NumericProfile) or not isinstance(b, NumericProfile):
        return None
    return (b.mean - a.mean) / a.deviation if a.deviation > 0.0 else None
