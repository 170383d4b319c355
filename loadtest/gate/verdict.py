"""Evaluates objectives against the outcome of a run of load."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from understudy.common.units import percent
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate import stream_times
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.gate.words import Unit, figure, seconds
from understudy.loadtest.payloads.checks import UNEXPECTED
from understudy.loadtest.statistics.intervals import quantile, rate
from understudy.loadtest.statistics.percentile import Percentile, queries_needed

LAG_SHARE = 0.05
"""Largest p99 of the generator's own lag, as a share of a latency limit."""
FIRST_BYTE = 0.95
_GOOD = 0.95
"""For a goodput without a share: the share of requests by which the generator's lag is judged."""
_UNREAD = "no answers were read as streams"
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
    unit: Unit = "times"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name, "limit": self.limit, "value": self.value, "low": self.low,
            "high": self.high, "said": self.verdict, "why": self.why,
            "unit": self.unit,
        }  # fmt: skip


def needed(objectives: Objectives) -> int:
    """The smallest number of requests that can prove all objectives."""
    shares = [*objectives.percentiles()]
    for limits in objectives.stream_percentiles().values():
        shares += limits
    if objectives.goodput is not None and objectives.goodput.share is not None:
        shares.append(objectives.goodput.share)
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
    if outcome.streams and count:
        done = slice(0, count)
        for name, limits in objectives.stream_percentiles().items():
            for p, limit in limits.items():
                masks = stream_times.over(outcome, name, limit)
                if Percentile(p, objectives.alpha).verdict(*_counts(masks, done)) == "missed":
                    return True
        good = objectives.goodput
        if good is not None and good.share is not None:
            masks = stream_times.not_good(outcome, objectives.good_limits())
            if Percentile(good.share, objectives.alpha).verdict(*_counts(masks, done)) == "missed":
                return True
    return any(
        Percentile(p, objectives.alpha).verdict(*_over(outcome, limit, None, slice(0, count)))
        == "missed"
        for p, limit in objectives.percentiles().items()
    )


@dataclass(frozen=True, slots=True)
class Late:
    """That the generator was late, as a ``criterion`` that is invalid, and what is to be allowed
    for in the times of service of its load.

    A queue that is served in order is at most as much later as its arrivals, and a response is read
    as late as a request is sent. So a time of service is at most ``slack`` (twice the lag that a
    share 1 - ``beyond`` of the requests does not exceed) above what it would be with a generator
    that is never late, but for that share ``beyond`` of the requests."""

    criterion: Criterion
    slack: float
    beyond: float

    def over(self, outcome: Outcome, limit: float) -> int:
        """How many requests failed or exceeded ``limit`` by their time of service alone."""
        return self.sure(outcome.count, outcome.served_over(limit + self.slack))

    def sure(self, n: int, over: int) -> int:
        """How many of ``n`` were over a limit, if all that may be the generator's fault were."""
        return max(0, over - math.ceil(self.beyond * n))


def generator_late(outcome: Outcome, limits: Mapping[float, float]) -> Late | None:
    """Whether the generator's own lag is more than 5 % of a latency limit; None if it is not.

    ``limits`` are in seconds, by share of the requests. The lag that counts is its p99, or further
    in the tail where the objective is."""
    worst: Late | None = None
    for p, limit in limits.items():
        q = max(0.99, p)
        lag, most = outcome.lags.quantile(q), LAG_SHARE * limit
        if lag is None or lag <= most:
            continue
        if worst is None or lag / most > 0.5 * worst.slack / worst.criterion.limit:
            name = f"send lag p{100 * q:g}"
            criterion = Criterion(name, most, lag, "invalid", _why_late(outcome), unit="seconds")
            worst = Late(criterion, 2.0 * lag, 1.0 - q)
    return worst


