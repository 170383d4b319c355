"""Known cases against a real HTTP server that can be made wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.plane_process import PlaneProcess, eventually
from understudy.monitor.cli.main import main
from understudy.monitor.errors import ValidationCaseError
from understudy.monitor.health.validation.cases import load_cases
from understudy.monitor.health.validation.rehearsal import MARK

CASES: list[dict[str, Any]] = [
    {"name": "one", "kind": "golden", "request": {"instances": [{"a": 1.0}]}, "expect": {"p": 0.1}},
    {"name": "two", "kind": "golden", "request": {"instances": [{"a": 1.0}, {"a": 2.0}]},
     "expect": {"p": [0.1, 0.2]}, "tolerance": 0.01},
    {"name": "keys", "kind": "invariance", "request": {"instances": [{"a": 3.0, "b": 1}]},
     "other": {"instances": [{"b": 1, "a": 3.0}]}},
    {"name": "more", "kind": "directional", "request": {"instances": [{"a": 1.0}]},
     "other": {"instances": [{"a": 5.0}]}, "prediction": "p", "direction": "up"},
    {"name": "broken", "kind": "malformed", "request": "{"},
    {"name": "late", "kind": "labelled", "request": {"instances": [{"a": 9.0}]}, "label": 1,
     "prediction": "p", "threshold": 0.5},
]  # fmt: skip


class Model:
    """Answers a tenth of ``a``; ``factor`` makes it wrong, ``careless`` makes it take anything."""

    def __init__(self) -> None:
        self.factor = 0.1
        self.careless = False
        self.marked = 0
        self.added = 0
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                model.marked += self.headers.get(MARK) == "1"
                model.added += self.headers.get("x-added") is not None
                try:
                    rows = json.loads(body)["instances"]
                    code = 200
                    said: Any = {"predictions": [{"p": row["a"] * model.factor} for row in rows]}
                except ValueError:
                    code, said = (
                        (200, {"predictions": [{"p": 0.0}]}) if model.careless else (400, {})
                    )
                data = json.dumps(said).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def model() -> Iterator[Model]:
    running = Model()
    yield running
    running.server.shutdown()


def write(path: Path, cases: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    return path


def config(tmp_path: Path, model: Model, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [{"name": "m", "protocol": "kserve-v1"}],
        "champion": {"url": model.url},
        "validation": {
            "cases": str(write(tmp_path / "cases.jsonl", CASES)), "every": 0.3, "max_rate": 1000,
            **more,
        },
    }  # fmt: skip


def test_a_round_from_the_command_line(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text(yaml.safe_dump(config(tmp_path, model)))
    good = CliRunner().invoke(main, ["validate", "--config", str(path)])
    assert good.exit_code == 0, good.output
    assert "2 of 2 golden cases pass" in good.output
    assert model.marked == 8
    model.factor, model.careless = -0.1, True
    bad = CliRunner().invoke(main, ["validate", "--config", str(path), "--json"])
    assert bad.exit_code == 1
    groups = {group["kind"]: group for group in json.loads(bad.output)["groups"]}
    assert groups["golden"]["failures"][0] == {"case": "one", "wrong": "p: -0.1 instead of 0.1"}
    assert "not up" in groups["directional"]["failures"][0]["wrong"]
    assert "expected a rejection" in groups["malformed"]["failures"][0]["wrong"]
    assert groups["labelled"]["failed"] == 1
    assert groups["invariance"]["failed"] == 0
    model.server.shutdown()
    model.server.server_close()
    gone = CliRunner().invoke(main, ["validate", "--config", str(path)])
    assert gone.exit_code == 1
    assert "no answer" in gone.output


def test_the_service_finds_that_what_passed_fails(tmp_path: Path, model: Model) -> None:
    document = config(tmp_path, model)
    more = {"models": document["models"], "validation": document["validation"]}
    champion = {"name": "champion", "url": model.url}
    with PlaneProcess(tmp_path, champion=champion, challengers=[], **more) as plane:
        eventually(lambda: plane.get("/v1/validation").json()["rounds"] >= 1)
        assert plane.metric("understudy_validation_pass_ratio", kind="golden") == 1.0
        assert plane.get("/v1/findings").json()["findings"] == []
        model.factor = 0.2
        found = eventually(lambda: plane.get("/v1/findings").json()["findings"])
        assert found[0]["kind"] == "validation"
        assert found[0]["severity"] == "critical"
        assert "p: 0.2 instead of 0.1" in found[0]["title"]
        assert plane.status()["records"]["eligible"] == 0, "it is no traffic"
        model.factor = 0.1
        eventually(lambda: not plane.get("/v1/findings?state=open").json()["findings"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ("5", "must be an object"),
        ('{"kind": "odd", "request": {}}', "kind: 'odd'"),
        ('{"request": {}}', "expect: is required"),
        ('{"request": {}, "expect": 5}', "expect: must be an object"),
        ('{"kind": "directional", "request": {}, "other": {}, "prediction": "p", "direction": "x"}',
         "direction: 'x'"),
        ("", "between 1 and"),
    ],
)  # fmt: skip
def test_files_that_are_none(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(line)
    with pytest.raises(ValidationCaseError, match=said):
        load_cases(path)
    with pytest.raises(ValidationCaseError, match="cannot be read"):
        load_cases(tmp_path / "none.jsonl")
