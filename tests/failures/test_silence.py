"""Monitoring that gets nothing says so: from the user's command line, for a running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support.patience import eventually, patient
from tests.support.service import ROOT
from tests.support.world import PATH, World

ROWS = 200
BATCH = {"name": "x", "shape": [ROWS, 1], "datatype": "FP64", "data": [0.5] * ROWS}


def warnings(world: World) -> list[str]:
    found: list[str] = world.status()["warnings"]
    return found


def test_a_model_that_answers_one_row_for_a_batch_and_labels_for_nothing(tmp_path: Path) -> None:
    model = {"name": "m", "performance": {"prediction": "p", "threshold": 0.5}}
    monitoring = {"learn": 1000, "segments": ["carrier"]}
    with World(tmp_path, models=[model], monitoring=monitoring, workers=1) as world:
        for number in range(120):
            body = {"id": str(number), "inputs": [BATCH]}
            answer = httpx.post(world.service.url + PATH, json=body, timeout=patient(30))
            assert len(answer.json()["outputs"][0]["data"]) == 1
        labels = [{"request_id": f"order-{n}", "label": 1} for n in range(20)]
        feedback = world.service.control + "/v1/feedback"
        assert httpx.post(feedback, json=labels, timeout=patient(30)).json()["orphan"] == 20

        # The model of this test names neither a version nor its features.
        of_model = "model 'm' is not monitored in full: "
        expected = (
            of_model + "100 of the last 100 answers of 'champion' cannot be used (another number "
            "of rows than their requests)",
            of_model + "inputs: no value of 'carrier' in the last 120 requests",
            "labels: 20 of the last 20 match no prediction; 20 have an unknown request_id",
        )
        for text in expected:
            eventually(lambda text=text: any(one.startswith(text) for one in warnings(world)))
        status = world.status()
        reasons = {(one["check"], one["reason"]): one["words"] for one in status["not_tested"]}
        assert {
            ("answers", "unreadable"),
            ("inputs", "no_feature"),
            ("labels", "unmatched"),
            ("drift", "no_rows"),
        } <= reasons.keys()
        assert reasons["drift", "no_rows"].startswith("drift and quality: 0 of 1,000 rows")
        text = httpx.get(world.service.control + "/metrics", timeout=patient(30)).text
        for check, reason in reasons:
            assert (
                f'check="{check}",model="{"" if check == "labels" else "m"}",reason="{reason}"'
                in (text)
            )
        # A terminal shows the same.
        command = [sys.executable, "-m", "understudy", "top", "--once"]
        command += ["--url", world.service.control]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        flat = " ".join(shown.stdout.split())
        assert "degraded" in flat
        for words in reasons.values():
            assert " ".join(words.split()) in flat


def test_requests_that_match_the_paths_of_no_model(tmp_path: Path) -> None:
    with World(tmp_path, workers=1) as world:
        url = world.service.url + "/v2/models/another/infer"
        body: dict[str, Any] = {"id": "1", "inputs": [BATCH]}
        for _ in range(12):
            assert httpx.post(url, json=body, timeout=patient(30)).status_code == 200
        expected = "nothing is monitored: no request has matched the paths of a model, and 12"
        eventually(lambda: any(one.startswith(expected) for one in warnings(world)))
        httpx.post(world.service.url + PATH, content=json.dumps(body), timeout=patient(30))
        eventually(lambda: not any(one.startswith("nothing") for one in warnings(world)))
