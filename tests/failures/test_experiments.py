"""Experiments on live traffic, with everything killed that can be."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.canaries import GUARDRAILS, canary, challenger, shown
from tests.support.patience import eventually, patient
from tests.support.world import PATH, Load, Model, World
from understudy.monitor.pipeline.state import FILE_NAME


def reaches(world: World, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The challenger once ``holds`` is true of it."""

    def check() -> dict[str, Any] | None:
        found = challenger(world)
        return found if holds(found) else None

    result: dict[str, Any] = eventually(check)
    return result


def audit(world: World) -> list[dict[str, Any]]:
    found = httpx.get(world.service.control + "/v1/experiments/ramp/audit").json()
    assert found["first_damaged_line"] is None
    entries: list[dict[str, Any]] = found["entries"]
    return entries


def score_of(world: World, **headers: str) -> float:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
    answer = httpx.post(world.service.url + PATH, json={"inputs": [tensor]}, headers=headers)
    assert answer.status_code == 200, answer.text
    return float(answer.json()["outputs"][0]["data"][0])


def test_a_good_challenger_goes_through_the_stages(tmp_path: Path) -> None:
    with World(tmp_path, Model("second"), experiments=[canary()]) as world:
        load = Load(world.service.url)
        found = reaches(world, lambda c: c["phase"] == "promoted")
        assert found["weight"] == 1.0
        stages = [entry["stage"] for entry in audit(world) if entry["kind"] == "advanced"]
        assert stages == ["20 %", "50 %"]
        load.answered(100)
        assert {score_of(world) for _ in range(20)} == {0.7}
        assert set(load.stop()) == {"200"}
        entries = audit(world)
        assert entries[0]["kind"] == "began"
        assert entries[-1]["kind"] == "promoted"
        assert all(entry["who"] and entry["why"] for entry in entries)
        metrics = world.metrics()
        labels = 'experiment="ramp",challenger="other0"'
        found_keys = [key for key in metrics if "experiment_decision" in key and "promote" in key]
        assert found_keys
        assert labels.split(",")[0] in found_keys[0]
        assert metrics[found_keys[0]] == 1.0


def test_a_challenger_that_fails_in_the_shadow_never_serves(tmp_path: Path) -> None:
    with World(tmp_path, Model("drop"), experiments=[canary()]) as world:
        load = Load(world.service.url)
        found = reaches(world, lambda c: c["phase"] == "rolled_back")
        assert "error_rate is worse by more than 5 pp" in found["reasons"][0]
        assert found["requests"]["served"] == 0
        assert set(load.stop()) == {"200"}


def test_a_challenger_that_dies_on_the_stage_is_taken_off(tmp_path: Path) -> None:
    """Its clients see its errors; then the breaker, and soon the test, send them to the champion."""
    other = Model("second")
    stages = [{"weight": 0.5, "requests": 10_000_000}, {"weight": 1.0}]
    with World(tmp_path, other, experiments=[canary(stages=stages, down_after="2s")]) as world:
        load = Load(world.service.url)
        reaches(world, lambda c: c["requests"]["served"] > 200)
        other.kill()
        found = reaches(world, lambda c: c["phase"] == "rolled_back")
        assert found["weight"] == 0.0
        assert any(text in found["reasons"][0] for text in ("other0 is down", "is worse"))

        def none_goes_to_it() -> bool:
            load.all_answered()
            before = load.seen["502"]
            time.sleep(1.5)  # longer than its breaker is open at most
            load.answered(300)
            load.all_answered()
            return load.seen["502"] == before

        eventually(none_goes_to_it)
        seen = load.stop()
        assert set(seen) <= {"200", "502"}
        assert seen["502"] < 500
        assert world.total("understudy_experiment_diverted_total", experiment="ramp") > 0


def test_without_traffic_nothing_moves(tmp_path: Path) -> None:
    with World(tmp_path, Model(), experiments=[canary(max_duration="1s")]) as world:
        eventually(lambda: shown(world)["running_seconds"] > 3.0)
        found = challenger(world)
        assert (found["phase"], found["stage"]["number"]) == ("running", 1)
        assert (found["decision"], found["reasons"]) == ("continue", ["no traffic yet"])
        assert [entry["kind"] for entry in audit(world)] == ["began"]


