"""Resident memory of the evaluation plane that watches 20 features, and 1,000.

The real service with a baseline of 10,000 rows; rows come over POST /v1/records, so that no proxy
is in between. Then 20 features with an experiment: requests go through the proxy to a champion and
are mirrored to a challenger, so that every statistic of the pair is active as well. The memory is
read after the last row, and its peak from the kernel.

    python -m benchmarks drift-memory [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.harness import Claim, Result, children, cpu_seconds, environment, resident_mib
from tests.support.ports import free_port
from understudy.monitor.baseline.builder import Builder

BATCH = 50
EXPERIMENT = {
    "experiments": [{"name": "e", "model": "m", "challengers": ["b"], "mode": "shadow"}],
}


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


@contextmanager
def _backend() -> Iterator[tuple[int, int]]:
    """The ports of a champion and a challenger that answer every request with one prediction."""
    ports = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.proxy.backend", str(free_port()), *map(str, ports)]
    process = subprocess.Popen(command)
    try:
        yield ports
    finally:
        process.terminate()
        process.wait(30)


def _post(client: httpx.Client, rng: np.random.Generator, names: list[str], rows: int) -> None:
    for _start in range(0, rows, BATCH):
        table = rng.lognormal(size=(BATCH, len(names))).tolist()
        item = {
            "model": "m",
            "features": [dict(zip(names, row, strict=True)) for row in table],
            "predictions": {"p": rng.random(BATCH).tolist()},
        }
        client.post("/v1/records", json=item).raise_for_status()


def _request(client: httpx.Client, rng: np.random.Generator, names: list[str], rows: int) -> None:
    for row in rng.lognormal(size=(rows, len(names))).tolist():
        inputs = [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
            for name, value in zip(names, row, strict=True)
        ]
        client.post("/v2/models/m/infer", json={"inputs": inputs}).raise_for_status()


def measure(features: int, rows: int, experiment: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(features)
    names = [f"x{n}" for n in range(features)]
    with tempfile.TemporaryDirectory() as name, _backend() as (champion, challenger):
        folder = Path(name)
        _baseline(folder / "baseline.json", names, rng)
        control, proxy = free_port(), free_port()
        config = {
            "version": 1,
            "listen": {"address": f"127.0.0.1:{proxy}"},
            "control": {"listen": f"127.0.0.1:{control}"},
            "state_dir": str(folder / "state"),
            "models": [{"name": "m", "baseline": str(folder / "baseline.json")}],
            "champion": {"name": "a", "url": f"http://127.0.0.1:{champion}"},
        }
        if experiment:
            challengers = [{"name": "b", "url": f"http://127.0.0.1:{challenger}"}]
            config |= {"challengers": challengers, **EXPERIMENT}
        file = folder / "understudy.yaml"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "understudy", "serve", "--config", str(file)]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with (
                httpx.Client(base_url=f"http://127.0.0.1:{control}", timeout=60) as client,
                httpx.Client(base_url=f"http://127.0.0.1:{proxy}", timeout=60) as user,
            ):
                until = time.monotonic() + 60
                while time.monotonic() < until:
                    try:
                        if client.get("/v1/status").status_code == 200:
                            break
                    except httpx.HTTPError:
                        time.sleep(0.2)
                pid = _evaluation(service.pid)
                begun, cpu = resident_mib(pid), cpu_seconds([pid])
                if experiment:
                    _request(user, rng, names, rows)
                else:
                    _post(client, rng, names, rows)
                time.sleep(3.0)
                watched = client.get("/v1/drift").json()
                pairs = 0
                if experiment:
                    shown = client.get("/v1/experiments/e").json()
                    pairs = shown["challengers"][0]["requests"]["pairs"]
                return {
                    "features": features,
                    "rows": rows,
                    "at the start": begun,
                    "resident": resident_mib(pid),
                    "peak": _peak_mib(pid),
                    "watched": watched["models"][0]["rows"],
                    "pairs of an experiment": pairs,
                    "CPU seconds": cpu_seconds([pid]) - cpu,
                }
        finally:
            service.terminate()
            service.wait(30)


def run(quick: bool = False) -> Result:
    result = Result("drift-memory", environment(quick=quick))
    rows = 1_000 if quick else 10_000
    table = []
    for features, most, experiment in ((20, 160.0, False), (1_000, 400.0, False), (20, 90.0, True)):
        found = measure(features, rows, experiment)
        print(f"  {found}", file=sys.stderr, flush=True)
        table.append([round(v, 1) if isinstance(v, float) else v for v in found.values()])
        what = " and an experiment" if experiment else ""
        text = f"peak of resident memory, {features:,} features{what} (MiB)"
        result.claims.append(Claim(text, found["peak"], most, "<="))
        titles = list(found)
    result.measurements["memory"] = table
    result.tables.append(("Evaluation plane, MiB", titles, table))
    return result
