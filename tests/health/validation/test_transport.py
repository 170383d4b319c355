"""Cases take the way of the requests, through the workers of a real service, and are no traffic."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually
from tests.support.service import REAL, Service
from tests.support.validation_cases import CASES, Model, write
from understudy.monitor.health.validation.rehearsal import MARK

PATH = "/v1/models/m:predict"


def total(service: Service, name: str, **labels: str) -> float:
    text = httpx.get(f"{service.control}/metrics").text
    found = 0.0
    for line in text.splitlines():
        if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            found += float(line.rpartition(" ")[2])
    return found


def validation(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.control}/v1/validation").json()
    return found


def test_cases_pass_workers_and_are_not_counted(tmp_path: Path) -> None:
    champion, challenger = Model(), Model()
    service = Service(
        tmp_path,
        REAL,
        models=[{"name": "m", "protocol": "kserve-v1"}],
        champion={"url": champion.url, "headers": {"x-added": "by the sidecar"}},
        challengers=[{"name": "next", "url": challenger.url}],
        validation={
            "cases": str(write(tmp_path / "cases.jsonl", CASES)), "every": "300ms", "max_rate": "1000/s",
        },
    ).start()  # fmt: skip
    try:
        eventually(lambda: validation(service)["rounds"] >= 2)
        found = validation(service)
        assert found["way"] == "workers"
        assert {g["arm"] for g in found["groups"]} == {"champion", "next"}
        assert all(g["failed"] == 0 for g in found["groups"]), found
        assert champion.marked >= 16
        assert champion.added == champion.marked, "by the worker's own way"
        assert challenger.marked >= 16
        assert total(service, "understudy_requests_total") == 0
        assert total(service, "understudy_mirror_total") == 0
        assert total(service, "understudy_connections_accepted_total") == 0
        status = httpx.get(f"{service.control}/v1/status").json()
        assert status["records"]["eligible"] == 0
        # A client that says the same is a client: it is counted, and mirrored.
        body = json.dumps({"instances": [{"a": 1.0}]})
        headers = {MARK: "1", "x-understudy-arm": "next", "content-type": "application/json"}
        assert httpx.post(service.url + PATH, content=body, headers=headers).status_code == 200
        eventually(lambda: total(service, "understudy_requests_total", arm="champion") == 1)
        eventually(lambda: total(service, "understudy_mirror_total", arm="next", outcome="ok") == 1)
        # Only who runs the service can open the door.
        probes = sorted((tmp_path / "state" / "run").glob("case*.sock"))
        assert len(probes) == 2
        assert all(stat.S_IMODE(probe.stat().st_mode) == 0o600 for probe in probes)
        # What passed and does not is found, and the breaker of no arm has opened for it.
        challenger.factor = 0.2
        titles = eventually(
            lambda: [
                f["title"]
                for f in httpx.get(f"{service.control}/v1/findings").json()["findings"]
                if f["kind"] == "validation"
            ]
        )
        assert "next" in titles[0]
    finally:
        service.stop()
        champion.server.shutdown()
        challenger.server.shutdown()


def test_unknown_arms_are_rejected_and_dead_workers_skipped(tmp_path: Path) -> None:
    model = Model()
    service = Service(
        tmp_path,
        REAL,
        models=[{"name": "m", "protocol": "kserve-v1"}],
        champion={"url": model.url},
        validation={
            "cases": str(write(tmp_path / "cases.jsonl", CASES)), "every": "300ms", "max_rate": "1000/s",
        },
    ).start()  # fmt: skip
    try:
        eventually(lambda: validation(service)["rounds"] >= 1)
        probe = min((tmp_path / "state" / "run").glob("case*.sock"))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(probe))) as client:
            answer = client.post("http://x" + PATH, json={}, headers={"x-understudy-arm": "odd"})
            assert answer.status_code == 400
            assert "unknown arm 'odd'" in answer.json()["error"]
        rounds = validation(service)["rounds"]
        worker = httpx.get(f"{service.control}/v1/status").json()["workers"][0]["pid"]
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: validation(service)["rounds"] >= rounds + 3)
        found = validation(service)
        assert all(g["failed"] == 0 for g in found["groups"]), found
    finally:
        service.stop()
        model.server.shutdown()


def test_model_servers_on_unix_sockets(tmp_path: Path) -> None:
    """Named in the configuration relative to it, asked by clients and by the validation."""
    champion, challenger = Model(tmp_path / "one.sock"), Model(tmp_path / "two.sock")
    service = Service(
        tmp_path,
        REAL,
        models=[{"name": "m", "protocol": "kserve-v1"}],
        champion={"url": "unix:one.sock"},
        challengers=[{"name": "next", "url": f"{challenger.url}:/prefix/"}],
        validation={
            "cases": str(write(tmp_path / "cases.jsonl", CASES)), "every": "300ms", "max_rate": "1000/s",
        },
    ).start()  # fmt: skip
    try:
        answer = httpx.post(service.url + PATH, json={"instances": [{"a": 3.0}]})
        assert answer.json() == {"predictions": [{"p": 3.0 * 0.1}]}
        eventually(lambda: total(service, "understudy_mirror_total", outcome="ok") == 1)
        eventually(lambda: validation(service)["rounds"] >= 1)
        found = validation(service)
        assert found["way"] == "workers"
        assert {g["arm"] for g in found["groups"]} == {"champion", "next"}
        assert all(g["failed"] == 0 for g in found["groups"]), found
    finally:
        service.stop()
        champion.server.shutdown()
        challenger.server.shutdown()


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_cases_go_directly_without_workers_or_on_request(
    tmp_path: Path, direct: bool, unix: bool
) -> None:
    from understudy.monitor.config.load import load
    from understudy.monitor.health.validation.rehearsal import Validation

    model = Model(tmp_path / "model.sock" if unix else None)
    cases = write(tmp_path / "cases.jsonl", CASES)
    path = tmp_path / "understudy.yaml"
    document = {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [{"name": "m", "protocol": "kserve-v1"}],
        "champion": {"url": model.url},
        "validation": {"cases": str(cases), "max_rate": "1000/s", "direct": direct},
    }
    path.write_text(json.dumps(document))
    room = Validation(load(path), tmp_path)
    if direct:
        (tmp_path / "case0.sock").touch()
    assert room.round()
    assert room.summary()["way"] == "direct"
    model.server.shutdown()
