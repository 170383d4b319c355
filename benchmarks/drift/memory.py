"""Resident memory of the evaluation plane that watches 20 features, and 1,000.

The real service with a baseline of 10,000 rows; rows come over POST /v1/records, so that no proxy
is in between. The memory is read after the last row, and its peak from the kernel.

    python -m benchmarks drift-memory [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.harness import Claim, Result, children, environment, resident_mib
from tests.support.ports import free_port
from understudy.monitor.baseline.builder import Builder

BATCH = 50


def _baseline(path: Path, names: list[str], rng: np.random.Generator) -> None:
    builder = Builder(model="m", roles={"p": "prediction"})
    for _ in range(10):
        table = rng.lognormal(size=(1_000, len(names)))
        builder.add((*names, "p"), [*table.T.tolist(), rng.random(1_000).tolist()])
    builder.finish().save(path)


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def _evaluation(service: int) -> int:
    for pid in children(service):
        if b"understudy.monitor.service" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise RuntimeError("there is no evaluation plane")


def measure(features: int, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(features)
    names = [f"x{n}" for n in range(features)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _baseline(folder / "baseline.json", names, rng)
        control = free_port()
        config = {
            "version": 1,
            "listen": {"address": f"127.0.0.1:{free_port()}"},
            "control": {"listen": f"127.0.0.1:{control}"},
            "state_dir": str(folder / "state"),
            "models": [{"name": "m", "baseline": str(folder / "baseline.json")}],
            "champion": {"name": "a", "url": "http://127.0.0.1:1"},
        }
        file = folder / "understudy.yaml"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "understudy", "serve", "--config", str(file)]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{control}", timeout=60) as client:
                until = time.monotonic() + 60
                while time.monotonic() < until:
                    try:
                        if client.get("/v1/status").status_code == 200:
                            break
                    except httpx.HTTPError:
                        time.sleep(0.2)
                pid = _evaluation(service.pid)
                begun = resident_mib(pid)
                for _start in range(0, rows, BATCH):
                    table = rng.lognormal(size=(BATCH, features)).tolist()
                    item = {
                        "model": "m",
                        "features": [dict(zip(names, row, strict=True)) for row in table],
                        "predictions": {"p": rng.random(BATCH).tolist()},
                    }
                    client.post("/v1/records", json=item).raise_for_status()
                time.sleep(3.0)
                watched = client.get("/v1/drift").json()
                return {
                    "features": features,
                    "rows": rows,
                    "at the start": begun,
                    "resident": resident_mib(pid),
                    "peak": _peak_mib(pid),
                    "watched": watched["models"][0]["rows"],
                }
        finally:
            service.terminate()
            service.wait(30)


def run(quick: bool = False) -> Result:
    result = Result("drift-memory", environment(quick=quick))
    rows = 1_000 if quick else 10_000
    table = []
    for features, most in ((20, 160.0), (1_000, 400.0)):
        found = measure(features, rows)
        print(f"  {found}", file=sys.stderr, flush=True)
        table.append([round(v, 1) if isinstance(v, float) else v for v in found.values()])
        text = f"peak of resident memory, {features:,} features (MiB)"
        result.claims.append(Claim(text, found["peak"], most, "<="))
        titles = list(found)
    result.measurements["memory"] = table
    result.tables.append(("Evaluation plane, MiB", titles, table))
    return result
