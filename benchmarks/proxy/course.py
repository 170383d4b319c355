"""The course of the measurement: all contenders up, then load on one after another, in rounds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, busy_seconds, cpu_seconds, median, resident_mib
from benchmarks.proxy.backend import counts
from benchmarks.proxy.contenders import (
    ALL,
    Contender,
    Understudy,
    UnderstudyMirror,
    cores,
    peers_python,
)
from benchmarks.proxy.load import LOAD_CORE, closed_loop, write_script
from benchmarks.proxy.open_loop import open_loop
from benchmarks.proxy.report import Cost, Figures, cell_name, growth, report
from tests.support.ports import free_port

BODIES = {"1 row": 1, "64 rows": 64, "1 MB": 7000}
CONNECTIONS = (1, 32, 256)
MAIN = ("1 row", 32)
"""What the claims are about."""
_IDLE_SHARE = 0.1
"""A contender that takes less of a core than this has worked off what it was given."""
_SETTLE_SECONDS = (0.5, 20.0)
_SAMPLE_SECONDS = 0.25

Sample = tuple[int, float, float]
"""Requests so far; resident MiB of the worker and of the evaluation plane."""


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Course:
    def __init__(self, quick: bool, folder: Path, kinds: Sequence[type[Contender]] = ALL) -> None:
        self.kinds = kinds
        self.quick = quick
        self.folder = folder
        self.rounds = 3 if quick else 5
        self.seconds = 2
        self.cells = [MAIN] if quick else [(b, c) for b in BODIES for c in CONNECTIONS]
        self.scripts = {name: write_script(folder, rows) for name, rows in BODIES.items()}
        self.ports = (free_port(), free_port())
        self.counts_port = free_port()
        self.contenders: list[Contender] = []
        self.missing: dict[str, str] = {}
        self.backend = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.proxy.backend",
             str(self.counts_port), *map(str, self.ports)],
        )  # fmt: skip

    def start(self) -> None:
        for kind in self.kinds:
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

    def cost(self) -> Cost:
        """Per cell and contender, one entry per round."""
        per_request: Cost = {}
        for name, connections in self.cells:
            cell = per_request[cell_name(name, connections)] = defaultdict(list)
            rounds = self.rounds if (name, connections) == MAIN else 2
            for number in range(rounds + 1):
                for contender in self.contenders:
                    entry = self._loaded(contender, name, connections)
                    if number:  # the first round warms up
                        cell[contender.name].append(entry)
                note(f"  {name}, {connections} connections: round {number} of {rounds}")
        return per_request

    def _loaded(self, contender: Contender, name: str, connections: int) -> dict[str, float]:
        data, everything = contender.data_plane(), contender.everything()
        cpu = cpu_seconds(data), cpu_seconds(everything)
        answered, records = counts(self.counts_port), contender.accounts()
        began, machine, own = time.monotonic(), busy_seconds(), self._own_seconds()
        seen = closed_loop(contender.port, self.scripts[name], connections, self.seconds)
        self._settle(everything)
        others = busy_seconds() - machine - (self._own_seconds() - own)
        lasted = time.monotonic() - began
        took = cpu_seconds(data) - cpu[0], cpu_seconds(everything) - cpu[1]
        # What reached the model server: wrk leaves out what was under way when it stopped.
        forwarded, copied = (
            now - then for now, then in zip(counts(self.counts_port), answered, strict=True)
        )
        requests = max(forwarded, 1)
        entry = {
            "data_plane_us": took[0] / requests * 1e6,
            "everything_us": took[1] / requests * 1e6,
            "per_second": seen["per_second"],
            "p50_ms": seen["p50"] * 1e3,
            "p99_ms": seen["p99"] * 1e3,
            "errors": seen["errors"],
            "requests": float(forwarded),
            "copied": copied / requests,
            "others": max(others, 0.0) / lasted / (os.cpu_count() or 1),
        }
        if records:
            more = {key: value - records[key] for key, value in contender.accounts().items()}
            entry["evaluated"] = more["evaluated"] / max(more["eligible"], 1.0)
        return entry

    def _own_seconds(self) -> float:
        """Processor time of all that belongs to the measurement."""
        pids = [pid for contender in self.contenders for pid in contender.everything()]
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        load = time.process_time() + ended.ru_utime + ended.ru_stime
        return cpu_seconds([*pids, self.backend.pid]) + load

    def _settle(self, pids: list[int]) -> None:
        """Wait until copies and records that are still on their way have been dealt with; the same
        rule for all, and what it costs is part of the figure."""
        pause, longest = _SETTLE_SECONDS
        until = time.monotonic() + longest
        before = cpu_seconds(pids)
        while time.monotonic() < until:
            time.sleep(pause)
            now = cpu_seconds(pids)
            if now - before < _IDLE_SHARE * pause:
                return
            before = now
        note(f"  still busy {longest:.0f} s after the load ended")

    def resident(self) -> dict[str, dict[str, float]]:
        """Resident memory in MiB of each contender that is up."""
        result = {}
        for contender in self.contenders:
            entry = {"everything_mib": sum(map(resident_mib, contender.everything()))}
            if isinstance(contender, Understudy):
                entry["worker_mib"] = sum(map(resident_mib, contender.data_plane()))
                entry["evaluation_mib"] = sum(map(resident_mib, contender.evaluation()))
            result[contender.name] = entry
        return result

    def latency(self, rate: float) -> dict[str, list[dict[str, float]]]:
        """Latencies at ``rate`` per second, also without a proxy."""
        result: dict[str, list[dict[str, float]]] = defaultdict(list)
        seconds = 3.0 if self.quick else 5.0
        places = [("direct", self.ports[0]), *((c.name, c.port) for c in self.contenders)]
        for number in range(self.rounds):
            for name, port in places:
                if name == "aiohttp":
                    continue  # it would set the pace for all
                result[name].append(open_loop(port, rate, seconds, number))
            note(f"  latency at {rate:,.0f}/s: round {number + 1} of {self.rounds}")
        return result

    def memory(self) -> dict[str, Any]:
        """Resident memory of our worker and evaluation plane while requests of one row pass,
        from a fresh start: what bodies of 1 MB leave behind in the allocator is another matter."""
        ours = UnderstudyMirror(self.folder / "memory", *self.ports)
        self.contenders.append(ours)
        worker, evaluation = ours.data_plane()[0], ours.evaluation()[0]
        wanted = 100_000 if self.quick else 1_000_000
        before, records = counts(self.counts_port)[0], ours.accounts()
        samples: list[Sample] = []
        passed = 0
        with ThreadPoolExecutor(1) as loader:
            while passed < wanted:
                seconds = 2 if self.quick else 10
                load = loader.submit(closed_loop, ours.port, self.scripts["1 row"], 32, seconds)
                while not load.done():  # sampled under load: in the pauses it may be less
                    time.sleep(_SAMPLE_SECONDS)
                    passed = counts(self.counts_port)[0] - before
                    samples.append((passed, resident_mib(worker), resident_mib(evaluation)))
                load.result()
        self._settle(ours.everything())
        more = {key: value - records[key] for key, value in ours.accounts().items()}
        note(f"  memory over {passed:,} requests: {samples[-1][1:]}")
        return {
            "requests": passed,
            "evaluated": more["evaluated"] / max(more["eligible"], 1.0),
            "worker_mib": max(s[1] for s in samples),
            "evaluation_mib": max(s[2] for s in samples),
            "worker_growth": growth([(s[0], s[1]) for s in samples]),
            "evaluation_growth": growth([(s[0], s[2]) for s in samples]),
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
            started = course.resident()
            cost = course.cost()
            loaded = course.resident()
            main = cost[cell_name(*MAIN)]
            saturation = {
                name: median([entry["per_second"] for entry in entries]) or 0.0
                for name, entries in main.items()
            }
            rate = 0.5 * min(rate for name, rate in saturation.items() if name != "aiohttp")
            latency = course.latency(rate)
            memory = course.memory()
        finally:
            course.stop()
    return report(
        Figures(cost, cell_name(*MAIN), latency, rate, memory, {"start": started, "end": loaded}),
        form="quick" if quick else "full",
        rounds=course.rounds,
        seconds_per_round=course.seconds,
        not_measured=course.missing or "nothing",
    )
