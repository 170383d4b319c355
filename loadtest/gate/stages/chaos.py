"""The chaos stage: an experiment of the Chaos Toolkit under load, and its effect on requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from understudy.common.fields import LongSeconds, Seconds, Share
from understudy.loadtest.chaos.experiment import ChaosOutcome, load_experiment, run_experiment
from understudy.loadtest.chaos.probes import alert_firing
from understudy.loadtest.chaos.recovery import Recovery, budget_burned, recovery
from understudy.loadtest.engine.arrivals import Piece, Profile
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.pool import Open
from understudy.loadtest.errors import LoadTestError, PlanError
from understudy.loadtest.gate.context import GateContext, StageKind
from understudy.loadtest.gate.plan import Load, Long, Part, Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.sending import load_of
from understudy.loadtest.gate.verdict import (
    Criterion,
    generator_late,
    overall_verdict,
    pass_or_fail,
    reasons,
    unless_late,
)
from understudy.loadtest.gate.words import seconds


class Alert(Part):
    """An alert that has to fire, by Prometheus or Alertmanager at `url`."""

    url: str
    name: str


class Budget(Part):
    """The error budget that a fault takes from: of good requests, over a period."""

    objective: Annotated[Share, Field(gt=0.0, lt=1.0)]
    period: LongSeconds = 30 * 86400.0
    burned_at_most: Share | None = None
    """Part of the budget of the whole period that one fault may take."""


class ChaosStage(Part):
    """An experiment of the Chaos Toolkit under load."""

    experiment: Path
    load: Load
    before: Long = 5.0
    """Load before the method begins, in which the normal is measured."""
    after: Long = 10.0
    recovers_within: Seconds | None = None
    lost_at_most: Share | None = None
    """Share of the requests of the fault that may fail."""
    detected_within: Seconds | None = None
    """Until `alert` fires, or a probe of the method has seen one."""
    alert: Alert | None = None
    budget: Budget | None = None
    hypothesis_holds: bool = False
    """Whether the steady state has to hold while the method runs as well."""


def run_chaos(gate: GateContext, stage: Stage, settings: ChaosStage) -> StageResult:
    """Run load before, during and after an experiment; evaluate detection, recovery and losses."""
    experiment = load_experiment(settings.experiment)
    objectives = gate.objectives(stage)
    limit = objectives.tightest
    rate = settings.load.rate or 0.0
    longest = gate.plan.limits.seconds
    over = threading.Event()
    begun = threading.Event()
    outcomes: list[Outcome] = []
    failed: list[LoadTestError] = []

    def send() -> None:
        def stop(outcome: Outcome) -> bool:
            if outcome.seconds > 0.0:
                begun.set()
            return over.is_set()

        try:
            profile = Profile((Piece(longest, rate, rate),))
            load = Open(profile, kind=gate.plan.engine.arrivals, seed=gate.plan.engine.seed)
            outcomes.append(gate.drive(load, stop=stop, seconds=0.0))
        except LoadTestError as error:
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=send, daemon=True, name="load")
    thread.start()
    watch = _AlertWatch(settings.alert) if settings.alert is not None else None
    try:
        begun.wait(60.0)
        if failed:
            raise failed[0]
        time.sleep(settings.before)
        if watch is not None:
            watch.start()
        ran = run_experiment(experiment, gate.show.note)
        time.sleep(settings.after)
    finally:
        over.set()
        if watch is not None:
            watch.stop()
        thread.join(gate.target.timeout + 30.0)
    if failed:
        raise failed[0]
    if not outcomes:
        raise LoadTestError("the load did not stop")
    outcome = outcomes[0]
    result = StageResult(stage.name, stage.kind, "passed", outcome=outcome)
    result.windows = [
        (begin - outcome.begun, end - outcome.begun, name) for begin, end, name in ran.faults
    ]
    if not result.windows:
        result.verdict = "invalid"
        result.why = ["the experiment's method has no action, so no fault was injected"]
        return result
    start = min(begin for begin, _, _ in result.windows)
    end = max(stop for _, stop, _ in result.windows)
    normal = outcome.part(0.0, start)
    usual = normal.quantile(0.99)
    if limit is None:
        limit = max(0.05, 3.0 * usual) if usual is not None else 0.05
    one = recovery(outcome, start, end, limit)
    extra: dict[str, Any] = {}
    usual_rate = normal.count / start if start > 0.0 else rate
    if watch is not None:
        fired = [at - outcome.begun - start for at in watch.firing]
        after = [at for at in fired if at >= 0.0]
        extra["alert_after"] = after[0] if after else None
        if watch.before:
            extra["alert_note"] = "the alert was firing before the fault"
    if settings.budget is not None:
        burned = budget_burned(one, settings.budget.objective, usual_rate, settings.budget.period)
        extra["budget_burned"] = burned
    result.data["chaos"] = {
        "status": ran.status, "deviated": ran.deviated, "limit": limit,
        "hypothesis_looks": ran.checks,
        "hypothesis_broken_at": [at - outcome.begun for at in ran.deviations],
        "probes": [{**probe, "at": probe["at"] - outcome.begun} for probe in ran.probes],
        "guard": dict(ran.guard), **one.to_dict(), **extra,
    }  # fmt: skip
    # Requests due during the fault or during the degradation, whichever are more.
    during = max(one.requests, outcome.part(start, end).count)
    result.facts = [_found(one, limit, extra)]
    result.criteria = _criteria(settings, one, ran, start + outcome.begun, during, extra)
    late = generator_late(outcome, objectives.percentiles())
    if late is not None:
        # The fault's times fail the stage only if the times of service alone do as well.
        served = recovery(outcome.served(late.slack), start, end, limit)
        ours = dict(extra)
        if settings.budget is not None:
            ours["budget_burned"] = budget_burned(
                served, settings.budget.objective, usual_rate, settings.budget.period
            )
        by_service = _criteria(settings, served, ran, start + outcome.begun, during, ours)
        pairs = zip(result.criteria, by_service, strict=True)
        checked = [unless_late(*pair, late) for pair in pairs]
        # Lag only increases latencies, so a pass is valid.
        result.late = "invalid" in {new.verdict for new in checked if new not in result.criteria}
        result.criteria = [*([late.criterion] if result.late else ()), *checked]
    result.verdict = overall_verdict(result.criteria)
    if not result.criteria and _has_steady_state(experiment):
        result.verdict = "passed"  # unless the steady state did not hold, below
    result.why = reasons(result.criteria)
    if ran.errors:
        result.verdict = "invalid" if result.verdict == "passed" else result.verdict
        result.why += ran.errors
    if ran.status not in ("completed", "deviated") or (not one.requests and not ran.deviated):
        result.verdict = "invalid"
        result.why.append(f"the experiment ended as {ran.status!r}")
    elif ran.deviated:
        result.verdict = "failed"
        result.why.append("the steady state did not hold after the method, or before it")
    return result


def _found(one: Recovery, limit: float, extra: dict[str, Any]) -> str:
    """As ``time to detect 210 ms, time to recover 1.2 s, 3 of 512 requests lost, 40 slow``."""
    recovered = one.recovered_after
    texts = [
        "not noticed by any request"
        if one.detected_after is None
        else f"time to detect {seconds(one.detected_after)}",
        "not recovered when the load ended"
        if recovered is None
        else f"time to recover {seconds(max(0.0, recovered))}",
        f"{one.lost:,} of {one.requests:,} requests lost",
        f"{one.slow:,} above {seconds(limit)}",
    ]
    if "alert_after" in extra:
        after = extra["alert_after"]
        texts.append("no alert" if after is None else f"alert after {seconds(after)}")
    return ", ".join(texts)


class _AlertWatch:
    """Polls an alert four times per second; ``firing`` are the unix times at which it fired."""

    def __init__(self, alert: Alert) -> None:
        self._alert = alert
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="alert")
        self.before = False
        self.firing: list[float] = []

    def start(self) -> None:
        """Start polling; ``before`` is whether it fires already."""
        self.before = alert_firing(self._alert.url, self._alert.name)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(15.0)

    def _run(self) -> None:
        while not self._over.wait(0.25):
            if alert_firing(self._alert.url, self._alert.name):
                self.firing.append(time.time())


def _criteria(
    settings: ChaosStage,
    one: Recovery,
    ran: ChaosOutcome,
    start: float,
    during: int,
    extra: dict[str, Any],
) -> list[Criterion]:
    criteria = []
    if settings.recovers_within is not None:
        value = one.recovered_after
        verdict = pass_or_fail(value is not None and value <= settings.recovers_within)
        why = "" if value is not None else "not recovered when the load ended"
        criteria.append(
            Criterion(
                "recovers within", settings.recovers_within, value, verdict, why, unit="seconds"
            )
        )
    if settings.lost_at_most is not None:
        share = one.lost / during if during else 0.0
        verdict = pass_or_fail(share <= settings.lost_at_most)
        criteria.append(
            Criterion("lost requests", settings.lost_at_most, share, verdict, unit="share")
        )
    if settings.detected_within is not None:
        seen = [probe["at"] - start for probe in ran.probes if probe["output"] is True]
        value = min(seen) if seen else None
        why = "" if value is not None else "no probe of the method saw an alert"
        if settings.alert is not None:
            value = extra["alert_after"]
            why = "" if value is not None else f"{settings.alert.name} has not fired"
        verdict = pass_or_fail(value is not None and value <= settings.detected_within)
        if "alert_note" in extra:
            verdict, why = "invalid", str(extra["alert_note"])
        criteria.append(
            Criterion("alert within", settings.detected_within, value, verdict, why, unit="seconds")
        )
    if settings.budget is not None and settings.budget.burned_at_most is not None:
        most, burned = settings.budget.burned_at_most, extra["budget_burned"]
        criteria.append(
            Criterion("budget burned", most, burned, pass_or_fail(burned <= most), unit="share")
        )
    if settings.hypothesis_holds:
        broken = len(ran.deviations)
        why = "" if ran.checks else "the steady state was not checked while the method ran"
        verdict = pass_or_fail(not broken) if ran.checks else "invalid"
        criteria.append(Criterion("steady state violated", 0.0, float(broken), verdict, why))
    return criteria


def _has_steady_state(experiment: Mapping[str, Any]) -> bool:
    hypothesis = experiment.get("steady-state-hypothesis")
    return bool(hypothesis and hypothesis.get("probes"))


def _lacks(gate: GateContext, stage: Stage, wanted: ChaosStage) -> str:
    budget = wanted.budget.burned_at_most if wanted.budget is not None else None
    asked = (wanted.recovers_within, wanted.lost_at_most, wanted.detected_within, budget)
    if any(one is not None for one in asked) or wanted.hypothesis_holds:
        return ""
    if _has_steady_state(load_experiment(wanted.experiment)):
        return ""
    return "recovers_within or lost_at_most, or a steady state in its experiment"


def _check(gate: GateContext, stage: Stage, wanted: ChaosStage) -> list[str]:
    experiment = load_experiment(wanted.experiment)
    if wanted.hypothesis_holds and not _has_steady_state(experiment):
        raise PlanError("chaos: hypothesis_holds needs a steady state in the experiment")
    if wanted.load.shape not in ("steady", "soak"):
        raise PlanError("chaos: load must be steady, because it lasts as long as the fault")
    load_of(wanted.load, gate.plan.engine, gate.plan.limits)
    return []


CHAOS = StageKind(ChaosStage, run_chaos, _check, _lacks)
