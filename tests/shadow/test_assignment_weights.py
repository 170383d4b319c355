"""A million units: shares as exact as hashing can make them, and moves no larger than needed."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

import pytest

from understudy.shadow.assignment import OUT, Allocation, point

UNITS = 1_000_000
STEPS = ((0.9, 0.1), (0.7, 0.2, 0.1), (0.34, 0.33, 0.33), (0.5, 0.1, 0.3), (1.0,))


@cache
def points() -> list[int]:
    """The units' points, ascending; the salt is fixed, so the figures below are, too."""
    return sorted(point(b"weights", b"user-%d" % i) for i in range(UNITS))


def counts(allocation: Allocation) -> dict[int, int]:
    edges = [bisect_left(points(), start) for start in allocation.starts] + [UNITS]
    found: dict[int, int] = {}
    for arm, begin, end in zip(allocation.arms, edges, edges[1:], strict=False):
        found[arm] = found.get(arm, 0) + end - begin
    return found


def off(share: float) -> float:
    """Seven standard errors of a share among the units, by which hashing may be off."""
    return 7 * (share * (1 - share) / UNITS) ** 0.5 + 1e-12


@pytest.mark.parametrize("share", [0.001, 0.005, 0.01, 0.02])
def test_the_first_steps_of_a_ramp_are_exact_to_a_tenth_of_a_point(share: float) -> None:
    """There seven standard errors are less than that; at one half they are a third of a point."""
    assert off(share) < 0.001
    found = counts(Allocation((0,), (0,)).reweighed((1 - share, share)))
    assert abs(found[1] / UNITS - share) < 0.001


def test_shares_stay_exact_and_moves_least_along_a_history() -> None:
    allocation = Allocation((0,), (0,))
    shares = {0: 1.0}
    for weights in STEPS:
        after = allocation.reweighed(weights)
        wanted = {**dict(enumerate(weights)), OUT: max(0.0, 1 - sum(weights))}
        found = counts(after)
        assert all(abs(found.get(a, 0) / UNITS - w) < off(w) for a, w in wanted.items())
        moved: dict[tuple[int, int], int] = {}
        for at in points():
            pair = allocation.arm(at), after.arm(at)
            moved[pair] = moved.get(pair, 0) + 1
        changed = {pair: count for pair, count in moved.items() if pair[0] != pair[1]}
        grown = {a for a, w in wanted.items() if w > shares.get(a, 0.0) + 1e-9}
        assert {after for _, after in changed} <= grown
        assert not {before for before, _ in changed} & grown
        least = sum(max(0.0, w - shares.get(a, 0.0)) for a, w in wanted.items())
        assert abs(sum(changed.values()) / UNITS - least) < off(least)
        allocation, shares = after, wanted
