"""Classes of answers that hold a score for each class."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.codecs import V1, V2, decode, v2
from understudy.common.codecs import ModelSpec, Table
from understudy.common.codecs.classes import with_class
from understudy.common.codecs.spec import Classes

LABELS = ("cat", "dog", "bird")
SPEC = ModelSpec("m", classes=Classes("probabilities", LABELS))


def predictions(target: bytes, response: object, spec: ModelSpec = SPEC) -> Table:
    _, found = decode(target, {}, response, spec)
    assert isinstance(found, Table)
    return found


def test_columns_of_scores() -> None:
    answer = v2(("probabilities", [2, 3], [0.1, 0.7, 0.2, 0.6, 0.1, 0.3]), key="outputs")
    found = predictions(V2, answer)
    assert found.names[-2:] == ("class", "score")
    assert found.column("class") == ["dog", "cat"]
    assert found.column("score") == [0.7, 0.6]
    assert found.column("probabilities[2]") == [0.2, 0.3]


def test_a_long_vector_and_a_class_beyond_the_labels() -> None:
    scores = [0.0] * 1000
    scores[700] = 1.0
    found = predictions(V2, v2(("probabilities", [1, 1000], scores), key="outputs"))
    assert (found.column("class"), found.column("score")) == (["700"], [1.0])


def test_other_outputs_beside_the_scores() -> None:
    rows = {
        "predictions": [{"id": 7, "probabilities": [0.2, 0.8]}, {"id": 8, "probabilities": [1, 0]}]
    }
    found = predictions(V1, rows)
    assert found.column("class") == ["dog", "cat"]
    assert found.column("id") == [7, 8]


def test_classifications_of_triton() -> None:
    texts = ["0.25:1:dog", "0.75:2:a:b", "0.5:0"]
    found = predictions(V2, v2(("probabilities", [3], texts), key="outputs"))
    assert found.column("class") == ["dog", "a:b", "cat"]
    top = predictions(V2, v2(("probabilities", [1, 3], texts), key="outputs"))
    assert (top.column("class"), top.column("score")) == (["a:b"], [0.75])


@pytest.mark.parametrize(
    "table",
    [
        Table(("other",), 1, [[0.1, 0.9]]),
        Table(("probabilities", "class"), 1, [[0.1, 0.9], "own"]),
        Table(("probabilities", "score"), 1, [[0.1, 0.9], 3]),
    ],
)
def test_tables_that_stay_as_they_are(table: Table) -> None:
    assert with_class(table, Classes("probabilities")) is table


@pytest.mark.parametrize(
    "cell", [None, [], [None, 1.0], ["x"], ["nan:1"], [float("nan"), 1.0], {}, True]
)
def test_rows_without_scores_have_no_class(cell: Any) -> None:
    found = with_class(Table(("p",), 1, [cell]), Classes("p", LABELS))
    assert (found.column("class"), found.column("score")) == ([None], [None])


@given(
    st.lists(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5), min_size=1, max_size=5)
)
def test_the_class_is_that_of_the_highest_score(rows: list[list[float]]) -> None:
    found = with_class(Table(("p",), len(rows), list(rows)), Classes("p"))
    for row, name, score in zip(rows, found.column("class"), found.column("score"), strict=True):
        assert score == max(row) == row[int(str(name))]
