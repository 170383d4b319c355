"""``understudy gate compare``: what got worse, with intervals, and what cannot be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from tests.support.gates import gate
from tests.support.outcomes import outcome_of
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate import regression
from understudy.loadtest.gate.stored import read
from understudy.loadtest.statistics.intervals import difference, rate

Report = dict[str, Any]


def stage(
    name: str = "s",
    scale: float = 1.0,
    failed: int = 0,
    count: int = 2000,
    verdict: str = "passed",
    **more: Any,
) -> Report:
    rng = np.random.default_rng(count)
    due = np.arange(count) * 0.01
    ok = np.arange(count) >= failed
    outcome = outcome_of(due, scale * rng.lognormal(-4.0, 0.3, count), ok)
    return {"name": name, "kind": "load", "verdict": verdict, "why": [], "load": outcome.summary(),
            "histogram": outcome.latencies.to_dict(), "late": False, **more}  # fmt: skip


def report(*stages: Report, cores: int = 4) -> Report:
    environment = {"cores": 8, "cores_usable": cores}
    return {"format": "understudy-gate", "environment": environment, "stages": list(stages)}


def compared(folder: Path, old: Report, new: Report, *more: str) -> Result:
    files = [folder / "old.json", folder / "new.json"]
    for file, content in zip(files, (old, new), strict=True):
        file.write_text(json.dumps(content))
    return gate("compare", *files, *more, env={"COLUMNS": "160"})


def said(folder: Path, old: Report, new: Report) -> tuple[int, dict[str, str]]:
    found = compared(folder, old, new, "--json")
    changes = json.loads(found.stdout)
    return found.exit_code, {one["figure"]: one["said"] for one in changes}


def test_what_got_worse_is_shown_with_its_interval(tmp_path: Path) -> None:
    old, new = report(stage(failed=2)), report(stage(scale=1.5, failed=60))
    assert said(tmp_path, old, new) == (
        1, {"p50": "worse", "p99": "worse", "error rate": "worse"},
    )  # fmt: skip
    assert said(tmp_path, new, old) == (
        0, {"p50": "better", "p99": "better", "error rate": "better"},
    )  # fmt: skip
    found = compared(tmp_path, old, new)
    lines = {line.split()[1]: line for line in found.output.splitlines() if line.startswith("s ")}
    assert re.search(
        r"\d ms +\d.* ms +\+(49|5[01])[.\d]* % \(\+\d.* % to \+\d.* %\) +worse", lines["p50"]
    )
    assert "0.1 %" in lines["error"]
    assert "3 %" in lines["error"]
    assert "+2.9 points (+" in lines["error"]
    assert found.output.splitlines()[-1] == "WORSE: s: p50, s: p99, s: error rate"
    same = compared(tmp_path, old, old)
    assert (same.exit_code, same.output.splitlines()[-1]) == (0, "OK: nothing got worse")


def test_too_few_requests_tell_nothing(tmp_path: Path) -> None:
    few = report(stage(count=999))
    assert said(tmp_path, few, few) == (
        2, {"p50": "same", "p99": "cannot be told", "error rate": "same"},
    )  # fmt: skip
    output = compared(tmp_path, few, few).output
    assert "not enough requests: 999, at least 1,000 are required" in " ".join(output.split())
    assert "INCONCLUSIVE: " in output
    very_few = report(stage(count=99))
    assert said(tmp_path, very_few, very_few)[1]["error rate"] == "cannot be told"
    # What got worse is not hidden by what cannot be told.
    assert said(tmp_path, few, report(stage(count=999, scale=2.0)))[0] == 1


def test_an_interval_that_reaches_beyond_the_margin_tells_nothing(tmp_path: Path) -> None:
    old, new = report(stage()), report(stage(scale=1.09))
    found = said(tmp_path, old, new)
    assert (found[0], found[1]["p99"]) == (2, "cannot be told")
    assert "more is possible" in compared(tmp_path, old, new).output


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (report(stage("a")), report(stage("b")),
         "no stage in common: a in the first, b in the second"),
        (report(stage("a")), report(), "no stage in common: a in the first, none in the second"),
        (report(stage()), report(stage(), cores=2),
         "another number of usable cores: 4 in the first, 2 in the second"),
        (report(stage()), {**report(stage()), "environment": {"cores": 2, "cores_usable": 4}},
         "another number of cores: 8 in the first, 2 in the second"),
        (report(stage(verdict="shown")), report(stage(verdict="shown")), "have no figures"),
        (report(stage()), report({"name": "s"}), "damaged"),
        (report(stage()), {}, "is not a gate result"),
    ],
)  # fmt: skip
def test_results_that_cannot_be_compared(
    tmp_path: Path, old: Report, new: Report, why: str
) -> None:
    found = compared(tmp_path, old, new)
    assert (found.exit_code, why in found.output) == (2, True), found.output


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (stage(late=True), "the load generator was late"),
        (stage(kind="chaos"), "load in the first, chaos in the second"),
        (stage(verdict="invalid", why=["p99: not enough requests"]), "p99: not enough requests"),
        ({**stage(), "load": {**stage()["load"], "rate": 150.0}},
         "another load: 100/s in the first, 150/s in the second"),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_compared(tmp_path: Path, new: Report, why: str) -> None:
    found = compared(tmp_path, report(stage()), report(new))
    assert (found.exit_code, why in " ".join(found.output.split())) == (2, True), found.output


def test_stages_of_one_result_are_named(tmp_path: Path) -> None:
    found = compared(tmp_path, report(stage(), stage("gone")), report(stage(), stage("new")))
    assert found.exit_code == 0, found.output
    assert "the stage was removed" in " ".join(found.output.split())
    assert "the stage is new" in " ".join(found.output.split())


def test_a_stage_that_failed_is_worse(tmp_path: Path) -> None:
    new = stage(verdict="failed", why=["p99: took longer"])
    assert said(tmp_path, report(stage()), report(new))[1]["verdict"] == "worse"
    assert compared(tmp_path, report(stage()), report(new)).exit_code == 1
    # A warm-up is not judged, and has no say here either.
    warm = stage("w", 1.0, verdict="shown"), stage("w", 9.0, verdict="shown")
    assert compared(tmp_path, report(stage(), warm[0]), report(stage(), warm[1])).exit_code == 0


def rates(low: float | None, high: float | None, key: str = "capacity") -> Report:
    ends = ("low", "high") if key == "capacity" else ("holds", "breaks")
    return {"name": "c", "kind": "capacity", "verdict": "shown", "why": [],
            key: dict(zip(ends, (low, high), strict=True))}  # fmt: skip


@pytest.mark.parametrize("key", ["capacity", "until_break"])
def test_rates_are_compared(tmp_path: Path, key: str) -> None:
    for (low, high), code, verdict in (
        ((100.0, 110.0), 0, "same"),
        ((50.0, 60.0), 1, "worse"),
        ((85.0, 105.0), 2, "cannot be told"),
        ((85.0, None), 2, "cannot be told"),
        ((300.0, None), 0, "better"),
        ((None, 40.0), 1, "worse"),
    ):
        old, new = report(rates(100.0, 110.0, key)), report(rates(low, high, key))
        exit_code, changes = said(tmp_path, old, new)
        assert (exit_code, list(changes.values())) == (code, [verdict]), (low, high)
    output = compared(tmp_path, report(rates(100, 110, key)), report(rates(50, 60, key))).output
    assert "100/s 50/s" in " ".join(output.split())
    assert "-50 % (-54.5 % to -40 %)" in output
    assert said(tmp_path, report(rates(None, 5, key)), report(rates(9, 10, key)))[0] == 2


def test_cold_starts_are_compared(tmp_path: Path) -> None:
    def cold(*seconds: float) -> Report:
        return report({"name": "c", "kind": "cold_start", "verdict": "shown", "why": [],
                       "cold_start": {"seconds": list(seconds)}})  # fmt: skip

    assert said(tmp_path, cold(1.0, 1.01, 1.02), cold(2.0, 2.01, 2.02)) == (
        1,
        {"cold start": "worse"},
    )
    assert said(tmp_path, cold(1.0, 1.01, 1.02), cold(1.0, 1.01, 1.02))[0] == 0
    assert said(tmp_path, cold(1.0), cold(1.0))[0] == 2


def test_the_difference_of_two_shares() -> None:
    found = difference(10, 1000, 40, 1000)
    assert found is not None
    a, b = rate(10, 1000), rate(40, 1000)
    assert a is not None
    assert b is not None
    assert found.value == pytest.approx(0.03)
    # Newcombe's formula, written differently.
    assert (found.value - found.low) ** 2 == pytest.approx(
        (b.value - b.low) ** 2 + (a.high - a.value) ** 2
    )
    assert (found.high - found.value) ** 2 == pytest.approx(
        (b.high - b.value) ** 2 + (a.value - a.low) ** 2
    )
    assert difference(0, 0, 1, 2) is None


def without(data: Any, *path: Any) -> Any:
    """A copy of ``data`` without the value at a path."""
    copied = json.loads(json.dumps(data))
    inner = copied
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return copied


def changed(data: Any, value: Any, *path: Any) -> Any:
    """A copy of ``data`` with another value at a path."""
    copied = json.loads(json.dumps(data))
    inner = copied
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return copied


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a document."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (without(report(stage()), "stages"), "new.json: is damaged, or of another version: stages: "
         "is required; write it again: understudy gate … --json-file"),
        (without(report(stage()), "stages", 0, "verdict"), "stages[0].verdict: is required"),
        (without(report(stage()), "stages", 0, "load", "rate"), "stages[0].load.rate: is required"),
        (without(report(stage()), "stages", 0, "load"), "stages[0]: has one of load and histogram"),
        (changed(report(stage()), "good", "stages", 0, "verdict"),
         "stages[0].verdict: must be 'passed', 'failed', 'invalid', 'not measured' or 'shown'"),
        (changed(report(stage()), "fast", "stages", 0, "load", "rate"),
         "stages[0].load.rate: must be a number (found 'fast')"),
        (changed(report(stage()), -1.0, "stages", 0, "load", "rate"),
         "stages[0].load.rate: must be greater than or equal to 0 (found -1.0)"),
        (changed(report(stage()), [[99_999, 1]], "stages", 0, "histogram", "buckets"),
         "stages[0].histogram: buckets: 99,999 is not one of the 1,920 buckets"),
        (without(report(stage()), "environment"), "environment: is required"),
    ],
)  # fmt: skip
def test_a_damaged_result_is_refused_with_the_key(tmp_path: Path, new: Report, said: str) -> None:
    found = compared(tmp_path, report(stage()), new)
    assert found.exit_code == 2, found.output
    assert said in " ".join(found.output.split()), found.output


def test_no_damage_is_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is missing or of another kind: the comparison is refused, or has all it needs."""
    monkeypatch.setattr(regression, "_BOOTSTRAPS", 5)
    whole = report(
        stage(),
        {**stage("c"), "kind": "capacity", "capacity": {"low": 50.0, "high": 60.0}},
        {**stage("u"), "until_break": {"holds": 50.0, "breaks": 60.0}},
        {"name": "z", "kind": "cold_start", "verdict": "shown", "why": [],
         "cold_start": {"seconds": [1.0, 1.001, 1.002]}},
    )  # fmt: skip
    file = tmp_path / "damaged.json"
    refused = taken = 0
    for path in places(whole):
        if "buckets" in path and path.index("buckets") < len(path) - 1 and path[4] > 0:
            continue  # one bucket is as good as another
        for damaged in (without(whole, *path), changed(whole, {"x": []}, *path),
                        changed(whole, None, *path), changed(whole, "text", *path)):  # fmt: skip
            file.write_text(json.dumps(damaged))
            try:
                found = read(file)
                regression.overall(regression.changes(whole, found, 0.1))
                taken += 1
            except PlanError:
                refused += 1
    assert refused > 50, refused
    assert taken > 50, "values that are not read do not matter"
