"""Challengers of a sidecar under test, and what became of their requests."""

from __future__ import annotations

from dataclasses import replace

from tests.support.proxy import Sidecar
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.routing.plan import Challenger, Upstream


def challenger(port: int, name: str = "candidate", **changes: object) -> Challenger:
    upstream = Upstream(
        name, "127.0.0.1", port, host_header=f"127.0.0.1:{port}", max_connections=4,
        idle_timeout=60.0,
    )  # fmt: skip
    return replace(Challenger(upstream), **changes)


def outcomes(side: Sidecar, arm: str = "candidate") -> dict[str, int]:
    counts = {name: side.counter("mirror", arm=arm, outcome=name) for name in OUTCOMES}
    return {name: count for name, count in counts.items() if count}