def test_killed_again_and_again_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """The evaluation plane, then the whole service, again and again: the same units stay with the
    same arms, no evidence is lost or doubled, and the audit log is whole."""
    stages = [{"weight": 0.3, "requests": 10_000_000}, {"weight": 1.0}]
    unit = {"by": "header", "name": "x-user"}
    with World(tmp_path, Model("second"), experiments=[canary(stages=stages, unit=unit)]) as world:
        reaches(world, lambda c: c["weight"] == 0.3)
        users = [f"user-{i}" for i in range(60)]

        def arms() -> list[float]:
            return [score_of(world, **{"x-user": user}) for user in users]

        # All workers have heard of the shares.
        before = eventually(lambda: 0.7 in (found := arms()) and found == arms() and found)
        assert 5 < before.count(0.7) < 35
        for _ in range(2):
            world.kill("understudy.monitor.service")
            assert arms() == before
            eventually(lambda: challenger(world)["weight"] == 0.3)
            assert arms() == before
        for _ in range(2):
            world.service.signal(signal.SIGKILL)
            world.service.wait()
            world.service.start()
            assert arms() == before, "the first request already goes where its unit belongs"
            eventually(lambda: challenger(world)["weight"] == 0.3)
            assert arms() == before
        assert [entry["kind"] for entry in audit(world)] == ["began"]


def test_evidence_is_neither_lost_nor_doubled_when_the_evaluation_dies(tmp_path: Path) -> None:
    stages = [{"weight": 0.5, "requests": 10_000_000}, {"weight": 1.0}]
    with World(tmp_path, Model("second"), experiments=[canary(stages=stages)]) as world:
        reaches(world, lambda c: c["weight"] == 0.5)
        # Slow enough that the queue of records holds what comes during a restart.
        load = Load(world.service.url, pause=0.02)
        for restarts in range(1, 5):
            load.answered(300)
            world.kill("understudy.monitor.service")
            eventually(lambda n=restarts: world.total("understudy_evaluation_restarts_total") == n)
        load.answered(300)
        seen = load.stop()
        assert set(seen) == {"200"}
        world.settled()
        counted = {
            arm: world.total("understudy_requests_total", arm=arm, role="primary", outcome="ok")
            for arm in ("champion", "other0")
        }

        def settled() -> bool:
            found = shown(world)
            requests = found["challengers"][0]["requests"]
            assert requests["served"] <= counted["other0"], "some counted twice"
            assert found["left_out"]["around_changes_of_weights"] == 0
            # A worker that heard of the shares late served its first requests outside of them.
            assert requests["champion_served"] <= counted["champion"]
            # On a machine that is so slow that the queue of records ran full, those that found no
            # room, or were not saved yet and had to give theirs, were counted: nothing else may be
            # missing.
            uncounted = sum(
                world.total(f"understudy_{name}_total") for name in ("dropped", "records_lost")
            )
            return bool(counted["other0"] - requests["served"] <= uncounted)

        eventually(settled)
        assert shown(world)["split"]["honoured"]


def test_people_decide_and_have_to_say_who_and_why(tmp_path: Path) -> None:
    stages = [
        {"weight": 0.0, "requests": 1, "gate": "manual"},
        {"weight": 0.5, "requests": 10_000_000},
        {"weight": 1.0},
    ]
    with World(tmp_path, Model("second"), experiments=[canary(stages=stages)]) as world:
        base = world.service.control + "/v1/experiments/ramp"
        early = httpx.post(base + "/promote", json={"who": "ada"})
        assert early.status_code == 409
        assert "force" in early.json()["error"]["message"]
        load = Load(world.service.url)
        reaches(world, lambda c: c["phase"] == "waiting")
        done = httpx.post(base + "/promote", json={"who": "ada", "why": "looks well"})
        assert done.status_code == 200, done.text
        assert done.json()["challengers"][0]["weight"] == 0.5
        eventually(lambda: {score_of(world) for _ in range(12)} == {0.5, 0.7})
        assert httpx.post(base + "/pause", json={"who": "ada"}).status_code == 200
        assert challenger(world)["phase"] == "paused"
        assert httpx.post(base + "/abort", json={"who": "ada"}).status_code == 409, "why?"
        assert httpx.post(base + "/abort", json={}).status_code == 422
        gone = httpx.post(base + "/abort", json={"who": "ada", "why": "a wrong build"})
        assert gone.status_code == 200
        eventually(lambda: {score_of(world) for _ in range(12)} == {0.5})
        assert set(load.stop()) == {"200"}
        who = [(e["kind"], e["who"], e["why"]) for e in audit(world) if e["who"] == "ada"]
        assert who[0][0] == "advanced"
        assert who[-1][0] == "aborted"
        assert who[-1][2] == "a wrong build"
        assert httpx.get(base[:-4] + "nothing").status_code == 404


