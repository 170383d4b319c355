"""How long will it take? The same measures on simulated traffic.

Each hypothesis is simulated at the truth that one hopes for: a challenger that is better by the
``effect`` (success), or as good as the champion (guardrail). What is counted are the requests until
its claim is shown. Beside it stands the sample size of a test with a fixed horizon, which may look
only once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures import Measure, measure_for
from understudy.shadow.sequential import Gate

Array = npt.NDArray[np.float64]
_GROWTH = 0.02
"""The simulation looks again after this share of the records so far: a look after every record
would find the end at most that much earlier."""
_FIRST_LOOK = 16
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
class Traffic:
    """What is assumed of the traffic.

    ``share`` is the challenger's part (split traffic; None: shadow). ``latency`` is the champion's
    median in seconds, ``spread`` the standard deviation of its logarithm. ``value``, ``deviation``
    and ``skew`` are those of other values: normal, or lognormal with that skewness. ``samples``
    are measured values of the champion by column (see
    :mod:`understudy.shadow.experiment.batches`), drawn with replacement instead. ``assumed`` names
    what was neither measured nor declared: "latency", "values". ``discordant`` is the share of
    pairs in which only one of the two is right; by default half of what independent errors would
    give, and at least twice the effect. ``correlation`` is that of paired values.
    """

    share: float | None = None
    latency: float = 0.05
    spread: float = 0.5
    value: float = 1.0
    deviation: float = 1.0
    skew: float = 0.0
    samples: Mapping[str, Array] = field(default_factory=dict)
    assumed: frozenset[str] = frozenset()
    discordant: float | None = None
    correlation: float = 0.5


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
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Simulate ``streams`` streams of at most ``limit`` records each.

    ``alpha`` is the level at which the claim has to be shown, by default the hypothesis' share.
    ``progress`` is called with the number of streams that are done. Raises ExperimentError for a
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
    ends: list[float] = []
    for number in range(streams):
        measure = measure_for(hypothesis, paired=traffic.share is None)
        ends.append(_first_crossing(measure, hypothesis, traffic, gap, goal, limit, rng))
        if progress is not None:
            progress(number + 1)
    requests = np.array(ends)
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
    sample = sample_of(hypothesis, traffic)
    if sample is not None:
        if statistic is Statistic.QUANTILE:
            return float(np.quantile(sample, hypothesis.metric.p))
        return float(sample.mean())
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
            if hypothesis.metric.statistic is Statistic.TOTAL:
                measure.update_units(arms, values, np.ones(size), np.full(size, traffic.share))
            else:
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
    sample = sample_of(hypothesis, traffic)
    if sample is not None:
        return _moved(hypothesis, rng.choice(sample, size), gap, _base(hypothesis, traffic))
    if hypothesis.column == "latency":
        base = _base(hypothesis, traffic)
        scale = 1.0 + gap / base  # the whole distribution is stretched
        return traffic.latency * np.exp(traffic.spread * rng.standard_normal(size)) * scale
    values = traffic.value + gap + traffic.deviation * _shaped(rng.standard_normal(size), traffic)
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
    sample = sample_of(hypothesis, traffic)
    if sample is not None:
        # Both have the distribution of the sample, and their ranks the correlation.
        drawn = [np.quantile(sample, special.ndtr(x)) for x in (first, second)]
        base = _base(hypothesis, traffic)
        return drawn[0], _moved(hypothesis, drawn[1], np.full(size, gap), base)
    if hypothesis.column == "latency":
        scale = 1.0 + gap / _base(hypothesis, traffic)
        medians = (traffic.latency, traffic.latency * scale)
        return (
            medians[0] * np.exp(traffic.spread * first),
            medians[1] * np.exp(traffic.spread * second),
        )
    values = [traffic.value + traffic.deviation * _shaped(x, traffic) for x in (first, second)]
    values[1] = values[1] + gap
    if hypothesis.bounds is not None:
        values = [np.clip(v, *hypothesis.bounds) for v in values]
    return values[0], values[1]


def takes_samples(hypothesis: Hypothesis) -> bool:
    """Whether measured values are of use: a rate is planned from its base rate."""
    return hypothesis.metric.statistic is not Statistic.RATE


def sample_of(hypothesis: Hypothesis, traffic: Traffic) -> Array | None:
    """The measured values of the metric's column, capped as the metric is; None without any."""
    sample = traffic.samples.get(hypothesis.column)
    if sample is None or not takes_samples(hypothesis):
        return None
    return sample if hypothesis.cap is None else np.clip(sample, *hypothesis.cap)


def _moved(hypothesis: Hypothesis, values: Array, gap: Array, base: float) -> Array:
    """Measured values of the challenger: stretched in proportion for latency, else shifted."""
    if hypothesis.column == "latency":
        return np.asarray(values * (1.0 + gap / base))
    moved = values + gap
    return np.clip(moved, *hypothesis.bounds) if hypothesis.bounds is not None else moved


def _shaped(z: Array, traffic: Traffic) -> Array:
    """Normal values as values of mean 0, deviation 1 and the declared skewness (lognormal)."""
    if not traffic.skew:
        return z
    size = abs(traffic.skew)
    lower, upper = 1e-6, 4.0
    for _ in range(80):
        s = 0.5 * (lower + upper)
        e = math.exp(s * s)
        lower, upper = (s, upper) if (e + 2.0) * math.sqrt(e - 1.0) < size else (lower, s)
    spread = math.exp(0.5 * s * s) * math.sqrt(math.expm1(s * s))
    side = math.copysign(1.0, traffic.skew)
    return np.asarray(side * (np.exp(side * s * z) - math.exp(0.5 * s * s)) / spread)


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
        sample = traffic.value + traffic.deviation * _shaped(fixed, traffic)
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
    elif (sample := sample_of(hypothesis, traffic)) is not None:
        v0 = v1 = float(sample.var())
    elif hypothesis.column == "latency":
        v0 = v1 = base * base * math.expm1(traffic.spread**2)
    else:
        v0 = v1 = traffic.deviation**2
    if traffic.share is None:
        return z * z * 2.0 * v0 * (1.0 - traffic.correlation) / distance**2
    return z * z * (v1 + v0 * traffic.share / (1.0 - traffic.share)) / distance**2
