"""What a baseline allows: run lengths and thresholds of charts, rates of rules, assumptions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import MISSING, Encoder
from understudy.monitor.baseline.model import Baseline, CategoryProfile
from understudy.monitor.baseline.repeats import longest_by_chance
from understudy.monitor.baseline.rules import BY_FEATURE, BY_ROW, RateRule, Rule
from understudy.monitor.baseline.scores import tail_factor
from understudy.monitor.detectors.dependence import Memory
from understudy.monitor.detectors.edetector import null_rate
from understudy.monitor.detectors.seasons import CELLS, Profile

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


LOCATION = 0.85
"""Share of a series' false alarms for its location; its spread has the rest. Shifts of the location
are more frequent and smaller: halving the share of charts with small slacks costs them most
rows."""
COMPOSITION = 0.6
"""Share of a categorical series' false alarms for its composition; its charts have the rest."""


def run_lengths(series: int, run_length: float, categorical: Mask | None = None) -> Floats:
    """Run lengths of each location, then of each spread, (2 S,); ``run_length`` is that of all
    together, and ``categorical`` (S,) says which series have a share for their composition."""
    shares = np.repeat([LOCATION, 1.0 - LOCATION], series)
    if categorical is not None:
        shares *= np.where(np.tile(categorical, 2), 1.0 - COMPOSITION, 1.0)
    result: Floats = run_length * max(series, 1) / shares
    return result


def tail_factors(encoder: Encoder, slacks: Sequence[float]) -> Floats:
    """By how much thresholds grow for scores that are not normal, (2 S, slacks)."""
    result = [
        [max(tail_factor(table[s], shares, k), tail_factor(-table[s], shares, k)) for k in slacks]
        for table in (encoder.location[:, :MISSING], encoder.spread[:, :MISSING])
        for s in range(len(encoder.series))
        for shares in (shares_of(encoder.counts[s]),)
    ]
    return np.array(result, np.float64).reshape(2 * len(encoder.series), len(slacks))


def memories(encoder: Encoder, cycle: Profile | None, indices: Sequence[int]) -> list[Memory]:
    """How the rows of each location and spread depend on each other, 2 S; of the ``indices`` that
    have a cycle, without it."""
    result = [p.location for p in encoder.profiles] + [p.spread for p in encoder.profiles]
    if cycle is not None:
        for index, memory in zip(indices, cycle.memories, strict=True):
            result[index] = memory
    return result


def inflations(of: Sequence[Memory], slacks: Sequence[float]) -> Floats:
    """Variance of long sums over that of independent rows, as each chart sees it, (2 S, slacks)."""
    result = [[memory.inflation(k) for k in slacks] for memory in of]
    return np.array(result, np.float64).reshape(len(of), len(slacks))


def cycle_of(encoder: Encoder, baseline: Baseline) -> tuple[Profile | None, list[int]]:
    """The daily cycle, and the indices (among 2 S) of the series that have one."""
    indices = {name: index for index, name in enumerate(encoder.series)}
    names: list[str] = baseline.seasons["series"] if baseline.seasons is not None else []
    known = [number for number, name in enumerate(names) if name in indices]
    if baseline.seasons is None or not known:
        return None, []
    whole = Profile.from_dict(baseline.seasons)
    profile = whole.of([*known, *(number + len(names) for number in known)])
    located = [indices[names[number]] for number in known]
    return profile, [*located, *(index + len(indices) for index in located)]


def errors_of(series: int, cycle: Profile | None, indices: Sequence[int]) -> Floats:
    """Standard errors of the hours' means of each location, (168, S); infinite where the baseline
    knows no hours."""
    result = np.full((CELLS, series), np.inf)
    if cycle is not None:
        for number, index in enumerate(indices):
            if index < series:
                result[:, index] = cycle.errors[:, number]
    return result


def baseline_rows(encoder: Encoder) -> Floats:
    """Baseline rows behind the location and spread of each series, (2 S,)."""
    result: Floats = np.maximum(np.tile(encoder.counts.sum(axis=1), 2), 1.0)
    return result


def shares_of(counts: Floats) -> Floats:
    """Shares of the total; if that is 0, the first has all."""
    total = counts.sum()
    if total <= 0.0:
        uniform = np.zeros_like(counts)
        uniform[0] = 1.0
        return uniform
    shares: Floats = counts / total
    return shares


def rate_rules(baseline: Baseline, encoder: Encoder, smallest: float) -> list[RateRule]:
    """Every rule with its usual rate; ``smallest`` is the smallest rise that matters."""
    rules: list[RateRule] = []
    for column, unwatched in zip(encoder.columns, encoder.unwatched.tolist(), strict=True):
        seen = {
            Rule.MISSING: column.missing + column.nan,
            Rule.TYPE: column.mistyped,
            Rule.INFINITE: column.infinite,
            Rule.RANGE: 0,
            Rule.UNSEEN: sum(
                profile.once
                for profile in column.series.values()
                if isinstance(profile, CategoryProfile)
            ),
        }
        for rule in (Rule.MISSING, Rule.TYPE) if unwatched else BY_FEATURE:
            if (rule is Rule.UNSEEN) == (column.kind in ("boolean", "categorical")) or rule in (
                Rule.MISSING,
                Rule.TYPE,
            ):
                rules.append(
                    RateRule(rule, column.name, null_rate(seen[rule], column.rows, smallest))
                )
    duplicates = baseline.duplicates
    for rule in BY_ROW:
        if rule is Rule.DUPLICATE and duplicates is None:
            continue
        count = round((duplicates or 0.0) * baseline.rows) if rule is Rule.DUPLICATE else 0
        rules.append(RateRule(rule, "", null_rate(count, baseline.rows, smallest)))
    return rules


def longest_run(encoder: Encoder, number: int, rows: float) -> int:
    """Longest normal run of column ``number`` in ``rows`` rows."""
    column = encoder.columns[number]
    distinct = [
        profile.distinct
        if isinstance(profile, CategoryProfile)
        else np.count_nonzero(profile.counts)
        for profile in column.series.values()
    ]
    if max(distinct, default=0) <= 1:
        return 2**62  # it never changed
    repeated = column.extra.get("repeated")
    if repeated is None:
        # As for values that are drawn independently; rare categories are hardly drawn twice.
        profile = next(iter(column.series.values()))
        if isinstance(profile, CategoryProfile):
            counts, rare = np.array([*profile.counts.values()], np.float64), profile.other
        else:
            counts, rare = profile.counts.astype(np.float64), 0
        repeated = (float(counts @ counts) + rare) / max(profile.count, 1) ** 2
    # Three more than were seen: those that a baseline of this size may not have had.
    chance = longest_by_chance(min(repeated + 3.0 / max(column.rows, 1), 1.0), rows)
    return max(chance, 3 * int(column.extra.get("longest_run", 0)))
