"""The highest rate at which the objectives hold: steps up until one fails, then halves.

Every probe is a stretch of open-loop load at one rate, judged as a gate is: a percentile by an
anytime-valid test, and the share of failures. A probe that stays open at its end counts as failed,
since nobody would sign for it. Between the highest rate that passed and the lowest that failed lies
the capacity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.engine.outcome import Outcome

Probe = Callable[[float], "Judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a probe at a rate has shown; ``passed`` None: it could not be measured."""

    rate: float
    passed: bool | None
    why: str
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        found = self.outcome
        return {
            "rate": self.rate,
            "passed": self.passed,
            "why": self.why,
            "achieved": found.rate,
            "p50": found.quantile(0.5),
            "p99": found.quantile(0.99),
            "failed": found.failed,
            "requests": found.count,
        }


@dataclass(frozen=True, slots=True)
class Capacity:
    """``low`` passed, ``high`` failed (None: nothing did, up to the limit that was set)."""

    low: float | None
    high: float | None
    probes: tuple[Judged, ...]
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "why": self.why,
            "probes": [probe.to_dict() for probe in self.probes],
        }


def search(
    probe: Probe, start: float, most: float, factor: float = 2.0, precision: float = 0.05
) -> Capacity:
    """From ``start`` up by ``factor`` until a rate fails, then halve until both ends are within
    ``precision`` of each other. A rate that failed is tried once more before it counts: a single
    hiccup of the machine is not the capacity. ``most`` is never exceeded.

    The search ends where something could not be measured, and says so.
    """
    probes: list[Judged] = []
    low: float | None = None
    high: float | None = None

    def holds(rate: float) -> bool | None:
        for _ in range(2):
            found = probe(rate)
            probes.append(found)
            if found.passed is not False:
                return found.passed
        return False

    rate = min(start, most)
    while high is None:
        answer = holds(rate)
        if answer is None:
            return Capacity(low, high, tuple(probes), probes[-1].why)
        if not answer:
            high = rate
        else:
            low = rate
            if rate >= most:
                return Capacity(low, None, tuple(probes), f"no rate up to {most:g}/s has failed")
            rate = min(rate * factor, most)
    if low is None:
        # Even the first one failed: look below it, not for ever.
        for _ in range(6):
            rate = high / factor
            answer = holds(rate)
            if answer is None:
                return Capacity(low, high, tuple(probes), probes[-1].why)
            if answer:
                low = rate
                break
            high = rate
        if low is None:
            return Capacity(None, high, tuple(probes), f"even {high:.3g}/s is too much")
    while high - low > precision * low:
        rate = (low * high) ** 0.5
        answer = holds(rate)
        if answer is None:
            return Capacity(low, high, tuple(probes), probes[-1].why)
        low, high = (rate, high) if answer else (low, rate)
    return Capacity(low, high, tuple(probes))
