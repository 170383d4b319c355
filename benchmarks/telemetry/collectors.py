"""What clients notice of a collector that is away, slow, or refuses: at 500 requests/s, all traced.

Each sidecar has one worker and sends every span by OTLP over HTTP, with the default queue: a part
of the spans is dropped where the collector does not keep up.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.harness import median, resident_mib
from benchmarks.proxy.contenders import Understudy
from benchmarks.proxy.course import Course, note
from benchmarks.proxy.load import LOAD_CORE
from benchmarks.proxy.open_loop import open_loop
from tests.support.ports import free_port

RATE = 500.0
OUTCOMES = ("sent", "failed", "dropped", "lost")


class Traced(Understudy):
    name = "collector there"
    behaviour: tuple[str, ...] | None = ()
    """Arguments of the receiver; None for none."""

    def config(self) -> dict[str, Any]:
        self.receiver = free_port()
        self.sink: subprocess.Popen[bytes] | None = None
        if self.behaviour is not None:
            self.sink = subprocess.Popen(
                ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.telemetry.otlp_sink",
                 str(self.receiver), *self.behaviour],
            )  # fmt: skip
        telemetry = {
            "endpoint": f"http://127.0.0.1:{self.receiver}",
            "metrics": {"exporter": "none"},
            "events": {"exporter": "none"},
        }
        return {**super().config(), "telemetry": telemetry}

    def stop(self) -> None:
        super().stop()
        if self.sink is not None:
            self.sink.kill()
            self.sink.wait()

    def spans(self) -> dict[str, float]:
        """Spans by what became of them."""
        names = {"understudy_otlp_offered_total": "offered", "understudy_otlp_waiting": "waiting"}
        found = dict.fromkeys((*names.values(), *OUTCOMES), 0.0)
        for line in self._metrics().splitlines():
            if 'signal="traces"' not in line:
                continue
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            outcome = series.partition('outcome="')[2].partition('"')[0]
            found[names.get(name) or outcome] = float(value)
        return found


class Away(Traced):
    name = "collector away"
    behaviour = None


class Slow(Traced):
    name = "collector slow"
    behaviour = ("--pause", "3")


class Refusing(Traced):
    name = "collector refuses"
    behaviour = ("--status", "400")


KINDS: tuple[type[Traced], ...] = (Traced, Away, Slow, Refusing)


def run(course: Course, quick: bool) -> dict[str, dict[str, Any]]:
    """By kind of collector: latencies in seconds, what became of the spans, and resident memory of
    the evaluation plane in MiB. ``course`` has them as contenders, and is started."""
    seconds, rounds = (8.0, 2) if quick else (30.0, 3)
    found: dict[str, dict[str, Any]] = {}
    latencies: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds + 1):
        for one in course.contenders:
            figures = open_loop(one.port, RATE, seconds if number else 2.0, number)
            if number:  # the first round warms up
                latencies.setdefault(one.name, []).append(figures)
        note(f"  collectors: round {number} of {rounds}")
    for one in course.contenders:
        assert isinstance(one, Traced)
        keys = latencies[one.name][0]
        found[one.name] = {
            **{key: median([each[key] for each in latencies[one.name]]) for key in keys},
            "spans": one.spans(),
            "evaluation_mib": sum(map(resident_mib, one.evaluation())),
        }
    return found
