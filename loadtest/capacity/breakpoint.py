"""The highest rate at which the objectives hold: doubles the rate until it fails, then bisects.

Every probe is an open-loop load at one rate, evaluated as a load stage: a percentile by an
anytime-valid test, and the share of failures. A probe without a decision at its end counts as
failed. The capacity lies between the highest rate that passed and the lowest that failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.statistics.intervals import Interval

Floats = NDArray[np.float64]
Chosen = NDArray[np.int64]
Probe = Callable[[float], "StepVerdict"]


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """The result of a probe at ``rate``; ``passed`` None: it could not be measured."""

    rate: float
    passed: bool | None
    why: str
    outcome: Outcome
    whole: bool = True
    """Whether it ran to its end; one that was stopped early is biased towards bad results."""
    goodput: float | None = None
    """Answers of a language model per second that kept all limits; None where none are asked."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        result = self.outcome
        return {
            "rate": self.rate,
            "passed": self.passed,
            "why": self.why,
            "achieved": result.rate,
            "goodput": self.goodput,
            "p50": result.quantile(0.5),
            "p99": result.quantile(0.99),
            "failed": result.failed,
            "requests": result.count,
        }


@dataclass(frozen=True, slots=True)
class Capacity:
    """The bracket: ``low`` passed, ``high`` failed (None: no rate up to the maximum failed)."""

    low: float | None
    high: float | None
    probes: tuple[StepVerdict, ...]
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "why": self.why,
            "probes": [probe.to_dict() for probe in self.probes],
        }


NEAR = 0.25
"""Relative distance from the search's end within which probes are part of the estimate."""


def estimate(found: Capacity, p: float, limit: float, seed: int = 0) -> Interval | None:
    """The rate at which the quantile ``p`` reaches ``limit`` in seconds, of all probes near the end
    of the search: one probe alone decides too much, and the retry of those that failed favours
    higher rates. A line through the logarithms, weighted by the requests; the interval (95 %) from
    resampled probes and parts of them. None where fewer than three rates are near.

    The interval is that of probes of this length. Near the capacity a queue remembers for seconds,
    and most short probes do not see its worst moments: four servers of 20 ms each, probed for 30 s,
    were estimated 2.4 % too high (standard deviation 1.5 %), by simulation, and a third of the
    intervals held the true rate. Longer probes are the remedy; another curve through short ones
    was not.
    """
    if found.low is None or found.high is None:
        return None
    middle = math.sqrt(found.low * found.high)
    near = [
        probe.outcome for probe in found.probes
        if probe.whole and abs(math.log(probe.rate / middle)) < NEAR
        and probe.outcome.count * (1.0 - p) >= 5.0
    ]  # fmt: skip
    if len({round(one.rate, 3) for one in near}) < 3:
        return None
    rates = np.array([one.count / max(float(one.due[-1]), 1e-9) for one in near])
    counts = np.array([one.count for one in near], np.float64)
    rng = np.random.default_rng(seed)

    def crossing(chosen: Chosen, quantiles: Floats) -> float:
        if len(np.unique(rates[chosen])) < 2:
            return math.nan
        weights = np.sqrt(counts[chosen])
        slope, base = np.polyfit(rates[chosen], np.log(quantiles), 1, w=weights)
        if slope <= 0.0:
            return math.nan
        at = (math.log(limit) - base) / slope
        return float(np.clip(at, middle * math.exp(-NEAR), middle * math.exp(NEAR)))

    def resampled() -> float:
        chosen = rng.integers(0, len(near), len(near))
        return crossing(chosen, np.array([_resampled_quantile(near[k], p, rng) for k in chosen]))

    value = crossing(np.arange(len(near)), np.array([one.quantile(p) for one in near]))
    samples = [resampled() for _ in range(200)]
    if not math.isfinite(value) or np.isnan(samples).mean() > 0.1:
        return None
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _resampled_quantile(outcome: Outcome, p: float, rng: np.random.Generator) -> float:
    """A quantile of resampled one-second blocks, because neighbouring requests are correlated."""
    stretches = max(5, int(outcome.due[-1]))
    parts = np.array_split(outcome.latency, stretches)
    return float(
        np.quantile(np.concatenate([parts[k] for k in rng.integers(0, stretches, stretches)]), p)
    )


def search(
    probe: Probe, start: float, most: float, factor: float = 2.0, precision: float = 0.05
) -> Capacity:
    """Increase the rate from ``start`` by ``factor`` until it fails, then bisect until both ends
    are within the relative ``precision``. A failure counts after a retry, since one pause of the
    machine is not the capacity. The rate never exceeds ``most``.

    The search ends when a rate cannot be measured in four attempts; ``why`` is the reason.
    """
    probes: list[StepVerdict] = []
    low: float | None = None
    high: float | None = None

    def holds(rate: float) -> bool | None:
        failed = 0
        for _ in range(4):
            result = probe(rate)
            probes.append(result)
            if result.passed:
                return True
            failed += result.passed is False
            if failed == 2:
                return False
        return None

    rate = min(start, most)
    while high is None:
        passed = holds(rate)
        if passed is None:
            return Capacity(low, high, tuple(probes), probes[-1].why)
        if not passed:
            high = rate
        else:
            low = rate
            if rate >= most:
                return Capacity(low, None, tuple(probes), f"no rate up to {most:g}/s failed")
            rate = min(rate * factor, most)
    if low is None:
        # The first rate failed: try lower ones, a few times.
        for _ in range(6):
            rate = high / factor
            passed = holds(rate)
            if passed is None:
                return Capacity(low, high, tuple(probes), probes[-1].why)
            if passed:
                low = rate
                break
            high = rate
        if low is None:
            return Capacity(None, high, tuple(probes), f"even {high:.3g}/s is too much")
    while high - low > precision * low:
        rate = (low * high) ** 0.5
        passed = holds(rate)
        if passed is None:
            return Capacity(low, high, tuple(probes), probes[-1].why)
        low, high = (rate, high) if passed else (low, rate)
    return Capacity(low, high, tuple(probes))