def _why_late(outcome: Outcome) -> str:
    why = "the load generator was late"
    if outcome.waited_seconds is not None and outcome.seconds > 0.0:
        length = outcome.seconds * outcome.processes
        why += (
            f" (its processes waited for a CPU for {percent(outcome.waited_seconds / length, 2)} "
            f"of the time, and used one for {percent(outcome.cpu_seconds / length, 2)})"
        )
    return f"{why}: use a less busy machine, or another number of processes"


def unless_late(criterion: Criterion, by_service: Criterion, late: Late) -> Criterion:
    """``criterion``, or "invalid" instead of "failed" when the same criterion ``by_service``, by
    the times of service alone, is not missed."""
    if criterion.verdict != "failed":
        return criterion
    if by_service.verdict == "failed":
        return replace(criterion, why=f"{criterion.why}; also by the time of service alone")
    why = (
        f"{criterion.why}; but not by the time of service alone, allowing for "
        f"{seconds(late.slack)} of the late load generator"
    )
    return replace(criterion, verdict="invalid", why=why)


def _over(
    outcome: Outcome, limit: float, late: Late | None, part: slice | None = None
) -> tuple[int, int]:
    """How many requests there were (in ``part``), and how many failed or exceeded ``limit``."""
    if part is None or not outcome.single:
        over = outcome.over(limit) if late is None else late.over(outcome, limit)
        return outcome.count, over
    times = outcome.latency if late is None else outcome.service - late.slack
    bad = (times[part] > limit) | ~outcome.ok[part]
    n, over = len(bad), int(bad.sum())
    return n, over if late is None else late.sure(n, over)


def latency_limits(objectives: Objectives) -> dict[float, float]:
    """All limits of times from when a request was due, in seconds, by share of the requests."""
    limits = objectives.percentiles()
    if objectives.first_byte_p95 is not None:
        first = objectives.first_byte_p95
        limits[FIRST_BYTE] = min(first, limits.get(FIRST_BYTE, first))
    for name, own in objectives.stream_percentiles().items():
        for p, limit in own.items() if name != "tpot" else ():
            limits[p] = min(limit, limits.get(p, limit))
    if objectives.goodput is not None:
        share = objectives.goodput.share or _GOOD
        for name, limit in objectives.good_limits().items():
            if name != "tpot":
                limits[share] = min(limit, limits.get(share, limit))
    return limits


def evaluate(
    objectives: Objectives, outcome: Outcome, earlier: Outcome | None = None
) -> list[Criterion]:
    """Evaluate every objective after the end of a load. Without requests they are invalid.

    ``earlier`` is the outcome of the same load that did not decide: the tests of shares are
    anytime-valid, so they continue with its counts.

    When the generator was late, that is a criterion that is invalid, and an objective is only
    failed if it is missed by the time of service alone."""
    criteria: list[Criterion] = []
    late = generator_late(outcome, latency_limits(objectives))
    if late is not None:
        criteria.append(late.criterion)
    for p, limit in sorted(objectives.percentiles().items()):
        one = _percentile(objectives, outcome, p, limit, earlier)
        if late is not None:
            one = unless_late(one, _percentile(objectives, outcome, p, limit, earlier, late), late)
        criteria.append(one)
    first = objectives.first_byte_p95
    if first is not None:
        one = _first_byte(outcome, first, objectives.alpha, earlier)
        if late is not None:
            served = _first_byte(outcome, first, objectives.alpha, earlier, late)
            one = unless_late(one, served, late)
        criteria.append(one)
    for name, limits in objectives.stream_percentiles().items():
        for p, limit in sorted(limits.items()):
            one = _stream(objectives, name, outcome, p, limit, earlier)
            if late is not None:
                served = _stream(objectives, name, outcome, p, limit, earlier, late)
                one = unless_late(one, served, late)
            criteria.append(one)
    if objectives.goodput is not None:
        criteria += _goodput(objectives, outcome, earlier, late)
    most = objectives.most_errors()
    if most is not None:
        criteria.append(_errors(outcome, most, objectives.alpha, earlier))
    if objectives.rate is not None:
        good = (outcome.count - outcome.failed) / outcome.seconds if outcome.seconds else 0.0
        verdict: CriterionVerdict = "passed" if good >= objectives.rate else "failed"
        name = "good responses per second"
        criteria.append(Criterion(name, objectives.rate, good, verdict, unit="per second"))
    return criteria


