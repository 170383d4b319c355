"""``understudy serve`` as a whole, with its real workers and its real evaluation plane."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.named_model import ModelServer, predict, status
from tests.support.patience import eventually, patient
from tests.support.service import REAL, Service, alive
from understudy.monitor.pipeline.state import FILE_NAME

TOKEN = "UNDERSTUDY_TEST_TOKEN"


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer("first")
    yield server
    server.close()


@pytest.fixture
def service(tmp_path: Path, model: ModelServer) -> Iterator[Service]:
    control = {"listen": "127.0.0.1:0", "token_env": TOKEN}
    service = Service(tmp_path, REAL, champion={"url": model.url}, control=control)
    with service.start(**{TOKEN: "t"}):
        yield service


def test_the_ready_line_leads_to_everything(service: Service, model: ModelServer) -> None:
    (line,) = service.output
    assert f"-> champion {model.url} (2 workers)" in line
    assert predict(service)["model_name"] == "first"
    eventually(lambda: httpx.get(service.control + "/healthz").status_code == 200)
    eventually(lambda: "understudy_requests_total{" in httpx.get(service.control + "/metrics").text)


def test_a_killed_worker_and_a_killed_evaluation_plane_come_back(service: Service) -> None:
    before = service.children()
    for child in before:
        os.kill(child, signal.SIGKILL)
    assert predict(service)["model_name"] == "first"
    eventually(lambda: len(service.children() - before) == 3)
    eventually(lambda: {w["restarts"] for w in status(service)["workers"]} == {1})
    assert predict(service)["model_name"] == "first"


def test_reload_by_signal_and_by_call(service: Service) -> None:
    second = ModelServer("second")
    try:
        service.write(champion={"url": second.url})
        service.signal(signal.SIGHUP)
        eventually(lambda: {predict(service)["model_name"] for _ in range(6)} == {"second"})
        service.write(champion={"url": "http://nowhere:0"})
        call = service.control + "/v1/config/reload"
        answer = httpx.post(call, headers={"authorization": "Bearer t"})
        assert answer.is_error
        assert "champion.url" in answer.text
        assert predict(service)["model_name"] == "second"
        eventually(lambda: "champion.url" in (status(service)["config"]["error"] or ""))
    finally:
        second.close()


def test_requests_under_way_are_answered_before_the_end(
    service: Service, model: ModelServer
) -> None:
    model.hold.clear()
    answers: list[dict[str, Any]] = []
    client = threading.Thread(target=lambda: answers.append(predict(service)))
    client.start()
    assert model.arrived.acquire(timeout=patient(30))
    children = service.children()
    service.signal(signal.SIGTERM)
    eventually(lambda: "draining" in service.log)
    assert not service.process_ended()
    model.hold.set()
    client.join(patient(30))
    assert answers[0]["model_name"] == "first"
    assert service.wait() == 0
    assert not any(alive(child) for child in children)


def test_nothing_is_left_when_the_supervisor_is_killed(service: Service) -> None:
    children = service.children()
    assert predict(service)["model_name"] == "first"
    service.signal(signal.SIGKILL)
    service.wait()
    eventually(lambda: not any(alive(child) for child in children))


def test_logs_for_machines_in_every_process(tmp_path: Path, model: ModelServer) -> None:
    service = Service(tmp_path, REAL, champion={"url": model.url}, workers=1)
    (service.state / FILE_NAME).write_text("damaged: the evaluation plane says so")
    with service.start(UNDERSTUDY_LOG_FORMAT="json", UNDERSTUDY_LOG_LEVEL="debug"):
        assert service.stop() == 0
    entries = [json.loads(line) for line in service.errors]
    assert {"time", "level", "logger", "pid", "message"} <= set(entries[0])
    assert len({entry["pid"] for entry in entries}) >= 2
