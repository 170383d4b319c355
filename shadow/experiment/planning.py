"""How long will it take? The same measures on simulated traffic.

Each hypothesis is simulated at the truth that one hopes for: a challenger that is better by the
``effect`` (success), or as good as the champion (guardrail). What is counted are the requests until
its claim is shown. Beside it stands the sample size of a test with a fixed horizon, which may look
only once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures import Measure, measure_for

Array = npt.NDArray[np.float64]
_GROWTH = 0.02
"""The simulation looks again after this share of the records so far: a look after every record
would find the end at most that much earlier."""
_FIRST_LOOK = 16


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is assumed of the traffic.

    ``share`` is the challenger's part (split traffic; None: shadow). ``latency`` is the champion's
    median in seconds, ``spread`` the standard deviation of its logarithm. ``value`` and
    ``deviation`` are those of other values. ``discordant`` is the share of pairs in which only one
    of the two is right; by default half of what independent errors would give, and at least twice
    the effect. ``correlation`` is that of paired values.
    """

    share: float | None = None
    latency: float = 0.05
    spread: float = 0.5
    value: float = 1.0
    deviation: float = 1.0
    discordant: float | None = None
    correlation: float = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests of the challenger's own until the claim of ``hypothesis`` is shown.

    ``median``, ``p80`` and ``mean`` are infinite where fewer streams got there within the limit;
    ``reached`` is the share of streams that did. ``fixed`` is the size of a one-sided test with a
    fixed horizon at the power asked for, in the challenger's requests.
    """

    hypothesis: Hypothesis
    median: float
    p80: float
    mean: float
    reached: float
    streams: int
    fixed: float


def plan(
    hypothesis: Hypothesis,
    traffic: Traffic,
    *,
    alpha: float | None = None,
    streams: int = 1000,
    power: float = 0.8,
    limit: int = 200_000,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Simulate ``streams`` streams of at most ``limit`` records each.

    ``alpha`` is the level at which the claim has to be shown, by default the hypothesis' share.
    ``progress`` is called with the number of streams that are done. Raises ExperimentError for a
    hypothesis that only watches, or that has no effect to look for.
    """
    if hypothesis.watches:
        raise ExperimentError(hypothesis.name, "only detects harm: there is nothing to prove")
    gap = expected_gap(hypothesis, traffic)
    level = hypothesis.alpha if alpha is None else alpha
    goal = -math.log(level)
    rng = np.random.default_rng(seed)
    ends: list[float] = []
    for number in range(streams):
        measure = measure_for(hypothesis, paired=traffic.share is None)
        ends.append(_first_crossing(measure, hypothesis, traffic, gap, goal, limit, rng))
        if progress is not None:
            progress(number + 1)
    found = np.array(ends)
    done = np.isfinite(found)
    return Plan(
        hypothesis,
        _quantile(found, 0.5),
        _quantile(found, 0.8),
        float(found.mean()) if done.all() else math.inf,
        float(done.mean()),
        streams,
        fixed_horizon(hypothesis, traffic, power, level),
    )


def _quantile(ends: Array, q: float) -> float:
    at = np.sort(ends)[min(ends.size - 1, math.ceil(q * ends.size) - 1)]
    return float(at)


def expected_gap(hypothesis: Hypothesis, traffic: Traffic) -> float:
    """The hoped-for difference, challenger minus champion; raises ExperimentError without one."""
    if hypothesis.role == "guardrail":
        return 0.0
    effect = hypothesis.effect
    if effect is None or effect.value <= hypothesis.margin.value:
        raise ExperimentError(
            hypothesis.name, "needs an effect above its margin: set the target improvement"
        )
    size = effect.value * (_base(hypothesis, traffic) if effect.relative else 1.0)
    return -size if hypothesis.lower_is_better else size


def _base(hypothesis: Hypothesis, traffic: Traffic) -> float:
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        return hypothesis.base_rate
    if hypothesis.column != "latency":
        return traffic.value
    if statistic is Statistic.QUANTILE:
        z = float(special.ndtri(hypothesis.metric.p))
        return traffic.latency * math.exp(z * traffic.spread)
    return traffic.latency * math.exp(0.5 * traffic.spread**2)


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
        size = max(_FIRST_LOOK, int(_GROWTH * seen))
        if traffic.share is None:
            champion, challenger = _pairs(hypothesis, traffic, gap, size, rng)
            measure.update_pairs(champion, challenger)
        else:
            arms = (rng.random(size) < traffic.share).astype(np.float64)
            values = _values(hypothesis, traffic, arms * gap, size, rng)
            measure.update_split(arms, values, np.full(size, traffic.share))
        seen += size
        if measure.log_pass >= goal:
            return float(measure.n[1])
    return math.inf


