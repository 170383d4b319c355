"""The sidecar in front of the model servers that people use, in every format that they take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from tests.support.patience import eventually, patient
from tests.support.served import EXAMPLES, kserve, mlflow, mlserver
from tests.support.service import REAL, Service
from understudy.loadtest.payloads.formats import in_format
from understudy.monitor.cli.main import main

ROWS = [[0.1 * k, 1.0, -0.5 * k, 2.0] for k in range(20)]
NAMES = ("a", "b", "c", "d")
WEIGHTS = (0.8, -0.5, 0.3, 0.1)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def late(row: list[float]) -> float:
    return 1.0 / (1.0 + math.exp(-sum(w * x for w, x in zip(WEIGHTS, row, strict=True))))


@contextmanager
def sidecar(folder: Path, url: str) -> Iterator[Service]:
    folder.mkdir()
    service = Service(folder, REAL, champion={"url": url}, models=[{"name": "delays"}])
    with service.start():
        yield service


def ask(service: Service, path: str, body: Any) -> Any:
    answer = httpx.post(service.url + path, json=body, timeout=patient(30))
    assert answer.status_code == 200, answer.text
    return answer.json()


def predictions(service: Service, count: int) -> dict[str, Any]:
    """What the evaluation plane has read out of the answers."""

    def read() -> Any:
        found = httpx.get(service.control + "/v1/status").json()
        assert found["undecodable"] == [], found["undecodable"]
        return next((p for p in found["predictions"] if p["count"] >= count), None)

    found: dict[str, Any] = eventually(read)
    return found


def mean() -> float:
    return sum(map(late, ROWS)) / len(ROWS)


def test_mlserver_and_the_plan_that_is_for_it(tmp_path: Path) -> None:
    with mlserver(tmp_path / "server") as url, sidecar(tmp_path / "sidecar", url) as service:
        rows = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
        for row in rows:
            body = in_format("open-inference-v2-matrix", [row])
            answer = ask(service, "/v2/models/delays/infer", body)
            assert answer["outputs"][0]["data"] == pytest.approx([late(list(row.values()))])
        found = predictions(service, len(ROWS))
        assert (found["prediction"], found["mean"]) == ("p_late", pytest.approx(mean()))
        # The plan of examples/gate, with shorter stages and the ports of this server.
        plan = yaml.safe_load((EXAMPLES / "mlserver.yaml").read_text())
        pause = (EXAMPLES / "pause-model.json").read_text().replace("8081", url.rpartition(":")[2])
        (tmp_path / "pause-model.json").write_text(pause)
        plan["objectives"] = {"p95": "20s", "errors": "5 %"}
        for stage in plan["stages"]:
            kind = next(iter(stage.keys() - {"name", "judged", "stop_on_fail"}))
            short = {
                "load": {"seconds": 4, "rate": 50, "to": 80, "peak_seconds": 1},
                "capacity": {"start": 40, "most": 80, "seconds": 2, "at_least": "30/s"},
                "chaos": {
                    "load": {"rate": 30},
                    "before": "1s",
                    "after": "3s",
                    "recovers_within": "30s",
                    "lost_at_most": "20 %",
                },
            }[kind]
            stage[kind] |= {k: v for k, v in short.items() if k in stage[kind]}
        (tmp_path / "gate.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        report = tmp_path / "report.html"
        said = CliRunner().invoke(
            main,
            ["gate", "--target", service.url, "--plan", str(tmp_path / "gate.yaml"), "--html",
             str(report)],
        )  # fmt: skip
        assert said.exit_code == 0, said.output
        assert report.exists()


def test_kserve_s_server_in_both_of_its_protocols(tmp_path: Path) -> None:
    with kserve(tmp_path) as url:
        with sidecar(tmp_path / "v1", url) as service:
            for row in ROWS:
                answer = ask(service, "/v1/models/delays:predict", {"instances": [row]})
                assert answer["predictions"] == pytest.approx([late(row)])
            assert predictions(service, len(ROWS))["mean"] == pytest.approx(mean())
        with sidecar(tmp_path / "v2", url) as service:
            for row in ROWS:
                values = dict(zip(NAMES, row, strict=True))
                body = in_format("open-inference-v2-matrix", [values])
                answer = ask(service, "/v2/models/delays/infer", body)
                assert answer["outputs"][0]["data"] == pytest.approx([late(row)])
            assert predictions(service, len(ROWS))["mean"] == pytest.approx(mean())


def test_mlflow_s_scoring_server(tmp_path: Path) -> None:
    with mlflow(tmp_path) as url, sidecar(tmp_path / "sidecar", url) as service:
        rows = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
        for row in rows:
            answer = ask(service, "/invocations", in_format("mlflow", [row]))
            assert answer["predictions"] == pytest.approx([late(list(row.values()))])
        many = ask(service, "/invocations", {"dataframe_records": rows})
        assert many["predictions"] == pytest.approx([late(row) for row in ROWS])
        assert predictions(service, 2 * len(ROWS))["mean"] == pytest.approx(mean())
