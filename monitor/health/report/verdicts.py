"""One verdict for each column of two sets of rows, with a reason in the column's own unit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.units import percent
from understudy.monitor.baseline.identifiers import ignored
from understudy.monitor.baseline.model import Column
from understudy.monitor.baseline.profiles import CategoryProfile, NumericProfile, Profile
from understudy.monitor.detectors.distances import from_counts
from understudy.monitor.detectors.two_samples import (
    SPARSE,
    all_among,
    constant_by_chance,
    kolmogorov_smirnov,
    same_rate,
    same_shares,
)
from understudy.monitor.health.report.current import Current, Thinned, quantile_of
from understudy.monitor.health.report.numbers import both, shown

Floats = NDArray[np.float64]
SMALLEST_RATE = 0.005
"""Change of a share of missing, mistyped or outlying rows from which it is large enough."""
DISTANCE_GROUPS = 10
TEST_GROUPS = 32
_IN_A_GROUP = 20.0
_FEW = 12
_WIDENED = 0.1
_FACTOR = 2.0
ASPECTS = ("missing", "type", "constancy", "range", "distribution")
"""What can be wrong with a column; of several, the first one that is certain is the verdict."""
USUAL = "as usual"
NOT_COMPARED = "not compared"
"""Of a column that looks like an identifier, a timestamp or a counter."""


@dataclass(slots=True)
class Check:
    """One test of a column: its p-value, whether the change is large enough to ``matter``, and what
    changed, in words."""

    aspect: str
    p_value: float
    matters: bool
    reason: str
    adjusted: float = 1.0
    as_independent: float = 1.0
    """The p-value, if rows that resemble the row before counted in full."""
    effective: tuple[float, float] = (1.0, 1.0)
    """By side: independent rows for one row."""


@dataclass(slots=True)
class Series:
    """Distances of a series, and the counts that charts draw: ``p`` and ``q`` (groups,) of the
    reference and of the current rows, with ``labels``."""

    name: str
    psi: float
    js: float
    hellinger: float
    p: Floats
    q: Floats
    labels: list[str]
    reference: Profile
    current: Profile
    thinned: Thinned | None = None


@dataclass(slots=True)
class ColumnChecks:
    """All tests of a column."""

    before: Column
    now: Column
    checks: list[Check] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    empty: str = ""
    """Why there is nothing to test; else empty."""
    looks_like: str = ""
    """What the column looks like, if its values are not compared because of that."""

    @property
    def proposal(self) -> str:
        """What to do about such a column, with the options of ``drift report``; else empty."""
        if not self.looks_like:
            return ""
        name = shlex.quote(self.before.name)
        return (
            f"{self.before.name} looks like {self.looks_like}, so its values are not compared: "
            f"leave it out (--ignore {name}), or compare it (--declare {name})"
        )


def checks_of(
    before: Column, current: Current, smallest: float, declared: Collection[str] = ()
) -> ColumnChecks:
    """The tests of one column; ``smallest`` is the PSI from which a distribution has changed by
    enough. ``declared`` names columns that are compared whatever they look like."""
    now = current.columns[before.name]
    result = ColumnChecks(before, now)
    _missing(result)
    had, has = _values(before), _values(now)
    for name, profile in before.series.items():
        result.series.append(_series(name, profile, now.series[name], current.thinned.get(name)))
    if not had or not has:
        if not had and not has and before.rows and now.rows:
            result.empty = "no values in either file"
        return result
    _type(result, current.kinds.get(before.name, before.kind))
    last = result.checks[-1] if result.checks else None
    if last is not None and last.aspect == "type" and last.reason[:3] == "now":
        return result  # values of another kind: nothing else can be compared
    if ignored(before, declared):
        result.looks_like = before.extra["looks_like"]
        result.empty = f"looks like {result.looks_like}"
        return result
    plain = len(result.series) == 1
    for one in result.series:
        prefix = "" if plain else f"{one.name.removeprefix(before.name + '.')}: "
        if isinstance(one.reference, NumericProfile):
            assert isinstance(one.current, NumericProfile)
            _numeric(result, one, one.reference, one.current, prefix, smallest)
        else:
            assert isinstance(one.current, CategoryProfile)
            _categorical(result, one, one.reference, one.current, prefix, smallest)
    return result


def _values(column: Column) -> int:
    return column.rows - column.missing - column.nan


# Missing and type ---------------------------------------------------------------------------------


def _missing(column: ColumnChecks) -> None:
    before, now = column.before, column.now
    j, k = before.missing + before.nan, now.missing + now.nan
    if not j + k or not before.rows or not now.rows:
        return
    p, q = j / before.rows, k / now.rows
    words = f"missing in {percent(q, 3)} of the rows, was {percent(p, 3)}"
    if q == 1.0 > p:
        words = f"no values, had some in {percent(1.0 - p, 3)} of the rows"
    elif p == 1.0 > q:
        words = f"has values, the reference had none (missing in {percent(q, 3)} of the rows)"
    chance = same_rate(j, before.rows, k, now.rows)
    column.checks.append(Check("missing", chance, abs(p - q) >= SMALLEST_RATE, words))


def _type(column: ColumnChecks, kind: str) -> None:
    before, now = column.before, column.now
    n, m = float(_values(before)), float(_values(now))
    if kind != before.kind and not _same_kind(before, now, kind):
        chance = float(all_among(m, n, m))
        words = f"now {_a(kind)} column, was {_a(before.kind)} one"
        column.checks.append(Check("type", chance, True, words))
        return
    j, k = float(before.mistyped), float(now.mistyped)
    if not j + k:
        return
    p, q = j / n, k / m
    words = f"{percent(q, 3)} of the values are not {_what(before.kind)}, was {percent(p, 3)}"
    chance = same_rate(j, n, k, m)
    column.checks.append(Check("type", chance, abs(p - q) >= SMALLEST_RATE, words))


def _same_kind(before: Column, now: Column, kind: str) -> bool:
    """Whether cells that look like another kind fit the known one all the same."""
    if _values(now) < 5:
        return True  # too few to tell a kind by
    discrete = {"categorical", "boolean", "text", "datetime"}
    if before.kind == "numeric":
        return now.mistyped < 0.5 * _values(now)
    if before.kind in ("categorical", "boolean") and kind == "numeric":
        known = next(iter(before.series.values()))
        names = known.counts if isinstance(known, CategoryProfile) else {}
        return all(map(_is_number, names))
    return before.kind in discrete and kind in discrete and now.mistyped < 0.5 * _values(now)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _a(kind: str) -> str:
    return f"a {kind}" if kind[0] not in "aeiou" else f"an {kind}"


def _what(kind: str) -> str:
    return {
        "numeric": "numbers",
        "boolean": "true or false",
        "categorical": "categories",
        "datetime": "times",
        "text": "texts",
        "vector": "vectors of its length",
    }[kind]


# Numbers ------------------------------------------------------------------------------------------


def _numeric(
    column: ColumnChecks,
    one: Series,
    before: NumericProfile,
    now: NumericProfile,
    prefix: str,
    smallest: float,
) -> None:
    n, m = float(before.count), float(now.count)
    infinite = float(column.before.infinite), float(column.now.infinite)
    if not prefix and any(infinite):
        p, q = infinite[0] / (n + infinite[0]), infinite[1] / (m + infinite[1])
        chance = same_rate(infinite[0], n + infinite[0], infinite[1], m + infinite[1])
        words = f"{percent(q, 3)} of the values are infinite, was {percent(p, 3)}"
        column.checks.append(Check("range", chance, abs(p - q) >= SMALLEST_RATE, words))
    if not n or not m:
        return
    p_counts, q_counts = before.counts.astype(np.float64), now.counts.astype(np.float64)
    if _constancy(column, one, p_counts, q_counts, prefix):
        return
    moved = _moved(one, before, now)
    outside = _outside(one, before)
    matters = outside >= SMALLEST_RATE and not prefix
    if not prefix:
        # Among exchangeable rows, k values beyond all of the reference are the k largest of both.
        chance = min(1.0, 2.0 * float(all_among(math.ceil(outside * m / 2.0), n, m)))
        span = f"{shown(before.minimum)} to {shown(before.maximum)}"
        words = f"{percent(outside, 3)} of the values lie outside {span}"
        check = Check("range", chance if outside else 1.0, matters, f"{words}; {moved}")
        column.checks.append(check)
    distance = _excess(one)
    # A shift that puts half of the values out of range is one of the range.
    enough = distance >= smallest or _rare_change(p_counts, q_counts)
    check = Check("distribution", 1.0, enough and outside < 0.5, prefix + moved)
    _test(check, _numeric_p, (p_counts, q_counts), (_effective(before, n), _effective(now, m)))
    column.checks.append(check)


def _test(
    check: Check,
    test: Callable[[Floats, Floats], float],
    counts: tuple[Floats, Floats],
    effective: tuple[float, float],
) -> None:
    """Set the p-values of a check of two sets of counts."""
    p, q = counts
    check.effective = effective
    check.p_value = check.as_independent = test(p * effective[0], q * effective[1])
    if min(effective) < 1.0:
        check.as_independent = test(p, q)


def _numeric_p(p: Floats, q: Floats) -> float:
    _, _, p_value = kolmogorov_smirnov(p, q)
    least = min(p.sum(), q.sum())
    if least < SPARSE:
        return p_value
    groups = merged(p, q, min(TEST_GROUPS, int(least / _IN_A_GROUP)))
    return min(1.0, 2.0 * min(p_value, same_shares(*groups)))


def _effective(profile: Profile, rows: float) -> float:
    """Independent rows for one row, by the correlation of a value with the one before it."""
    lag1 = profile.location.lag1 or 0.0
    if rows < SPARSE or lag1 < 4.0 / math.sqrt(rows):
        return 1.0
    return (1.0 - min(lag1, 0.99)) / (1.0 + min(lag1, 0.99))


def _outside(one: Series, before: NumericProfile) -> float:
    """Share of the current values beyond those of the reference, widened by a tenth."""
    margin = _WIDENED * (before.maximum - before.minimum)
    low, high = before.minimum - margin, before.maximum + margin
    assert one.thinned is not None
    return one.thinned.share_outside(low, high)


def _moved(one: Series, before: NumericProfile, now: NumericProfile) -> str:
    """What changed most, in the unit of the column."""
    assert one.thinned is not None
    few, known = one.thinned.few(_FEW), _few(before)
    if few is not None and known is not None:
        if few.keys() <= known.keys():  # the buckets count exactly, however many rows there are
            few = dict(zip(known, now.counts.tolist(), strict=True))
        return _share_moved(
            {shown(value): count for value, count in known.items()},
            {shown(value): count for value, count in few.items()},
        )
    quarters = one.thinned.quantiles((0.25, 0.5, 0.75)) or [math.nan] * 3
    first, middle, last = (quantile_of(before, at) for at in (0.25, 0.5, 0.75))
    width = last - first
    if abs(quarters[1] - middle) > 0.1 * width and quarters[1] != middle:
        value, was = both(quarters[1], middle)
        return f"median {value}, was {was}"
    if width > 0.0 and not 0.8 <= (quarters[2] - quarters[0]) / width <= 1.25:
        half = f"{shown(quarters[0])} to {shown(quarters[2])}"
        return f"middle half {half}, was {shown(first)} to {shown(last)}"
    p, q = before.counts.astype(np.float64), now.counts.astype(np.float64)
    _, at, _ = kolmogorov_smirnov(p, q)
    edge = float(before.edges[at]) if at < len(before.edges) else before.maximum
    share = float(np.cumsum(q)[at] / q.sum()), float(np.cumsum(p)[at] / p.sum())
    now_, was_ = percent(share[0], 3), percent(share[1], 3)
    if now_ == was_:
        value, was = both(quarters[1], middle)
        return f"median {value}, was {was}"
    return f"{now_} of the values are at most {shown(edge)}, was {was_}"


def _few(profile: NumericProfile) -> dict[float, int] | None:
    values = [*profile.edges.tolist(), profile.maximum]
    if len(values) > _FEW:
        return None
    return {v: int(c) for v, c in zip(values, profile.counts.tolist(), strict=True)}


def _share_moved(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    """The category whose share changed most, with both shares."""
    n, m = sum(before.values()) or 1.0, sum(now.values()) or 1.0

    # Of two that changed by the same, as yes and no do, the rarer one tells more.
    def order(name: str) -> tuple[float, float, str]:
        p, q = before.get(name, 0) / n, now.get(name, 0) / m
        return -round(abs(q - p), 9), p + q, name

    names = sorted({*before, *now}, key=order)
    if not names:
        return ""
    name = names[0]
    q, p = percent(now.get(name, 0) / m, 3), percent(before.get(name, 0) / n, 3)
    return f"share of {name} is {q}, was {p}"


# Categories ---------------------------------------------------------------------------------------


def _categorical(
    column: ColumnChecks,
    one: Series,
    before: CategoryProfile,
    now: CategoryProfile,
    prefix: str,
    smallest: float,
) -> None:
    n, m = float(before.count), float(now.count)
    if not n or not m:
        return
    p, q = common_counts(before, now)
    if _constancy(column, one, p, q, prefix):
        return
    if not before.other and not prefix:
        _unseen(column, before, now)
    table = top(p, q, TEST_GROUPS)
    moved = _share_moved(_comparable(before, now), _comparable(now, before))
    enough = _excess(one) >= smallest or _rare_change(*table)
    check = Check("distribution", 1.0, enough, prefix + moved)
    _test(check, same_shares, table, (_effective(before, n), _effective(now, m)))
    column.checks.append(check)


def _unseen(column: ColumnChecks, before: CategoryProfile, now: CategoryProfile) -> None:
    """Values that the reference does not have. Of exchangeable rows, a value with c rows in all is
    in the current ones only with a probability of about (m / (n + m)) ** c."""
    unseen = {name: c for name, c in now.counts.items() if name not in before.counts}
    if not unseen:
        return
    n, m = float(before.count), float(now.count)
    pooled = np.array([before.counts.get(k, 0) + now.counts.get(k, 0)
                       for k in {**before.counts, **now.counts}], np.float64)  # fmt: skip
    least = float(all_among(float(max(unseen.values())), n, m))
    p_value = min(1.0, 2.0 * len(pooled) * least)
    total = float(sum(unseen.values())) + now.other
    if min(n, m) >= SPARSE:
        alone = all_among(pooled, n, m)
        expected = float((pooled * alone).sum())
        spread = math.sqrt(float((pooled**2 * alone * (1.0 - alone)).sum()))
        if spread > 0.0 and total > expected:
            # Cantelli's inequality: for any distribution.
            off = (total - expected) / spread
            p_value = min(p_value, 2.0 / (1.0 + off * off))
    share = total / m
    ranked = sorted(unseen, key=lambda k: (-unseen[k], k))
    names = ", ".join(map(repr, ranked[:3])) + (", …" if len(ranked) > 3 else "")
    words = f"{percent(share, 3)} of the values are not in the reference: {names}"
    column.checks.append(Check("range", p_value, share >= SMALLEST_RATE, words))


def _comparable(one: CategoryProfile, other: CategoryProfile) -> dict[str, float]:
    """Counts of the categories of one profile that the other one did not drop."""
    return {
        repr(name): float(count)
        for name, count in one.counts.items()
        if not other.other or name in other.counts
    }


def common_counts(before: CategoryProfile, now: CategoryProfile) -> tuple[Floats, Floats]:
    """Counts of the same categories in both, and of all others last. A profile that dropped rare
    categories says nothing of those that it does not name, so these are others in both."""
    names = [
        name
        for name in dict.fromkeys((*before.counts, *now.counts))
        if (name in before.counts or not before.other) and (name in now.counts or not now.other)
    ]
    p = np.array([float(before.counts.get(name, 0)) for name in names] + [0.0])
    q = np.array([float(now.counts.get(name, 0)) for name in names] + [0.0])
    p[-1], q[-1] = before.count - p.sum(), now.count - q.sum()
    return p, q


def top(p: Floats, q: Floats, most: int) -> tuple[Floats, Floats]:
    """The groups with most rows in both together, and the rest as one: chosen without a look at
    which sample they are in. The last group is taken for a rest already."""
    if len(p) <= most:
        return p, q
    order = np.argsort(-(p + q)[:-1], kind="stable")[: most - 1]
    rest = np.ones(len(p), np.bool_)
    rest[order] = False
    return np.append(p[order], p[rest].sum()), np.append(q[order], q[rest].sum())


# Both ---------------------------------------------------------------------------------------------


def _constancy(column: ColumnChecks, one: Series, p: Floats, q: Floats, prefix: str) -> bool:
    """Test whether the values became constant, or a constant changed; True when one of the two
    samples is constant, so that the rest is part of this."""
    before, now = _only(one.reference), _only(one.current)
    if before is None and now is None:
        return False
    n, m = float(p.sum()), float(q.sum())
    if before is not None and now is not None:
        if before == now:
            return True
        words = f"always {now}, was always {before}"
        chance = float(all_among(m, n, m))
    elif before is not None:
        other = m - float(q[int(np.argmax(p))])
        if isinstance(one.reference, NumericProfile) and one.thinned is not None:
            value = one.reference.minimum
            other = m * one.thinned.share_outside(value, value)
        words = f"{percent(other / m, 3)} of the values differ, was always {before}"
        chance = float(all_among(math.ceil(other), n, m))
    else:
        words = f"always {now}, had different values"
        chance = constant_by_chance(p + q, m)
    column.checks.append(Check("constancy", chance, True, prefix + words))
    return before is not None


def _only(profile: Profile) -> str | None:
    """The only value of a series; None when there are several."""
    if isinstance(profile, NumericProfile):
        return shown(profile.minimum) if profile.minimum == profile.maximum else None
    if len(profile.counts) == 1 and not profile.other:
        return repr(next(iter(profile.counts)))
    return None


def _rare_change(p: Floats, q: Floats) -> bool:
    """Whether a rare group has at least doubled or halved its share, and by enough to be seen in
    the shares of missing rows too: a distance hardly moves for it."""
    before, now = p / max(p.sum(), 1.0), q / max(q.sum(), 1.0)
    apart = np.abs(now - before) >= SMALLEST_RATE
    ratio = np.maximum(before, now) >= _FACTOR * np.minimum(before, now)
    # One group of many neighbours may double by chance; a cumulated share may not.
    halves = np.abs(np.cumsum(now) - np.cumsum(before)) >= SMALLEST_RATE
    tails = np.stack([np.cumsum(before), np.cumsum(now)])
    small = np.minimum(tails, 1.0 - tails)
    doubled = small.max(axis=0) >= _FACTOR * small.min(axis=0)
    return bool((len(p) <= TEST_GROUPS and (apart & ratio).any()) or (halves & doubled).any())


def merged(p: Floats, q: Floats, groups: int) -> tuple[Floats, Floats]:
    """Counts of neighbouring buckets together, about as many rows of the reference in each group;
    a bucket is never divided."""
    total = p.sum()
    middle = np.cumsum(p) - p / 2.0
    at = np.minimum((middle / max(total, 1.0) * groups).astype(np.int64), groups - 1)
    a: Floats = np.bincount(at, weights=p, minlength=groups).astype(np.float64)
    b: Floats = np.bincount(at, weights=q, minlength=groups).astype(np.float64)
    held = a + b > 0.0
    return a[held], b[held]


def _series(name: str, before: Profile, now: Profile, thinned: Thinned | None) -> Series:
    if isinstance(before, NumericProfile):
        assert isinstance(now, NumericProfile)
        p, q = merged(
            before.counts.astype(np.float64), now.counts.astype(np.float64), DISTANCE_GROUPS
        )
        labels: list[str] = []
    else:
        assert isinstance(now, CategoryProfile)
        p, q = top(*common_counts(before, now), DISTANCE_GROUPS)
        labels = []
    if not len(p):
        p = q = np.zeros(1)
    psi, js, hellinger = from_counts(p[None, :], q[None, :])
    return Series(
        name, float(psi[0]), float(js[0]), float(hellinger[0]), p, q, labels, before, now, thinned
    )


def _excess(one: Series) -> float:
    """PSI beyond what is expected by chance: chi-squared has as mean its degrees of freedom."""
    n, m = max(one.p.sum(), 1.0), max(one.q.sum(), 1.0)
    return float(one.psi - (len(one.p) - 1) * (1.0 / n + 1.0 / m))


def verdict_of(column: ColumnChecks, level: float) -> dict[str, Any]:
    """Verdict and reason: of the checks that are significant and matter, the first aspect in the
    order of :data:`ASPECTS`."""
    sure = [c for c in column.checks if c.adjusted < level and c.matters]
    if sure:
        sure.sort(key=lambda c: (ASPECTS.index(c.aspect), c.p_value))
        first = sure[0]
        others = [c.aspect for c in sure[1:] if c.aspect != first.aspect]
        also = f" (also {', '.join(dict.fromkeys(others))})" if others else ""
        return {
            "verdict": first.aspect,
            "reason": first.reason + also,
            "drifted": True,
            "adjusted_p": first.adjusted,
        }
    if column.empty:
        verdict = NOT_COMPARED if column.looks_like else USUAL
        return {"verdict": verdict, "reason": column.empty, "drifted": False, "adjusted_p": None}
    # Nothing to name: then the distribution is what people want to read of.
    checks = [c for c in column.checks if c.aspect == "distribution"] or column.checks
    least: Check | None = min(checks, key=lambda c: c.adjusted, default=None)
    if least is None:
        return {"verdict": USUAL, "reason": "", "drifted": False, "adjusted_p": None}
    small = least.adjusted < level
    return {
        "verdict": USUAL,
        "reason": least.reason + (": too small to matter" if small else ""),
        "drifted": False,
        "adjusted_p": least.adjusted,
    }


def discounted(column: ColumnChecks, level: float, tests: int) -> str:
    """What to know of a difference that only the order of the rows makes uncertain; else empty."""
    for check in column.checks:
        sure = check.as_independent * tests < level
        if check.matters and sure and check.adjusted >= level:
            sides = (column.before, column.now)
            rows = sum(map(_values, sides))
            count = sum(_values(s) * e for s, e in zip(sides, check.effective, strict=True))
            return (
                f"{column.before.name}: {check.reason}, which is not certain: rows resemble the "
                f"row before (sorted, or in sessions), so {rows:,} count as about {count:,.0f}; "
                "shuffle the rows if their order means nothing"
            )
    return ""


def adjusted(columns: Sequence[ColumnChecks], adjust: Any) -> None:
    """Set the adjusted p-values of all checks of all columns together."""
    every = [check for column in columns for check in column.checks]
    if every:
        values = adjust(np.array([check.p_value for check in every]))
        for check, value in zip(every, values.tolist(), strict=True):
            check.adjusted = value
