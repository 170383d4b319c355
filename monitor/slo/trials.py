"""Unit tests for promtool, generated from the predicted behaviour of the rules.

A trial has no fault for as long as the longest window, then a fault, then no fault again. The test
checks the predicted time of each alert from both sides, within two evaluations, and that the alert
ends, and that it fired only once. One trial of each severity has what happens to series in
production: a pod that restarts, one that is replaced by another, and errors whose series begins
with the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.common.units import duration, number, percent, spoken
from understudy.monitor.slo.alerts import Alert
from understudy.monitor.slo.burn import Severity, first
from understudy.monitor.slo.model import Events, Level, Slices, Slo, Stream
from understudy.monitor.slo.rules import ALERT
from understudy.monitor.slo.trial_series import RATE

FAULTS = (1.0, 0.5, 0.1, 0.01)
"""Shares of bad events in the trials."""
_STEPS = (60.0, 300.0, 600.0, 1800.0, 3600.0)
_FINER = (1.0, 5.0, 15.0, 30.0, *_STEPS)
_FINEST = 450
"""Maximum number of evaluations before the fault of a trial starts."""
_MOST = 3000
"""Number of evaluations above which promtool rejects a test for too many samples."""
_LASTS = 5
TOLERANCE = 2
"""Tolerance of an alert's time, in evaluations."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Lengths of the phases before, during and after the fault, in steps of ``step`` seconds."""

    step: float
    calm: int
    fault: int
    after: int

    @property
    def end(self) -> int:
        """The number of the last step."""
        return self.calm + self.fault + self.after

    def at(self, steps: int) -> str:
        """A time in promtool's notation."""
        seconds = round(steps * self.step)
        return f"{seconds}s" if seconds % 60 else f"{seconds // 60}m"


def values(one: Stream | Level, phases: Phases, bad: float) -> str:
    """The samples of a series in promtool's notation; ``bad`` is the share during the fault."""
    if isinstance(one, Level):
        calm = f"{number(one.good)}+0x"
        if bad >= 1.0 or one.good == one.bad:
            during = f"{number(one.bad)}+0x{phases.fault - 1}"
        else:
            every = round(1.0 / bad)
            during = " ".join(
                number(one.good if step % every else one.bad) for step in range(phases.fault)
            )
        return f"{calm}{phases.calm} {during} {calm}{phases.after - 1}"
    scale = phases.step * RATE
    well, ill = one.good * scale, ((1.0 - bad) * one.good + bad * one.bad) * scale
    reached = well * phases.calm
    worse = reached + ill * phases.fault
    return (
        f"0+{number(well)}x{phases.calm} "
        f"{number(reached + ill)}+{number(ill)}x{phases.fault - 1} "
        f"{number(worse + well)}+{number(well)}x{phases.after - 1}"
    )


def changing(one: Stream, phases: Phases, bad: float, late: bool) -> list[dict[str, str]]:
    """The same counter of three pods with half of the traffic each: one restarts before the fault;
    another ends with the fault's begin, in favour of a third, which restarts at its end. With
    ``late`` the first has no series of bad events before there are any, as older sidecars."""
    scale = phases.step * RATE / 2.0
    well, ill = one.good * scale, ((1.0 - bad) * one.good + bad * one.bad) * scale
    half = phases.calm // 2
    reached = well * (phases.calm - half + 1)
    calm = f"0+{number(well)}x{half - 1} {number(well)}+{number(well)}x{phases.calm - half}"
    if late and one.good == 0.0:
        calm = f"_x{phases.calm + 1}"
    worse = reached + ill * phases.fault
    during = f"{number(ill)}x{phases.fault - 1}"
    after = f"{number(well)}x{phases.after - 1}"
    values_of = {
        "stays": f"{calm} {number(reached + ill)}+{during} {number(worse + well)}+{after}",
        "ends": f"0+{number(well)}x{phases.calm} stale",
        "new": f"_x{phases.calm} 0 {number(ill)}+{during} {number(well)}+{after}",
    }
    return [{"series": _of_pod(one.series, pod), "values": text} for pod, text in values_of.items()]


def _of_pod(series: str, pod: str) -> str:
    metric, brace, labels = series.partition("{")
    return (
        f'{metric}{{pod="{pod}"{"," if labels != "}" else ""}{labels}'
        if brace
        else (f'{metric}{{pod="{pod}"}}')
    )


def _firing(matchers: str) -> str:
    return f'(count(ALERTS{{alertstate="firing",{matchers}}}) or vector(0))'


def _expect(expression: str, at: str, value: float) -> dict[str, Any]:
    return {
        "expr": expression,
        "eval_time": at,
        "exp_samples": [{"labels": "{}", "value": value}],
    }


def _story(
    name: str,
    matchers: str,
    phases: Phases,
    checks: Sequence[tuple[int, int]],
    series: Sequence[Stream | Level],
    bad: float,
    fires: bool,
    pods: bool = False,
    late: bool = False,
) -> dict[str, Any]:
    """``checks`` are (step, alerts that fire); ``pods`` and ``late`` are for :func:`changing`."""
    firing = _firing(matchers)
    whole = f"{round(phases.end * phases.step)}s:{round(phases.step)}s"
    changes = f"changes({firing}[{whole}])"
    return {
        "name": name,
        "interval": f"{round(phases.step)}s",
        "input_series": [
            item
            for one in series
            for item in (
                changing(one, phases, bad, late)
                if pods and isinstance(one, Stream)
                else [{"series": one.series, "values": values(one, phases, bad)}]
            )
        ],
        "promql_expr_test": [
            *(_expect(firing, phases.at(step), count) for step, count in checks),
            _expect(changes, phases.at(phases.end), 2 if fires else 0),
        ],
    }