def _percentile(
    objectives: Objectives,
    outcome: Outcome,
    p: float,
    limit: float,
    earlier: Outcome | None = None,
    late: Late | None = None,
) -> Criterion:
    n, over = _over(outcome, limit, late)
    if earlier is not None:
        before = _over(earlier, limit, late)
        n, over = n + before[0], over + before[1]
    interval = quantile(outcome.latency, p) if outcome.single else None
    value = outcome.quantile(p) if outcome.count * (1.0 - p) >= 1.0 else None
    low, high = (interval.low, interval.high) if interval is not None else (None, None)
    allowed = math.floor(n * (1.0 - p) + 1e-9)

    def found(verdict: CriterionVerdict, why: str = "") -> Criterion:
        return Criterion(f"p{100 * p:g}", limit, value, verdict, why, low, high, "seconds")

    too_many = f"{_slow(limit, n, over, outcome, earlier)}, {allowed:,} are allowed"
    if objectives.rule == "loadgen":
        needed = queries_needed(p, over)
        if n >= needed:
            return found("passed")
        if over <= n * (1.0 - p):
            return found("invalid", f"not enough requests: {too_many}; {needed:,} are required")
        return found("failed", f"{too_many}; {needed:,} requests are required")
    objective = Percentile(p, objectives.alpha)
    decision = objective.verdict(n, over)
    if decision == "met" and outcome.single:
        # A growing queue is fast at first, so the second half must not miss the limit by itself.
        half = int(np.searchsorted(outcome.due, outcome.seconds / 2.0))
        if objective.verdict(*_over(outcome, limit, late, slice(half, None))) == "missed":
            why = "latency grows: the second half of the requests misses the limit"
            return found("failed", why)
    if decision == "met":
        return found("passed")
    if decision == "missed":
        return found("failed", too_many)
    if n < objective.fewest:
        why = f"{n:,}, at least {objective.fewest:,} are required even if none is slow"
    else:
        why = f"{too_many}; run longer"
    return found("invalid", f"not enough requests: {why}")


def _slow(limit: float, n: int, over: int, outcome: Outcome, earlier: Outcome | None) -> str:
    """As ``failed or took longer than 50 ms: 486 of 486 (TLS: 486)``."""
    failed = _failures(outcome, earlier)
    what = "failed or took" if failed else "took"
    return f"{what} longer than {seconds(limit)}: {over:,} of {n:,}{failed and f' ({failed})'}"


def _first_byte(
    outcome: Outcome,
    limit: float,
    alpha: float,
    earlier: Outcome | None = None,
    late: Late | None = None,
) -> Criterion:
    n = over = 0
    for one in (outcome, earlier):
        if one is None:
            continue
        times = one.first_byte
        if late is not None:
            times = times - (one.latency - one.service) - late.slack
        bad = ~(times <= limit) | ~one.ok  # NaN: no byte arrived
        slow = int(bad.sum())
        n, over = n + len(bad), over + (slow if late is None else late.sure(len(bad), slow))
    begun = outcome.first_byte[np.isfinite(outcome.first_byte)]
    value = float(np.quantile(begun, FIRST_BYTE)) if len(begun) >= 20 else None
    decision = Percentile(FIRST_BYTE, alpha).verdict(n, over)
    why = "" if decision == "met" else f"{over:,} of {n:,} responses started later"
    verdict: CriterionVerdict = "invalid" if decision == "open" else pass_or_fail(decision == "met")
    return Criterion("first byte p95", limit, value, verdict, why, unit="seconds")


def _counts(
    masks: tuple[stream_times.Mask, stream_times.Mask],
    part: slice = slice(None),
    late: Late | None = None,
) -> tuple[int, int]:
    """How many requests count, and how many of these are over the limit."""
    counted, bad = masks[0][part], masks[1][part]
    n, over = int(counted.sum()), int((counted & bad).sum())
    return n, over if late is None else late.sure(n, over)


