"""What a baseline allows: thresholds of the charts, rates of the rules, and what these rest on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import MISSING, Encoder
from understudy.monitor.baseline.model import Baseline, CategoryProfile, NumericProfile
from understudy.monitor.baseline.profiles import singles
from understudy.monitor.baseline.repeats import longest_by_chance
from understudy.monitor.baseline.rules import BY_FEATURE, BY_ROW, RateRule, Rule
from understudy.monitor.baseline.scores import tail_factor
from understudy.monitor.detectors.autocorrelation import assumptions, inflation
from understudy.monitor.detectors.edetector import null_rate
from understudy.monitor.detectors.seasons import Profile

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


LOCATION = 0.85
"""Of the false alarms of a series, what its location has; its spread has the rest. A move of the
location is the commoner change and the smaller one: charts of small slacks pay the most, in rows,
for a share that is halved."""
COMPOSITION = 0.6
"""Of the false alarms of a categorical series, what its shares have; its charts share the rest."""


def run_lengths(series: int, run_length: float, categorical: Mask | None = None) -> Floats:
    """Of each location, then of each spread, (2 S,); ``run_length`` is that of all together, and
    ``categorical`` (S,) says which series have a share for their composition."""
    shares = np.repeat([LOCATION, 1.0 - LOCATION], series)
    if categorical is not None:
        shares *= np.where(np.tile(categorical, 2), 1.0 - COMPOSITION, 1.0)
    found: Floats = run_length * max(series, 1) / shares
    return found


def tail_factors(encoder: Encoder, slacks: Sequence[float]) -> Floats:
    """By how much thresholds grow for scores that are not normal, (2 S, slacks)."""
    found = [
        [max(tail_factor(table[s], shares, k), tail_factor(-table[s], shares, k)) for k in slacks]
        for table in (encoder.location[:, :MISSING], encoder.spread[:, :MISSING])
        for s in range(len(encoder.series))
        for shares in (shares_of(encoder.counts[s]),)
    ]
    return np.array(found, np.float64).reshape(2 * len(encoder.series), len(slacks))


def inflations(encoder: Encoder, cycle: Profile | None, places: Sequence[int]) -> Floats:
    """Variance of long sums over that of independent rows, (2 S,); of the ``places`` that have a
    cycle, what is left without it."""
    location = [(p.lag1, p.count) for p in encoder.profiles]
    spread = [
        (p.lag1_spread if isinstance(p, NumericProfile) else p.lag1, p.count)
        for p in encoder.profiles
    ]
    found = np.array([inflation(lag, float(rows)) for lag, rows in (*location, *spread)])
    if cycle is not None:
        found[list(places)] = np.maximum(cycle.inflation, 1.0)
    return found


def cycle_of(encoder: Encoder, baseline: Baseline) -> tuple[Profile | None, list[int]]:
    """What the hour explains, and the places (among 2 S) of the series that are there of it."""
    places = {name: place for place, name in enumerate(encoder.series)}
    names: list[str] = baseline.seasons["series"] if baseline.seasons is not None else []
    known = [number for number, name in enumerate(names) if name in places]
    if baseline.seasons is None or not known:
        return None, []
    whole = Profile.from_dict(baseline.seasons)
    kept = [*known, *(number + len(names) for number in known)]
    profile = Profile(whole.means[:, kept], whole.scale[kept], whole.inflation[kept])
    located = [places[names[number]] for number in known]
    return profile, [*located, *(place + len(places) for place in located)]


def baseline_rows(encoder: Encoder) -> Floats:
    """Rows that the location and spread of each series rest on, (2 S,)."""
    found: Floats = np.maximum(np.tile(encoder.counts.sum(axis=1), 2), 1.0)
    return found


def assumptions_of(encoder: Encoder, cycle: Profile | None) -> tuple[str, ...]:
    """What the run length rests on, in words."""
    correlations = {n: p.lag1 for n, p in zip(encoder.series, encoder.profiles, strict=True)}
    return assumptions(correlations, allowed_for=True, seasonal=cycle is not None)


def shares_of(counts: Floats) -> Floats:
    """Of the whole; of nothing, all of it is the first."""
    total = counts.sum()
    if total <= 0.0:
        uniform = np.zeros_like(counts)
        uniform[0] = 1.0
        return uniform
    shares: Floats = counts / total
    return shares


def rate_rules(baseline: Baseline, encoder: Encoder, smallest: float) -> list[RateRule]:
    """Every rule with the rate that is no news; ``smallest`` is the smallest rise that matters."""
    rules: list[RateRule] = []
    for column in encoder.columns:
        seen = {
            Rule.MISSING: column.missing + column.nan,
            Rule.TYPE: column.mistyped,
            Rule.INFINITE: column.infinite,
            Rule.RANGE: 0,
            Rule.UNSEEN: sum(
                singles(profile)
                for profile in column.series.values()
                if isinstance(profile, CategoryProfile)
            ),
        }
        for rule in BY_FEATURE:
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
    """Longest run of a column that is no news."""
    column = encoder.columns[number]
    first = encoder.first[number]
    shares = shares_of(encoder.counts[first])
    if np.count_nonzero(shares) <= 1:
        return 2**62  # it never changed
    chance = longest_by_chance(float(shares @ shares), rows)
    return max(chance, 3 * int(column.extra.get("longest_run", 0)))
