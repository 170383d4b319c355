"""What the console reads: arms, history, events and their stream, records by page, timelines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.console_world import past_findings, past_traffic
from tests.support.patience import eventually, patient
from tests.support.plane_process import PlaneProcess, WorkerEnd, encoded
from tests.support.promoted import dead, follow_promotion, served
from understudy.monitor.records import frames

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PlaneProcess, list[str]]]:
    plane = PlaneProcess(tmp_path_factory.mktemp("world"))
    now = time.time()
    past_traffic(plane.state_dir, now)
    ids = past_findings(plane.state_dir, now)
    plane.stats()
    with plane:
        plane.report(0)
        worker = WorkerEnd(plane)
        worker.batch(
            1,
            [
                encoded({"a": [1.5]}, {"p": [0.25]}, request_id="first"),
                encoded({"a": [1.5]}, {"p": [0.75]}, arm=1, role=1, request_id="first"),
                encoded({"a": [2.5]}, None, outcome=3, request_id="second"),
                encoded({"a": [3.5]}, {"p": [0.5]}, request_id="third"),
            ],
        )
        worker.wait_for(frames.ACK, 1)
        yield plane, ids


def told(plane: PlaneProcess, path: str) -> Any:
    answer = plane.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_history_over_a_restart(world: tuple[PlaneProcess, list[str]]) -> None:
    plane, _ = world
    found = eventually(
        lambda: (
            (one := told(plane, "/v1/history?series=rate,error_rate,p99&from=-1800"))["series"]
            and one
        )
    )
    by_name = {(one["name"], one["arm"], one["role"]): one for one in found["series"]}
    assert by_name["rate", "candidate", "mirror"]["unit"] == "requests/second"
    p99 = [v for v in by_name["p99", "champion", "primary"]["values"] if v is not None]
    assert all(0.02 < value < 0.1 for value in p99)
    errors = by_name["error_rate", "champion", "primary"]["values"]
    assert errors[len(errors) // 3] == 0.0
    assert max(v or 0.0 for v in errors) == pytest.approx(0.2)
    assert found["step"] == 10
    coarse = eventually(  # its ring has minutes, and gets one when it is over
        lambda: (
            (one := told(plane, "/v1/history?series=requests&arm=champion&from=-1800&step=600"))[
                "series"
            ]
            and one
        )
    )
    assert coarse["step"] == 600
    (requests,) = coarse["series"]
    assert sum(v or 0 for v in requests["values"]) >= 20 * 178
    for wrong in ("series=nothing", "series=", "from=5&to=4", "from=0&to=9e9", "step=0",
                  "role=other", f"series={','.join(['rate'] * 13)}"):  # fmt: skip
        assert plane.get(f"/v1/history?{wrong}").status_code == 422, wrong


def test_events_go_on_where_a_reader_was(world: tuple[PlaneProcess, list[str]]) -> None:
    plane, ids = world
    found = told(plane, "/v1/events")
    events = [one for one in found["events"] if one["kind"] == "finding"]
    assert {one["finding"] for one in events} == set(ids)
    assert events[0]["event"] == "opened"
    assert "Accuracy of delays" in events[0]["title"]
    numbers = [one["id"] for one in found["events"]]
    assert numbers == sorted(set(numbers))
    assert found["last"] == numbers[-1]
    assert told(plane, f"/v1/events?after={found['last']}")["events"] == []
    later = told(plane, f"/v1/events?after={numbers[0]}")["events"]
    assert [one["id"] for one in later] == numbers[1:]


def test_the_stream_resumes(world: tuple[PlaneProcess, list[str]]) -> None:
    plane, ids = world
    numbers = [one["id"] for one in told(plane, "/v1/events")["events"]]
    headers = {"last-event-id": str(numbers[0])}
    seen: list[int] = []
    beats = 0
    with httpx.stream(
        "GET", f"{plane.url}/v1/stream", headers=headers, timeout=patient(30)
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind = ""
        acknowledged = False
        for line in answer.iter_lines():
            if line.startswith("id: "):
                seen.append(int(line[4:]))
            kind = line[7:] if line.startswith("event: ") else kind
            if line.startswith("data: ") and kind == "beat":
                beats += 1
                assert json.loads(line[6:])["age"] < patient(60)
            if beats and not acknowledged:
                acknowledged = True
                note = {"who": "ada", "why": "known"}
                posted = httpx.post(f"{plane.url}/v1/findings/{ids[0]}/acknowledge", json=note)
                assert posted.status_code == 200
            if line.startswith("data: ") and kind == "change" and "acknowledged" in line:
                break
    assert seen[: len(numbers) - 1] == numbers[1:]
    assert len(seen) == len(numbers), "and the new one, once"


def test_the_timeline_of_a_finding(world: tuple[PlaneProcess, list[str]]) -> None:
    plane, ids = world
    changes = told(plane, f"/v1/findings/{ids[0]}/timeline")["changes"]
    assert [one["event"] for one in changes][:2] == ["opened", "updated"]
    assert [one["size"]["value"] for one in changes][:2] == [0.78, 0.70]
    assert changes[0]["at"] < changes[1]["at"]
    assert plane.get("/v1/findings/nothing/timeline").status_code == 404
    document = told(plane, f"/v1/findings/{ids[0]}")
    assert document["links"]["page"] == f"/?finding={ids[0]}"
    assert document["links"]["runbook"].endswith("UnderstudyPerformance.md")


def test_records_by_filter_page_and_pair(world: tuple[PlaneProcess, list[str]]) -> None:
    plane, _ = world

    def ids(query: str) -> list[str]:
        return [f"{one['request_id']}/{one['arm']}" for one in told(
            plane, f"/v1/records?{query}")["records"]]  # fmt: skip

    assert ids("outcome=error") == ids("outcome=timeout") == ["second/champion"]
    assert ids("role=mirror") == ids("arm=candidate") == ["first/candidate"]
    assert ids("model=other") == []
    assert ids("request_id=third") == ["third/champion"]
    assert ids("longer=1e6") == []
    assert len(ids("shorter=1e6")) == 4
    pages, before = [], ""
    for _ in range(4):
        page = told(plane, f"/v1/records?limit=1{before}")
        pages.append(page["records"][0]["request_id"])
        before = f"&before={page['next']}"
    assert pages == ["third", "second", "first", "first"]
    assert page["next"] is None
    (pair,) = told(plane, "/v1/records?pairs=true&request_id=first&role=primary")["records"]
    assert [one["arm"] for one in pair["others"]] == ["candidate"]
    assert pair["others"][0]["predictions"]["values"] == [[0.75]]


def test_distributions_need_a_baseline(world: tuple[PlaneProcess, list[str]]) -> None:
    plane, _ = world
    answer = plane.get("/v1/distributions?model=delays")
    assert answer.status_code == 404
    assert "there are: none" in answer.json()["error"]["message"]


def row_window(plane: PlaneProcess) -> float:
    return float(told(plane, "/v1/arms")["window_seconds"])


def test_arms_in_trouble_come_first_whatever_is_searched(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    follow_promotion(plane)
    with plane:
        plane.report(0)
        served(stats, "candidate", 200)
        served(stats, "champion", 1)
        row = eventually(
            lambda: next(
                (a for a in told(plane, "/v1/arms")["arms"]
                 if a["arm"] == "candidate" and a["requests"] and a["tone"] == "good"), None)
        )  # fmt: skip
        assert row["p99"] == pytest.approx(0.029, rel=0.02)
        assert row["error_rate"] == 0.0
        # Its state was looked at before it changes.
        until = row_window(plane) + 4.0
        eventually(lambda: row_window(plane) >= until)
        dead(stats)
        found = eventually(
            lambda: (one := told(plane, "/v1/arms"))["arms"][0]["diverted_1m"] and one
        )
        assert [arm["arm"] for arm in found["arms"]] == ["candidate", "champion"]
        assert found["arms"][0]["tone"] == "bad"
        assert found["tones"]["bad"] == 1
        searched = told(plane, "/v1/arms?text=champ")
        assert [arm["arm"] for arm in searched["arms"]] == ["champion"]
        assert searched["tones"] == found["tones"]
        assert {arm["tone"] for arm in searched["serving"] if arm["arm"] == "candidate"} == {"bad"}
        assert [a["arm"] for a in told(plane, "/v1/arms?sort=name")["arms"]] == [
            "candidate",
            "champion",
        ]
        assert len(told(plane, "/v1/arms?limit=1")["arms"]) == 1
        events = eventually(
            lambda: [e for e in told(plane, "/v1/events")["events"] if e["kind"] == "arm"]
        )
        assert (events[0]["arm"], events[0]["event"]) == ("candidate", "down")
