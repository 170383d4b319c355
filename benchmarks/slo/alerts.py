"""When alerts fire: predicted, measured by Prometheus' engine, Sloth's, and in a live drill."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import Claim, Result, environment, median, shown
from tests.support.alert_drill import BURN, DOWN, messages, served, stack, stories
from tests.support.all_alerts import ALL
from tests.support.patience import eventually
from tests.support.webhook_receiver import receiver
from tests.support.world import Load
from tools.parts.debian import environment as programs
from tools.parts.debian import find
from tools.parts.sloth import RULES
from understudy.common.units import write_share
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo import promtool
from understudy.monitor.slo.burn import SEVERITIES, Severity, first
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.model import Slo
from understudy.monitor.slo.rules import document, group
from understudy.monitor.slo.text import dumped
from understudy.monitor.slo.trials import Phases, values

OBJECTIVES = (0.9999, 0.999, 0.99, 0.95)
FAULTS = (1.0, 0.5, 0.1, 0.0216, 0.01)
STEPS: dict[Severity, float] = {"page": 60.0, "ticket": 600.0}
SLOTHS = {0.999: "three-nines", 0.99: "two-nines"}
_NEVER = 1e12
_GOT = re.compile(r"got:\s+(?:\{\} )?([0-9.E+-]+|nil)")


@dataclass(frozen=True)
class Case:
    objective: float
    severity: Severity
    bad: float
    step: float
    predicted: float | None
    measured: float | None
    sloth: float | None
    """Seconds after the fault began; None for never, and for Sloth also where it was not asked."""

    @property
    def off(self) -> float:
        """Evaluations between the prediction and the first evaluation at which it fired."""
        if self.predicted is None or self.measured is None:
            return 0.0 if self.predicted == self.measured else math.inf
        return abs(self.measured - self.predicted) / self.step


def run(quick: bool) -> Result:
    result = Result("slo-alerts", environment(promtool=_version()))
    tool = _tool()
    cases = list(_matrix(tool, quick))
    rows = [
        [f"{case.objective:.2%}", case.severity, f"{case.bad:.2%}", _minutes(case.predicted),
         _minutes(case.measured), _minutes(case.sloth) if case.objective in SLOTHS else "–",
         case.off]
        for case in cases
    ]  # fmt: skip
    header = ["objective", "alert", "bad", "predicted, min", "measured, min", "Sloth, min",
              "off by evaluations"]  # fmt: skip
    result.tables.append(("Time from fault to alert", header, rows))
    worst = max(case.off for case in cases)
    result.claims.append(
        Claim(
            "evaluations between the predicted moment and the alert, worst of all", worst, 2, "<="
        )
    )
    compared = [case for case in cases if case.objective in SLOTHS]
    differ = sum(case.measured != case.sloth for case in compared)
    result.claims.append(
        Claim(f"of {len(compared)} alerts beside Sloth's, those at another moment", differ, 0, "<=")
    )
    passed, total, tables = _generated(tool, quick)
    result.tables.append(tables)
    result.claims.append(
        Claim(
            "share of the generated unit tests of all indicators that pass", passed / total, 1, ">="
        )
    )
    drills = [results for _ in range(1 if quick else 3) if (results := _drill()) is not None]
    names = ("the model server does not answer", "the budget burns")
    result.tables.append(
        (
            "Page drill: from the kill of a model server to the webhook of Alertmanager, seconds",
            ["alert", "median", "worst", "drills"],
            [
                [name, median([d[n] for d in drills]), max((d[n] for d in drills), default=None),
                 len(drills)]
                for n, name in enumerate(names)
            ],
        )
    )  # fmt: skip
    result.claims.append(
        Claim(
            "seconds from fault to page at a scrape a second, worst",
            max(map(max, drills), default=None),
            10,
            "<=",
        )
    )
    result.measurements = {
        "drill_seconds": drills,
        "cases": [{**vars(case), "off": case.off} for case in cases],
        "unit_tests": {"passed": passed, "total": total},
    }
    return result


def _minutes(seconds: float | None) -> str:
    return "never" if seconds is None else shown(seconds / 60)


def _tool() -> str:
    result = find("promtool")
    if result is None:
        raise SystemExit("promtool is not here; `make parts` fetches it")
    return str(result)


def _version() -> str:
    _, said = promtool.run(_tool(), ["--version"], Path.cwd(), programs())
    return said.partition("version ")[2].split()[0]


def _matrix(tool: str, quick: bool) -> Iterator[Case]:
    objectives = (0.999, 0.99) if quick else OBJECTIVES
    faults = (1.0, 0.1) if quick else FAULTS
    for objective in objectives:
        said = {
            "name": SLOTHS.get(objective, "other"),
            "objective": write_share(objective),
            "availability": {},
        }
        file = {"version": 1, "service": "ours", "alerts": "none", "slos": [said]}
        (slo,) = compiled(SloFile.model_validate(file), "benchmark").slos
        for severity in SEVERITIES:
            for bad in faults:
                yield _case(tool, slo, severity, bad)


def _case(tool: str, slo: Slo, severity: Severity, bad: float) -> Case:
    step = STEPS[severity]
    burns = [burn for burn in slo.burns if burn.window.severity == severity]
    longest = max(burn.window.long for burn in burns)
    result = first(burns, severity, bad, slo.period)
    calm = math.ceil(longest / step) + 1
    lasts = longest if result is None else result.seconds
    phases = Phases(step, calm, math.ceil(lasts / step) + 5, 2)
    with tempfile.TemporaryDirectory() as name:
        ours, sloth = _measured(tool, Path(name), slo, severity, bad, phases)
    fault = calm * step
    return Case(
        slo.objective,
        severity,
        bad,
        step,
        None if result is None else result.seconds,
        None if ours is None else ours - fault,
        None if sloth is None else sloth - fault,
    )


def _measured(
    tool: str, folder: Path, slo: Slo, severity: Severity, bad: float, phases: Phases
) -> tuple[float | None, float | None]:
    """The first evaluations, in seconds from the beginning, at which ours and Sloth's fire."""
    beside = slo.objective in SLOTHS
    rules = [group(slo, "docs/runbooks/UnderstudyErrorBudgetBurn.md")]
    files: dict[str, Any] = {"ours.rules.yml": document(rules)}
    order = [one["name"] for one in rules]
    if beside:
        theirs = yaml.safe_load(RULES.read_text("utf-8"))
        theirs["groups"] = [g for g in theirs["groups"] if g["name"].endswith(slo.name)]
        files["sloth.rules.yml"] = theirs
        order += [one["name"] for one in theirs["groups"]]
    whole = f"{round(phases.end * phases.step)}s"
    checks = []
    for who in ("ours", "sloth") if beside else ("ours",):
        firing = (
            f'count(ALERTS{{alertstate="firing",sloth_severity="{severity}",'
            f'sloth_service="{who}"}})'
        )
        when = f"min_over_time(timestamp({firing})[{whole}:{round(phases.step)}s])"
        checks.append(
            {
                "expr": f"({when} or vector({_NEVER:.0f})) * 1",
                "eval_time": whole,
                # It cannot be: what it is stands in the answer.
                "exp_samples": [{"labels": "{}", "value": -1}],
            }
        )
    tests = {
        "interval": f"{round(phases.step)}s",
        "input_series": [
            {"series": one.series, "values": values(one, phases, bad)} for one in slo.sli.trial
        ],
        "promql_expr_test": checks,
    }
    files["it.tests.yml"] = {
        "rule_files": [name for name in files if name.endswith(".rules.yml")],
        "evaluation_interval": f"{round(phases.step)}s",
        "group_eval_order": order,
        "tests": [tests],
    }
    for name, data in files.items():
        (folder / name).write_text(dumped(data), encoding="utf-8")
    _, said = promtool.run(tool, ["test", "rules", "it.tests.yml"], folder, programs())
    got = [float(value) for value in _GOT.findall(said)]
    if len(got) != len(checks):
        raise SystemExit(f"promtool says something else:\n{said[:2000]}")
    moments = [None if value >= _NEVER else value for value in got]
    return moments[0], moments[1] if beside else None


