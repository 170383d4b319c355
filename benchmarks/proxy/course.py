"""The course of the measurement: all contenders up, then load on one after another, in rounds."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    Claim,
    Result,
    cpu_seconds,
    environment,
    median,
    median_ratio,
    resident_mib,
)
from benchmarks.proxy.contenders import (
    ALL,
    Contender,
    UnderstudyMirror,
    cores,
    free_port,
    peers_python,
)
from benchmarks.proxy.load import LOAD_CORE, closed_loop, open_loop, write_script

BODIES = {"1 row": 1, "64 rows": 64, "1 MB": 7000}
CONNECTIONS = (1, 32, 256)
MAIN = ("1 row", 32)
"""What the claims are about."""


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Course:
    def __init__(self, quick: bool, folder: Path) -> None:
        self.quick = quick
        self.folder = folder
        self.rounds = 3 if quick else 5
        self.seconds = 2
        self.cells = [MAIN] if quick else [(b, c) for b in BODIES for c in CONNECTIONS]
        self.scripts = {name: write_script(folder, rows) for name, rows in BODIES.items()}
        self.ports = (free_port(), free_port())
        self.contenders: list[Contender] = []
        self.missing: dict[str, str] = {}
        self.backend = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.proxy.backend",
             *map(str, self.ports)],
        )  # fmt: skip

    def start(self) -> None:
        for kind in ALL:
            try:
                self.contenders.append(kind(self.folder, *self.ports))
                note(f"  {kind.name} is up")
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                self.missing[kind.name] = str(error).splitlines()[0]
                note(f"  NOT MEASURED: {kind.name}: {error}")

    def stop(self) -> None:
        for contender in self.contenders:
            contender.stop()
        self.backend.kill()
        self.backend.wait()

    def cost(self) -> dict[str, dict[str, list[dict[str, float]]]]:
        """Per cell and contender, one entry per round."""
        found: dict[str, dict[str, list[dict[str, float]]]] = {}
        for name, connections in self.cells:
            cell = found[f"{name}, {connections} connections"] = defaultdict(list)
            rounds = self.rounds if (name, connections) == MAIN else 2
            for number in range(rounds + 1):
                for contender in self.contenders:
                    entry = self._loaded(contender, name, connections)
                    if number:  # the first round warms up
                        cell[contender.name].append(entry)
                note(f"  {name}, {connections} connections: round {number} of {rounds}")
        return found

    def _loaded(self, contender: Contender, name: str, connections: int) -> dict[str, float]:
        data, everything = contender.data_plane(), contender.everything()
        before = cpu_seconds(data), cpu_seconds(everything)
        seen = closed_loop(contender.port, self.scripts[name], connections, self.seconds)
        # Copies and records may still be on their way.
        time.sleep(0.7)
        requests = max(seen["requests"], 1.0)
        return {
            "data_plane_us": (cpu_seconds(data) - before[0]) / requests * 1e6,
            "everything_us": (cpu_seconds(everything) - before[1]) / requests * 1e6,
            "per_second": seen["per_second"],
            "p50_ms": seen["p50"] * 1e3,
            "p99_ms": seen["p99"] * 1e3,
            "errors": seen["errors"],
            "requests": seen["requests"],
        }

    def latency(self, rate: float) -> dict[str, list[dict[str, float]]]:
        """Latencies at ``rate`` per second, with nobody in between as well."""
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        seconds = 3.0 if self.quick else 5.0
        places = [("direct", self.ports[0]), *((c.name, c.port) for c in self.contenders)]
        for number in range(self.rounds):
            for name, port in places:
                if name == "aiohttp":
                    continue  # it would set the pace for all
                found[name].append(open_loop(port, rate, seconds, number))
            note(f"  latency at {rate:,.0f}/s: round {number + 1} of {self.rounds}")
        return found

    def memory(self) -> dict[str, Any]:
        """Resident memory of our worker and evaluation plane while requests of one row pass,
        from a fresh start: what bodies of 1 MB leave behind in the allocator is another matter."""
        ours = UnderstudyMirror(self.folder / "memory", *self.ports)
        self.contenders.append(ours)
        worker, evaluation = ours.data_plane()[0], ours.evaluation()[0]
        wanted = 100_000 if self.quick else 1_000_000
        samples: list[tuple[int, float, float]] = []
        passed = 0
        while passed < wanted:
            passed += int(closed_loop(ours.port, self.scripts["1 row"], 32, 2)["requests"])
            samples.append((passed, resident_mib(worker), resident_mib(evaluation)))
        note(f"  memory over {passed:,} requests: {samples[-1][1:]}")
        half = [s for s in samples if s[0] >= passed / 2]
        return {
            "requests": passed,
            "worker_mib": max(s[1] for s in samples),
            "evaluation_mib": max(s[2] for s in samples),
            "worker_growth": half[-1][1] / half[0][1] - 1,
            "evaluation_growth": half[-1][2] / half[0][2] - 1,
            "samples": samples,
        }


def run(quick: bool) -> Result:
    """Measure all; see the package's text."""
    if cores() < 2:
        raise SystemExit("the proxies and the load need a core each")
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        peers_python()
        course = Course(quick, Path(name))
        try:
            course.start()
            cost = course.cost()
            main = cost[f"{MAIN[0]}, {MAIN[1]} connections"]
            saturation = {
                name: median([entry["per_second"] for entry in entries]) or 0.0
                for name, entries in main.items()
            }
            rate = 0.5 * min(rate for name, rate in saturation.items() if name != "aiohttp")
            latency = course.latency(rate)
            memory = course.memory()
        finally:
            course.stop()
    return _result(quick, course, cost, latency, memory, rate)


