"""Runs rules of Shewhart charts on arrays of points, and how often they alarm by chance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import ndtr

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
FOUR = (1, 2, 3, 4)
EIGHT = (1, 2, 3, 4, 5, 6, 7, 8)
MEMORY = 14
"""Points before the present one that any rule looks at."""
SIMULATED = {EIGHT: 65.7}
"""Run lengths of sets with rules that no finite chain describes, from 30,000,000 points."""


def broken(x: Floats, rules: Sequence[int], limit: float = 3.0) -> NDArray[np.int8]:
    """Points (n,) in order: the lowest number of the rules that each breaks, or 0."""
    result = np.zeros(len(x), np.int8)
    for rule in sorted(rules, reverse=True):
        result[_breaks(rule, x, limit)] = rule
    return result


def _recent(mask: Mask, window: int) -> NDArray[np.int64]:
    """How many of the last ``window`` points are marked; fewer where there were fewer."""
    total = np.cumsum(mask, dtype=np.int64)
    total[window:] -= total[:-window].copy()
    return total


def _both(rule_up: Mask, rule_down: Mask) -> Mask:
    result: Mask = rule_up | rule_down
    return result


def _of(x: Floats, needed: int, window: int, beyond: float) -> Mask:
    """So many of a window beyond a line on the same side, the present one among them."""
    up, down = x > beyond, x < -beyond
    return _both(up & (_recent(up, window) >= needed), down & (_recent(down, window) >= needed))


def _trend(x: Floats) -> Mask:
    rising = np.concatenate([[False], np.diff(x) > 0.0])
    falling = np.concatenate([[False], np.diff(x) < 0.0])
    return _both(_recent(rising, 5) == 5, _recent(falling, 5) == 5)


def _alternating(x: Floats) -> Mask:
    steps = np.diff(x)
    turns = np.concatenate([[False, False], steps[1:] * steps[:-1] < 0.0])[: len(x)]
    result: Mask = _recent(turns, 12) == 12
    return result


def _breaks(rule: int, x: Floats, limit: float) -> Mask:
    size = np.abs(x)
    result: Mask
    if rule == 1:
        result = size > limit
    elif rule == 2:
        result = _of(x, 2, 3, limit * 2.0 / 3.0)
    elif rule == 3:
        result = _of(x, 4, 5, limit / 3.0)
    elif rule == 4:
        result = _of(x, 8, 8, 0.0)
    elif rule == 5:
        result = _trend(x)
    elif rule == 6:
        result = _recent(size < limit / 3.0, 15) == 15
    elif rule == 7:
        result = _alternating(x)
    else:
        result = _recent(size > limit / 3.0, 8) == 8
    return result


@lru_cache(maxsize=64)
def runs_length(rules: tuple[int, ...] = FOUR, mean: float = 0.0, limit: float = 3.0) -> float:
    """Points to the first alarm, on average, for points N(mean, 1) and any of the rules 1-4.

    The state of the chain is what the rules remember: the sides of the last two points beyond two
    thirds of the limit, of the last four beyond one third, and the run on one side. Raises
    ValueError for other rules; :data:`SIMULATED` has the figure of all eight.
    """
    if not set(rules) <= set(FOUR):
        raise ValueError(f"no chain describes the rules {sorted(set(rules) - set(FOUR))}")
    lines = np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]) * limit / 3.0
    shares = np.diff(np.concatenate([[0.0], ndtr(lines - mean), [1.0]]))
    # Zones: -4 … -1 below the middle, 1 … 4 above; 4 is beyond the limit.
    zones = [-4, -3, -2, -1, 1, 2, 3, 4]
    start = ((0, 0), (0, 0, 0, 0), 0)
    indices = {start: 0}
    waiting = [start]
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    while waiting:
        state = waiting.pop()
        for zone, share in zip(zones, shares, strict=True):
            following = _follow(state, zone, rules)
            if following is None:
                continue
            if following not in indices:
                indices[following] = len(indices)
                waiting.append(following)
            rows.append(indices[state])
            columns.append(indices[following])
            values.append(share)
    size = len(indices)
    # A few hundred states at most, so that a dense system is small, and scipy.sparse not needed.
    system = np.eye(size)
    np.subtract.at(system, (rows, columns), values)
    return float(np.linalg.solve(system, np.ones(size))[0])


State = tuple[tuple[int, int], tuple[int, int, int, int], int]


def _follow(state: State, zone: int, rules: Sequence[int]) -> State | None:
    """The state after one more point; None for an alarm."""
    two, one, run = state
    side = 1 if zone > 0 else -1
    far = side if abs(zone) >= 3 else 0
    near = side if abs(zone) >= 2 else 0
    run = run + side if run * side > 0 else side
    if 1 in rules and abs(zone) == 4:
        return None
    if 2 in rules and far and far in two:
        return None
    if 3 in rules and near and one.count(near) >= 3:
        return None
    if 4 in rules and abs(run) >= 8:
        return None
    return (
        (two[1], far) if 2 in rules else (0, 0),
        (one[1], one[2], one[3], near) if 3 in rules else (0, 0, 0, 0),
        run if 4 in rules else 0,
    )
