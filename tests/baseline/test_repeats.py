"""Runs of one value and repeated rows."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.baseline.repeats import (
    REMEMBERED,
    Repeats,
    Runs,
    keys_of,
    longest_by_chance,
)

CELLS = st.sampled_from([0.0, 1.0, 2.0, math.nan])


def plain(rows: list[tuple[float, float]]) -> list[int]:
    """Lengths of the last runs, counted one by one."""
    lengths = []
    for column in range(2):
        length = 0
        for position in range(len(rows) - 1, -1, -1):
            if rows[position][column] != rows[-1][column]:
                break
            length += 1
        lengths.append(length)
    return lengths


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30), st.integers(1, 7))
def test_runs_equal_a_plain_count_for_any_batches(
    rows: list[tuple[float, float]], cut: int
) -> None:
    runs = Runs(2)
    for start in range(0, len(rows), cut):
        found = runs.update(np.array(rows[start : start + cut]))
    assert found.tolist() == plain(rows)
    again = Runs(2)
    again.load_state(runs.dump_state())
    assert again.update(np.array([rows[-1]])).tolist() == runs.update(np.array([rows[-1]])).tolist()


def test_the_longest_run_by_chance_matches_a_simulation() -> None:
    # 200 streams, each long enough that half of them or so have a run of that length.
    rng = np.random.default_rng(5)
    rows = 20_000
    limit = longest_by_chance(0.5, 20.0 * rows)
    seen = 0
    for _ in range(200):
        coins = rng.integers(0, 2, rows)
        changes = np.flatnonzero(np.diff(coins)) + 1
        seen += int(np.diff(np.concatenate([[0], changes, [rows]])).max()) > limit
    # At most one stream in twenty: 40 of 200 would be a probability below 1e-12.
    assert seen < 40
    assert longest_by_chance(1.0, 100.0) > 10**9
    assert longest_by_chance(0.0, 100.0) == 3


def test_repeated_rows_are_detected_within_the_window() -> None:
    repeats = Repeats()
    assert repeats.update([1, 2, 1, 3]).tolist() == [0, 0, 1, 0]
    assert repeats.update([2]).tolist() == [1]
    repeats.update(list(range(100, 100 + REMEMBERED)))
    assert repeats.update([1]).tolist() == [0]


def test_rows_have_one_key_only_if_all_their_cells_are_alike() -> None:
    # Small whole numbers, whose bits hardly differ, in every combination.
    axes = [np.array([0.0, 1.0, 2.0, 3.0, -1.0, 256.0, math.nan])] * 5
    rows = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 5)
    keys = keys_of(rows)
    assert len(set(keys)) == len(rows) == 7**5
    assert keys_of(rows[::-1]) == keys[::-1]
    assert keys_of(np.asfortranarray(rows)) == keys
    # The keys are a part of the state, which another process continues.
    assert keys_of(np.array([[1.5, -2.0]])) == [8482010772169045340]
