"""The cost of tracing: off, no request sampled, a tenth, all; beside Envoy with its own tracer.

Each proxy has one worker and no mirror. Spans go by OTLP over HTTP to a receiver that discards
them.
A plain request without a trace context begins its trace at the proxy. Then, with all requests
sampled, what clients notice of a collector that is away, slow, or refuses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, Result, environment, median, median_ratio, resident_mib
from benchmarks.proxy.contenders import Contender, Envoy, Understudy, cluster, cores, peers_python
from benchmarks.proxy.course import MAIN, Course, note
from benchmarks.proxy.load import LOAD_CORE
from benchmarks.proxy.report import cell_name, column, versions
from benchmarks.telemetry import collectors
from tests.support.ports import free_port

SINK = free_port()
_TYPE = "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig"


class Off(Understudy):
    name = "understudy, off"


class Sampled(Understudy):
    ratio = 0.0

    def config(self) -> dict[str, Any]:
        traces = {"ratio": self.ratio, "queue": 1_000_000, "queue_bytes": "512MiB"}
        telemetry = {
            "endpoint": f"http://127.0.0.1:{SINK}",
            "traces": traces,
            "metrics": {"exporter": "none"},
            "events": {"exporter": "none"},
        }
        return {**super().config(), "telemetry": telemetry}

    def spans(self) -> dict[str, float]:
        """Spans by what became of them."""
        found = {}
        for line in self._metrics().splitlines():
            if line.startswith("understudy_otlp_") and 'signal="traces"' in line:
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found


class NoneSampled(Sampled):
    name = "understudy, none sampled"


class Tenth(Sampled):
    name = "understudy, a tenth"
    ratio = 0.1


class Every(Sampled):
    name = "understudy, all"
    ratio = 1.0


class EnvoyOff(Envoy):
    name = "envoy, off"


class EnvoySampled(Envoy):
    percent = 0.0

    def manager(self) -> dict[str, Any]:
        uri = {"uri": f"http://127.0.0.1:{SINK}/v1/traces", "cluster": "otlp", "timeout": "5s"}
        provider = {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": _TYPE,
                "http_service": {"http_uri": uri},
                "service_name": "envoy",
            },
        }
        # As many spans as ours: one for the client's request and one for that to the upstream.
        return {
            "generate_request_id": True,
            "tracing": {
                "provider": provider,
                "spawn_upstream_span": True,
                "random_sampling": {"value": self.percent},
            },
        }

    def clusters(self) -> list[dict[str, object]]:
        return [cluster("otlp", SINK)]


class EnvoyNone(EnvoySampled):
    name = "envoy, none sampled"


class EnvoyTenth(EnvoySampled):
    name = "envoy, a tenth"
    percent = 10.0


class EnvoyEvery(EnvoySampled):
    name = "envoy, all"
    percent = 100.0


KINDS: tuple[type[Contender], ...] = (
    *(Off, NoneSampled, Tenth, Every),
    *(EnvoyOff, EnvoyNone, EnvoyTenth, EnvoyEvery),
)
_COLUMNS = {
    "data_plane_us": "CPU µs/request, data plane",
    "everything_us": "CPU µs/request, everything",
    "per_second": "requests/s",
    "evaluated": "records evaluated",
    "errors": "errors",
}


def _unknown(collected: dict[str, Any]) -> float:
    spans = collected["spans"]
    known = sum(spans[outcome] for outcome in collectors.OUTCOMES)
    return float(abs(spans["offered"] - known - spans["waiting"]))


def _received() -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{SINK}/", timeout=10) as answer:
        found: dict[str, int] = json.load(answer)
        return found


def run(quick: bool) -> Result:
    """Measure all; see the module."""
    if cores() < 2:
        raise SystemExit("the proxies and the load need a core each")
    sink = subprocess.Popen(
        ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.telemetry.otlp_sink",
         str(SINK)],
    )  # fmt: skip
    try:
        time.sleep(1.0)
        with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
            peers_python()
            course = Course(quick, Path(name), KINDS)
            course.cells = [MAIN]
            try:
                course.start()
                cost = course.cost()[cell_name(*MAIN)]
                workers = {
                    one.name: max(map(resident_mib, one.data_plane()))
                    for one in course.contenders
                    if isinstance(one, Understudy)
                }
                time.sleep(6.0)  # the last batch waits for five seconds
                spans = {
                    one.name: one.spans() for one in course.contenders if isinstance(one, Sampled)
                }
                received = _received()
            finally:
                course.stop()
            folder = Path(name) / "collectors"
            folder.mkdir()
            second = Course(quick, folder, collectors.KINDS)
            try:
                second.start()
                collected = collectors.run(second, quick)
            finally:
                second.stop()
    finally:
        sink.kill()
        sink.wait()
    note(f"  received {received}")

    def ratio(ours: str, theirs: str, key: str) -> float | None:
        return median_ratio(column(cost.get(ours, []), key), column(cost.get(theirs, []), key))

    there = collectors.Traced.name
    result = Result(
        "otel",
        environment(
            pinned="proxies on core 0; backend, receiver and load on core 1",
            form="quick" if quick else "full",
            rounds=course.rounds,
            not_measured=course.missing or "nothing",
            **versions(),
        ),
        {
            "cost": cost,
            "spans": spans,
            "received": received,
            "worker_mib": workers,
            "collectors": collected,
        },
        [
            Claim("CPU per request of everything, a tenth sampled / off",
                  ratio("understudy, a tenth", "understudy, off", "everything_us"), 1.05, "<="),
            Claim("CPU per request of the data plane, none sampled / off",
                  ratio("understudy, none sampled", "understudy, off", "data_plane_us"), 1.1, "<="),
            Claim("CPU per request of everything, a tenth sampled / Envoy, a tenth sampled",
                  ratio("understudy, a tenth", "envoy, a tenth", "everything_us"), 0.6, "<="),
            Claim("CPU per request of everything, all sampled / Envoy, all sampled",
                  ratio("understudy, all", "envoy, all", "everything_us"), 1.0, "<="),
            Claim("resident memory of a worker, all sampled, MiB", workers.get("understudy, all"),
                  40, "<="),
            *(
                Claim(f"p99 at {collectors.RATE:.0f}/s, {kind.name} / {there}",
                      collected[kind.name]["p99"] / collected[there]["p99"], 1.25, "<=")
                for kind in collectors.KINDS[1:]
            ),
            Claim("spans of which nothing is known, all kinds of collector",
                  max(map(_unknown, collected.values())), 0, "<="),
        ],
    )  # fmt: skip
    result.tables.append(
        (
            f"Open loop at {collectors.RATE:.0f} requests/s, all sampled",
            ["collector", "p50 ms", "p99 ms", *collectors.OUTCOMES, "evaluation plane MiB"],
            [
                [name, one["p50"] * 1e3, one["p99"] * 1e3,
                 *(one["spans"][outcome] for outcome in collectors.OUTCOMES), one["evaluation_mib"]]
                for name, one in collected.items()
            ],
        )
    )  # fmt: skip
    rows = [
        [name, *(median(column(rounds, key)) for key in _COLUMNS)] for name, rounds in cost.items()
    ]
    result.tables.append(
        (f"Closed loop: {cell_name(*MAIN)} (medians)", ["proxy", *_COLUMNS.values()], rows)
    )
    return result
