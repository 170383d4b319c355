"""How often a verdict is wrong, and how many requests it takes: simulations beside LoadGen's rule.

A percentile exactly at its limit must pass in at most 1 % of the streams, however often somebody
looks. LoadGen's rule is made for one look; the same streams show what "run on and test again" makes
of it. Where a share of the limit's is over it, the queries to pass stand beside LoadGen's.

    python -m benchmarks load-statistics [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.harness import Claim, Result, environment
from loadtest.statistics.percentile import Percentile, queries_needed

SEED = 11
PARTS = (0.0, 0.25, 0.5, 0.75)


def boundaries(p: float, rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The most requests over the limit with which each n passes: ours, and by LoadGen's rule."""
    objective = Percentile(p)
    ours, theirs = np.full(rows, -1), np.full(rows, -1)
    most, other = -1, -1
    needed = queries_needed(p, 0)
    for n in range(1, rows + 1):
        while most + 1 <= n and objective.verdict(n, most + 1) == "met":
            most += 1
        while needed <= n:
            other += 1
            needed = queries_needed(p, other + 1)
        ours[n - 1], theirs[n - 1] = most, other
    return ours, theirs


def run(quick: bool = False) -> Result:
    streams = 2_000 if quick else 10_000
    result = Result("load-statistics", environment(quick=quick, streams=streams, seed=SEED))
    rng = np.random.default_rng(SEED)
    false: list[list[Any]] = []
    speed: list[list[Any]] = []
    for p, rows in ((0.9, 4_000), (0.99, 20_000)):
        ours, theirs = boundaries(p, rows)
        wrong, again = 0, 0
        for start in range(0, streams, 500):
            count = min(500, streams - start)
            over = np.cumsum(rng.random((count, rows)) < 1.0 - p, axis=1, dtype=np.int32)
            wrong += int((over <= ours).any(axis=1).sum())
            again += int((over <= theirs).any(axis=1).sum())
        false.append([f"p{100 * p:g}", rows, wrong / streams, again / streams])
        print(f"  p{100 * p:g}: {wrong / streams}", file=sys.stderr, flush=True)
        for part in PARTS:
            over = np.cumsum(rng.random((400, rows)) < part * (1.0 - p), axis=1, dtype=np.int32)
            first = [
                np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, rows)
                for hit in (over <= ours, over <= theirs)
            ]
            mine, other = (float(np.median(one)) for one in first)
            speed.append([f"p{100 * p:g}", part, mine, other, mine / other])
    first_head = ["percentile", "looks", "anytime", "LoadGen's rule, tested again"]
    second_head = ["percentile", "over, of what is allowed", "anytime", "LoadGen's rule", "ratio"]
    result.tables = [
        ("Exactly at the limit: ever passed", first_head, false),
        ("Requests until it passes, median", second_head, speed),
    ]
    result.measurements = {"false": false, "speed": speed}
    for name, _, wrong, _ in false:
        result.claims.append(Claim(f"false passes with unlimited looks, {name}", wrong, 0.01, "<="))
    for name, part, _, _, ratio in speed:
        text = f"requests to pass / LoadGen's, {name}, {part:g} of what is allowed over the limit"
        result.claims.append(Claim(text, ratio, 2.5, "<="))
    return result
