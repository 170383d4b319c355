"""Evaluates objectives against the outcome of a run of load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.payloads.checks import UNEXPECTED
from understudy.loadtest.statistics.intervals import quantile, rate
from understudy.loadtest.statistics.percentile import Percentile, queries_needed
from understudy.loadtest.statistics.percentile import Verdict as Decision

LAG_SHARE = 0.05
"""Largest p99 of the engine's own lag, as a share of the tightest latency limit."""
CriterionVerdict = Literal["passed", "failed", "invalid"]
Verdict = Literal["passed", "failed", "invalid", "not measured", "shown"]
"""Of a stage and of the gate. "invalid": the measurement decides nothing; "not measured": nothing
was asked, or no good answer was seen; "shown": no verdict was asked for."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One objective: ``value`` in [``low``, ``high``] against its ``limit``. ``why`` is the reason
    for a verdict other than "passed"; "invalid": the measurement does not decide it."""

    name: str
    limit: float
    value: float | None
    verdict: CriterionVerdict
    why: str = ""
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name, "limit": self.limit, "value": self.value, "low": self.low,
            "high": self.high, "said": self.verdict, "why": self.why,
        }  # fmt: skip


def needed(objectives: Objectives) -> int:
    """The smallest number of requests that can prove all objectives."""
    shares = [*objectives.percentiles()]
    most = objectives.most_errors()
    if objectives.rule == "loadgen":
        fewest = max((queries_needed(p, 0) for p in shares), default=0)
    else:
        fewest = max((Percentile(p, objectives.alpha).fewest for p in shares), default=0)
    return max(fewest, Percentile(1.0 - most, objectives.alpha).fewest if most else 0)


def missed_already(objectives: Objectives, outcome: Outcome) -> bool:
    """Whether a running load has provably missed a percentile, by the requests that were due before
    ``outcome.complete``. The test is anytime-valid, so it can be repeated."""
    count = int(np.searchsorted(outcome.due, outcome.complete)) if outcome.single else 0
    return any(
        _decision(objectives, outcome, p, limit, slice(0, count)) == "missed"
        for p, limit in objectives.percentiles().items()
    )


def _decision(
    objectives: Objectives, outcome: Outcome, p: float, limit: float, part: slice
) -> Decision:
    if not outcome.single:
        n, over = outcome.count, outcome.over(limit)
    else:
        slow = (outcome.latency[part] > limit) | ~outcome.ok[part]
        n, over = len(slow), int(slow.sum())
    return Percentile(p, objectives.alpha).verdict(n, over)


def evaluate(objectives: Objectives, outcome: Outcome) -> list[Criterion]:
    """Evaluate every objective after the end of a load. Without requests they are invalid."""
    criteria: list[Criterion] = []
    tightest = objectives.tightest
    lag = outcome.lag_p99
    if tightest is not None and lag is not None and lag > LAG_SHARE * tightest:
        criteria.append(
            Criterion(
                "send lag p99", LAG_SHARE * tightest, lag, "invalid",
                "the load generator was late: send fewer requests per process, or use more "
                "processes or a less busy machine",
            )
        )  # fmt: skip
    for p, limit in sorted(objectives.percentiles().items()):
        criteria.append(_percentile(objectives, outcome, p, limit))
    if objectives.first_byte_p95 is not None:
        criteria.append(_first_byte(outcome, objectives.first_byte_p95, objectives.alpha))
    most = objectives.most_errors()
    if most is not None:
        criteria.append(_errors(outcome, most, objectives.alpha))
    if objectives.rate is not None:
        good = (outcome.count - outcome.failed) / outcome.seconds if outcome.seconds else 0.0
        verdict: CriterionVerdict = "passed" if good >= objectives.rate else "failed"
        criteria.append(Criterion("good responses per second", objectives.rate, good, verdict))
    return criteria


