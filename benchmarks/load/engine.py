"""What a request costs the load engine, and how late it is; beside Locust, wrk, vegeta, hey, k6.

One sending process on a core of its own, the server on the other. wrk, hey and Locust's users are
closed loops: they send when they have an answer, so they have no lag, and their cost is that of a
request as fast as they can; vegeta and k6 have a rate. What a program needs to start is not
counted: its cost is that of a long run less that of a short one, for the requests that the long one
has more. Ours is counted with what the process that gathers the results needs.

Then the same stall for us and for Locust: the server stops for a second every ten, and the p99 of
open-loop arrivals is known: a share of one tenth of the requests waits for a time that falls evenly
from one second to nothing, so p99 is 0.9 s.

vegeta, hey and k6 are measured where they are in the path or below ``~/.cache/understudy/go/bin``,
where ``go install`` puts them with ``GOBIN`` set to it (``github.com/tsenart/vegeta/v12@v12.12.0``,
``github.com/rakyll/hey@v0.1.4``, ``go.k6.io/k6@v1.3.0``).

    python -m benchmarks load-engine [--quick]
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, Result, environment, median
from benchmarks.load.server import Serving
from tools.parts.debian import CACHE, find
from understudy.loadtest.engine.pool import Open, Target, drive
from understudy.loadtest.payloads.request import Payload
from understudy.loadtest.scenarios.shapes import steady

RATE = 10_000.0
K6_RATE = 2_000
"""What k6 can keep up on a core of this kind."""
CORE = "1"
BODY = b'{"inputs":[{"name":"x","shape":[1,20],"datatype":"FP64","data":[%s]}]}' % (
    b",".join([b"0.1234"] * 20)
)
_LOCUST = """
from locust import FastHttpUser, HttpUser, constant, task
class Fast({base}):
    wait_time = constant(0)
    @task
    def one(self):
        self.client.post("/v2/models/m/infer", data={body!r})
"""
_OPEN = """
from locust import FastHttpUser, constant_throughput, task
class Fast(FastHttpUser):
    wait_time = constant_throughput({each})
    @task
    def one(self):
        self.client.post("/v2/models/m/infer", data={body!r})