def _drill() -> tuple[float, float] | None:
    """Seconds from the kill to both pages, with a day of traffic in Prometheus before it; None on a
    machine that is too busy to get there at all."""
    try:
        return _drilled()
    except AssertionError:
        return None


def _drilled() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name, receiver() as told:
        folder = Path(name)
        with served(folder) as world:
            load = Load(world.service.url, clients=3, pause=0.01)
            with stack(folder / "servers", told, world) as running:
                eventually(running.is_well)
                world.champion.kill()
                killed = time.monotonic()
                heard = []
                for alert in (DOWN, BURN):
                    eventually(lambda alert=alert: alert in stories(messages(told)))
                    heard.append(time.monotonic() - killed)
                world.champion.start()
            load.stop()
    return heard[0], heard[1]


def _generated(tool: str, quick: bool) -> tuple[int, int, tuple[str, list[str], list[list[Any]]]]:
    """The unit tests that are generated for every kind of indicator and every alert."""
    result = compiled(SloFile.model_validate(ALL), "benchmark")
    files = result.test_files((1.0,) if quick else (1.0, 0.1))
    rows: list[list[Any]] = []
    passed = total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, data in {**result.rule_files(), **files}.items():
            (folder / file).write_text(dumped(data), encoding="utf-8")
        for file, data in files.items():
            good, _ = promtool.run(tool, ["test", "rules", file], folder, programs())
            count = len(data["tests"])
            total += count
            passed += count if good else 0
            rows.append([file.removesuffix(".tests.yml"), count, "yes" if good else "**no**"])
    return passed, total, ("Generated unit tests", ["file", "tests", "pass"], rows)
