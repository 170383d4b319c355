"""The course: both proxies up, with and without a mirror, and load on one after another, in rounds.

Proxies have core 0, backend and load core 1. A message of 200 bytes, as a request of 20 features
has, gets one of 80 bytes; and one of 150 kB. The sidecar runs as a user starts it, with records and
their evaluation; what is compared is the CPU of the processes that forward.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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
from benchmarks.proxy.contenders import Contender, Envoy, Understudy, cores
from benchmarks.proxy.load import LOAD_CORE
from tests.support.ports import free_port

ANSWER = 80
CELLS = {"200 B, 4 × 4": (4, 4, 200), "200 B, 1 × 1": (1, 1, 200), "150 kB, 4 × 4": (4, 4, 150_000)}
"""Connections, calls at a time on each, and bytes of a message."""
MAIN = "200 B, 4 × 4"
_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


class GrpcUnderstudy(Understudy):
    name = "understudy"

    def config(self) -> dict[str, Any]:
        """Model servers over HTTP/2, and the paths of gRPC."""
        config = super().config()
        config["models"] = [{"name": "bench", "version": "1"}]
        for server in (config["champion"], *config.get("challengers", ())):
            server["url"] = server["url"].replace("http:", "grpc:")
        return config


class GrpcUnderstudyMirror(GrpcUnderstudy):
    name = "understudy-mirror"
    mirror = True


class GrpcEnvoy(Envoy):
    name = "envoy"

    def command(self) -> list[str]:
        command = super().command()
        path = self.folder / "envoy.json"
        config = json.loads(path.read_text())
        for one in config["static_resources"]["clusters"]:
            one["typed_extension_protocol_options"] = _HTTP2
        path.write_text(json.dumps(config))
        return command


class GrpcEnvoyMirror(GrpcEnvoy):
    name = "envoy-mirror"
    mirror = True


KINDS = (GrpcUnderstudy, GrpcEnvoy, GrpcUnderstudyMirror, GrpcEnvoyMirror)


def _load(port: int, cell: tuple[int, int, int], seconds: float) -> dict[str, Any]:
    connections, calls, size = cell
    options = (port, connections, calls, seconds, size)
    said = subprocess.run(
        ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.grpc.load"]
        + [str(one) for one in options],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def _measure(contender: Contender, cell: tuple[int, int, int], seconds: float) -> dict[str, Any]:
    before = cpu_seconds(contender.data_plane())
    found = _load(contender.port, cell, seconds)
    used = cpu_seconds(contender.data_plane()) - before
    found["us"] = used / max(1, found["calls"]) * 1e6
    found["mib"] = sum(map(resident_mib, contender.data_plane()))
    return found


def run(quick: bool) -> Result:
    """Measure all contenders; those that cannot be had are named."""
    rounds, seconds = (2, 1.0) if quick else (5, 3.0)
    cells = [MAIN] if quick else list(CELLS)
    ports = (free_port(), free_port())
    backend = subprocess.Popen(
        ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.grpc.backend", str(ANSWER)]
        + [str(port) for port in ports]
    )
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    missing: dict[str, str] = {}
    contenders: list[Contender] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for kind in KINDS:
                try:
                    contenders.append(kind(Path(folder), *ports))
                except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                    missing[kind.name] = str(error).splitlines()[0]
            for number in range(1 + rounds):
                for cell in cells:
                    direct = _load(ports[0], CELLS[cell], seconds)
                    found[cell, "direct"]["p99"].append(direct["p99"])
                    for contender in contenders:
                        figures = _measure(contender, CELLS[cell], seconds if number else 0.5)
                        if number:  # the first round warms up
                            for key, value in figures.items():
                                found[cell, contender.name][key].append(value)
        finally:
            for contender in contenders:
                contender.stop()
            backend.kill()
            backend.wait()
    return _report(found, cells, missing)


def _report(
    found: dict[tuple[str, str], dict[str, list[float]]], cells: list[str], missing: dict[str, str]
) -> Result:
    result = Result("grpc", environment(cores=cores(), load=f"{os.getloadavg()[0]:.1f}"))
    keys = ("calls", "failed", "us", "p50", "p99", "mib")
    rows = []
    for cell in cells:
        for kind in KINDS:
            figures = found.get((cell, kind.name))
            if figures:
                rows.append([cell, kind.name, *(median(figures[key]) for key in keys)])
    result.measurements = {
        "missing": missing,
        "cells": {f"{cell} · {name}": dict(figures) for (cell, name), figures in found.items()},
    }
    header = ["load", "proxy", "calls", "failed", "CPU µs per call", "p50 ms", "p99 ms", "MiB"]
    result.tables = [("Unary calls (medians of the rounds)", header, rows)]
    for ours, theirs, target in (
        ("understudy-mirror", "envoy-mirror", 0.6),
        ("understudy", "envoy", 1.0),
    ):
        one, other = found.get((MAIN, ours), {}), found.get((MAIN, theirs), {})
        if one and other:
            ratio = median_ratio(one["us"], other["us"])
            result.claims.append(
                Claim(f"CPU per call, {ours} to {theirs} ({MAIN})", ratio, target, "<=")
            )
            ratio = median_ratio(one["p99"], other["p99"])
            result.claims.append(Claim(f"p99, {ours} to {theirs} ({MAIN})", ratio, 1.0, "<="))
    failed = sum(sum(figures.get("failed", ())) for figures in found.values())
    result.claims.append(Claim("failed calls", float(failed), 0.0, "<="))
    return result