def test_an_experiment_begins_and_ends_over_the_api(tmp_path: Path) -> None:
    with World(tmp_path, Model("second")) as world:
        base = world.service.control + "/v1/experiments"
        bad = httpx.post(base, json=canary(metrics=[{"metric": "error_rate", "margin": 0.01}]))
        assert bad.status_code == 422
        assert "metrics[0].margin: 0.01 has no unit" in bad.json()["error"]["message"]
        unknown = httpx.post(base, json=canary(challengers=["nobody"]))
        assert "challengers[0]: there is no challenger 'nobody'" in unknown.text
        split = {
            "name": "ramp",
            "challengers": ["other0"],
            "mode": "split",
            "weights": {"other0": 0.5},
            "metrics": GUARDRAILS,
        }
        made = httpx.post(base, json=split, params={"who": "grace"})
        assert made.status_code == 201, made.text
        assert httpx.post(base, json=split).status_code == 422, "a second one of the same name"
        eventually(lambda: {score_of(world) for _ in range(12)} == {0.5, 0.7})
        assert audit(world)[0]["who"] == "grace"
        world.service.signal(signal.SIGTERM)
        assert world.service.wait() == 0
        world.service.start()
        base = world.service.control + "/v1/experiments"
        eventually(lambda: challenger(world)["weight"] == 0.5)
        eventually(lambda: {score_of(world) for _ in range(24)} == {0.5, 0.7})
        assert httpx.delete(base + "/ramp").status_code == 200
        eventually(lambda: {score_of(world) for _ in range(12)} == {0.5})
        assert httpx.get(base).json() == {"experiments": []}


def test_what_controllers_of_others_ask(tmp_path: Path) -> None:
    """Argo Rollouts and Flagger: always an answer, never a NaN, reasons that people can read."""
    with World(tmp_path, Model("drop"), experiments=[canary()]) as world:
        api = world.service.control + "/v1"

        def argo() -> dict[str, Any]:
            answer = httpx.get(api + "/argo/ramp")
            assert answer.status_code == 200
            data = json.loads(answer.text, parse_constant=lambda name: pytest.fail(name))["data"]
            assert data["decision"] in ("promote", "rollback", "continue", "invalid")
            found: dict[str, Any] = data
            return found

        def hook(name: str) -> httpx.Response:
            body = {"name": "m", "namespace": "prod", "phase": "Progressing", "metadata": {}}
            return httpx.post(f"{api}/flagger/ramp/{name}", json=body)

        assert argo()["decision"] == "continue", "no data yet"
        assert hook("confirm-traffic-increase").status_code == 200
        assert hook("confirm-promotion").status_code == 403
        assert "no traffic yet" in hook("confirm-promotion").text
        assert hook("rollback").status_code == 403, "a success would mean: roll back"
        assert httpx.get(api + "/argo/nothing").status_code == 404
        load = Load(world.service.url)
        eventually(lambda: argo()["decision"] == "rollback")
        world.kill("understudy.monitor.service")
        # In between nobody answers, which Argo counts as an error of the measurement; then it is
        # the same answer as before.
        eventually(lambda: argo()["decision"] == "rollback")
        assert (argo()["cause"], argo()["outcome"]) == ("harm", "roll back: harm")
        metrics = httpx.get(world.service.control + "/metrics").text
        causes = [line for line in metrics.splitlines() if "experiment_decision_cause{" in line]
        assert [line.endswith(" 1.0") for line in causes if 'cause="harm"' in line] == [True]
        assert [line.endswith(" 0.0") for line in causes if 'cause="no_improv' in line] == [True]
        assert hook("rollback").status_code == 200
        stopped = hook("confirm-traffic-increase")
        assert stopped.status_code == 403
        assert "error_rate is worse" in stopped.text
        load.stop()