def _result(
    quick: bool,
    course: Course,
    cost: dict[str, dict[str, list[dict[str, float]]]],
    latency: dict[str, list[dict[str, float]]],
    memory: dict[str, Any],
    rate: float,
) -> Result:
    main = cost[f"{MAIN[0]}, {MAIN[1]} connections"]
    envoy = subprocess.run(
        [str(peers_python().parent / "envoy"), "--version"], capture_output=True, text=True
    ).stdout

    def column(name: str, key: str) -> list[float]:
        return [entry[key] for entry in main.get(name, [])]

    def ratio(ours: str, key: str, peer: str) -> float | None:
        return median_ratio(column(ours, key), column(peer, "everything_us"))

    def added(name: str, key: str) -> float | None:
        pairs = zip(latency.get(name, []), latency["direct"], strict=False)
        return median([a[key] - b[key] for a, b in pairs])

    ours, theirs = added("understudy-mirror", "p99"), added("envoy-mirror", "p99")
    p99_ratio = ours / theirs if ours is not None and theirs else None
    claims = [
        Claim("CPU per request, data plane with mirror / Envoy with mirror",
              ratio("understudy-mirror", "data_plane_us", "envoy-mirror"), 0.35, "<="),
        Claim("CPU per request, everything with mirror, every payload decoded / Envoy with mirror",
              ratio("understudy-mirror", "everything_us", "envoy-mirror"), 0.6, "<="),
        Claim("CPU per request, data plane without mirror / Envoy",
              ratio("understudy", "data_plane_us", "envoy"), 0.6, "<="),
        Claim("p99 added at half of saturation, with mirror / Envoy with mirror",
              p99_ratio, 1.0, "<="),
        Claim("resident memory of a worker, MiB", memory["worker_mib"], 40, "<="),
        Claim("resident memory of the evaluation plane, MiB", memory["evaluation_mib"], 160, "<="),
        Claim("growth of a worker over the last half of the requests",
              memory["worker_growth"], 0.02, "<="),
        Claim("growth of the evaluation plane over the last half of the requests",
              memory["evaluation_growth"], 0.02, "<="),
    ]  # fmt: skip
    result = Result(
        "proxy",
        environment(
            pinned="proxies on core 0; backend, challenger and load on core 1",
            rounds=course.rounds,
            seconds_per_round=course.seconds,
            form="quick" if quick else "full",
            envoy=envoy.partition("version:")[2].strip().split("/")[1] if envoy else "missing",
            not_measured=course.missing or "nothing",
        ),
        {"cost": cost, "latency": latency, "latency_rate": rate, "memory": memory},
        claims,
    )
    for cell, entries in cost.items():
        rows = [
            [name, *(median([e[key] for e in found]) for key in _COLUMNS)]
            for name, found in entries.items()
        ]
        result.tables.append(
            (f"Closed loop: {cell} (medians)", ["proxy", *_COLUMNS.values()], rows)
        )
    rows = [
        [name, *((median([e[k] for e in found]) or 0) * 1e3 for k in ("p50", "p99", "p99.9")),
         *((added(name, k) or 0) * 1e3 for k in ("p50", "p99", "p99.9")),
         sum(e["failed"] for e in found)]
        for name, found in latency.items()
    ]  # fmt: skip
    header = [
        "proxy",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p50 added",
        "p99 added",
        "p99.9 added",
        "failed",
    ]
    title = f"Open loop: Poisson arrivals at {rate:,.0f}/s, 1 row (medians over rounds)"
    result.tables.append((title, header, rows))
    return result


_COLUMNS = {
    "data_plane_us": "CPU µs/request, data plane",
    "everything_us": "CPU µs/request, everything",
    "per_second": "requests/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "errors": "errors",
}
