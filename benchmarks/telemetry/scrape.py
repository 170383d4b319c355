"""How long ``/metrics``, ``/v1/status`` and ``/healthz`` take with 30 models and 31 arms.

    python -m benchmarks scrape [--quick]

Each model has been asked, and each challenger has answered a copy of each request, so that all 930
rows of statistics are in use. The CPU is that of the evaluation plane, which answers.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import Claim, Result, environment
from tests.support.patience import eventually, patient
from tests.support.world import Model, World

MANY = 30
TARGET = 1.0
PATHS = ("/metrics", "/v1/status", "/healthz")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _used(world: World) -> None:
    """Put traffic into each row of statistics."""
    body = {"id": "1", "inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}
    with httpx.Client(timeout=patient(20)) as client:
        for number in range(MANY):
            path = f"/v2/models/m{number}/infer"
            assert client.post(world.service.url + path, json=body).status_code == 200
    eventually(
        lambda: world.total("understudy_requests_total", role="mirror") == MANY * MANY, seconds=60.0
    )


def measured(world: World, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds, CPU and size of each path."""
    pid = world.status()["evaluation"]["pid"]
    found: dict[str, dict[str, Any]] = {}
    with httpx.Client(base_url=world.service.control, timeout=patient(20)) as client:
        for path in PATHS:
            seconds, size, cpu = [], 0, _cpu(pid)
            for _ in range(rounds):
                began = time.monotonic()
                answer = client.get(path)
                seconds.append(time.monotonic() - began)
                assert answer.status_code == 200
                size = len(answer.content)
            found[path] = {
                "median_seconds": statistics.median(seconds),
                "max_seconds": max(seconds),
                "cpu_seconds": (_cpu(pid) - cpu) / rounds,
                "bytes": size,
            }
    return found


def run(quick: bool = False) -> Result:
    rounds = 5 if quick else 30
    other = Model()
    models = [
        {"name": f"m{number}", "paths": [f"/v2/models/m{number}/infer"]} for number in range(MANY)
    ]
    arms = [{"name": f"arm-{number}", "url": other.url} for number in range(MANY)]
    with (
        tempfile.TemporaryDirectory() as name,
        World(Path(name), models=models, challengers=arms, workers=1) as world,
    ):
        _used(world)
        found = measured(world, rounds)
        other.kill()
    return Result(
        "scrape",
        environment(models=MANY, arms=MANY + 1, rounds=rounds),
        found,
        [
            Claim(f"median seconds of {path}", found[path]["median_seconds"], TARGET, "<=")
            for path in PATHS
        ],
        [
            (
                "Answers of the control port",
                ["path", "median s", "max s", "CPU s", "bytes"],
                [[path, *found[path].values()] for path in PATHS],
            )
        ],
    )
