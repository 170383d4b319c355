"""Feedback over the API of a real process, from records to metrics."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_fd_to_metric_families

from tests.support.patience import eventually, patient
from tests.support.plane_process import ARMS, PlaneProcess, WorkerEnd, encoded
from understudy.monitor.api.access import BULK_BODY
from understudy.monitor.labels.label import MOST_ITEMS
from understudy.monitor.records import frames, record

TOKEN = "correct horse"
EXPERIMENT = {
    "name": "ramp",
    "challengers": ["candidate"],
    "metrics": [{"metric": "accuracy", "margin": "20 pp", "base_rate": 0.5}],
    "label": {"prediction": "p", "threshold": 0.5},
}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    with PlaneProcess(tmp_path, experiments=[EXPERIMENT]) as process:
        yield process


def serve(
    plane: PlaneProcess, *request_ids: str, seq: int = 1, worker: WorkerEnd | None = None
) -> WorkerEnd:
    """Requests that both arms answered, the challenger as a shadow."""
    worker = worker or WorkerEnd(plane)
    records = [
        encoded({"a": [1.0]}, {"p": [0.25 + 0.5 * arm]}, arm=arm, role=role, request_id=request_id)
        for request_id in request_ids
        for arm, role in ((0, record.ROLE_PRIMARY), (1, record.ROLE_MIRROR))
    ]
    worker.batch(seq, records)
    worker.wait_for(frames.ACK, seq)
    return worker


def post(plane: PlaneProcess, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    kind = {"content-type": "application/json"}
    return httpx.post(
        plane.url + "/v1/feedback",
        content=content,
        headers={**kind, **headers},
        timeout=patient(20),
    )


def outcomes(answer: httpx.Response) -> list[str]:
    return [result["outcome"] for result in answer.json()["results"]]


def test_twice_late_and_unknown(tmp_path: Path) -> None:
    """A row of the failure table: 200, 200 and 202."""
    declared: dict[str, Any] = {"experiments": [EXPERIMENT], "feedback": {"horizon": "400s"}}
    with PlaneProcess(tmp_path, **declared) as plane:
        worker = serve(plane, "r-1")
        label = {"request_id": "r-1", "label": 1}
        first, again = post(plane, label), post(plane, label)
        assert (first.status_code, outcomes(first)) == (200, ["joined"])
        assert (again.status_code, outcomes(again)) == (200, ["duplicate"])
        other = post(plane, {**label, "label": 0})
        assert (other.status_code, other.json()["conflicts"]) == (200, ["r-1"])
        unknown = post(plane, {"request_id": "r-2", "label": 1})
        assert (unknown.status_code, outcomes(unknown)) == (202, ["orphan"])
        serve(plane, "r-2", seq=2, worker=worker)
        eventually(lambda: plane.get("/v1/feedback").json()["joined_later"] == 1)
        # Beyond the horizon, and not yet forgotten.
        old = [encoded({"a": [1.0]}, {"p": [0.5]}, request_id="old", duration=420.0)]
        worker.batch(3, old)
        worker.wait_for(frames.ACK, 3)
        late = post(plane, {"request_id": "old", "label": 1})
        assert (late.status_code, outcomes(late)) == (200, ["late"])


def test_a_source_may_correct_itself_before_the_label_counts(tmp_path: Path) -> None:
    """A second opinion of another source is a conflict."""
    declared: dict[str, Any] = {"experiments": [EXPERIMENT], "feedback": {"settle": "1h"}}
    with PlaneProcess(tmp_path, **declared) as plane:
        serve(plane, "r-1")
        label = {"request_id": "r-1", "label": 1, "source": "desk"}
        assert outcomes(post(plane, label)) == ["joined"]
        corrected = post(plane, {**label, "label": 0})
        assert (corrected.status_code, outcomes(corrected)) == (200, ["corrected"])
        other = post(plane, {**label, "source": "audit"})
        assert other.json()["conflicts"] == ["r-1"]
        found = plane.get("/v1/feedback").json()
        assert found["corrections"] == {"in_time": 1, "after_use": 0}
        assert found["labels"]["conflict"] == 1


def test_good_items_are_taken_and_bad_ones_named(plane: PlaneProcess) -> None:
    serve(plane, "r-1", "r-2")
    body = [
        {"request_id": "r-1", "label": 1},
        {"request_id": "r-2", "reward": "yes"},
        {"request_id": "r-2", "label": [0, 1]},
    ]
    answer = post(plane, body)
    assert answer.status_code == 200
    found = answer.json()
    assert found["results"] == [
        {"item": 1, "request_id": "r-1", "row": 0, "outcome": "joined"},
        {
            **{"item": 2, "outcome": "invalid"},
            "error": "item 2: reward: must be a number, not 'yes'",
        },
        {"item": 3, "request_id": "r-2", "row": 0, "outcome": "joined"},
        {"item": 3, "request_id": "r-2", "row": 1, "outcome": "joined"},
    ]
    assert (found["joined"], found["invalid"]) == (3, 1)
    lines = '{"request_id": "r-1", "label": 1}\n\n{"request_id": 7}\n'
    mixed = post(plane, lines, **{"content-type": "application/jsonl"})
    assert (mixed.status_code, outcomes(mixed)) == (200, ["duplicate", "invalid"])
    assert mixed.json()["faults"][0].startswith("item 3: request_id: must be a text")


def test_what_cannot_be_read_is_refused(plane: PlaneProcess) -> None:
    cases: list[tuple[Any, int, str]] = [
        (b"{", 422, "the body is not valid JSON"),
        ([], 422, "the body has no items"),
        (
            [{"request_id": "r"}, 3],
            422,
            "item 1: label: is missing: give a label or a reward; item 2",
        ),
        ([3] * 30, 422, "and 10 more"),
        ([{"request_id": "r", "label": 1}] * (MOST_ITEMS + 1), 413, "more than 10,000 items"),
        (b" " * (BULK_BODY + 1), 413, "more than 8,388,608 bytes"),
    ]
    for body, code, message in cases:
        answer = post(plane, body)
        assert answer.status_code == code
        assert message in answer.json()["error"]["message"]
    assert plane.get("/v1/feedback").json()["labels"]["orphan"] == 0, "nothing was taken"


def test_the_token_is_needed_where_there_is_one(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path, experiments=[EXPERIMENT])
    plane.start(UNDERSTUDY_TEST_TOKEN=TOKEN)
    with plane:
        label = {"request_id": "r", "label": 1}
        assert post(plane, label).status_code == 401
        assert post(plane, label, authorization="Bearer no").status_code == 403
        assert post(plane, label, authorization=f"Bearer {TOKEN}").status_code == 202
        assert plane.get("/v1/feedback").status_code == 200


def test_feedback_can_be_switched_off(tmp_path: Path) -> None:
    declared: dict[str, Any] = {"experiments": [EXPERIMENT], "feedback": {"enabled": False}}
    with PlaneProcess(tmp_path, **declared) as plane:
        serve(plane, "r-1")
        answer = post(plane, {"request_id": "r-1", "label": 1})
        assert answer.status_code == 409
        assert "feedback.enabled" in answer.json()["error"]["message"]
        assert plane.get("/v1/feedback").json() == {"enabled": False}
        assert not (plane.state_dir / "feedback.sqlite").exists()


def test_delays_and_coverage_are_shown_for_each_arm(plane: PlaneProcess) -> None:
    serve(plane, "r-1", "r-2")
    post(plane, [{"request_id": "r-1", "label": 1}, {"request_id": "r-9", "label": 1}])
    found = plane.get("/v1/feedback").json()
    assert found["waiting"] == {"predictions": 4, "labels": 2, "orphans": 1}
    for arm in ARMS:
        assert found["coverage"][arm]["predictions"] == 2
        assert found["coverage"][arm]["labelled"] == 1
        assert found["delays"][arm]["count"] == 1
        assert plane.metric("understudy_feedback_predictions", arm=arm) == 2
        assert plane.metric("understudy_feedback_delay_seconds_count", arm=arm) == 1
        assert plane.metric("understudy_feedback_delay_seconds", arm=arm, quantile="0.5") > 0
    assert plane.metric("understudy_feedback_total", outcome="joined") == 1
    assert plane.metric("understudy_feedback_total", outcome="orphan") == 1
    assert plane.metric("understudy_feedback_total", outcome="late") == 0
    assert plane.metric("understudy_feedback_orphans") == 1
    assert plane.metric("understudy_feedback_failures_total") == 0
    openmetrics = plane.get("/metrics", headers={"accept": "application/openmetrics-text"}).text
    parse: Any = text_fd_to_metric_families
    families = {family.name: family.type for family in parse(StringIO(openmetrics))}
    assert families["understudy_feedback_delay_seconds"] == "summary"
    assert families["understudy_feedback"] == "counter"


def test_the_counts_survive_kill_9(plane: PlaneProcess) -> None:
    serve(plane, "r-1")
    labels = [{"request_id": "r-1", "label": 1}, {"request_id": "r-9", "label": 1}]
    assert outcomes(post(plane, labels)) == ["joined", "orphan"]
    plane.kill()
    plane.start()
    assert plane.get("/v1/feedback").json()["labels"]["joined"] == 1
    assert outcomes(post(plane, labels)) == ["duplicate", "duplicate"]
    assert plane.metric("understudy_feedback_orphans") == 1


def test_a_damaged_file_is_set_aside_and_labels_are_taken(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path, experiments=[EXPERIMENT])
    plane.state_dir.mkdir()
    (plane.state_dir / "feedback.sqlite").write_bytes(b"no database" * 100)
    with plane:
        serve(plane, "r-1")
        assert outcomes(post(plane, {"request_id": "r-1", "label": 1})) == ["joined"]
    assert (plane.state_dir / "feedback.sqlite.damaged").exists()


def test_a_full_disk_refuses_labels_and_nothing_else(plane: PlaneProcess) -> None:
    serve(plane, "r-1")
    assert plane.process is not None
    process, limit = plane.process.pid, resource.RLIMIT_FSIZE
    _, hard = resource.prlimit(process, limit, (64, -1))
    labels = [{"request_id": f"r-{i}", "label": "x" * 4000} for i in range(1, 1500)]
    refused = post(plane, labels)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert "feedback.sqlite" in refused.json()["error"]["message"]
    assert plane.get("/v1/feedback").json()["error"]
    assert plane.get("/v1/experiments/ramp").status_code == 200
    assert plane.metric("understudy_feedback_failures_total") >= 1
    resource.prlimit(process, limit, (hard, hard))
    assert set(outcomes(post(plane, labels))) == {"joined", "orphan"}, "nothing had been taken"
    eventually(lambda: plane.get("/v1/feedback").json()["error"] is None)


def test_openapi_has_the_answers_with_examples(plane: PlaneProcess) -> None:
    operation = plane.get("/openapi.json").json()["paths"]["/v1/feedback"]["post"]
    assert {"200", "202", "401", "403", "409", "413", "422", "503"} <= set(operation["responses"])
    for code in ("200", "202"):
        described = operation["responses"][code]["content"]["application/json"]
        counted = [result["outcome"] for result in described["example"]["results"]]
        for outcome in ("joined", "orphan", "invalid"):
            assert described["example"][outcome] == counted.count(outcome)
    body = operation["requestBody"]["content"]
    for example in body["application/json"]["examples"].values():
        assert post(plane, example["value"]).status_code in (200, 202)
    lines = body["application/x-ndjson"]["example"]
    assert post(plane, lines, **{"content-type": "application/x-ndjson"}).status_code == 200
