"""Assignment: sticky, exact in its shares, and moving no unit that need not move."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.shadow.assignment import OUT, POINTS, Allocation, point, threshold


@st.composite
def weights(draw: st.DrawFn, arms: int = 4) -> list[float]:
    raw = draw(st.lists(st.integers(0, 1000), min_size=arms, max_size=arms))
    out = draw(st.integers(0, 1000))
    total = sum(raw) + out
    return [part / total for part in raw] if total else [0.0] * arms


@given(st.lists(weights(), min_size=1, max_size=6))
def test_reweighing_moves_exactly_the_increases(steps: list[list[float]]) -> None:
    allocation = Allocation()
    for step in steps:
        after = allocation.reweighed(step)
        sizes = {arm: after.size(arm) for arm in (OUT, 0, 1, 2, 3)}
        assert sum(sizes.values()) == POINTS
        for arm, weight in enumerate(step):
            assert abs(sizes[arm] / POINTS - weight) < 1e-9
        cuts = sorted({*allocation.starts, *after.starts, POINTS})
        moved = sum(
            end - begin
            for begin, end in pairwise(cuts)
            if allocation.arm(begin) != after.arm(begin)
        )
        assert moved == sum(max(0, sizes[arm] - allocation.size(arm)) for arm in sizes)
        allocation = after


@given(weights())
def test_allocations_survive_json(step: list[float]) -> None:
    allocation = Allocation().reweighed(step)
    assert Allocation.from_dict(json.loads(json.dumps(allocation.to_dict()))) == allocation


def test_a_ramp_keeps_assigned_units() -> None:
    allocation = Allocation((0,), (0,))
    units = [b"user-%d" % i for i in range(20_000)]
    before: set[bytes] = set()
    for share in (0.01, 0.05, 0.25, 0.5, 1.0):
        allocation = allocation.reweighed([1 - share, share])
        inside = {unit for unit in units if allocation.arm(point(b"ramp", unit)) == 1}
        assert before <= inside
        before = inside
    assert len(before) == len(units)


def test_weights_are_exact_over_a_million_units() -> None:
    # Each share's standard error is below 0.0005, so 0.0035 is seven of them: P(failure) < 1e-10.
    allocation = Allocation().reweighed([0.5, 0.3, 0.1, 0.05])
    counts = dict.fromkeys((OUT, 0, 1, 2, 3), 0)
    for i in range(1_000_000):
        counts[allocation.arm(point(b"exact", b"%d" % i))] += 1
    for arm, share in {0: 0.5, 1: 0.3, 2: 0.1, 3: 0.05, OUT: 0.05}.items():
        assert abs(counts[arm] / 1e6 - share) < 7 * (share * (1 - share) / 1e6) ** 0.5


def test_salts_are_independent() -> None:
    # Under independence the joint count is Binomial(100,000, 1/4); the bound is 7 standard errors.
    half = threshold(0.5)
    joint = sum(
        point(b"one", b"%d" % i) < half and point(b"two", b"%d" % i) < half for i in range(100_000)
    )
    assert abs(joint - 25_000) < 7 * (100_000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("bad", [[1.1], [-0.1], [0.6, 0.6], [float("nan")]])
def test_invalid_weights_are_rejected(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Allocation().reweighed(bad)


@pytest.mark.parametrize(
    "data",
    [
        {"starts": [1], "arms": [0]},
        {"starts": [0, 0], "arms": [0, 1]},
        {"starts": [0], "arms": []},
        {"starts": [], "arms": []},
    ],
)
def test_invalid_allocations_are_rejected(data: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="allocation"):
        Allocation.from_dict(data)


def test_shares_out_of_range_are_rejected() -> None:
    with pytest.raises(ValueError, match="share"):
        threshold(1.5)
