"""Monitoring that gets nothing says so: from the user's command line, for a running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support.canaries import challenger
from tests.support.patience import eventually, patient
from tests.support.service import ROOT
from tests.support.world import PATH, Model, World

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
            "model 'm' is blind: 0 of 120 answers of 'champion' could be used (another number of "
            "rows than their requests)",
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
            ("drift", "unreadable"),
        } <= reasons.keys()
        assert reasons["drift", "unreadable"].startswith("drift and quality are blind: 0 of 1")
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


def command(*arguments: str) -> str:
    """What a command of the user prints, in one line."""
    line = [sys.executable, "-m", "understudy", *arguments]
    shown = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return " ".join(f"{shown.stdout} {shown.stderr}".split())


def test_answers_that_cannot_be_read_are_said_everywhere_and_promote_nothing(
    tmp_path: Path,
) -> None:
    text = Model("text")
    experiment = {
        "name": "ramp",
        "challengers": ["other0"],
        "mode": "shadow",
        "minimum": 10,
        "minimum_duration": 0,
        "label": {"prediction": "p", "threshold": 0.5},
        "metrics": [
            {"metric": "error_rate", "margin": "30 pp"},
            {"metric": "accuracy", "margin": "30 pp"},
        ],
    }
    champion = {"url": text.url}
    with World(tmp_path, text, champion=champion, experiments=[experiment], workers=1) as world:
        body = {"id": "1", "inputs": [{**BATCH, "shape": [1], "data": [0.5]}]}
        for _ in range(150):
            assert httpx.post(world.service.url + PATH, json=body, timeout=patient(30)).is_success
        words = "0 of 150 answers of 'champion' could be read (not JSON"
        eventually(lambda: any(words in one for one in warnings(world)))
        url = ("--url", world.service.control)
        assert words in command("top", "--once", *url)
        eventually(lambda: f"Blind: {words}" in command("findings", "list", *url))
        assert world.total("understudy_findings_open", kind="blind", severity="critical") == 2

        eventually(lambda: challenger(world)["requests"]["pairs"] == 150)
        shown = command("experiment", "status", "ramp", *url)
        assert challenger(world)["decision"] == "continue"
        assert "accuracy: blind: 100 % of the answers cannot be read" in shown
        assert "no data yet" not in shown


def test_models_that_are_not_listed_have_their_names_up_to_a_limit(tmp_path: Path) -> None:
    with World(tmp_path, models=[{"match": {"most": 2}}], workers=1) as world:
        body = {"id": "1", "inputs": [{**BATCH, "shape": [1], "data": [0.5]}]}

        def ask(model: str) -> None:
            path = f"/v2/models/{model}/versions/7/infer"
            assert httpx.post(world.service.url + path, json=body, timeout=patient(30)).is_success

        for model in ("org%2Fm:Q4", "b", "c", "c"):
            ask(model)
        eventually(lambda: world.total("understudy_requests_total", role="primary") >= 4)
        named = {"role": "primary", "outcome": "ok"}
        assert world.total("understudy_requests_total", model="org/m:Q4", version="7", **named) == 1
        assert world.total("understudy_requests_total", model="other", **named) == 2
        assert world.total("understudy_models_unlisted_requests_total") == 2

        def warned() -> bool:
            ask("c")
            return any("`match.most` (2)" in one for one in warnings(world))

        eventually(warned)
        models = httpx.get(world.service.control + "/v1/models").json()["models"]
        known = {(one["name"], one["version"]) for one in models if one["rows"]}
        assert {("org/m:Q4", "7"), ("b", "7"), ("other", "")} <= known
        served = world.status()["served"]["versions"]
        assert {one["model"] for one in served} == {"org/m:Q4", "b", "other"}
