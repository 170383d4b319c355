"""Equal arms whose requests depend on each other, through whole experiments.

The metric is a success; what is counted are roll-backs. The verdict is read after every 500
requests, at most 40,000 of them. Each arm has its own outages or slow phases: the
null hypothesis is about blocks of time (:mod:`understudy.shadow.sequential.time_blocks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import signal

from benchmarks.sequential import streams
from understudy.shadow.experiment import Experiment, Rules, Split

LOOK = 500
MOST = 40_000
Rng = np.random.Generator
Array = np.ndarray[Any, Any]
Row = tuple[Any, ...]
Draw = Callable[[Rng, Array], Array]


def cases() -> list[Row]:
    """Rows of (method, setting, run, claimed, weight)."""
    rows: list[Row] = []
    for share in (0.5, 0.05):
        for gap, length in ((2_000, 50), (5_000, 100), (10_000, 300)):
            name = f"{share:.0%} split, outages of {length} requests every {gap:,} in each arm"
            run = _run("error_rate", "error", share, _outages(gap, length))
            rows.append(("experiment, error rate", name, run, True, 0.1))
    for metric in ("latency_p50", "latency_p95", "latency_p99", "latency_mean"):
        for phi in (0.3, 0.6, 0.9):
            run = _run(metric, "latency", 0.5, _phases(phi))
            rows.append((f"experiment, {metric}", f"AR({phi:g}) in each arm", run, True, 0.1))
    return rows


def _run(metric: str, column: str, share: float, draw: Draw) -> Callable[[Rng, int], bool]:
    def run(rng: Rng, n: int) -> bool:
        n = min(n, MOST)
        arms = streams.arms(rng, n, share)
        values = draw(rng, arms)
        experiment = Experiment("aa", ["c"], Rules.parse([{"metric": metric, "role": "success"}]))
        for start in range(0, n, LOOK):
            part = slice(start, start + LOOK)
            shares = np.full(arms[part].size, share)
            batch = Split(arms[part], shares, {column: values[part]})
            experiment.contests["c"].update_split(batch)
            verdict = experiment.decide("split", 0.0)["c"].verdict
            if verdict != "continue":
                return verdict == "rollback"
        return False

    return run


def _outages(gap: int, length: int) -> Draw:
    """Half of an arm's requests fail during its outages, 0.2 % otherwise."""

    def draw(rng: Rng, arms: Array) -> Array:
        down = np.zeros((2, arms.size), bool)
        for arm in (0, 1):
            at = int(rng.exponential(gap))
            while at < arms.size:
                until = at + 1 + int(rng.exponential(length))
                down[arm, at:until] = True
                at = until + int(rng.exponential(gap))
        own = np.where(arms == 1.0, down[1], down[0])
        return (rng.random(arms.size) < np.where(own, 0.5, 0.002)).astype(np.float64)

    return draw


def _phases(phi: float) -> Draw:
    """Lognormal latencies whose logs are an AR(1) sequence within each arm."""

    def draw(rng: Rng, arms: Array) -> Array:
        logs = np.empty(arms.size)
        for arm in (0.0, 1.0):
            mine = arms == arm
            steps = rng.standard_normal(int(mine.sum())) * np.sqrt(1.0 - phi * phi)
            steps[:1] = rng.standard_normal(1)
            logs[mine] = signal.lfilter([1.0], [1.0, -phi], steps)
        return np.asarray(0.02 * np.exp(0.5 * logs))

    return draw
