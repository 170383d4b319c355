"""False alarms of a whole watch: 20 features, 10 segments, all rules, everything together.

Every stream has a baseline of its own of 10,000 rows, and then stationary rows. Each finding of any
kind counts, and the watch begins anew after one. With the default of a million rows between false
alarms there would be next to nothing to count, so a hundred thousand are asked for.

    python -m benchmarks drift-segments [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.harness import Claim, Result, environment
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.encoder import Batch
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

FEATURES = 20
SEGMENTS = 10
RUN_LENGTH = 100_000.0
BATCH = 1_000
NAMES = (*(f"x{n}" for n in range(FEATURES)), "region")
_MIX = np.eye(FEATURES) + 0.3


def table(rng: np.random.Generator, rows: int) -> list[list[Any]]:
    """Columns: normal and lognormal ones that go together, some missing, and the segment."""
    x = rng.normal(size=(rows, FEATURES)) @ _MIX
    x[:, ::2] = np.exp(x[:, ::2] / 2.0)
    columns: list[list[Any]] = x.T.tolist()
    for place in np.flatnonzero(rng.random(rows) < 0.02):
        columns[3][place] = None
    return [*columns, [f"r{n}" for n in rng.integers(0, SEGMENTS, rows)]]


def stream(seed: int, rows: int) -> dict[str, int]:
    """False alarms by kind of finding in so many rows."""
    rng = np.random.default_rng(seed)
    builder = Builder(model="m")
    builder.add(NAMES, table(rng, 10_000))
    baseline = builder.finish()
    options = Options(run_length=RUN_LENGTH, segments=("region",), max_segments=SEGMENTS)
    watch = ModelWatch(baseline, options)
    found: dict[str, int] = {}
    for start in range(0, rows, BATCH):
        cells = table(rng, BATCH)
        times = [float(start + n) for n in range(BATCH)]
        watch.evaluate(Batch(NAMES, cells, [b"r"] * BATCH, times))
        watch.flush()
        signals = signals_of(watch, "m", "", watch.newest)
        if signals:
            for kind in {"segment" if s.segment else s.key.rpartition("/")[2] or s.kind
                         for s in signals}:  # fmt: skip
                found[kind] = found.get(kind, 0) + 1
            watch = ModelWatch(baseline, options)
    return found


def run(quick: bool = False) -> Result:
    result = Result("drift-segments", environment(quick=quick, **{"run length": RUN_LENGTH}))
    streams, rows = (4, 50_000) if quick else (40, 200_000)
    by_kind: dict[str, int] = {}
    each = []
    for seed in range(streams):
        found = stream(seed, rows)
        each.append(sum(found.values()))
        for kind, count in found.items():
            by_kind[kind] = by_kind.get(kind, 0) + count
        print(f"  stream {seed + 1}: {found}", file=sys.stderr, flush=True)
    total = streams * rows
    rate = np.array(each) / rows * 1e5
    half = 2.326 * float(rate.std(ddof=1)) / streams**0.5
    result.measurements = {"rows": total, "by kind": by_kind, "by stream": each}
    mean = float(rate.mean())
    text = f"false alarms per 100,000 rows, {FEATURES} features x {SEGMENTS} segments"
    result.claims = [
        Claim(text, mean, 1.0, "<="),
        Claim(f"{text}, upper end of a one-sided 99 % interval", mean + half, 1.0, "<="),
    ]
    result.tables.append(
        ("By kind", ["kind", "alarms", "rows"], [[k, n, total] for k, n in by_kind.items()])
    )
    return result
