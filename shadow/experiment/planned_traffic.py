"""The traffic that a plan assumes: values of both arms, at the difference that one hopes for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic

Array = npt.NDArray[np.float64]


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


def expected_gap(hypothesis: Hypothesis, traffic: Traffic) -> float:
    """The hoped-for difference, challenger minus champion; raises ExperimentError without one."""
    if hypothesis.role == "guardrail":
        return 0.0
    effect = hypothesis.effect
    if effect is None or effect.value <= hypothesis.margin.value:
        raise ExperimentError(
            hypothesis.name, "needs an effect above its margin: set the target improvement"
        )
    size = effect.value * (base_of(hypothesis, traffic) if effect.relative else 1.0)
    return -size if hypothesis.lower_is_better else size


def base_of(hypothesis: Hypothesis, traffic: Traffic) -> float:
    """The champion's rate, quantile or mean."""
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


def draw_values(
    hypothesis: Hypothesis, traffic: Traffic, gap: Array, size: int, rng: np.random.Generator
) -> Array:
    """Values whose rate, mean or quantile is moved by ``gap``."""
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        return (rng.random(size) < np.clip(hypothesis.base_rate + gap, 0.0, 1.0)).astype(float)
    sample = sample_of(hypothesis, traffic)
    if sample is not None:
        return _moved(hypothesis, rng.choice(sample, size), gap, base_of(hypothesis, traffic))
    if hypothesis.column == "latency":
        base = base_of(hypothesis, traffic)
        scale = 1.0 + gap / base  # the whole distribution is stretched
        return traffic.latency * np.exp(traffic.spread * rng.standard_normal(size)) * scale
    values = traffic.value + gap + traffic.deviation * shaped(rng.standard_normal(size), traffic)
    if hypothesis.bounds is not None:
        values = np.clip(values, *hypothesis.bounds)
    return np.asarray(values)


def draw_pairs(
    hypothesis: Hypothesis, traffic: Traffic, gap: float, size: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Values of both arms for the same requests."""
    if hypothesis.metric.statistic is Statistic.RATE:
        only_challenger, only_champion, both, _ = outcome_shares(hypothesis, traffic, gap)
        u = rng.random(size)
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
    # Both have the same distribution but for the gap, and their ranks the correlation.
    return at_scores(hypothesis, traffic, first, 0.0), at_scores(hypothesis, traffic, second, gap)


def at_scores(hypothesis: Hypothesis, traffic: Traffic, z: Array, gap: float) -> Array:
    """The values, moved by ``gap``, that stand where ``z`` stands among standard normal ones."""
    sample = sample_of(hypothesis, traffic)
    if sample is not None:
        drawn = np.quantile(sample, special.ndtr(z))
        return _moved(hypothesis, drawn, gap, base_of(hypothesis, traffic)) if gap else drawn
    if hypothesis.column == "latency":
        scale = 1.0 + gap / base_of(hypothesis, traffic)  # the whole distribution is stretched
        return np.asarray(traffic.latency * scale * np.exp(traffic.spread * z))
    values = traffic.value + gap + traffic.deviation * shaped(z, traffic)
    return np.asarray(np.clip(values, *hypothesis.bounds) if hypothesis.bounds else values)


def rates_of(hypothesis: Hypothesis, gap: float) -> tuple[float, float]:
    """The rates of champion and challenger."""
    base = hypothesis.base_rate
    return base, min(max(base + gap, 0.0), 1.0)


def outcome_shares(
    hypothesis: Hypothesis, traffic: Traffic, gap: float
) -> tuple[float, float, float, float]:
    """Shares of the pairs in which only the challenger's outcome is 1, only the champion's, both,
    and neither."""
    discordant = discordant_share(hypothesis, traffic, gap)
    only_challenger = 0.5 * (discordant + gap)
    only_champion = 0.5 * (discordant - gap)
    both = max(0.0, hypothesis.base_rate - only_champion)
    return (
        only_challenger,
        only_champion,
        both,
        max(0.0, 1.0 - only_challenger - only_champion - both),
    )


def takes_samples(hypothesis: Hypothesis) -> bool:
    """Whether measured values are of use: a rate is planned from its base rate."""
    return hypothesis.metric.statistic is not Statistic.RATE


def sample_of(hypothesis: Hypothesis, traffic: Traffic) -> Array | None:
    """The measured values of the metric's column, capped as the metric is; None without any."""
    sample = traffic.samples.get(hypothesis.column)
    if sample is None or not takes_samples(hypothesis):
        return None
    return sample if hypothesis.cap is None else np.clip(sample, *hypothesis.cap)


def _moved(hypothesis: Hypothesis, values: Array, gap: Array | float, base: float) -> Array:
    """Measured values of the challenger: stretched in proportion for latency, else shifted."""
    if hypothesis.column == "latency":
        return np.asarray(values * (1.0 + gap / base))
    moved = values + gap
    return np.clip(moved, *hypothesis.bounds) if hypothesis.bounds is not None else moved


def shaped(z: Array, traffic: Traffic) -> Array:
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


def discordant_share(hypothesis: Hypothesis, traffic: Traffic, gap: float) -> float:
    """The share of the pairs in which one of the two outcomes is 1."""
    base = hypothesis.base_rate
    other = min(max(base + gap, 0.0), 1.0)
    independent = base * (1.0 - other) + other * (1.0 - base)
    if traffic.discordant is not None:
        return min(max(traffic.discordant, abs(gap)), independent)
    return min(max(2.0 * abs(gap), 0.5 * independent), independent)
