"""Our rules and Sloth's, evaluated by Prometheus' own engine on the same series."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promtool import is_true, passes, run, write
from tools.parts.sloth import PROGRAM, RULES, made
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.rules import document

pytestmark = pytest.mark.integration

OURS = SloFile.model_validate(
    {
        "version": 1,
        "service": "ours",
        "alerts": "none",
        "slos": [
            {"name": "three-nines", "objective": "99.9 %", "availability": {}},
            {"name": "two-nines", "objective": "99 %", "availability": {}},
            {"name": "latency-95", "latency": {"within": "50ms", "quantile": "95 %"}},
        ],
    }
)
SLOS = [slo.name for slo in OURS.slos]
METRIC = 'understudy_requests_total{role="primary",outcome="%s"}'
SECONDS = 'understudy_request_duration_seconds_%s{role="primary",outcome="ok"%s}'


def traffic(steps: int, step: float, seed: int) -> dict[str, list[int]]:
    """Counters of a service with days and nights, and faults of all sizes and lengths."""
    chance = random.Random(seed)
    ok, bad, fast = [0], [0], [0]
    share, slow, lasts = 0.0, 0.0, 0
    for number in range(steps):
        if not lasts:
            lasts = chance.choice((3, 10, 30, 90))
            share = chance.choice((0.0, 0.0, 0.0, 0.0005, 0.004, 0.02, 0.2, 1.0))
            slow = chance.choice((0.0, 0.01, 0.04, 0.2, 0.5, 0.9))
        lasts -= 1
        load = int(step * (50 + 40 * ((number // 40) % 2) + chance.random()))
        failed = round(load * share)
        ok.append(ok[-1] + load - failed)
        bad.append(bad[-1] + failed)
        fast.append(fast[-1] + round((load - failed) * (1.0 - slow)))
    return {
        METRIC % "ok": ok,
        METRIC % "timeout": bad,
        SECONDS % ("count", ""): ok,
        SECONDS % ("bucket", ',le="0.05"'): fast,
        SECONDS % ("bucket", ',le="+Inf"'): ok,
    }


def both(
    folder: Path,
    step: int,
    steps: int,
    checks: list[dict[str, Any]],
    seed: int,
    slos: list[str] = SLOS,
) -> None:
    """Files for both sets of rules on the same series."""
    rules = [
        g
        for f in compiled(OURS, "test").rule_files().values()
        for g in f["groups"]
        if g["name"].endswith(tuple(slos))
    ]
    theirs = yaml.safe_load(RULES.read_text("utf-8"))
    theirs["groups"] = [g for g in theirs["groups"] if g["name"].endswith(tuple(slos))]
    order = [group["name"] for group in (*rules, *theirs["groups"])]
    series = [
        {"series": name, "values": " ".join(map(str, values))}
        for name, values in traffic(steps, step, seed).items()
    ]
    tests = [{"interval": f"{step}s", "input_series": series, "promql_expr_test": checks}]
    write(
        folder,
        {
            "ours.rules.yml": document(rules),
            "sloth.rules.yml": theirs,
            "both.tests.yml": {
                "rule_files": ["ours.rules.yml", "sloth.rules.yml"],
                "evaluation_interval": f"{step}s",
                # Rules of later groups read what earlier ones recorded.
                "group_eval_order": order,
                "tests": tests,
            },
        },
    )


def same_ratio(slo: str, window: str, span: str, at: str) -> list[dict[str, Any]]:
    """The recorded ratios are equal at each evaluation, and they are more than a few and not all
    nothing."""
    ours, theirs = (
        f'sum(slo:sli_error:ratio_rate{window}{{sloth_service="{who}",sloth_slo="{slo}"}})'
        for who in ("ours", "sloth")
    )
    return [
        is_true(f"max_over_time((abs({ours} - {theirs}))[{span}]) < bool 1e-9", at),
        is_true(f"max_over_time(({ours})[{span}]) > bool 0.001", at),
        is_true(f"count_over_time(({ours} - {theirs})[{span}]) > bool 100", at),
    ]


def same_alerts(slo: str, severity: str, span: str, at: str) -> list[dict[str, Any]]:
    """The alert fires at exactly the same evaluations, and it is not always or never."""
    ours, theirs = (
        f'(count(ALERTS{{alertstate="firing",sloth_severity="{severity}",sloth_service="{who}",'
        f'sloth_slo="{slo}"}}) or vector(0))'
        for who in ("ours", "sloth")
    )
    return [
        is_true(f"max_over_time((abs({ours} - {theirs}))[{span}]) == bool 0", at),
        is_true(f"max_over_time({ours}[{span}]) == bool 1", at),
        is_true(f"min_over_time({ours}[{span}]) == bool 0", at),
    ]


def test_rules_in_the_repository_are_sloths_own() -> None:
    if not PROGRAM.exists():
        pytest.skip("NOT TESTED: Sloth is not here; `make test-all` builds it where Go works")
    assert made() == RULES.read_text("utf-8")


@pytest.mark.usefixtures("promtool")
def test_pages_and_ratios_of_short_windows_are_those_of_sloth(tmp_path: Path) -> None:
    step, steps = 60, 8 * 60
    at, span = f"{steps}m", f"{steps - 10}m:{step}s"
    checks = [
        check
        for slo in SLOS
        for window in ("5m", "30m", "1h", "2h", "6h")
        for check in same_ratio(slo, window, span, at)
    ]
    for slo in SLOS:
        checks += same_alerts(slo, "page", span, at)
    both(tmp_path, step, steps, checks, seed=1)
    passes(tmp_path, "both.tests.yml")


@pytest.mark.usefixtures("promtool")
def test_tickets_and_ratios_of_long_windows_are_those_of_sloth(tmp_path: Path) -> None:
    step, steps = 900, 4 * 96
    at, span = f"{steps * 15}m", f"{steps * 15 - 60}m:{step}s"
    checks = [
        check
        for slo in SLOS
        for window in ("2h", "6h", "1d", "3d")
        for check in same_ratio(slo, window, span, at)
    ]
    checks += same_alerts("three-nines", "ticket", span, at)
    checks += same_alerts("latency-95", "ticket", span, at)
    both(tmp_path, step, steps, checks, seed=5)
    passes(tmp_path, "both.tests.yml")


@pytest.mark.usefixtures("promtool")
def test_a_rule_that_differs_is_seen(tmp_path: Path) -> None:
    step, steps = 60, 2 * 60
    at, span = f"{steps}m", f"{steps - 10}m:{step}s"
    checks = same_ratio("three-nines", "30m", span, at)
    both(tmp_path, step, steps, checks, seed=1, slos=["three-nines"])
    passes(tmp_path, "both.tests.yml")
    path = tmp_path / "ours.rules.yml"
    path.write_text(path.read_text().replace("overload", "nothing").replace("timeout|", ""))
    good, said = run(tmp_path, "both.tests.yml")
    assert not good
    assert "FAILED" in said


@pytest.mark.usefixtures("promtool")
def test_the_budget_is_weighted_by_requests(tmp_path: Path) -> None:
    """A night with a tenth of the traffic and half of it failing: Sloth's mean of ratios takes it for
    half of the day."""
    step, day = 60, 150
    ok, bad = [0], [0]
    for number in range(2 * day):
        night = number >= day
        load = 600 if night else 6000
        failed = load // 2 if night else 0
        ok.append(ok[-1] + load - failed)
        bad.append(bad[-1] + failed)
    true = bad[-1] / (ok[-1] + bad[-1])
    window = 'slo:sli_error:ratio_rate30d{sloth_service="%s",sloth_slo="three-nines"}'
    left = "slo:period_error_budget_remaining:ratio"
    mine = 'sloth_service="ours",sloth_slo="three-nines"'
    at = f"{2 * day}m"
    checks = [
        is_true(f"sum(abs({window % 'ours'} / {true} - 1)) < bool 0.02", at),
        is_true(f"sum({window % 'sloth'} / {true}) > bool 4", at),
        is_true(f"abs(sum({left}{{{mine}}}) - (1 - {true / 0.001})) < bool {true / 0.001 * 0.02}", at),
        is_true(
            f"sum(understudy_slo_error_budget_remaining{{{mine}}}) == bool sum({left}{{{mine}}})", at
        ),
    ]  # fmt: skip
    both(tmp_path, step, 1, checks, seed=1, slos=["three-nines"])
    path = tmp_path / "both.tests.yml"
    data = yaml.safe_load(path.read_text())
    data["tests"][0]["input_series"] = [
        {"series": METRIC % "ok", "values": " ".join(map(str, ok))},
        {"series": METRIC % "timeout", "values": " ".join(map(str, bad))},
    ]
    write(tmp_path, {"both.tests.yml": data})
    passes(tmp_path, "both.tests.yml")
