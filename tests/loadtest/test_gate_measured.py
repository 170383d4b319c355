"""A gate cannot pass by accident: what was not asked or not seen is not measured, and exits 2."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.support.gates import gate, plan
from tests.support.load_server import Server, written
from tests.support.outcomes import outcome_of
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.gate.result import EXIT_CODES, NOTHING_JUDGED, Result, StageResult
from understudy.loadtest.gate.verdict import Verdict, evaluate, nothing_good, overall_verdict


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [{name: s, load: {rate: 20, seconds: 3}}]", "stages.s: would not be measured"),
        ("objectives: {errors: 0}\nstages: [{name: s, load: {rate: 20}, judged: false}]",
         "no stage is judged"),
        ("objectives: {p99: 1s}\nstages: [{name: s, load: {rate: 20}, objectives: {}}]",
         "give it objectives, such as p99, errors or rate, or judged: false"),
        ("objectives: {p99: 1s}\nstages: [{name: a, load: {rate: 2}}, "
         "{name: b, capacity: {start: 1, most: 9}}]", "stages.b: would not be measured"),
        ("objectives: {p99: 1s}\n"
         "stages: [{name: s, load: {shape: until-break, rate: 1, to: 2}}]", "give it at_least"),
        ("stages: [{name: s, cold_start: {command: [x]}}]", "give it within"),
    ],
)  # fmt: skip
def test_a_plan_that_asks_nothing_is_refused_before_it_runs(
    tmp_path: Path, text: str, said: str
) -> None:
    """The target is not there: nothing was sent to it."""
    for check in ((), ("--check",)):
        found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), *check)
        assert (found.exit_code, said in found.output) == (2, True), found.output
        assert "PASSED" not in found.output
    assert gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check",
                "--no-verdict").exit_code == 0  # fmt: skip


def test_an_experiment_without_a_question_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("chaoslib", reason="the Chaos Toolkit is not installed")
    printed = gate("fault", "cpu")
    written(tmp_path, "cpu.json", printed.output)
    text = "stages: [{name: s, chaos: {experiment: cpu.json, load: {rate: 1}}}]"
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert (found.exit_code, "give it recovers_within" in found.output) == (2, True), found.output
    text = text.replace("rate: 1}", "rate: 1}, hypothesis_holds: true")
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert (found.exit_code, "needs a steady state" in found.output) == (2, True), found.output
    steady = gate("fault", "cpu", "--answers", "http://127.0.0.1:1/")
    written(tmp_path, "cpu.json", steady.output)
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize("judged", ["true", "false"])
def test_a_server_that_fails_everything_is_not_measured(tmp_path: Path, judged: str) -> None:
    """Whatever its objectives are: here a percentile that a quick 503 would meet."""
    text = f"""
        objectives: {{rate: 0.001/s}}
        payloads: {{path: /broken}}
        stages:
          - {{name: first, load: {{rate: 40, seconds: 1}}, judged: {judged}}}
          - {{name: second, load: {{rate: 40, seconds: 1}}}}
        """
    html, data, junit = (tmp_path / name for name in ("r.html", "r.json", "r.xml"))
    with Server() as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--html", html,
                     "--json-file", data, "--junit", junit)  # fmt: skip
    assert found.exit_code == 2, found.output
    assert "NOT MEASURED: no verdict" in found.output
    assert "status 503" in words(found.output)
    result = json.loads(data.read_text())
    assert result["verdict"] == "not measured"
    assert "Not measured" in html.read_text()
    suite = ElementTree.fromstring(junit.read_text())
    assert int(suite.get("errors") or 0) >= 1
    assert {e.get("type") for e in suite.iter("error")} == {"not measured"}


def test_results_without_a_verdict_have_a_flag(tmp_path: Path) -> None:
    text = "stages: [{name: s, load: {rate: 40, seconds: 1}}]"
    data = tmp_path / "r.json"
    with Server() as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--no-verdict",
                     "--json-file", data)  # fmt: skip
        assert found.exit_code == 0, found.output
        assert "SHOWN: no verdict was asked for" in found.output
        assert json.loads(data.read_text())["verdict"] == "shown"
        broken = plan(tmp_path, text + "\npayloads: {path: /broken}")
        found = gate("--target", server.url, "--plan", broken, "--no-verdict")
    assert found.exit_code == 2, "what was not seen cannot be shown"


def test_the_energy_of_a_capacity_is_judged_without_at_least(tmp_path: Path) -> None:
    text = """
        objectives: {p50: 2s, joules: 1000000}
        stages: [{name: s, capacity: {start: 20, most: 20, seconds: 1, watts: 1}}]
        """
    data = tmp_path / "r.json"
    with Server() as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--json-file", data)
    assert found.exit_code == 0, found.output
    assert json.loads(data.read_text())["stages"][0]["verdict"] == "passed"


def accuracy(folder: Path, url: str, *wanted: float | None, more: str = "") -> tuple[int, dict]:
    """A stage that sends a payload for each wanted prediction, of which all are 0.5."""
    lines = [
        {"body": {"instances": [[1.0]]}, **({} if one is None else {"expect": {"/predictions/0": one}})}
        for one in wanted
    ]  # fmt: skip
    written(folder, "bodies.jsonl", "\n".join(map(json.dumps, lines)))
    text = f"""
        payloads: {{bodies: bodies.jsonl, path: "/v1/models/m:predict"}}
        engine: {{processes: 2}}
        stages: [{{name: s, loadgen: {{scenario: Offline, mode: accuracy{more}}}}}]
        """
    data = folder / "r.json"
    found = gate("--target", url, "--plan", plan(folder, text), "--json-file", data)
    return found.exit_code, json.loads(data.read_text())["stages"][0]


@pytest.mark.parametrize("wrong", range(5))
def test_every_payload_counts_in_an_accuracy(tmp_path: Path, wrong: int) -> None:
    """Whichever of two sending processes has it; once each."""
    with Server() as server:
        wanted = [0.7 if number == wrong else 0.5 for number in range(5)]
        code, stage = accuracy(tmp_path, server.url, *wanted)
        assert (code, stage["verdict"]) == (1, "failed")
        assert stage["why"] == ["1 of 5 responses are not as expected"]
        assert stage["loadgen"]["accuracy"] == pytest.approx(0.8)
        if not wrong:
            code, stage = accuracy(tmp_path, server.url, *[0.5] * 5, more=", users: 1")
            assert (code, stage["verdict"], stage["load"]["requests"]) == (0, "passed", 5)


def test_an_accuracy_of_a_part_of_the_payloads_does_not_pass(tmp_path: Path) -> None:
    with Server(slots=1, seconds=0.5) as server:
        code, stage = accuracy(tmp_path, server.url, *[0.5] * 100, more=", users: 2, seconds: 2")
    assert (code, stage["verdict"]) == (2, "invalid")
    assert "of 100 payloads were sent in 2 s: give it more seconds" in stage["why"][0]
    with Server() as server:
        code, stage = accuracy(tmp_path, server.url, 0.5, None, 0.5)
        assert (code, stage["verdict"]) == (2, "invalid")
        assert "1 of 3 payloads have no expected values" in stage["why"][0]
        code, stage = accuracy(tmp_path, server.url, None)
        assert (code, stage["verdict"]) == (2, "invalid")
        assert "no payload has expected values" in stage["why"][0]


def test_why_a_gate_has_no_verdict() -> None:
    """Said by the gate as a whole only where no stage says it."""

    def of(*verdicts: Verdict, broken: str = "", judged: bool = True) -> str:
        stages = [StageResult("s", "load", one) for one in verdicts]
        return Result("", "", 0.0, {}, stages, broken=broken, judged=judged).why

    assert of("shown") == of() == of("shown", "shown") == NOTHING_JUDGED
    assert of("shown", judged=False) == ""
    assert of("passed", "shown") == of("not measured", "shown") == of("failed") == ""
    assert of("passed", broken="interrupted") == of(broken="interrupted") == "interrupted"


def test_only_passed_stages_pass() -> None:
    """Over all combinations of verdicts of stages."""
    verdicts = ("passed", "failed", "invalid", "not measured", "shown")
    for first in verdicts:
        for second in (*verdicts, None):
            for broken in ("", "interrupted"):
                for judged in (True, False):
                    stages = [StageResult("s", "load", v) for v in (first, second) if v is not None]
                    result = Result("", "", 0.0, {}, stages, broken=broken, judged=judged)
                    there = {stage.verdict for stage in stages}
                    good = "passed" in there and there <= {"passed", "shown"} and not broken
                    assert (result.verdict == "passed") == good
                    only_shown = there == {"shown"} and not broken and not judged
                    assert (result.exit_code == 0) == (good or only_shown)
                    if "failed" in there:
                        assert result.verdict == "failed"
                    elif "not measured" in there:
                        assert result.verdict == "not measured"
                    elif "invalid" in there or broken:
                        assert result.verdict == "invalid"
                    code = 0 if good or only_shown else 1 if "failed" in there else 2
                    assert result.exit_code == code
    assert Result("", "", 0.0, {}).verdict == "not measured"
    assert EXIT_CODES["not measured"] == 2


def test_answers_that_measure_nothing() -> None:
    due, bad = np.arange(0.0, 5.0, 0.1), np.zeros(50, np.bool_)
    assert nothing_good(Outcome()) == "no request was sent"
    assert nothing_good(outcome_of(due, due * 0.0, bad)) == (
        "none of 50 answers was good: status 503: 50"
    )
    one = bad.copy()
    one[7] = True
    assert nothing_good(outcome_of(due, due * 0.0, one)) == ""
    wrong = outcome_of(due, due * 0.0, bad)
    wrong.errors = {"unexpected prediction": 50}
    assert nothing_good(wrong) == "", "that is a verdict on the model"
    assert overall_verdict([]) == "not measured"
    assert evaluate(Objectives(), outcome_of(due, due * 0.0, ~bad)) == []
    assert Objectives(alpha=0.1, joules=1.0).empty
    assert not Objectives(first_byte_p95="1s").empty