def _stream(
    objectives: Objectives,
    name: str,
    outcome: Outcome,
    p: float,
    limit: float,
    earlier: Outcome | None = None,
    late: Late | None = None,
) -> Criterion:
    """A percentile of a time of a language model's answers; failures take for ever."""
    title = f"{name} p{100 * p:g}"
    if not outcome.streams or not outcome.single:
        return Criterion(title, limit, None, "invalid", _UNREAD, unit="seconds")
    slack = None if late is None else late.slack
    masks = stream_times.over(outcome, name, limit, slack)
    n, over = _counts(masks, late=late)
    if earlier is not None and earlier.streams:
        before = _counts(stream_times.over(earlier, name, limit, slack), late=late)
        n, over = n + before[0], over + before[1]
    value = stream_times.value(outcome, name, p)
    decision, why = _share_kept(objectives, outcome, p, masks, (n, over), late)
    if decision != "passed" and not why:
        why = f"{_slow(limit, n, over, outcome, earlier)}, {_allowed(n, p):,} are allowed"
        lacking = stream_times.missing(outcome, name)
        why += f"; {lacking}" if lacking else ""
        why = why if decision == "failed" else f"not enough requests: {why}; run longer"
    return Criterion(title, limit, value, decision, why, unit="seconds")


def _share_kept(
    objectives: Objectives,
    outcome: Outcome,
    p: float,
    masks: tuple[stream_times.Mask, stream_times.Mask],
    counts: tuple[int, int],
    late: Late | None,
) -> tuple[CriterionVerdict, str]:
    """Whether a share ``p`` keeps a limit, by ``counts`` of all and those over it; ``masks`` are of
    the requests of ``outcome``. A text where the reason is not their number alone."""
    n, over = counts
    if objectives.rule == "loadgen":
        if n >= queries_needed(p, over):
            return "passed", ""
        return ("invalid", "") if n and over <= n * (1.0 - p) else ("failed", "")
    objective = Percentile(p, objectives.alpha)
    decision = objective.verdict(n, over)
    if decision == "met":
        # A growing queue is fast at first, so the second half must not miss the limit by itself.
        half = int(np.searchsorted(outcome.due, outcome.seconds / 2.0))
        if objective.verdict(*_counts(masks, slice(half, None), late)) == "missed":
            return "failed", "it grows: the second half of the requests misses the limit"
        return "passed", ""
    if decision == "missed":
        return "failed", ""
    if n < objective.fewest:
        few = f"{n:,}, at least {objective.fewest:,} are required even if none is slow"
        return "invalid", f"not enough requests: {few}"
    return "invalid", ""


def _allowed(n: int, p: float) -> int:
    return math.floor(n * (1.0 - p) + 1e-9)


def _goodput(
    objectives: Objectives, outcome: Outcome, earlier: Outcome | None, late: Late | None
) -> list[Criterion]:
    """The share of answers that keep all limits of a goodput, and their rate."""
    declared, limits = objectives.goodput, objectives.good_limits()
    assert declared is not None
    criteria: list[Criterion] = []
    if declared.share is not None:
        one = _good_share(objectives, declared.share, limits, outcome, earlier)
        if late is not None:
            served = _good_share(objectives, declared.share, limits, outcome, earlier, late)
            one = unless_late(one, served, late)
        criteria.append(one)
    if declared.rate is not None:
        value = good_rate(objectives, outcome)
        verdict: CriterionVerdict = "invalid" if value is None else "passed"
        why = _UNREAD if value is None else ""
        if value is not None and value < declared.rate:
            verdict = "failed" if late is None else "invalid"
        criteria.append(
            Criterion("good answers per second", declared.rate, value, verdict, why,
                      unit="per second")
        )  # fmt: skip
    return criteria


