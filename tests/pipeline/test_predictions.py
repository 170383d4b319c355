"""Histogram, classes and bounds of predictions."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.evidence.prediction_stats import (
    DEFAULT_BUCKETS,
    MAX_PREDICTIONS,
    Predictions,
)

finite = st.floats(-1e7, 1e7, allow_nan=False)


@given(st.lists(st.lists(finite, min_size=1, max_size=30), min_size=1, max_size=6))
def test_the_histogram_counts_every_value_once_at_its_edge(batches: list[list[float]]) -> None:
    predictions = Predictions()
    for batch in batches:
        predictions.add(("p",), [batch], len(batch))
    values = [value for batch in batches for value in batch]
    stats = predictions.by_name["p"]
    for edge, cumulative in stats.cumulative():
        assert cumulative == sum(value <= edge for value in values)
    assert stats.count == len(values)
    assert stats.total == pytest.approx(sum(values), rel=1e-9, abs=1e-6)
    assert stats.summary()["mean"] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)


def test_default_edges_are_ordered_and_cover_probabilities() -> None:
    assert list(DEFAULT_BUCKETS) == sorted(set(DEFAULT_BUCKETS))
    assert {0.0, 0.5, 0.95, 1.0} <= set(DEFAULT_BUCKETS)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1, 1, 1], {"0": 1, "1": 3}),
        (["cat", "dog", "cat"], {"cat": 2, "dog": 1}),
        ([True, False, True], {"true": 2, "false": 1}),
        ([True, 1, 1], {"true": 1, "1": 2}),
        ([0.5, 0.25], {}),
        ([1, 0.5], {}),
        ([None, 2], {"2": 1}),
        ([[1, 2], {"a": 1}], {}),
    ],
)
def test_what_counts_as_a_class(values: list[Any], classes: dict[str, int]) -> None:
    predictions = Predictions()
    predictions.add(("label",), [values], len(values))
    assert predictions.by_name["label"].classes == classes


def test_whole_numbers_of_an_output_with_fractions_are_no_classes() -> None:
    predictions = Predictions()
    predictions.add(("p",), [[0.5]], 1)
    predictions.add(("p",), [[1, 0]], 2)
    assert predictions.by_name["p"].classes == {}
    assert predictions.by_name["p"].count == 3


def test_classes_are_bounded() -> None:
    predictions = Predictions(max_classes=3)
    predictions.add(("label",), [[str(number) for number in range(50)]], 50)
    assert predictions.by_name["label"].classes == {"0": 1, "1": 1, "2": 1, "other": 47}
    predictions.add(("label",), [["x" * 10_000, "1"]], 2)
    assert predictions.by_name["label"].classes["other"] == 48
    assert predictions.by_name["label"].classes["1"] == 2


def test_missing_infinite_and_text_are_not_values() -> None:
    predictions = Predictions()
    predictions.add(("p",), [[1.5, None, math.nan, math.inf, "n/a"]], 5)
    stats = predictions.by_name["p"]
    assert (stats.count, stats.missing, stats.infinite) == (1, 2, 1)
    assert stats.classes == {"n/a": 1}


def test_each_output_has_its_column() -> None:
    predictions = Predictions()
    predictions.add(("p", "label"), [[0.1, 0.9], ["a", "b"]], 2)
    assert predictions.rows == 2
    assert predictions.by_name["p"].summary()["mean"] == pytest.approx(0.5)
    assert predictions.by_name["label"].classes == {"a": 1, "b": 1}


def test_names_are_bounded() -> None:
    predictions = Predictions()
    names = tuple(f"p{number}" for number in range(MAX_PREDICTIONS + 5))
    predictions.add(names, [[1.0, 1.0]] * len(names), 2)
    assert len(predictions.by_name) == MAX_PREDICTIONS
    assert predictions.overflow == 10


def test_state_resumes_exactly() -> None:
    rng = np.random.default_rng(1)
    resumed, whole = Predictions(), Predictions()
    for _ in range(5):
        columns: list[Any] = [rng.random(8).tolist(), list("abababab")]
        whole.add(("p", "c"), columns, 8)
        resumed.add(("p", "c"), columns, 8)
        data = json.loads(json.dumps(resumed.dump_state()))
        resumed = Predictions()
        resumed.load_state(data)
    assert resumed.dump_state() == whole.dump_state()


def test_other_edges_after_a_restart_keep_the_count() -> None:
    before = Predictions(edges=(0.1, 0.5, 1.0))
    before.add(("p",), [[0.05, 0.3, 0.7, 5.0]], 4)
    after = Predictions(edges=(0.5, 2.0))
    after.load_state(before.dump_state())
    assert after.by_name["p"].cumulative() == [(0.5, 2), (2.0, 3), (math.inf, 4)]
