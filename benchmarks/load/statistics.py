"""How often a verdict is wrong, and how many requests it takes: simulations beside LoadGen's rule.

A percentile exactly at its limit must pass in at most 1 % of the streams, however often somebody
looks; beside the simulation stands the exact probability, from the distribution of the count.
LoadGen's rule is made for one look; the same streams show what "run on and test again" makes of it.
Where a share of the limit's is over it, the queries to pass stand beside LoadGen's, both looked at
after every query, and beside the fewest that any test with our guarantee needs in the mean (Wald).

    python -m benchmarks load-statistics [--quick]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from benchmarks.harness import Claim, Result, environment
from understudy.loadtest.statistics.percentile import Percentile, queries_needed

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


def ever(share: float, boundary: np.ndarray[Any, Any]) -> float:
    """The exact probability that the count of successes of a share is ever within the boundary."""
    size = int(len(boundary) * share + 12.0 * math.sqrt(len(boundary) * share)) + 20
    alive = np.zeros(size)
    alive[0] = 1.0
    passed = 0.0
    for most in boundary.tolist():
        alive[1:] = alive[1:] * (1.0 - share) + alive[:-1] * share
        alive[0] *= 1.0 - share
        if most >= 0:
            passed += float(alive[: most + 1].sum())
            alive[: most + 1] = 0.0
    return passed


def fewest(part: float, p: float, alpha: float = 0.01) -> float:
    """Wald's bound on the mean number of requests, for a test that knows the share."""
    q = 1.0 - p
    r = part * q
    divergence = (1.0 - r) * math.log((1.0 - r) / (1.0 - q))
    divergence += r * math.log(r / q) if r else 0.0
    return -math.log(alpha) / divergence


def run(quick: bool = False) -> Result:
    streams, paths = (2_000, 400) if quick else (10_000, 2_000)
    result = Result("load-statistics", environment(quick=quick, streams=streams, seed=SEED))
    rng = np.random.default_rng(SEED)
    false: list[list[Any]] = []
    speed: list[list[Any]] = []
    for p, rows in ((0.9, 4_000), (0.99, 40_000)):
        ours, theirs = boundaries(p, rows)
        wrong, again = 0, 0
        for start in range(0, streams, 200):
            count = min(200, streams - start)
            over = np.cumsum(rng.random((count, rows)) < 1.0 - p, axis=1, dtype=np.int32)
            wrong += int((over <= ours).any(axis=1).sum())
            again += int((over <= theirs).any(axis=1).sum())
        exact = ever(1.0 - p, ours)
        false.append([f"p{100 * p:g}", rows, wrong / streams, exact, again / streams])
        print(f"  p{100 * p:g}: {wrong / streams}, exactly {exact}", file=sys.stderr, flush=True)
        for part in PARTS:
            first: list[list[np.ndarray[Any, Any]]] = [[], []]
            for _ in range(0, paths, 200):
                hits = rng.random((200, rows)) < part * (1.0 - p)
                over = np.cumsum(hits, axis=1, dtype=np.int32)
                for results, boundary in zip(first, (ours, theirs), strict=True):
                    hit = over <= boundary
                    results.append(np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, rows))
            mine, other = (np.concatenate(one) for one in first)
            halves = float(np.median(mine)), float(np.median(other))
            speed.append(
                [f"p{100 * p:g}", part, *halves, halves[0] / halves[1], float(mine.mean()),
                 fewest(part, p)]
            )  # fmt: skip
    first_head = ["percentile", "looks", "anytime", "anytime, exactly", "LoadGen's, tested again"]
    second_head = [
        "percentile", "over, of what is allowed", "anytime", "LoadGen's rule", "ratio",
        "anytime, mean", "no test needs fewer in the mean than",
    ]  # fmt: skip
    result.tables = [
        ("Exactly at the limit: ever passed", first_head, false),
        ("Requests until it passes, median", second_head, speed),
    ]
    result.measurements = {"false": false, "speed": speed}
    for name, _, wrong, exact, _ in false:
        result.claims += [
            Claim(f"false passes with unlimited looks, {name}", wrong, 0.01, "<="),
            Claim(f"the same, exact probability, {name}", exact, 0.01, "<="),
        ]
    for name, part, _, _, ratio, _, _ in speed:
        text = f"requests to pass / LoadGen's, {name}, {part:g} of what is allowed over the limit"
        result.claims.append(Claim(text, ratio, 2.5, "<="))
    return result
