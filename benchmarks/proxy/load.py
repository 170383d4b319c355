"""Load in a closed loop, for cost and throughput: wrk, and the bodies that it sends."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

from benchmarks.proxy.contenders import PATH
from tools.parts.debian import environment, find

LOAD_CORE = "1"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def body(rows: int) -> bytes:
    """A request of ``rows`` rows of 20 features in the Open Inference Protocol."""
    pick = random.Random(rows)
    data = [round(pick.random(), 4) for _ in range(rows * 20)]
    tensor = {"name": "x", "shape": [rows, 20], "datatype": "FP64", "data": data}
    return json.dumps({"id": "0", "inputs": [tensor]}).encode()


def closed_loop(port: int, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """wrk for ``seconds``: requests, requests per second, errors, p50 and p99 in seconds."""
    wrk = find("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not here; `make parts` fetches it")
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, str(wrk), "-t1", f"-c{connections}", f"-d{seconds}s",
         "--latency", "-s", str(script), f"http://127.0.0.1:{port}{PATH}"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    text = done.stdout

    def found(pattern: str) -> float:
        match = re.search(pattern, text)
        return float(match[1]) if match else 0.0

    def latency(name: str) -> float:
        match = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", text)
        return float(match[1]) * _UNITS[match[2]] if match else 0.0

    return {
        "requests": found(r"(\d+) requests in"),
        "per_second": found(r"Requests/sec:\s+([\d.]+)"),
        "errors": found(r"Non-2xx or 3xx responses: (\d+)")
        + sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text))),
        "p50": latency("50"),
        "p99": latency("99"),
    }


def write_script(folder: Path, rows: int) -> Path:
    """wrk's Lua script that posts a body of ``rows`` rows."""
    payload = folder / f"body-{rows}.json"
    payload.write_bytes(body(rows))
    script = folder / f"post-{rows}.lua"
    script.write_text(
        f'local f = io.open("{payload}", "rb")\n'
        'wrk.method = "POST"\nwrk.body = f:read("*a")\nf:close()\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    return script