def _percentile(objectives: Objectives, outcome: Outcome, p: float, limit: float) -> Criterion:
    name = f"p{100 * p:g}"
    n, over = outcome.count, outcome.over(limit)
    interval = quantile(outcome.latency, p) if outcome.single else None
    value = outcome.quantile(p) if n * (1.0 - p) >= 1.0 else None
    ends = (interval.low, interval.high) if interval is not None else (None, None)
    if objectives.rule == "loadgen":
        needed = queries_needed(p, over)
        verdict: CriterionVerdict = (
            "passed" if n >= needed else "invalid" if over <= n * (1.0 - p) else "failed"
        )
        why = (
            ""
            if verdict == "passed"
            else f"{n:,} queries with {over:,} over: {needed:,} are required"
        )
        return Criterion(name, limit, value, verdict, why, *ends)
    decision = _decision(objectives, outcome, p, limit, slice(0, n))
    if decision == "met" and outcome.single:
        # A growing queue is fast at first, so the second half must not miss the limit by itself.
        half = int(np.searchsorted(outcome.due, outcome.seconds / 2.0))
        if _decision(objectives, outcome, p, limit, slice(half, n)) == "missed":
            why = "latency grows: the second half of the requests misses the limit"
            return Criterion(name, limit, value, "failed", why, *ends)
    if decision == "met":
        return Criterion(name, limit, value, "passed", "", *ends)
    if decision == "missed":
        allowed = math.floor(n * (1.0 - p))
        why = f"{over:,} of {n:,} requests exceeded the limit, {allowed:,} are allowed"
        return Criterion(name, limit, value, "failed", why, *ends)
    fewest = Percentile(p, objectives.alpha).fewest
    if n < fewest:
        why = f"not enough requests: {n:,}, at least {fewest:,} are required even if none is slow"
    else:
        why = (
            f"not enough requests: {over:,} of {n:,} exceeded the limit, {n * (1.0 - p):,.0f} are "
            "allowed; run longer"
        )
    return Criterion(name, limit, value, "invalid", why, *ends)


def _first_byte(outcome: Outcome, limit: float, alpha: float) -> Criterion:
    name, p = "first byte p95", 0.95
    late = ~(outcome.first_byte <= limit) | ~outcome.ok  # NaN: no byte arrived
    n, over = len(late), int(late.sum())
    begun = outcome.first_byte[np.isfinite(outcome.first_byte)]
    value = float(np.quantile(begun, p)) if len(begun) >= 20 else None
    decision = Percentile(p, alpha).verdict(n, over)
    why = "" if decision == "met" else f"{over:,} of {n:,} responses started later"
    verdict: CriterionVerdict = "invalid" if decision == "open" else pass_or_fail(decision == "met")
    return Criterion(name, limit, value, verdict, why)


def _errors(outcome: Outcome, most: float, alpha: float) -> Criterion:
    n, failed = outcome.count, outcome.failed
    interval = rate(failed, n)
    ends = (interval.low, interval.high) if interval is not None else (None, None)
    value = failed / n if n else None
    if not n:
        return Criterion("errors", most, None, "invalid", "no requests")
    worst = ", ".join(f"{name}: {count:,}" for name, count in _worst(outcome))
    if most <= 0.0:
        verdict: CriterionVerdict = "failed" if failed else "passed"
        return Criterion("errors", most, value, verdict, worst, *ends)
    decision = Percentile(1.0 - most, alpha).verdict(n, failed)
    if decision == "open":
        fewest = Percentile(1.0 - most, alpha).fewest
        why = f"not enough requests: {failed:,} of {n:,} failed"
        if n < fewest:
            why = f"not enough requests: {n:,}, at least {fewest:,} are required even if none fails"
        return Criterion("errors", most, value, "invalid", why, *ends)
    verdict = "passed" if decision == "met" else "failed"
    return Criterion("errors", most, value, verdict, worst if verdict == "failed" else "", *ends)


def _worst(outcome: Outcome) -> list[tuple[str, int]]:
    bad = {f"status {s}": c for s, c in outcome.statuses.items() if not 200 <= int(s) < 400}
    return sorted({**bad, **outcome.errors}.items(), key=lambda item: -item[1])[:3]


def overall_verdict(criteria: list[Criterion]) -> Verdict:
    """Failed if a criterion failed; else invalid if one is invalid; else passed. Without a
    criterion, not measured."""
    verdicts = {one.verdict for one in criteria}
    if not verdicts:
        return "not measured"
    return "failed" if "failed" in verdicts else "invalid" if "invalid" in verdicts else "passed"


def nothing_good(outcome: Outcome) -> str:
    """Why ``outcome`` measures nothing of the model, or an empty text: it has no good answer. An
    answer that was read, with a prediction other than the expected one, measures the model."""
    if not outcome.count:
        return "no request was sent"
    if outcome.failed < outcome.count or UNEXPECTED in outcome.errors:
        return ""
    worst = ", ".join(f"{name}: {count:,}" for name, count in _worst(outcome))
    return f"none of {outcome.count:,} answers was good: {worst}"


def pass_or_fail(met: bool) -> CriterionVerdict:
    """The verdict of a plain comparison."""
    return "passed" if met else "failed"


def reasons(criteria: list[Criterion]) -> list[str]:
    """A text for each criterion that did not pass."""
    return [
        f"{one.name}: {one.why or f'{one.value:.4g} against a limit of {one.limit:.4g}'}"
        for one in criteria
        if one.verdict != "passed"
    ]
