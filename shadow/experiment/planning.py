"""How long will it take? The same tests on simulated traffic.

Each hypothesis is simulated at the truth that one hopes for: a challenger that is better by the
``effect`` (success), or as good as the champion (guardrail). What is counted are the requests until
its claim is shown. Beside it stands the sample size of a test with a fixed horizon, which may look
only once. The sums that the tests depend on are drawn for all streams together
(:mod:`understudy.shadow.experiment.crossings`); ``exact`` feeds every record of every stream to the
measure, which takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from understudy.common import special
from understudy.shadow.experiment.crossings import FIRST_LOOK, GROWTH, crossings
from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures import Measure, measure_for
from understudy.shadow.experiment.planned_traffic import (
    Array,
    Traffic,
    base_of,
    discordant_share,
    draw_pairs,
    draw_values,
    expected_gap,
    sample_of,
    shaped,
    takes_samples,
)
from understudy.shadow.sequential import Gate

__all__ = ["SIMULATED", "Array", "Plan", "Traffic", "fixed_horizon", "plan", "takes_samples"]

_HEAVY = 30.0
"""Kurtosis above which tails are called heavy; normal values have 3, exponential ones 9."""
_FEW = 1000
_GATE = Gate().effective
_MEASURE = (
    "Measure it: collect the champion's values for a day, in a file with the column {column}, and "
    "pass it with --values"
)
SIMULATED = (Statistic.RATE, Statistic.MEAN, Statistic.QUANTILE, Statistic.TOTAL)
"""What can be planned by simulation."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests of the challenger's own until the claim of ``hypothesis`` is shown.

    ``median``, ``p80`` and ``mean`` are infinite where fewer streams got there within the limit;
    ``reached`` is the share of streams that did. ``fixed`` is the size of a one-sided test with a
    fixed horizon at the power asked for, in the challenger's requests. ``warnings`` say what the
    figures depend on and whether tails are heavy.
    """

    hypothesis: Hypothesis
    median: float
    p80: float
    mean: float
    reached: float
    streams: int
    fixed: float
    warnings: tuple[str, ...] = ()


def plan(
    hypothesis: Hypothesis,
    traffic: Traffic,
    *,
    alpha: float | None = None,
    streams: int = 1000,
    power: float = 0.8,
    limit: int = 200_000,
    seed: int = 1,
    exact: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Plan:
    """Simulate ``streams`` streams of at most ``limit`` records each.

    ``alpha`` is the level at which the claim has to be shown, by default the hypothesis' share.
    ``exact`` feeds every record to the measure. ``progress`` is called with the share of the work
    that is done. Raises ExperimentError for a
    hypothesis that only watches, or that has no effect to look for.
    """
    if hypothesis.watches:
        raise ExperimentError(hypothesis.name, "only detects harm: there is nothing to prove")
    if hypothesis.metric.statistic not in SIMULATED:
        raise ExperimentError(
            hypothesis.name,
            "is not simulated: run `understudy experiment replay` on logged records instead",
        )
    if hypothesis.bounds is not None and "values" in traffic.assumed:
        lower, upper = hypothesis.bounds
        fifth = 0.2 * (upper - lower)
        traffic = replace(traffic, value=lower + fifth, deviation=fifth)
    gap = expected_gap(hypothesis, traffic)
    level = hypothesis.alpha if alpha is None else alpha
    goal = -math.log(level)
    rng = np.random.default_rng(seed)
    if exact:
        requests = np.full(streams, math.inf)
        for number in range(streams):
            measure = measure_for(hypothesis, paired=traffic.share is None)
            requests[number] = _first_crossing(measure, hypothesis, traffic, gap, goal, limit, rng)
            if progress is not None:
                progress((number + 1) / streams)
    else:
        requests = crossings(hypothesis, traffic, gap, goal, limit, streams, rng, progress)
    done = np.isfinite(requests)
    return Plan(
        hypothesis,
        _quantile(requests, 0.5),
        _quantile(requests, 0.8),
        float(requests.mean()) if done.all() else math.inf,
        float(done.mean()),
        streams,
        fixed_horizon(hypothesis, traffic, power, level),
        tuple(_warnings(hypothesis, traffic)),
    )


def _quantile(ends: Array, q: float) -> float:
    at = np.sort(ends)[min(ends.size - 1, math.ceil(q * ends.size) - 1)]
    return float(at)


def _first_crossing(
    measure: Measure,
    hypothesis: Hypothesis,
    traffic: Traffic,
    gap: float,
    goal: float,
    limit: int,
    rng: np.random.Generator,
) -> float:
    """The challenger's requests at the first look at which the claim is shown."""
    seen = 0
    while seen < limit:
        size = max(FIRST_LOOK, int(GROWTH * seen))
        if traffic.share is None:
            champion, challenger = draw_pairs(hypothesis, traffic, gap, size, rng)
            measure.update_pairs(champion, challenger)
        else:
            arms = (rng.random(size) < traffic.share).astype(np.float64)
            values = draw_values(hypothesis, traffic, arms * gap, size, rng)
            if hypothesis.metric.statistic is Statistic.TOTAL:
                measure.update_units(arms, values, np.ones(size), np.full(size, traffic.share))
            else:
                measure.update_split(arms, values, np.full(size, traffic.share))
        seen += size
        if measure.log_pass >= goal:
            return float(measure.n[1])
    return math.inf


