"""What silent failure costs: CPU per row, state, distances; beside river and its ADWIN.

Rows come as in the service, as sheets of columns: what it costs to make these of payloads is part
of the benchmark ``proxy-evaluation``. A row that is evaluated alone has a sheet of its own.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from benchmarks.harness import Claim, Result, environment
from tests.support.sheets import sheet_of
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.detectors.distances import between
from understudy.monitor.health.drift.watch import FULL, ModelWatch
from understudy.monitor.health.options import Options

FEATURES = 20
ROUNDS = 7
LONE = 1000
_ADWIN = """
import random, sys, time
from river.drift import ADWIN
rows, features = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(1)
values = [[chance.gauss(0, 1) for _ in range(features)] for _ in range(rows)]
detectors = [ADWIN() for _ in range(features)]
began = time.process_time()
for row in values:
    for detector, value in zip(detectors, row):
        detector.update(value)
print((time.process_time() - began) / rows * 1e6)
"""


def _cpu(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Seconds of CPU, the least of some rounds: what others do to the caches only adds to it."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def _adwin(rows: int) -> float | None:
    """River's ADWIN on each feature of a row, in microseconds; None where river is missing."""
    command = [sys.executable, "-c", _ADWIN, str(rows), str(FEATURES)]
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None


def run(quick: bool = False) -> Result:
    result = Result("drift-cost", environment())
    rows = 5_120 if quick else 25_600
    rng = np.random.default_rng(1)
    names = tuple(f"x{n}" for n in range(FEATURES))
    table = rng.lognormal(size=(10_000 + rows, FEATURES)).round(4)
    builder = Builder(model="m")
    builder.add(names, table[:10_000].T.tolist())
    baseline = builder.finish()
    live = table[10_000:].tolist()
    sheets = [
        sheet_of(names, live[start : start + FULL], range(start, min(start + FULL, rows)))
        for start in range(0, rows, FULL)
    ]
    watch = ModelWatch(baseline, Options())

    def batches() -> None:
        for sheet in sheets:
            watch.take_rows(sheet, names, False)
        watch.flush()
        for sheet in sheets:
            sheet.at += rows  # time goes on

    # Never the same rows again soon, which would be a fault that the watch looks for.
    lone = [sheet_of(names, [row], [ROUNDS * rows + number]) for number, row in enumerate(live)]
    fresh = itertools.cycle(lone)

    def singles() -> None:
        for sheet in itertools.islice(fresh, LONE):
            watch.take_rows(sheet, names, False)
            watch.flush()

    # In turns with the peer, so that both have the machine as it is.
    turns = []
    for _ in range(ROUNDS):
        ours = _cpu(batches, 1) / rows * 1e6
        turns.append((ours, _adwin(2_000 if quick else 5_000)))
    per_row = min(ours for ours, _ in turns)
    single = _cpu(singles) / LONE * 1e6
    state = len(orjson.dumps(watch.dump_state()))
    a, b = rng.lognormal(size=(2, 10_000, FEATURES))
    distances = _cpu(lambda: between(a, b)) * 1e3
    ratios = [ours / theirs for ours, theirs in turns if theirs]
    adwin = min((theirs for _, theirs in turns if theirs), default=None)
    result.measurements = {
        "us_per_row_in_batches_of_256": per_row,
        "us_per_row_alone": single,
        "state_bytes": state,
        "distances_10k_x_20_ms": distances,
        "river_adwin_us_per_row": adwin,
    }
    result.claims = [
        Claim("CPU per row, 20 features, batches of 256 (us)", per_row, 5.0, "<="),
        Claim("CPU of a row that is evaluated alone (us)", single, 60.0, "<="),
        Claim("state at 20 features (bytes)", float(state), 20_000.0, "<="),
        Claim("PSI, JS, KS, Wasserstein, 10k x 20 against 10k x 20 (ms)", distances, 12.0, "<="),
        Claim(
            "the watch / ADWIN on each feature",
            statistics.median(ratios) if ratios else None,
            1.5,
            "<=",
        ),
    ]
    return result
