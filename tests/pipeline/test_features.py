"""Feature statistics against plain numpy on the whole data, whatever the batches were."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.evidence import feature_stats as features
from understudy.monitor.evidence.feature_stats import FeatureStats

numbers = st.floats(-1e9, 1e9, allow_nan=False)
cells = st.one_of(numbers, st.integers(-1000, 1000), st.booleans(), st.none())


def by_name(stats: FeatureStats) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in stats.summary()}


@given(st.lists(st.lists(st.tuples(cells, cells), min_size=1, max_size=20), max_size=8))
def test_batches_give_what_the_whole_gives(batches: list[list[tuple[Any, Any]]]) -> None:
    stats = FeatureStats()
    for batch in batches:
        stats.add(("a", "b"), [list(column) for column in zip(*batch, strict=True)], len(batch))
    rows = [row for batch in batches for row in batch]
    assert stats.rows == len(rows)
    for position, name in enumerate(("a", "b")):
        column = [float(row[position]) for row in rows if row[position] is not None]
        if not rows:
            assert name not in by_name(stats)
            continue
        entry = by_name(stats)[name]
        assert entry["count"] == len(column)
        assert entry["missing"] == len(rows) - len(column)
        if column:
            assert entry["min"] == min(column)
            assert entry["max"] == max(column)
            assert entry["mean"] == pytest.approx(np.mean(column), rel=1e-9, abs=1e-4)
        if len(column) > 1:
            assert entry["std"] == pytest.approx(np.std(column, ddof=1), rel=1e-6, abs=1e-3)


def test_state_resumes_exactly() -> None:
    rng = np.random.default_rng(0)
    first, whole = FeatureStats(), FeatureStats()
    for part in range(6):
        values = rng.normal(size=30).tolist()
        values[4] = None if part % 2 else "text"
        whole.add(("x", "y", "z"), [values[n::3] for n in range(3)], 10)
        first.add(("x", "y", "z"), [values[n::3] for n in range(3)], 10)
        first = FeatureStats.from_state(json.loads(json.dumps(first.dump_state())))
    assert first.summary() == whole.summary()
    assert first.dump_state() == whole.dump_state()


def test_texts_nested_values_nan_and_infinities_are_told_apart() -> None:
    stats = FeatureStats()
    cells = [1.0, "high", None, math.nan, math.inf, -math.inf, [1, 2], True, 10**400]
    stats.add(("f",), [cells], len(cells))
    entry = by_name(stats)["f"]
    assert entry["present"] == 9
    assert entry["text"] == 2
    assert entry["missing"] == 2
    assert entry["infinite"] == 3
    assert entry["count"] == 2
    assert entry["min"] == entry["max"] == 1.0


def test_a_configured_feature_that_is_not_there_is_missing() -> None:
    stats = FeatureStats(("a", "b"))
    stats.add(("a",), [[1.0, 2.0]], 2)
    assert stats.missing() == {"a": 0, "b": 2}


def test_a_usual_feature_that_stops_coming_is_missing_and_a_rare_one_is_not() -> None:
    stats = FeatureStats()
    stats.add(("a", "b"), [[1.0] * 100] * 2, 100)
    stats.add(("a", "odd"), [[1.0], [1.0]], 1)
    stats.add(("a",), [[1.0] * 10], 10)
    assert stats.missing() == {"a": 0, "b": 11, "odd": 0}


def test_order_and_repetition_of_names_do_not_matter() -> None:
    stats = FeatureStats()
    stats.add(("a", "b"), [[1.0], [10.0]], 1)
    stats.add(("b", "a"), [[20.0], [2.0]], 1)
    stats.add(("b", "a", "b"), [[30.0], [3.0], [999.0]], 1)
    assert by_name(stats)["a"]["mean"] == 2.0
    assert by_name(stats)["b"]["mean"] == 20.0
    assert by_name(stats)["b"]["max"] == 30.0


def test_the_number_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAX_FEATURES", 3)
    stats = FeatureStats()
    for number in range(600):
        stats.add((f"f{number}", "last"), [[1.0], [2.0]], 1)
    assert len(stats.names) == 3
    assert stats.overflow == 598
    assert len(stats._layouts) <= 256


def test_values_that_overflow_leave_json_clean() -> None:
    stats = FeatureStats()
    stats.add(("f",), [[1.7e308, -1.7e308, 1.7e308]], 3)
    stats.add(("f",), [[1.7e308]], 1)
    text = json.dumps(stats.summary(), allow_nan=False)
    assert json.loads(text)[0]["max"] == 1.7e308


@pytest.mark.parametrize("spoil", ["names", "counts", "moments", "rows"])
def test_a_damaged_state_is_refused(spoil: str) -> None:
    stats = FeatureStats()
    stats.add(("a", "b"), [[1.0], [2.0]], 1)
    data = stats.dump_state()
    data[spoil] = {"names": ["a"], "counts": {}, "moments": {"count": [1]}, "rows": "x"}[spoil]
    with pytest.raises((KeyError, TypeError, ValueError)):
        FeatureStats.from_state(data)