def _values(
    hypothesis: Hypothesis, traffic: Traffic, gap: Array, size: int, rng: np.random.Generator
) -> Array:
    """Values whose rate, mean or quantile is moved by ``gap``."""
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        return (rng.random(size) < np.clip(hypothesis.base_rate + gap, 0.0, 1.0)).astype(float)
    if hypothesis.column == "latency":
        base = _base(hypothesis, traffic)
        scale = 1.0 + gap / base  # the whole distribution is stretched
        return traffic.latency * np.exp(traffic.spread * rng.standard_normal(size)) * scale
    values = traffic.value + gap + traffic.deviation * rng.standard_normal(size)
    if hypothesis.bounds is not None:
        values = np.clip(values, *hypothesis.bounds)
    return np.asarray(values)


def _pairs(
    hypothesis: Hypothesis, traffic: Traffic, gap: float, size: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    if hypothesis.metric.statistic is Statistic.RATE:
        base = hypothesis.base_rate
        discordant = _discordant(hypothesis, traffic, gap)
        only_challenger = 0.5 * (discordant + gap)
        only_champion = 0.5 * (discordant - gap)
        u = rng.random(size)
        both = max(0.0, base - only_champion)
        champion = (u < both) | ((u >= 1.0 - only_champion) & (u <= 1.0))
        challenger = (u < both) | (
            (u >= 1.0 - only_champion - only_challenger) & (u < 1.0 - only_champion)
        )
        return np.where(champion, 1.0, 0.0), np.where(challenger, 1.0, 0.0)
    shared = rng.standard_normal(size)
    r = math.sqrt(traffic.correlation)
    own = math.sqrt(1.0 - traffic.correlation)
    first = r * shared + own * rng.standard_normal(size)
    second = r * shared + own * rng.standard_normal(size)
    if hypothesis.column == "latency":
        scale = 1.0 + gap / _base(hypothesis, traffic)
        medians = (traffic.latency, traffic.latency * scale)
        return (
            medians[0] * np.exp(traffic.spread * first),
            medians[1] * np.exp(traffic.spread * second),
        )
    values = [traffic.value + traffic.deviation * x for x in (first, second)]
    values[1] = values[1] + gap
    if hypothesis.bounds is not None:
        values = [np.clip(v, *hypothesis.bounds) for v in values]
    return values[0], values[1]


def _discordant(hypothesis: Hypothesis, traffic: Traffic, gap: float) -> float:
    base = hypothesis.base_rate
    other = min(max(base + gap, 0.0), 1.0)
    independent = base * (1.0 - other) + other * (1.0 - base)
    if traffic.discordant is not None:
        return min(max(traffic.discordant, abs(gap)), independent)
    return min(max(2.0 * abs(gap), 0.5 * independent), independent)


def fixed_horizon(
    hypothesis: Hypothesis, traffic: Traffic, power: float, alpha: float | None = None
) -> float:
    """The challenger's requests that a one-sided z test at a fixed horizon needs.

    ``alpha`` is by default the hypothesis' share.
    """
    level = hypothesis.alpha if alpha is None else alpha
    z = float(special.ndtri(1.0 - level) + special.ndtri(power))
    base = _base(hypothesis, traffic)
    margin = hypothesis.margin.value * (base if hypothesis.margin.relative else 1.0)
    gap = expected_gap(hypothesis, traffic)
    # A guardrail is as far from its margin as the margin is wide.
    distance = margin if hypothesis.role == "guardrail" else abs(gap) - margin
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        if traffic.share is None:
            variance = _discordant(hypothesis, traffic, gap) - gap * gap
            return z * z * variance / distance**2
        other = min(max(base + gap, 0.0), 1.0)
        v0, v1 = base * (1.0 - base), other * (1.0 - other)
    elif statistic is Statistic.QUANTILE:
        p = hypothesis.metric.p
        bell = math.exp(-0.5 * float(special.ndtri(p)) ** 2) / math.sqrt(2.0 * math.pi)
        density = bell / (traffic.spread * base)
        v0 = v1 = p * (1.0 - p) / density**2
    elif hypothesis.column == "latency":
        v0 = v1 = base * base * math.expm1(traffic.spread**2)
    else:
        v0 = v1 = traffic.deviation**2
    if traffic.share is None:
        return z * z * 2.0 * v0 * (1.0 - traffic.correlation) / distance**2
    return z * z * (v1 + v0 * traffic.share / (1.0 - traffic.share)) / distance**2
