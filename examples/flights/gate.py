"""The last act: may this go live? A short gate against the sidecar, with a fault in it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from examples.flights.replay import PATH, Flight
from examples.flights.telling import Teller

_PAYLOADS = 200
_RATE = 60.0
"""Requests per second, at most."""
_SLOWEST = 15.0
_REQUESTS = 300
"""Of the steady stage: enough to judge its objectives, at whatever rate."""


def prepare(folder: Path, flights: Sequence[Flight], champion_port: int, rate: float) -> Path:
    """Write the plan with its payloads and its experiment; the plan's file.

    ``rate`` is that of the replay, in requests per second: a machine that was asked for little
    there is not asked for more here, as long as the gate comes to an end.
    """
    rate = min(max(rate, _SLOWEST), _RATE)
    lines = []
    for flight in flights[:_PAYLOADS]:
        tensor = {"name": "flight", "shape": [1, len(flight.values)], "datatype": "FP64",
                  "data": flight.values}  # fmt: skip
        lines.append(json.dumps({"body": {"inputs": [tensor]}, "path": PATH}))
    (folder / "gate-bodies.jsonl").write_text("\n".join(lines) + "\n")
    resume = {
        "type": "action", "name": "let it go on",
        "provider": {"type": "python", "module": "understudy.loadtest.chaos.actions", "func": "resume_process"},
    }  # fmt: skip
    pause = {
        "type": "action",
        "name": "stop the champion",
        "provider": {
            "type": "python", "module": "understudy.loadtest.chaos.actions", "func": "pause_process",
            "arguments": {"port": champion_port},
        },
        "pauses": {"after": 1},
    }  # fmt: skip
    experiment = {
        "title": "The champion stops for a second",
        "description": "Requests wait, and none may be lost.",
        "method": [pause, resume],
        "rollbacks": [resume],
    }
    (folder / "gate-pause.json").write_text(json.dumps(experiment))
    plan: dict[str, Any] = {
        "version": 1,
        "objectives": {"p95": "1s", "errors": "2 %"},
        "payloads": {"bodies": "gate-bodies.jsonl"},
        "checks": {"schema": {"type": "object", "required": ["outputs"]}},
        "stages": [
            {"name": "steady", "load": {"rate": rate, "seconds": _REQUESTS / rate}},
            {
                "name": "the champion stops for a second",
                "chaos": {
                    "experiment": "gate-pause.json", "load": {"rate": rate}, "before": "2s",
                    "after": "3s", "recovers_within": "5s", "lost_at_most": "1 %",
                },
            },
        ],
    }  # fmt: skip
    file = folder / "gate.yaml"
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    return file


PASSED, FAILED, NOT_MEASURED = 0, 1, 2
"""Exit codes of a gate."""


def run(url: str, plan: Path, teller: Teller) -> int:
    """The gate's exit code; its report is beside the plan."""
    report = plan.with_name("gate-report.html")
    command = [
        sys.executable, "-m", "understudy", "gate", "--target", url, "--plan", str(plan), "--html",
        str(report),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stderr + done.stdout).strip().splitlines()
    for line in lines:
        teller.detail(line)
    teller.says(f"gate: {lines[-1] if lines else f'exit code {done.returncode}'}")
    teller.detail(f"the report: file://{report.resolve()}")
    return done.returncode