def good_rate(objectives: Objectives, outcome: Outcome) -> float | None:
    """Answers per second that keep all limits of the goodput; None where that is not known."""
    if objectives.goodput is None or not outcome.streams or not outcome.seconds:
        return None
    counted, bad = stream_times.not_good(outcome, objectives.good_limits())
    return float((counted & ~bad).sum()) / outcome.seconds


def _good_share(
    objectives: Objectives,
    share: float,
    limits: Mapping[str, float],
    outcome: Outcome,
    earlier: Outcome | None,
    late: Late | None = None,
) -> Criterion:
    if not outcome.streams or not outcome.single:
        return Criterion("goodput", share, None, "invalid", _UNREAD, unit="share")
    slack = None if late is None else late.slack
    masks = stream_times.not_good(outcome, limits, slack)
    n, bad = _counts(masks, late=late)
    if earlier is not None and earlier.streams:
        before = _counts(stream_times.not_good(earlier, limits, slack), late=late)
        n, bad = n + before[0], bad + before[1]
    interval = rate(n - bad, n)
    low, high = (interval.low, interval.high) if interval is not None else (None, None)
    decision, why = _share_kept(objectives, outcome, share, masks, (n, bad), late)
    if decision != "passed" and not why:
        causes = _failures(outcome, earlier)
        why = f"{n - bad:,} of {n:,} answers were good" + (f" ({causes})" if causes else "")
        for name in limits:
            lacking = stream_times.missing(outcome, name)
            why += f"; {lacking}" if lacking else ""
        why = why if decision == "failed" else f"not enough requests: {why}; run longer"
    value = (n - bad) / n if n else None
    return Criterion("goodput", share, value, decision, why, low, high, "share")


def _errors(outcome: Outcome, most: float, alpha: float, earlier: Outcome | None) -> Criterion:
    n, failed = outcome.count, outcome.failed
    if earlier is not None:
        n, failed = n + earlier.count, failed + earlier.failed
    interval = rate(failed, n)
    low, high = (interval.low, interval.high) if interval is not None else (None, None)

    def found(verdict: CriterionVerdict, why: str = "") -> Criterion:
        value = failed / n if n else None
        return Criterion("errors", most, value, verdict, why, low, high, "share")

    if not n:
        return found("invalid", "no requests")
    causes = _failures(outcome, earlier)
    worst = f"{failed:,} of {n:,} failed" + (f" ({causes})" if causes else "")
    if most <= 0.0:
        return found("failed", worst) if failed else found("passed")
    objective = Percentile(1.0 - most, alpha)
    decision = objective.verdict(n, failed)
    if decision == "open":
        why = f"not enough requests: {worst}"
        if n < objective.fewest:
            fewest = objective.fewest
            why = f"not enough requests: {n:,}, at least {fewest:,} are required even if none fails"
        return found("invalid", why)
    return found("passed") if decision == "met" else found("failed", worst)


def _failures(outcome: Outcome, earlier: Outcome | None) -> str:
    """As ``TLS: 486, status 503: 2``."""
    counts: Counter[str] = Counter()
    for one in (outcome, earlier):
        if one is not None:
            counts.update(dict(_worst(one)))
    return ", ".join(f"{name}: {count:,}" for name, count in counts.most_common(3))


def _worst(outcome: Outcome) -> list[tuple[str, int]]:
    return sorted(outcome.errors.items(), key=lambda item: -item[1])


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
    return f"none of {outcome.count:,} answers was good: {_failures(outcome, None)}"


def pass_or_fail(met: bool) -> CriterionVerdict:
    """The verdict of a plain comparison."""
    return "passed" if met else "failed"


def reasons(criteria: list[Criterion]) -> list[str]:
    """A text for each criterion that did not pass."""
    return [f"{one.name}: {one.why or against(one)}" for one in criteria if one.verdict != "passed"]


def against(criterion: Criterion) -> str:
    """As ``5.2 s against a limit of 3 s``."""
    limit = figure(criterion.limit, criterion.unit)
    value = "nothing" if criterion.value is None else figure(criterion.value, criterion.unit)
    return f"{value} against a limit of {limit}"
