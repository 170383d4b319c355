"""A well-behaved client's p99 beside hostile peers: the sidecar, nginx and Envoy.

Each proxy has one core. The well-behaved client sends requests of one row at a fixed rate. Beside
it, one kind of peer does all it can to keep the proxy busy: a mirror target (challenger) whose
responses have as many pieces as possible, or a client that uploads or downloads such messages. The
peers run with the scheduling class SCHED_IDLE on the core of the load, so that they take only the
time that client and model server leave, and what is measured is the proxy.

The sidecar's circuit breaker is set so that it never opens, since it would end the test: with its
default, five responses that break a limit stop the mirroring.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, Result, environment, median
from benchmarks.proxy.contenders import (
    PATH,
    Contender,
    Envoy,
    EnvoyMirror,
    Nginx,
    NginxMirror,
    Understudy,
    UnderstudyMirror,
    cores,
    peers_python,
)
from benchmarks.proxy.course import note
from benchmarks.proxy.load import LOAD_CORE
from benchmarks.proxy.open_loop import open_loop
from benchmarks.proxy.report import versions
from tests.support.patience import eventually
from tests.support.ports import free_port

RATE = 500.0
"""Requests per second of the well-behaved client."""
TARGET = 2.0
CONNECTIONS = 8
"""Those of a hostile client."""
NONE = "none"


@dataclass(frozen=True)
class Case:
    """A hostile peer: ``role`` is "challenger" or "client"."""

    role: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.role}: {self.kind.replace('_', ' ')}"


CASES = (
    Case("challenger", NONE),
    Case("challenger", "interim"),
    Case("challenger", "one_byte_chunks"),
    Case("challenger", "tiny_events"),
    Case("challenger", "single_events"),
    Case("challenger", "extensions"),
    Case("challenger", "header_lines"),
    Case("challenger", "endless_head"),
    Case("client", NONE),
    Case("client", "one_byte_chunks"),
    Case("client", "single_chunks"),
    Case("client", "extensions"),
    Case("client", "header_lines"),
    Case("client", "empty_lines"),
    Case("client", "endless_answer"),
    Case("client", "endless_events"),
)


class _UnderstudyMirror(UnderstudyMirror):
    def config(self) -> dict[str, Any]:
        config = super().config()
        config["challengers"][0]["mirror"]["breaker"] = {"failures": 1_000_000_000}
        return config


CONTENDERS: dict[str, tuple[type[Contender], ...]] = {
    "challenger": (_UnderstudyMirror, NginxMirror, EnvoyMirror),
    "client": (Understudy, Nginx, Envoy),
}

Seen = dict[str, dict[str, list[dict[str, float]]]]
"""Figures of each case and proxy, one entry per round."""


@contextmanager
def _process(module: str, *arguments: object) -> Iterator[None]:
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _peer(case: Case, contender: Contender) -> Iterator[None]:
    """The hostile peer of ``case``, or a challenger that behaves."""
    if case.role == "client":
        if case.kind == NONE:
            yield
            return
        arguments = (contender.port, case.kind, PATH, CONNECTIONS, "--idle")
        with _process("tests.support.hostile", *arguments):
            time.sleep(1.0)
            yield
        return
    mode = "right" if case.kind == NONE else case.kind
    idle = () if case.kind == NONE else ("--idle",)
    with _process("tests.support.model_server", contender.shadow, mode, *idle):
        _listens(contender.shadow)
        yield


def _listens(port: int) -> None:
    import socket

    def connects() -> bool:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    eventually(connects, "the model server listens")


def measured(quick: bool, folder: Path) -> tuple[Seen, dict[str, str]]:
    """Run all cases in rounds; also the contenders that did not start, with the reason."""
    seen: Seen = {case.name: defaultdict(list) for case in CASES}
    missing: dict[str, str] = {}
    rounds, seconds = (1, 3.0) if quick else (3, 5.0)
    champion = free_port()
    with _process("tests.support.model_server", champion):
        _listens(champion)
        for role, kinds in CONTENDERS.items():
            running: list[Contender] = []
            try:
                for kind in kinds:
                    try:
                        running.append(kind(folder, champion, free_port()))
                    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                        missing[kind.name] = str(error).splitlines()[0]
                        note(f"  NOT MEASURED: {kind.name}: {error}")
                for number in range(rounds):
                    for case in (case for case in CASES if case.role == role):
                        for contender in running:
                            with _peer(case, contender):
                                open_loop(contender.port, RATE, 1.0, number)  # warms up
                                figures = open_loop(contender.port, RATE, seconds, number)
                            seen[case.name][contender.name].append(figures)
                            time.sleep(0.5)
                        note(f"  {case.name}: round {number + 1} of {rounds}")
            finally:
                for contender in running:
                    contender.stop()
    return seen, missing


def beside(seen: Seen, case: Case, name: str) -> tuple[float | None, float | None]:
    """p99 in seconds, and its ratio to that of the same proxy without the peer."""
    p99 = median([entry["p99"] for entry in seen[case.name].get(name, [])])
    alone = median([e["p99"] for e in seen[Case(case.role, NONE).name].get(name, [])])
    return p99, p99 / alone if p99 is not None and alone else None


def claims(seen: Seen) -> list[Claim]:
    """What is claimed of the sidecar."""
    found = []
    failed = 0.0
    for case in CASES:
        ours = CONTENDERS[case.role][0].name
        failed += sum(entry["failed"] for entry in seen[case.name].get(ours, []))
        if case.kind != NONE:
            _, ratio = beside(seen, case, ours)
            found.append(Claim(f"p99 beside {case.name} / without", ratio, TARGET, "<="))
    return [Claim("failed requests of the well-behaved client", failed, 0.0, "<="), *found]


def tables(seen: Seen) -> list[tuple[str, list[str], list[list[Any]]]]:
    """One table for each role of the peer."""
    result = []
    for role, kinds in CONTENDERS.items():
        names = [kind.name for kind in kinds]
        header = ["peer"]
        for name in names:
            header += [f"{name} p50 ms", f"{name} p99 ms", "x alone", "failed"]
        rows = []
        for case in (case for case in CASES if case.role == role):
            row: list[Any] = [case.kind.replace("_", " ")]
            for name in names:
                entries = seen[case.name].get(name, [])
                p50 = median([entry["p50"] for entry in entries])
                p99, ratio = beside(seen, case, name)
                row += [
                    None if p50 is None else p50 * 1e3,
                    None if p99 is None else p99 * 1e3,
                    ratio,
                    int(sum(entry["failed"] for entry in entries)),
                ]
            rows.append(row)
        result.append((f"Hostile {role} (medians over rounds)", header, rows))
    return result


def run(quick: bool) -> Result:
    """Measure all; see the module's text."""
    if cores() < 2:
        raise SystemExit("the proxies and the load need a core each")
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        peers_python()
        seen, missing = measured(quick, Path(name))
    told = versions()
    return Result(
        "proxy-hostile",
        environment(
            pinned="proxies on core 0; model servers, load and hostile peers on core 1",
            form="quick" if quick else "full",
            rate=f"{RATE:,.0f} requests/s of one row, Poisson arrivals",
            hostile_connections=f"{CONNECTIONS} of a client; as many as are opened to a challenger",
            not_measured=missing or "nothing",
            envoy=told["envoy"],
            nginx=told["nginx"],
        ),
        {"seen": seen},
        claims(seen),
        tables(seen),
    )