def _warnings(hypothesis: Hypothesis, traffic: Traffic) -> Iterator[str]:
    """What the figures depend on, and whether tails are heavy."""
    statistic = hypothesis.metric.statistic
    if hypothesis.covariate:
        yield f"without the adjustment for {hypothesis.covariate}, which needs fewer"
    if statistic is Statistic.RATE:
        return
    sample = sample_of(hypothesis, traffic)
    if sample is None and hypothesis.column == "latency":
        if "latency" in traffic.assumed:
            yield (
                f"assumes lognormal latencies: median {traffic.latency:g} s, deviation of the "
                f"logarithm {traffic.spread:g}. {_MEASURE.format(column=hypothesis.column)}"
            )
        return
    if sample is None and "values" in traffic.assumed:
        yield (
            f"assumes normal values: mean {traffic.value:g}, deviation {traffic.deviation:g}, no "
            f"heavy tails. {_MEASURE.format(column=hypothesis.column)}"
        )
        return
    if sample is not None and sample.size < _FEW:
        yield f"only {sample.size:,} values were measured: rarer ones are not in the figures"
    if sample is None and traffic.skew:
        fixed = np.random.default_rng(1).standard_normal(100_000)
        sample = traffic.value + traffic.deviation * shaped(fixed, traffic)
        if hypothesis.cap is not None:
            sample = np.clip(sample, *hypothesis.cap)
    if sample is not None and statistic is not Statistic.QUANTILE and hypothesis.bounds is None:
        yield from _tails(sample)


def _tails(sample: Array) -> Iterator[str]:
    squares = np.sort((sample - sample.mean()) ** 2)
    variance = float(squares.mean())
    if not variance > 0.0:
        yield "all values are equal: nothing can be planned from them"
        return
    kurtosis = float((squares**2).mean()) / variance**2
    if kurtosis > _HEAVY:
        part = squares[-max(1, sample.size // 100) :].sum() / squares.sum()
        yield (
            f"heavy tails: 1 % of the values make {100.0 * part:.0f} % of the variance (kurtosis "
            f"{kurtosis:.3g}), so evidence begins after about {_GATE * kurtosis:,.0f} values per "
            f"arm. A `cap` needs fewer; the 99th percentile is {np.quantile(sample, 0.99):.3g}"
        )


def fixed_horizon(
    hypothesis: Hypothesis, traffic: Traffic, power: float, alpha: float | None = None
) -> float:
    """The challenger's requests that a one-sided z test at a fixed horizon needs.

    ``alpha`` is by default the hypothesis' share.
    """
    level = hypothesis.alpha if alpha is None else alpha
    z = float(special.ndtri(1.0 - level) + special.ndtri(power))
    base = base_of(hypothesis, traffic)
    margin = hypothesis.margin.value * (base if hypothesis.margin.relative else 1.0)
    gap = expected_gap(hypothesis, traffic)
    # A guardrail is as far from its margin as the margin is wide.
    distance = margin if hypothesis.role == "guardrail" else abs(gap) - margin
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        if traffic.share is None:
            variance = discordant_share(hypothesis, traffic, gap) - gap * gap
            return z * z * variance / distance**2
        other = min(max(base + gap, 0.0), 1.0)
        v0, v1 = base * (1.0 - base), other * (1.0 - other)
    elif statistic is Statistic.QUANTILE:
        p = hypothesis.metric.p
        bell = math.exp(-0.5 * float(special.ndtri(p)) ** 2) / math.sqrt(2.0 * math.pi)
        density = bell / (traffic.spread * base)
        v0 = v1 = p * (1.0 - p) / density**2
    elif (sample := sample_of(hypothesis, traffic)) is not None:
        v0 = v1 = float(sample.var())
    elif hypothesis.column == "latency":
        v0 = v1 = base * base * math.expm1(traffic.spread**2)
    else:
        v0 = v1 = traffic.deviation**2
    if traffic.share is None:
        return z * z * 2.0 * v0 * (1.0 - traffic.correlation) / distance**2
    return z * z * (v1 + v0 * traffic.share / (1.0 - traffic.share)) / distance**2
