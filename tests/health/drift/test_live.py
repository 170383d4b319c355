"""A model that is watched, in the real process of the evaluation plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import eventually
from tests.support.plane_process import MODEL, PlaneProcess, WorkerEnd, encoded
from tests.support.source import NAMES, Source, saved
from understudy.monitor.records import frames

ROWS = 50


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    model = {**MODEL, "baseline": saved(tmp_path)}
    with PlaneProcess(tmp_path, models=[model], monitoring={"hold": "1s"}) as running:
        yield running


class Rows:
    """Sends rows to a plane, request by request, and waits until they are taken."""

    def __init__(self, plane: PlaneProcess, first: int = 1) -> None:
        self.worker = WorkerEnd(plane)
        self.source = Source(7)
        self.number = first - 1

    def send(self, count: int, change: Callable[[list[Any]], None] | None = None) -> None:
        for start in range(0, count, ROWS):
            records = []
            for number in range(start, start + ROWS):
                row = self.source.row()
                if change is not None:
                    change(row)
                features = {name: [cell] for name, cell in zip(NAMES, row, strict=True)}
                answer = {"p": [self.source.score()]}
                records.append(encoded(features, answer, request_id=f"r-{self.number}-{number}"))
            self.number += 1
            self.worker.batch(self.number, records)
        self.worker.wait_for(frames.ACK, self.number)


def watched(plane: PlaneProcess) -> dict[str, Any]:
    found: dict[str, Any] = plane.get("/v1/drift").json()["models"][0]
    return found


def findings(plane: PlaneProcess, state: str, count: int) -> list[dict[str, Any]]:
    """Findings in a state, once there are so many; else none."""
    found: list[dict[str, Any]] = plane.get("/v1/findings", params={"state": state}).json()[
        "findings"
    ]
    return found if len(found) == count else []


def test_a_fault_opens_a_finding_which_closes_afterwards(plane: PlaneProcess) -> None:
    rows = Rows(plane)
    rows.send(1500)
    eventually(lambda: watched(plane)["rows"] == 1500)
    assert not any(s["drifted"] for s in watched(plane)["series"])
    assert plane.metric("understudy_drift_detected", feature="amount") == 0.0

    def in_cents(row: list[Any]) -> None:
        row[0] *= 100.0

    rows.send(300, in_cents)
    eventually(lambda: plane.metric("understudy_drift_detected", feature="amount") == 1.0)
    found = eventually(lambda: findings(plane, "open", 2))
    assert {f["kind"] for f in found} == {"quality", "drift"}
    for one in found:
        assert one["features"][0]["name"] == "amount"
        assert one["advice"]
        assert "false alarm" in one["guarantee"]
    drift = next(f for f in found if f["kind"] == "drift")
    assert "was" in drift["features"][0]["detail"]
    assert drift["size"]["low"] > 1.0, "the ranks have moved by more than a standard deviation"
    assert plane.status()["findings"]["open"] == 2
    assert plane.metric("understudy_drift_detected", feature="age") == 0.0
    assert plane.metric("understudy_feature_violations_total", feature="amount", rule="range") > 0
    rows.send(2000)
    eventually(lambda: plane.metric("understudy_drift_detected", feature="amount") == 0.0)
    assert len(eventually(lambda: findings(plane, "closed", 2))) == 2
    assert plane.metric("understudy_findings_total", kind="drift") == 1.0


def test_state_survives_sigkill(plane: PlaneProcess) -> None:
    rows = Rows(plane)
    rows.send(1000)

    def nothing(row: list[Any]) -> None:
        row[1] = None

    rows.send(100, nothing)
    rule = {"feature": "age", "rule": "missing"}
    eventually(lambda: plane.metric("understudy_feature_violations_total", **rule) == 100.0)
    rows.worker.wait_for(frames.COMMIT, rows.number)
    plane.kill()
    plane.start()
    found = watched(plane)
    assert found["rows"] == 1100
    assert {"feature": "age", "rule": "missing", "broken": True}.items() <= next(
        r for r in found["rules"] if r["feature"] == "age"
    ).items()
    assert plane.metric("understudy_feature_violations_total", **rule) == 100.0


def test_a_baseline_is_learned_and_can_be_downloaded(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path, monitoring={"learn": 1000}) as plane:
        assert plane.get("/v1/baseline").status_code == 404
        rows = Rows(plane)
        rows.send(500)
        eventually(lambda: watched(plane)["learning"] == {"rows": 500, "wanted": 1000})
        rows.send(600)
        found = eventually(lambda: plane.get("/v1/baseline").json().get("columns"))
        assert set(found) == {*NAMES, "p"}
        assert found["p"]["role"] == "prediction"
        eventually(lambda: watched(plane)["rows"] == 100)
        rows.worker.wait_for(frames.COMMIT, rows.number)
        plane.kill()
        plane.start()
        assert watched(plane)["rows"] == 100, "what was learned is kept"


def test_an_invalid_baseline_is_reported_and_other_models_are_watched(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"format": "something else"}')
    model = {**MODEL, "baseline": str(wrong)}
    with PlaneProcess(tmp_path, models=[model]) as plane:
        assert "not a baseline" in watched(plane)["error"]
        Rows(plane).send(50)
        eventually(lambda: plane.status()["records"] is not None)