def of_objective(slo: Slo, faults: Sequence[float] = FAULTS) -> list[dict[str, Any]]:
    """The tests of one objective, by the interval of their evaluations; none without a trial."""
    if not slo.sli.trial:
        return []
    slices = isinstance(slo.sli, Slices)
    if slices:
        # Time is either bad or not: shares in between are every second evaluation.
        faults = [bad for bad in faults if bad in (1.0, 0.5)]
        if any(isinstance(one, Stream) for one in slo.sli.trial):
            faults = [bad for bad in faults if bad == 1.0]
    severities = [one for one in severities_of(slo) if step_of(slo, one) is not None]
    tests = [_fault_test(slo, severity, bad) for severity in severities for bad in faults]
    if slices or any('pod="' in one.series for one in slo.sli.trial):
        return tests
    return [*tests, *(_fault_test(slo, severity, 1.0, pods=True) for severity in severities)]


def severities_of(slo: Slo) -> list[Severity]:
    """The severities that an objective has alerts of."""
    return list(dict.fromkeys(burn.window.severity for burn in slo.burns))


def step_of(slo: Slo, severity: Severity) -> float | None:
    """Seconds between the evaluations of a test; None when the longest window is too long compared
    with the shortest for promtool's limit of samples."""
    burns = [burn for burn in slo.burns if burn.window.severity == severity]
    lag = slo.sli.lag if isinstance(slo.sli, Slices) else 0.0
    whole = max(burn.window.long for burn in burns) + lag
    step = next((one for one in _STEPS if whole / one <= _FINEST), _STEPS[-1])
    # A rate needs two samples inside its window.
    shortest = min(burn.window.short for burn in burns)
    if isinstance(slo.sli, Slices):
        shortest = lag or 2 * step
    step = min(step, max((one for one in _FINER if one <= shortest / 2), default=1.0))
    return step if whole / step <= _MOST else None


def _fault_test(slo: Slo, severity: Severity, bad: float, pods: bool = False) -> dict[str, Any]:
    burns = [burn for burn in slo.burns if burn.window.severity == severity]
    longest = max(burn.window.long for burn in burns)
    lag = slo.sli.lag if isinstance(slo.sli, Slices) else 0.0
    step = step_of(slo, severity)
    assert step is not None
    # Slices are counted by evaluation, events at RATE.
    rate = 1.0 / step if isinstance(slo.sli, Slices) else RATE
    result = first(burns, severity, bad, slo.period, rate=rate, least=slo.least_bad)
    calm = math.ceil((longest + lag) / step) + 1
    short = math.ceil(max(burn.window.short for burn in burns) / step)
    matchers = (
        f'alertname="{ALERT}",severity="{severity}",sloth_service="{slo.service}",'
        f'sloth_slo="{slo.name}"'
    )
    late = isinstance(slo.sli, Events) and slo.sli.late
    title = f"{slo.name}: {percent(bad)} bad"
    if pods:
        title += f" while pods change{' and their errors begin late' if late else ''}"
    if result is None:
        phases = Phases(step, calm, calm, 2)
        checks = [(calm, 0), (2 * calm, 0)]
        name = f"{title} is not a {severity}"
    else:
        predicted = lag + result.seconds
        whole = math.floor(predicted / step + 1e-9)
        fault = whole + TOLERANCE + _LASTS
        ends = short + math.ceil(lag / step) + TOLERANCE
        phases = Phases(step, calm, fault, ends + 1)
        early = whole - TOLERANCE + 1
        checks = [(calm, 0)]
        if early > 0:
            checks.append((calm + early, 0))
        checks += [(calm + whole + TOLERANCE, 1), (calm + fault + ends, 0)]
        name = f"{title} is a {severity} after {spoken(predicted)}"
    test = _story(
        name, matchers, phases, checks, slo.sli.trial, bad, result is not None, pods, late
    )
    return test


def of_alert(alert: Alert) -> dict[str, Any]:
    """The test of an alert without an objective: it fires once, and ends."""
    trial = alert.trial
    step = trial.step
    late = math.ceil(trial.fires / step)
    ends = math.ceil(trial.ends / step)
    fault = late + max(_LASTS, math.ceil(trial.lasts / step))
    phases = Phases(step, math.ceil(trial.calm / step), fault, ends + 1)
    matchers = ",".join(
        f'{name}="{value}"' for name, value in (("alertname", alert.name), *trial.labels.items())
    )
    checks = [
        (phases.calm, 0),
        (phases.calm + late, 1),
        *([(phases.calm + fault, 1)] if trial.lasts else []),
        (phases.calm + fault + ends, 0),
    ]
    name = f"{alert.name} within {duration(trial.fires)}, and once"
    return _story(name, matchers, phases, checks, trial.series, 1.0, True)


def document(rule_files: Sequence[str], tests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A file for ``promtool test rules``. All tests of a file are evaluated at one interval, so
    there is a file for each; see :func:`by_interval`."""
    intervals = {test["interval"] for test in tests}
    if len(intervals) > 1:
        raise ValueError(f"tests with different intervals: {sorted(intervals)}")
    return {
        "rule_files": list(rule_files),
        "evaluation_interval": next(iter(intervals), "1m"),
        "tests": list(tests),
    }


def by_interval(tests: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Tests grouped by interval: those of one group can be in one file."""
    result: dict[str, list[dict[str, Any]]] = {}
    for test in tests:
        result.setdefault(test["interval"], []).append(test)
    return result
