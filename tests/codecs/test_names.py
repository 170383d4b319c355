"""Names of columns: of the payload, of the configuration, or of positions."""

from __future__ import annotations

import pytest

from tests.support.codecs import MLFLOW, NAMED, V1, V2, decode, reason, v2
from understudy.common.codecs import ModelSpec, Reason, Table


def test_configured_names_take_the_place_of_positions() -> None:
    features, predictions = decode(
        V2, v2(("x", [1, 2], [7, 8])), v2(("p", [1, 2], [0.1, 0.9]), key="outputs"), NAMED
    )
    assert features == Table(("age", "fare"), 1, [7, 8])
    assert predictions == Table(("no", "yes"), 1, [0.1, 0.9])
    assert features.row(0) == {"age": 7, "fare": 8}
    assert features.column("fare") == [8]


def test_a_missing_row_is_an_index_error() -> None:
    table = Table(("a", "b"), 1, [1, 2])
    assert table.row(0) == {"a": 1, "b": 2}
    for index in (1, -1):
        with pytest.raises(IndexError):
            table.row(index)
    with pytest.raises(KeyError):
        table.column("c")


def test_named_inputs_keep_their_names() -> None:
    """Whatever order they come in: the configured names are those of positions."""
    named = Table(("fare", "age"), 1, [8, 7])
    assert decode(V2, v2(("fare", [1], [8]), ("age", [1], [7])), spec=NAMED)[0] == named
    assert decode(V1, {"inputs": {"fare": [8], "age": [7]}}, spec=NAMED)[0] == named
    assert decode(V1, {"instances": [{"fare": 8, "age": 7}]}, spec=NAMED)[0] == named
    split = {"dataframe_split": {"columns": ["fare", "age"], "data": [[8, 7]]}}
    assert decode(MLFLOW, split, spec=NAMED)[0] == named


SINGLE = [
    pytest.param(V1, {"inputs": {"x": [[7, 8]]}}, id="v1 column"),
    pytest.param(V1, {"instances": [{"x": [7, 8]}]}, id="v1 row"),
    pytest.param(V1, {"instances": [[[7], [8]]]}, id="v1 nested"),
    pytest.param(V2, v2(("x", [1, 2], [7, 8])), id="v2"),
    pytest.param(MLFLOW, {"dataframe_split": {"data": [[7, 8]]}}, id="mlflow split"),
    pytest.param(
        MLFLOW, {"dataframe_split": {"columns": ["x"], "data": [[[7, 8]]]}}, id="mlflow vector"
    ),
]


@pytest.mark.parametrize(("target", "request_"), SINGLE)
def test_elements_of_a_single_tensor_are_positions(target: bytes, request_: object) -> None:
    assert decode(target, request_, spec=NAMED)[0] == Table(("age", "fare"), 1, [7, 8])
    wrong = ModelSpec("m", features=("a", "b", "c"))
    assert decode(target, request_, spec=wrong)[0] == Table(("x[0]", "x[1]"), 1, [7, 8])


def test_configured_names_of_columns_that_hold_vectors() -> None:
    request = {"instances": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}
    names = ("age[0]", "age[1]", "fare[0]", "fare[1]")
    assert decode(V1, request, spec=NAMED)[0] == Table(names, 2, [1, 2, 3, 4, 5, 6, 7, 8])


def test_a_single_output_takes_the_configured_name() -> None:
    spec = ModelSpec("m", predictions=("p_late",))
    answer = v2(("predict", [2, 1], [0.1, 0.9]), key="outputs")
    assert decode(V2, {}, answer, spec)[1] == Table(("p_late",), 2, [0.1, 0.9])
    assert decode(V1, {}, {"predictions": [[0.1], [0.9]]}, spec)[1] == Table(
        ("p_late",), 2, [0.1, 0.9]
    )


def test_a_very_wide_row_is_one_vector() -> None:
    row: list[object] = [float(i) for i in range(300)]
    assert decode(V2, v2(("e", [1, 300], row)))[0] == Table(("e",), 1, [row])
    assert decode(V1, {"instances": [row]})[0] == Table(("x",), 1, [row])
    assert decode(V1, {"instances": [{"e": row, "n": 1}]})[0] == Table(("e", "n"), 1, [row, 1])
    assert decode(V1, {"instances": [[*row, [1], []]]})[0] == Table(("x",), 1, [[*row, [1], []]])
    two = v2(("e", [1, 300], row), ("n", [1], [1]))
    assert decode(V2, two)[0] == Table(("e", "n"), 1, [row, 1])
    images = {"instances": [[row, row], [row, row]]}
    assert decode(V1, images)[0] == Table(("x",), 2, [row + row, row + row])
    named = ModelSpec("m", features=tuple(f"f{i}" for i in range(300)))
    assert decode(V2, v2(("e", [1, 300], row)), spec=named)[0] == Table(named.features, 1, row)


def test_rows_without_common_keys_do_not_fill_the_memory() -> None:
    many = {"instances": [{f"k{i}": i} for i in range(5000)]}
    assert reason(decode(V1, many)[0]) == Reason.TOO_LARGE
    few, _ = decode(V1, {"instances": [{f"k{i}": i} for i in range(20)]})
    assert isinstance(few, Table)
    assert (few.rows, len(few.names), few.values.count(None)) == (20, 20, 380)


def test_a_product_of_huge_dimensions_is_not_computed() -> None:
    assert reason(decode(V2, v2(("a", [2**62] * 5000, [1])))[0]) == Reason.WRONG_SHAPE
