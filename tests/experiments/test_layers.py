"""Several experiments on one model, and what is kept of one that was removed."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from tests.support.canaries import GUARDRAILS
from tests.support.live_experiment import NOW, Fed, answer, joined, record
from tests.support.patience import eventually
from tests.support.world import PATH, Model, World
from understudy.common.codecs import Reason, Undecodable
from understudy.monitor.cli.main import main
from understudy.monitor.config.compile import compile_plan
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.load import parse
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.arms import Arms, SplitShares
from understudy.monitor.evidence.blocks import Builder
from understudy.monitor.evidence.stage_one import StageOne
from understudy.monitor.experiments.ended import MOST, MOST_BYTES, EndedReports, final_report
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.kafka.routes import RouteTable
from understudy.monitor.records.handoff import Names, SplitNames
from understudy.shadow.assignment import POINTS
from understudy.shadow.experiment.rules import BUILT_IN

SPLIT = {"mode": "split", "weights": {"other0": 0.5}, "metrics": GUARDRAILS}


def one(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "challengers": ["other0"], **SPLIT, **changes}


def shadow(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "challengers": ["other0"], "metrics": GUARDRAILS, **changes}


def document(*experiments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": "state",
        "models": [{"name": "m"}, {"name": "n"}],
        "champion": {"url": "http://127.0.0.1:9"},
        "challengers": [
            {"name": "other0", "url": "http://127.0.0.1:10"},
            {"name": "other1", "url": "http://127.0.0.1:11"},
        ],
        "experiments": [{"model": "m", **experiment} for experiment in experiments],
        **changes,
    }


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


BY_USER = {"unit": {"by": "header", "name": "x-user"}}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (one("a"), one("b"), "'a' (slice [0, 1]) and 'b' (slice [0, 1]) split the same requests"),
        (
            one("a", slice=[0, 0.6]),
            one("b", slice=[0.5, 1]),
            "slice: [0, 0.5] for 'a' and slice: [0.5, 1] for 'b', or end 'a' first",
        ),
        (
            one("a", slice=[0, 0.5]),
            one("b", slice=[0.5, 1], **BY_USER),
            "by different units (request and header x-user): declare the same unit",
        ),
        (
            one("a", slice=[0, 0.5], overrides={"ada": "champion"}, **BY_USER),
            one("b", slice=[0.5, 1], overrides={"ada": "other0"}, **BY_USER),
            "'a' and 'b' send this unit to 'champion' and to 'other0'",
        ),
        (one("a", slice=[0, 0.5]), one("b", slice=[0.5, 0.5]), "its end must be above"),
        (one("a", slice=[0, 0.5]), one("b", slice=[0.5, 1]), ""),
        (one("a"), one("b", model="n", **BY_USER), ""),
        (one("a"), shadow("b", **BY_USER), ""),
        (shadow("a"), shadow("b"), ""),
    ],
)
def test_experiments_that_cannot_share_a_model_are_named_by_config_check(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    file = tmp_path / "understudy.yaml"
    file.write_text(json.dumps(document(first, second)))
    checked = run("config", "check", file)
    assert checked.exit_code == (2 if message else 0), checked.output
    assert message in checked.output
    if message:
        assert "experiments[1]" in checked.output


class Running:
    """A runner whose clock the test moves."""

    def __init__(self, folder: Path, *experiments: dict[str, Any]) -> None:
        self.now = NOW
        self.folder = folder
        self.runner = ExperimentRunner(self.config(*experiments), lambda: self.now)
        self.tick()

    def config(self, *experiments: dict[str, Any]) -> Config:
        return parse(json.dumps(document(*experiments)), "test", self.folder)

    def tick(self) -> None:
        self.now += 1.0
        self.runner.tick()

    def splits(self) -> dict[str, tuple[tuple[int, int], int]]:
        plan = compile_plan(self.runner.config, 1, self.runner._routes)
        return {split.experiment: (split.slice, split.first) for split in plan.splits}


def test_an_experiment_in_the_shadow_takes_no_traffic_of_a_split(tmp_path: Path) -> None:
    """Declared after the split, it took all of its traffic."""
    running = Running(tmp_path, one("split"), shadow("mirrored"))
    assert running.splits() == {"split": ((0, POINTS), 1)}


def test_slices_and_numbers_of_experiments_do_not_overlap(tmp_path: Path) -> None:
    half = POINTS // 2
    parts = one("a", slice=[0, 0.5]), one("b", slice=[0.5, 1]), shadow("c", override_header="x-arm")
    running = Running(tmp_path, *parts)
    assert running.splits() == {"a": ((0, half), 1), "b": ((half, POINTS), 4), "c": ((0, 0), 7)}
    # The one that stays keeps its units, whatever comes and goes.
    running.runner.configure(running.config(parts[1]))
    running.tick()
    assert running.splits() == {"b": ((half, POINTS), 1)}


def test_routes_from_kafka_obey_the_slices_of_the_sidecars_configuration(tmp_path: Path) -> None:
    """The topic says how each experiment divides its units; the part of the units is declared."""
    parts = one("a", slice=[0, 0.5]), one("b", slice=[0.5, 1])
    running = Running(tmp_path, *parts, shadow("c"))
    table = RouteTable()
    messages: list[tuple[str, dict[str, Any]]] = [
        (name, {"assignment": live.assignment().to_dict(), "declared": None})
        for name, live in running.runner.live.items()
    ]
    messages.append(("\x00experiments", {"experiments": ["a", "b", "c"]}))
    for offset, (key, value) in enumerate(messages):
        data = {"version": 1, "epoch": 0, "who": "test", **value}
        table.take(offset, key.encode(), json.dumps(data).encode(), {})
    plan = compile_plan(running.config(*parts, shadow("c")), 1, table.routes())
    half = POINTS // 2
    found = {split.experiment: (split.slice, split.first) for split in plan.splits}
    assert found == {"a": ((0, half), 1), "b": ((half, POINTS), 4)}
    # Should routes ever overlap, the experiment that began first keeps its units.
    later = table.assignments["b"]
    table.assignments["b"] = replace(later, started=later.started + 60.0)
    plan = compile_plan(running.config(one("b"), shadow("c")), 1, table.routes())
    both = compile_plan(running.config(*parts).model_copy(update={"experiments": [
        *running.config(one("b")).experiments, *running.config(one("a")).experiments
    ]}), 1, table.routes())  # fmt: skip
    assert [split.experiment for split in plan.splits] == ["b"]
    assert [split.experiment for split in both.splits] == ["a", "b"]


def test_a_challenger_is_mirrored_while_another_experiment_compares_it(tmp_path: Path) -> None:
    def rates(*experiments: dict[str, Any]) -> dict[str, float]:
        running = Running(tmp_path / str(len(experiments)), *experiments)
        plan = compile_plan(running.runner.config, 1, running.runner._routes)
        return {c.upstream.name: c.rate for c in plan.challengers}

    assert rates(one("a")) == {"other0": 0.0, "other1": 1.0}
    assert rates(one("a"), shadow("b", model="n")) == {"other0": 1.0, "other1": 1.0}


def test_the_requests_of_one_experiment_are_no_evidence_in_another(tmp_path: Path) -> None:
    """Both have the champion as an arm: the record tells which experiment assigned a request."""

    arms = Arms("champion", "", {"candidate": 1.0}, b"salt")
    declared = {"name": "x", "challengers": ["candidate"], "mode": "split"}
    second = Fed(Experiment.model_validate({**declared, "weights": {"candidate": 0.5}}), arms, dict)
    shares = SplitShares(("champion", "candidate"), (0.5, 0.5), NOW, NOW, first=3)
    for number in range(40):
        # 1 and 2 are the arms of the first experiment, 3 and 4 those of this one.
        assigned = 1 + number % 4
        name = ("champion", "candidate")[(assigned - 1) % 2]
        second.take(record(number, assigned=assigned), name, shares, None, answer(0.5))
    second.flush()
    assert second.experiment.contests["candidate"].served == [10, 10]


def test_a_label_counts_for_the_experiment_that_assigned_its_request() -> None:
    how = {"label": {"prediction": "p", "threshold": 0.5}}
    metrics = [{"metric": "accuracy", "margin": "5 pp"}]
    base = {"challengers": ["candidate"], **how, "metrics": metrics}
    mine = {"name": "x", "mode": "split", "weights": {"candidate": 0.4}, **base}
    arms = Arms("champion", "", {"candidate": 1.0}, b"salt")
    for declared, count in ((mine, 20), ({"name": "shadow", **base}, 0)):
        fed = Fed(Experiment.model_validate(declared), arms, dict)
        for number in range(80):
            arm = ("champion", "candidate")[number % 2]
            label = joined(number, arm, 0.8, number % 4 < 2, 0.4)
            fed.take_label(replace(label, experiment=("x", "other")[number // 2 % 2]))
        fed.flush()
        found = fed.experiment.decide("split", 1.0)["candidate"].evidence
        # A label is not another request, so it is no evidence on usable answers.
        wanted = {"accuracy": (count, count), BUILT_IN: (0, 0)}
        assert {item.name: item.records for item in found} == wanted, declared["name"]


def test_a_prediction_is_offered_to_the_experiment_that_assigned_it(tmp_path: Path) -> None:
    """Not to the first one that wants labels: that one does not know the share."""
    how = {"label": {"prediction": "p", "threshold": 0.5}}
    metrics = [{"metric": "accuracy", "margin": "5 pp"}]
    split = {"mode": "split", "weights": {"other0": 0.4}}
    both = [
        {**shadow("mirrored"), **how, "metrics": metrics},
        {**one("first"), **split, **how, "metrics": metrics, "slice": [0, 0.5]},
        {**one("second"), **split, **how, "metrics": metrics, "slice": [0.5, 1]},
    ]
    names = Names(
        1,
        (("m", "", "auto"),),
        ("champion", "other0", "other1"),
        (
            SplitNames("first", 0, (0.6, 0.4, 0.0), NOW, NOW, 1),
            SplitNames("second", 0, (0.6, 0.4, 0.0), NOW, NOW, 4),
        ),
    )
    stage = StageOne("champion", lambda *what: pytest.fail(str(what)))
    stage.configure(parse(json.dumps(document(*both)), "test", tmp_path))
    offered: dict[str, tuple[str, Any]] = {}
    stage.offer = lambda p: offered.update({p.request_id: (p.experiment, p.share)})
    builder = Builder("", "", 1)
    for number in range(6):
        request = record(number, assigned=number)
        request.arm = (number - 1) % 3 if number else 0
        builder.add(names, request, Undecodable(Reason.EMPTY), answer(0.5), NOW)
    for block in builder.flush(NOW, everything=True):
        stage.take(block)
    first, second = ("first", pytest.approx(0.4)), ("second", pytest.approx(0.4))
    known = {"r1": first, "r2": first, "r4": second, "r5": second}
    assert {key: offered[key] for key in known} == known
    assert offered["r0"] == ("", 0.0)


# Removed experiments --------------------------------------------------------------------------


def test_an_experiment_that_left_the_configuration_keeps_its_report(tmp_path: Path) -> None:
    running = Running(tmp_path, one("a"), shadow("b"))
    running.runner.configure(running.config(shadow("b")))
    running.tick()
    (report,) = EndedReports(tmp_path / "state").reports
    assert report["document"]["name"] == "a"
    assert report["ended"]["who"] == "configuration"
    (entry,) = [e for e in running.runner.audit.read("a") if e["kind"] == "removed"]
    assert (entry["who"], entry["weight"]) == ("configuration", 0.0)


def test_an_experiment_removed_while_the_service_was_stopped_keeps_its_report(
    tmp_path: Path,
) -> None:
    running = Running(tmp_path, one("a"))
    contest = running.runner.live["a"].experiment.contests["other0"]
    contest.served[:] = [7, 8]
    saved = json.loads(json.dumps(running.runner.dump_state()))
    later = Running.__new__(Running)
    later.now, later.folder = running.now + 60.0, tmp_path
    later.runner = ExperimentRunner(later.config(), lambda: later.now)
    later.runner.load_state(saved)
    later.tick()
    (report,) = EndedReports(tmp_path / "state").reports
    (challenger,) = report["document"]["challengers"]
    assert challenger["weight"] == 0.5
    assert (challenger["requests"]["champion_served"], challenger["requests"]["served"]) == (7, 8)


def test_the_reports_are_bounded_and_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    running = Running(tmp_path, one("a"))

    report = final_report(running.runner.live["a"], 1.0, "ada", "because")
    kept = EndedReports(tmp_path)
    for number in range(MOST + 5):
        kept.add({**report, "ended": {**report["ended"], "at": float(number)}})
    kept.save()
    assert len(EndedReports(tmp_path).reports) == MOST
    assert EndedReports(tmp_path).summaries()[0]["ended"]["at"] == MOST + 4
    large = {**report, "timelines": {"other0": ["x" * (MOST_BYTES // 3)]}}
    for _ in range(9):
        kept.add(large)
    kept.save()
    assert (tmp_path / "ended.json").stat().st_size < MOST_BYTES + 1000
    assert kept.find("a") == large
    (tmp_path / "ended.json").write_text('{"version": 1, "reports": [{}]}')
    assert EndedReports(tmp_path).reports == []
    assert (tmp_path / "ended.json.damaged").exists()


# The running service ---------------------------------------------------------------------------


def score_of(world: World, number: str) -> float:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
    headers = {"x-user": number}
    found = httpx.post(world.service.url + PATH, json={"inputs": [tensor]}, headers=headers)
    return float(found.json()["outputs"][0]["data"][0])


def test_experiments_share_a_model_and_leave_their_reports(tmp_path: Path) -> None:
    first = one("first", weights={"other0": 1.0}, slice=[0, 0.5], **BY_USER)
    experiments = [first, shadow("mirrored", **BY_USER)]
    with World(tmp_path, Model("second"), experiments=experiments) as world:
        url = ("--url", world.service.control)

        def challengers() -> set[str]:
            """Users whom the challenger serves."""
            return {str(n) for n in range(60) if score_of(world, str(n)) == 0.7}

        def settled() -> set[str] | None:
            """The same twice: each worker takes the assignment over by itself."""
            found = challengers()
            return found if found == challengers() else None

        served = eventually(settled)
        assert 5 < len(served) < 55, "half of the units, whatever the shadow experiment does"
        file = tmp_path / "second.json"
        file.write_text(json.dumps(one("second", **BY_USER)))
        refused = run("experiment", "start", file, *url)
        assert refused.exit_code == 2
        assert "'first' (slice [0, 0.5]) and 'second' (slice [0, 1])" in refused.output
        file.write_text(
            json.dumps(one("second", weights={"other0": 1.0}, slice=[0.5, 1], **BY_USER))
        )
        assert run("experiment", "start", file, *url).exit_code == 0
        eventually(lambda: len(challengers()) == 60)

        forced = run("experiment", "promote", "mirrored", "--force", "--why", "now", *url)
        assert forced.exit_code == 2
        assert "'mirrored'" in forced.output
        assert "split the same requests of 'm'" in forced.output

        # A reload that would end an experiment of the API is refused, by check and service alike.
        world.service.write(experiments=[one("first", **BY_USER), shadow("mirrored", **BY_USER)])
        checked = run("config", "check", world.service.file)
        assert checked.exit_code == 2
        assert "'second', which was started over the API, does not fit: slice: 'first'" in " ".join(
            checked.output.split()
        )
        world.service.signal(signal.SIGHUP)
        error = eventually(lambda: world.status()["config"]["error"])
        assert "experiment remove second" in error
        assert len(challengers()) == 60
        world.service.write(experiments=experiments)

        removed = run("experiment", "remove", "second", "--who", "ada", "--why", "next", *url)
        assert removed.exit_code == 0, removed.output
        assert eventually(lambda: challengers() == served), "the other experiment is unchanged"
        ended = run("experiment", "list", "--ended", *url).output
        assert ended.startswith("second  split  other0: ")
        assert "by ada: next" in ended
        assert "removed" in run("experiment", "show", "second", *url).output
        page = tmp_path / "page.html"
        assert run("experiment", "report", "second", "-o", page, *url).exit_code == 0
        assert "by ada: next" in page.read_text()
        assert run("experiment", "remove", "first", *url).exit_code == 2, "the file declares it"
        world.service.signal(signal.SIGTERM)
        assert world.service.wait() == 0
        world.service.start()
        url = ("--url", world.service.control)
        kept = eventually(lambda: run("experiment", "show", "second", "--json", *url))
        assert json.loads(kept.output)["ended"]["who"] == "ada"
