"""Null hypotheses of the asymptotic methods: where the gate has to hold them back.

Batches grow by 0.7 % (every record up to 150, about 1,000 looks in 100,000 records), which is as
good as looking after every record: between two looks the estimate moves by less than a tenth of
the half-width. Each case runs the library's own objects.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.sequential import streams
from understudy.shadow import sequential as sq

ALPHA = 0.05
SPLITS = (0.5, 0.05, 0.01)
RATES = (0.5, 0.1, 0.01, 0.001)
Rng = np.random.Generator
Row = tuple[Any, ...]
Draw = Callable[[Rng, int], npt.NDArray[np.float64]]


def looks(n: int) -> list[tuple[int, int]]:
    """Growing batches."""
    ends, at = [], 0
    while at < n:
        at = min(n, at + max(1, int(at * 0.007)))
        ends.append(at)
    return list(itertools.pairwise([0, *ends]))


def ever(process: Any, n: int, feed: Callable[[int, int], None]) -> bool:
    """Whether the process rejects at any look."""
    for a, b in looks(n):
        feed(a, b)
        if process.rejects(ALPHA):
            return True
    return False


def cases(trace: npt.NDArray[np.float64]) -> list[Row]:
    """Rows of (method, setting, run, claimed, weight)."""
    rows: list[Row] = []
    for share in SPLITS:
        name = f"{share:.0%} split"
        rows.append(_mean(f"{name}, normal", share, _normal))
        rows += [_mean(f"{name}, rate {rate:g}", share, _events(rate)) for rate in RATES]
        for side in ("two-sided", "greater", "less"):
            rows.append(_mean(f"{name}, lognormal sigma 2, {side}", share, _lognormal(2.0), side))
        rows.append(_mean(f"{name}, lognormal sigma 1", share, _lognormal(1.0)))
        rows.append(
            _mean(
                f"{name}, AR(.99) bursts and drift common to the arms",
                share,
                streams.bursty_latencies,
            )
        )
        rows.append(
            _mean(
                f"{name}, measured latencies",
                share,
                lambda r, n: streams.measured_stream(n, trace)(r),
            )
        )
    for name, share, draw in (
        ("5% split, lognormal sigma 2", 0.05, _lognormal(2.0)),
        ("50% split, rate 0.01", 0.5, _events(0.01)),
        ("5% split, rate 0.01", 0.05, _events(0.01)),
    ):
        rows.append(
            _mean(name, share, draw, gate=OPEN, method="mean without the gate", claimed=False)
        )
    for phi in (0.3, 0.6, 0.9):
        rows.append(("asymptotic mean", f"AR({phi}) in each arm", _own(phi, None), True, 0.1))
        rows.append(
            ("mean without the gate", f"AR({phi}) in each arm", _own(phi, OPEN), False, 0.1)
        )
    rows.append(
        ("asymptotic blocks", "AR(.9) in each arm, blocks of 48", _blocks(0.9, 48), True, 0.1)
    )
    rows.append(
        ("asymptotic blocks", "AR(.99) in each arm, blocks of 500", _blocks(0.99, 500), True, 0.1)
    )
    rows += [
        ("asymptotic adjusted", f"{share:.0%} split, two covariates", _adjusted(share), True, 0.1)
        for share in SPLITS
    ]
    rows.append(("asymptotic spread", "50% split, normal", _spread, True, 0.1))
    return rows


OPEN = sq.Gate(effective=1e-9, autocorrelation=0.999)


def _normal(rng: Rng, n: int) -> npt.NDArray[np.float64]:
    return rng.standard_normal(n)


def _lognormal(sigma: float) -> Draw:
    return lambda rng, n: streams.latencies(rng, n, sigma)


def _events(rate: float) -> Draw:
    return lambda rng, n: (rng.random(n) < rate).astype(np.float64)


def _mean(
    setting: str,
    share: float,
    draw: Draw,
    side: str = "two-sided",
    gate: sq.Gate | None = None,
    method: str = "asymptotic mean",
    claimed: bool = True,
) -> Row:
    def run(rng: Rng, n: int) -> bool:
        process = sq.MeanDifference(10_000, side, gate=gate)
        arm, x = streams.arms(rng, n, share), draw(rng, n)
        return ever(process, n, lambda a, b: process.update(arm[a:b], x[a:b]))

    return method, setting, run, claimed, 0.1


def _own(phi: float, gate: sq.Gate | None) -> Callable[[Rng, int], bool]:
    def run(rng: Rng, n: int) -> bool:
        process = sq.MeanDifference(10_000, gate=gate)
        arm = streams.arms(rng, n, 0.5)
        x = np.empty(n)
        for side in (0.0, 1.0):  # the memory is in the arm's own sequence of records
            mine = arm == side
            x[mine] = streams.ar1(rng, int(mine.sum()), phi)
        return ever(process, n, lambda a, b: process.update(arm[a:b], x[a:b]))

    return run


def _blocks(phi: float, block: int) -> Callable[[Rng, int], bool]:
    def run(rng: Rng, n: int) -> bool:
        process = sq.BlockDifference(block, 100_000)
        arm = streams.arms(rng, n, 0.5)
        x = np.empty(n)
        for side in (0.0, 1.0):
            mine = arm == side
            x[mine] = streams.ar1(rng, int(mine.sum()), phi)
        return ever(process, n, lambda a, b: process.update(arm[a:b], x[a:b]))

    return run


def _adjusted(share: float) -> Callable[[Rng, int], bool]:
    def run(rng: Rng, n: int) -> bool:
        process = sq.AdjustedDifference(2, 10_000)
        arm, x = streams.arms(rng, n, share), rng.standard_normal((n, 2))
        y = x @ [2.0, -1.0] + np.abs(x[:, 0]) + rng.standard_normal(n)
        return ever(process, n, lambda a, b: process.update(arm[a:b], y[a:b], x[a:b], share))

    return run


def _spread(rng: Rng, n: int) -> bool:
    process = sq.SpreadDifference(10_000)
    arm, x = streams.arms(rng, n, 0.5), rng.standard_normal(n)
    return ever(process, n, lambda a, b: process.update(arm[a:b], x[a:b]))