"""


def requests() -> list[bytes]:
    return [Payload(BODY, path="/v2/models/m/infer").to_bytes("bench")]


def ours(port: int, rate: float, seconds: float, seed: int) -> dict[str, float]:
    load = Open(steady(rate, seconds), seed=seed)
    before = time.process_time()
    result = drive(Target("127.0.0.1", port, connections=256), requests(), load)
    gathering = time.process_time() - before
    return {
        "whole_us": (result.cpu_seconds + gathering) / result.count * 1e6,
        "requests": float(result.count),
        "failed": float(result.failed),
        "cpu_us": result.cpu_seconds / result.count * 1e6,
        "lag_p50_us": (result.lags.quantile(0.5) or 0.0) * 1e6,
        "lag_p99_us": (result.lags.quantile(0.99) or 0.0) * 1e6,
        "p50_ms": (result.quantile(0.5) or 0.0) * 1e3,
        "p99_ms": (result.quantile(0.99) or 0.0) * 1e3,
    }


def marginal(
    run: Callable[[int], dict[str, float] | None], seconds: int
) -> dict[str, float] | None:
    """A run of so many seconds, without what starting costs."""
    short, whole = run(2), run(seconds)
    if short is None or whole is None or whole["requests"] <= short["requests"]:
        return None
    more = whole["requests"] - short["requests"]
    whole["whole_us"] = (whole.pop("used_s") - short["used_s"]) / more * 1e6
    return whole


def tool(name: str) -> str | None:
    """A load generator written in Go, if it is here."""
    return shutil.which(name, path=f"{CACHE / 'go' / 'bin'}:{os.environ.get('PATH', '')}")


def measured(command: Sequence[str], pattern: str, text: str | None = None) -> tuple[float, float]:
    """Requests that the output names, and the processor time of the command."""
    before = os.times().children_user + os.times().children_system
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=text)
    used = os.times().children_user + os.times().children_system - before
    figures = re.search(pattern, done.stdout + done.stderr)
    return (float(figures[1]) if figures else 0.0), used


def go_tools(port: int, seconds: int, folder: Path) -> dict[str, dict[str, float]]:
    """hey closed, vegeta and k6 at a rate, whichever is here."""
    url = f"http://127.0.0.1:{port}/v2/models/m/infer"
    body = folder / "body.json"
    body.write_bytes(BODY)
    (folder / "plan.txt").write_text(f"POST {url}\nContent-Type: application/json\n@{body}\n")
    script = folder / "k6.js"
    pin, result = ["taskset", "-c", CORE], {}

    def vegeta(seconds: int) -> dict[str, float]:
        attack = [*pin, program, "attack", f"-rate={RATE:.0f}", f"-duration={seconds}s",
                  f"-targets={folder}/plan.txt", f"-output={folder}/vegeta.bin"]  # fmt: skip
        _, used = measured(attack, r"(?!)")
        done = subprocess.run([program, "report", "-type=json", f"{folder}/vegeta.bin"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        said = json.loads(done.stdout)
        return {"requests": float(said["requests"]), "used_s": used,
                "p50_ms": said["latencies"]["50th"] / 1e6,
                "p99_ms": said["latencies"]["99th"] / 1e6}  # fmt: skip

    def hey(seconds: int) -> dict[str, float]:
        command = [*pin, program, "-z", f"{seconds}s", "-c", "64", "-m", "POST", "-D", str(body),
                   "-cpus", "1", url]  # fmt: skip
        count, used = measured(command, r"\[200\]\s+(\d+) responses")
        return {"requests": count, "used_s": used}

    def k6(seconds: int) -> dict[str, float]:
        script.write_text(
            "import http from 'k6/http';\nexport const options = {scenarios: {s: {executor: "
            f"'constant-arrival-rate', rate: {K6_RATE}, timeUnit: '1s', duration: '{seconds}s', "
            "preAllocatedVUs: 64, maxVUs: 256}}};\n"
            f"const body = '{BODY.decode()}';\nexport default () => http.post('{url}', body);\n"
        )
        count, used = measured([*pin, program, "run", "--no-usage-report", str(script)],
                               r"http_reqs\.*:\s+(\d+)")  # fmt: skip
        return {"requests": count, "used_s": used}

    for name, run in (("vegeta", vegeta), ("hey", hey), ("k6", k6)):
        program = tool(name) or ""
        one = marginal(run, seconds) if program else None
        if one is not None:
            result[name] = one
    return result


def locust(port: int, file: str, users: int, seconds: int) -> dict[str, float] | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "locustfile.py"
        path.write_text(file)
        command = [
            "taskset", "-c", CORE, sys.executable, "-m", "locust", "-f", str(path), "--headless",
            "-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--host",
            f"http://127.0.0.1:{port}", "--csv", f"{folder}/r", "--only-summary",
        ]  # fmt: skip
        before = os.times().children_user + os.times().children_system
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        used = os.times().children_user + os.times().children_system - before
        if not (Path(folder) / "r_stats.csv").exists():
            print(f"  locust: {done.stderr[-300:]}", file=sys.stderr, flush=True)
            return None
        with open(Path(folder) / "r_stats.csv") as rows:
            total = next(row for row in csv.DictReader(rows) if row["Name"] == "Aggregated")
    count = float(total["Request Count"])
    tail = float(total["99%"]) if count else 0.0  # a short run may end before anything has
    return {"requests": count, "used_s": used, "p99_ms": tail}


def wrk(port: int, seconds: int) -> dict[str, float] | None:
    program = find("wrk")
    if program is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f"wrk.method = 'POST'\nwrk.path = '/v2/models/m/infer'\nwrk.body = '{BODY.decode()}'\n"
        )
        script.flush()
        before = os.times().children_user + os.times().children_system
        done = subprocess.run(
            ["taskset", "-c", CORE, str(program), "-t1", "-c64", f"-d{seconds}s", "-s", script.name,
             f"http://127.0.0.1:{port}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    used = os.times().children_user + os.times().children_system - before
    match = re.search(r"(\d+) requests in", done.stdout)
    if match is None:
        return None
    return {"requests": float(match[1]), "used_s": used}


def run(quick: bool = False) -> Result:
    result = Result(
        "load-engine",
        environment(
            quick=quick, rate=RATE, body_bytes=len(BODY), load_average_before=os.getloadavg()[0]
        ),
    )
    os.sched_setaffinity(0, {int(CORE)})
    rounds, seconds = (1, 4) if quick else (3, 8)
    results: dict[str, list[dict[str, float]]] = {
        "understudy": [], "Locust FastHttpUser": [], "Locust HttpUser": [], "wrk": [], "vegeta": [],
        "hey": [], "k6": [],
    }  # fmt: skip
    serving = Serving("plain")
    with serving as port, tempfile.TemporaryDirectory() as folder:
        result.environment |= serving.scheduled
        for number in range(rounds):
            results["understudy"].append(ours(port, RATE, seconds, number))
            for name, base in (
                ("Locust FastHttpUser", "FastHttpUser"),
                ("Locust HttpUser", "HttpUser"),
            ):
                file = _LOCUST.format(base=base, body=BODY)
                one = marginal(partial(locust, port, file, 32), seconds)
                if one is not None:
                    results[name].append(one)
            other = marginal(partial(wrk, port), seconds)
            if other is not None:
                results["wrk"].append(other)
            for name, one in go_tools(port, seconds, Path(folder)).items():
                results[name].append(one)
            print(f"  round {number + 1}", file=sys.stderr, flush=True)
            time.sleep(0.5)
    keys = ("requests", "whole_us", "lag_p50_us", "lag_p99_us", "p50_ms", "p99_ms")
    rows: list[list[Any]] = [
        [name, *(median([one[k] for one in several if k in one]) for k in keys)]
        for name, several in results.items()
        if several
    ]
    result.tables.append(
        ("On one core",
         ["who", "requests", "CPU us", "lag p50 us", "lag p99 us", "p50 ms", "p99 ms"],
         rows)
    )  # fmt: skip
    mine = {key: median([one[key] for one in results["understudy"]]) for key in (*keys, "cpu_us")}
    stall_seconds = 20 if quick else 60
    with Serving("stall", 10, 1) as port:
        stalled = ours(port, 1000.0, stall_seconds, 99)
        each = 1000.0 / 100
        theirs = locust(port, _OPEN.format(each=each, body=BODY), 100, stall_seconds)
    exact = 900.0
    result.tables.append(
        ("The server stops for 1 s every 10 s, 1,000 requests per second",
         ["who", "p99 ms", "known answer ms"],
         [["understudy", stalled["p99_ms"], exact],
          ["Locust, constant_throughput", theirs["p99_ms"] if theirs else None, exact]])
    )  # fmt: skip
    result.measurements = {"rounds": results, "stall": {"understudy": stalled, "locust": theirs}}
    fast = median([one["whole_us"] for one in results["Locust FastHttpUser"]])
    ratio = (mine["whole_us"] or 0.0) / fast if fast else None
    off = stalled["p99_ms"] / exact
    achieved = (mine["requests"] or 0.0) / seconds
    result.claims = [
        Claim("requests per second and core, Poisson", achieved, 9_900.0, ">="),
        Claim("CPU per request (us), all processes", mine["whole_us"], 75.0, "<="),
        Claim("send lag p50 (us)", mine["lag_p50_us"], 100.0, "<="),
        Claim("send lag p99 (us)", mine["lag_p99_us"], 2_000.0, "<="),
        Claim("CPU per request / Locust FastHttpUser's", ratio, 0.25, "<="),
        Claim("p99 with a stalling server / known answer", off, 1.1, "<="),
        Claim("p99 with a stalling server / known answer, from below", off, 0.9, ">="),
    ]
    return result