def test_labels_twice_late_and_for_unknown_requests(tmp_path: Path) -> None:
    metrics = [{"metric": "accuracy", "margin": "20 pp", "base_rate": 0.5}]
    declared = {
        "name": "ramp",
        "challengers": ["other0"],
        "metrics": metrics,
        "label": {"prediction": "p", "threshold": 0.6},
    }
    with World(tmp_path, Model("second"), experiments=[declared]) as world:
        url = world.service.control + "/v1/feedback"
        state = world.service.state / FILE_NAME
        eventually(lambda: challenger(world))
        for i in range(40):
            score_of(world, **{"x-request-id": f"r{i}"})
        labels = [{"request_id": f"r{i}", "label": 1} for i in range(40)]

        def joined() -> int:
            found = httpx.get(world.service.control + "/v1/status").json()["records"]
            return int(found["evaluated"])

        eventually(lambda: joined() >= 80)
        first = httpx.post(url, json=labels)
        assert (first.status_code, first.json()["joined"]) == (200, 40)
        again = httpx.post(url, json=labels[:3])
        assert (again.status_code, again.json()["duplicate"]) == (200, 3)
        other = httpx.post(url, json={"request_id": "r1", "label": 0})
        assert other.json()["conflicts"] == ["r1"]
        orphan = httpx.post(url, json={"request_id": "later", "label": 1})
        assert (orphan.status_code, orphan.json()["orphan"]) == (202, 1)
        score_of(world, **{"x-request-id": "later"})
        lines = '{"request_id": "r0", "reward": "yes"}\n{"request_id": 7}\nno JSON\n'
        bad = httpx.post(url, content=lines, headers={"content-type": "application/x-ndjson"})
        assert bad.status_code == 422
        assert "item 1: reward: must be a number, not 'yes'" in bad.text
        # The champion says 0.5, which is below the threshold: wrong; the challenger's 0.7 is right.
        found = reaches(
            world, lambda c: c["metrics"] and c["metrics"][0]["records"]["champion"] == 41
        )
        assert found["metrics"][0]["champion"] == 0.0
        assert found["metrics"][0]["challenger"] == 1.0
        assert found["metrics"][0]["status"] == "passed"
        # Two arms, each with 41 labels.
        eventually(lambda: json.loads(state.read_bytes())["pipeline"]["labels"] == 2 * 41)
        world.kill("understudy.monitor.service")
        found = reaches(world, lambda c: c["metrics"])
        assert found["metrics"][0]["records"]["champion"] == 41, "not one label counts twice"


def test_requests_that_hang_are_assigned_and_have_no_answer_yet(tmp_path: Path) -> None:
    """A challenger that never answers has its share of the requests all the same."""
    stages = [{"weight": 0.5, "requests": 10_000_000}, {"weight": 1.0}]
    experiments, mirror = [canary(stages=stages)], {"timeout": "1s"}
    with World(tmp_path, Model("hang"), experiments=experiments, mirror=mirror) as world:
        reaches(world, lambda c: c["weight"] == 0.5)

        def ask(_: int) -> None:
            with contextlib.suppress(httpx.TimeoutException):
                httpx.post(world.service.url + PATH, json={"inputs": []}, timeout=patient(6.0))

        with ThreadPoolExecutor(40) as clients:
            asked = clients.map(ask, range(40))

            def only_the_challenger_hangs() -> bool:
                champion, other = shown(world)["unanswered"]["in_flight"]
                return champion == 0 and other > 0

            eventually(only_the_challenger_hangs)
            units = eventually(lambda: sum(n := shown(world)["split"]["units"]) == 40 and n)
            assert min(units) > 4
            assert shown(world)["split"]["honoured"]
            list(asked)
        eventually(lambda: shown(world)["unanswered"]["in_flight"] == [0, 0])
        assert shown(world)["unanswered"]["not_tracked"] == 0
