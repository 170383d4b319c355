"""Each wire format as its specification has it, and the odd shapes that it allows."""

from __future__ import annotations

import copy

import pytest

from tests.support.codecs import MLFLOW, V1, V2, decode, reason, v2
from understudy.common.codecs import Reason, Table

FEATURES = [
    pytest.param(V1, {"instances": [1, 2]}, ("x",), 2, [1, 2], id="v1 scalars"),
    pytest.param(
        V1, {"instances": [[1, 2], [3, 4]]}, ("x[0]", "x[1]"), 2, [1, 2, 3, 4], id="v1 rows"
    ),
    pytest.param(V1, {"instances": [{"a": 1, "b": "u"}]}, ("a", "b"), 1, [1, "u"], id="v1 named"),
    pytest.param(
        V1, {"instances": [{"a": 1}, {"b": 2}]}, ("a", "b"), 2, [1, None, None, 2], id="v1 gaps"
    ),
    pytest.param(V1, {"instances": [{"a": [1.5]}]}, ("a",), 1, [1.5], id="v1 vector of one"),
    pytest.param(
        V1, {"inputs": {"a": [1, 2], "b": [3, 4]}}, ("a", "b"), 2, [1, 3, 2, 4], id="v1 columns"
    ),
    pytest.param(
        V1,
        {"inputs": {"a": [[1, 2], [3, 4]]}},
        ("a[0]", "a[1]"),
        2,
        [1, 2, 3, 4],
        id="v1 wide column",
    ),
    pytest.param(V1, {"inputs": [[1, 2]]}, ("x[0]", "x[1]"), 1, [1, 2], id="v1 one tensor"),
    pytest.param(V1, {"inputs": 7}, ("x",), 1, [7], id="v1 a scalar"),
    pytest.param(
        V1, {"instances": [{"b64": "AAE="}]}, ("x",), 1, ["AAE="], id="v1 bytes stay encoded"
    ),
    pytest.param(V1, {"instances": [[1], [2, 3]]}, ("x",), 2, [[1], [2, 3]], id="v1 sequences"),
    pytest.param(
        V1,
        {"instances": [{"image": {"b64": "AAE="}, "n": 1}]},
        ("image", "n"),
        1,
        ["AAE=", 1],
        id="v1 bytes in a named input",
    ),
    pytest.param(
        V1,
        {"signature_name": "s", "inputs": {"b64": "AAE="}},
        ("x",),
        1,
        ["AAE="],
        id="v1 bytes by column",
    ),
    pytest.param(
        V1,
        {"instances": [{"a": [1, 2], "b": 5}, {"a": [3, 4], "b": 6}]},
        ("a[0]", "a[1]", "b"),
        2,
        [1, 2, 5, 3, 4, 6],
        id="v1 named vectors",
    ),
    pytest.param(
        V1,
        {"instances": [{"a": [1], "b": 5}, {"a": [3, 4], "b": 6}]},
        ("a", "b"),
        2,
        [[1], 5, [3, 4], 6],
        id="v1 named sequences",
    ),
    pytest.param(
        V1,
        {"instances": [[[1, 2]], [[3, 4]]]},
        ("x[0]", "x[1]"),
        2,
        [1, 2, 3, 4],
        id="v1 nested",
    ),
    pytest.param(
        V1,
        {"instances": [[1, [2, 3]]]},
        ("x[0]", "x[1][0]", "x[1][1]"),
        1,
        [1, 2, 3],
        id="v1 mixed",
    ),
    pytest.param(V1, {"instances": {"a": 1}}, ("a",), 1, [1], id="v1 a single row"),
    pytest.param(
        V1,
        {"instances": [{"a": 1, "b": 2}, {"b": 4, "a": 3}]},
        ("a", "b"),
        2,
        [1, 2, 3, 4],
        id="v1 keys in another order",
    ),
    pytest.param(
        V2,
        v2(("a", [2], ["u", "v"]), ("b", [2], ["w", None]), datatype="BYTES"),
        ("a", "b"),
        2,
        ["u", "w", "v", None],
        id="v2 texts",
    ),
    pytest.param(
        V2,
        v2(("a", [2, 2], [True, False, True, True]), datatype="BOOL"),
        ("a[0]", "a[1]"),
        2,
        [True, False, True, True],
        id="v2 truth values",
    ),
    pytest.param(
        V2,
        v2(("a", [2, 1, 2], [[[1, 2]], [[3, 4]]])),
        ("a[0]", "a[1]"),
        2,
        [1, 2, 3, 4],
        id="v2 three dimensions",
    ),
    pytest.param(
        V2,
        {
            "id": "7",
            "parameters": {"content_type": "pd"},
            "outputs": [{"name": "p", "parameters": {"binary_data": False}}],
            "inputs": [
                {
                    "name": "a",
                    "shape": [1, 1],
                    "datatype": "INT64",
                    "parameters": {"content_type": "np"},
                    "data": [[3]],
                }
            ],
        },
        ("a",),
        1,
        [3],
        id="v2 with parameters",
    ),
    pytest.param(V2, v2(("a", [2], [1, 2])), ("a",), 2, [1, 2], id="v2 vector"),
    pytest.param(V2, v2(("a", [], [5])), ("a",), 1, [5], id="v2 scalar"),
    pytest.param(
        V2, v2(("a", [2, 2], [1, 2, 3, 4])), ("a[0]", "a[1]"), 2, [1, 2, 3, 4], id="v2 flat"
    ),
    pytest.param(
        V2, v2(("a", [2, 2], [[1, 2], [3, 4]])), ("a[0]", "a[1]"), 2, [1, 2, 3, 4], id="v2 nested"
    ),
    pytest.param(
        V2,
        v2(("a", [2, 1], [1, 2]), ("b", [2], ["u", "v"])),
        ("a", "b"),
        2,
        [1, "u", 2, "v"],
        id="v2 named columns",
    ),
    pytest.param(
        V2,
        v2(("a", [1, 2], [1, 2]), ("b", [1], [True])),
        ("a[0]", "a[1]", "b"),
        1,
        [1, 2, True],
        id="v2 mixed widths",
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}},
        ("a", "b"),
        1,
        [1, 2],
        id="mlflow split",
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"data": [[1, 2]]}},
        ("x[0]", "x[1]"),
        1,
        [1, 2],
        id="mlflow split without names",
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_records": [{"a": 1}, {"a": 2}], "params": {"k": 1}},
        ("a",),
        2,
        [1, 2],
        id="mlflow records",
    ),
    pytest.param(
        MLFLOW, {"instances": [[1, 2]]}, ("x[0]", "x[1]"), 1, [1, 2], id="mlflow instances"
    ),
    pytest.param(MLFLOW, {"inputs": {"a": [1]}}, ("a",), 1, [1], id="mlflow inputs"),
    pytest.param(MLFLOW, {"inputs": {"a": 1, "b": "u"}}, ("a", "b"), 1, [1, "u"], id="mlflow row"),
    pytest.param(MLFLOW, {"inputs": [{"a": 1}]}, ("a",), 1, [1], id="mlflow inputs by row"),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"index": [0], "columns": ["a", 7], "data": [[[1, 2], None]]}},
        ("a[0]", "a[1]", "7"),
        1,
        [1, 2, None],
        id="mlflow split with a vector",
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"columns": ["a"], "data": [1, 2]}},
        ("a",),
        2,
        [1, 2],
        id="mlflow split of scalars",
    ),
    pytest.param(
        b"/own", {"dataframe_records": [{"a": 1}]}, ("a",), 1, [1], id="by content: mlflow"
    ),
    pytest.param(b"/own", v2(("a", [1], [1])), ("a",), 1, [1], id="by content: v2"),
    pytest.param(b"/own", {"instances": [1]}, ("x",), 1, [1], id="by content: v1"),
    pytest.param(b"/pre/fix" + V2, v2(("a", [1], [1])), ("a",), 1, [1], id="behind a prefix"),
    pytest.param(V2 + b"?x=1", v2(("a", [1], [1])), ("a",), 1, [1], id="with a query"),
]


@pytest.mark.parametrize(("target", "request_", "names", "rows", "values"), FEATURES)
def test_features(
    target: bytes, request_: object, names: tuple[str, ...], rows: int, values: list[object]
) -> None:
    before = copy.deepcopy(request_)
    features, _ = decode(target, request_)
    assert features == Table(names, rows, values)
    assert request_ == before


PREDICTIONS = [
    pytest.param(V1, {"predictions": [0.1, 0.2]}, ("y",), 2, [0.1, 0.2], id="v1 rows"),
    pytest.param(V1, {"predictions": [{"p": 1}]}, ("p",), 1, [1], id="v1 named"),
    pytest.param(V1, {"outputs": {"p": [1, 2]}}, ("p",), 2, [1, 2], id="v1 columns"),
    pytest.param(V2, v2(("p", [2], [0.1, 0.9]), key="outputs"), ("p",), 2, [0.1, 0.9], id="v2"),
    pytest.param(
        V2,
        v2(("p", [1, 2], [0.1, 0.9]), key="outputs"),
        ("p[0]", "p[1]"),
        1,
        [0.1, 0.9],
        id="v2 classes",
    ),
    pytest.param(
        MLFLOW, {"predictions": [[0.1, 0.9]]}, ("y[0]", "y[1]"), 1, [0.1, 0.9], id="mlflow"
    ),
    pytest.param(MLFLOW, {"predictions": 3.5}, ("y",), 1, [3.5], id="mlflow scalar"),
    pytest.param(MLFLOW, [0.1, 0.9], ("y",), 2, [0.1, 0.9], id="mlflow bare"),
    pytest.param(MLFLOW, [{"p": 1}, {"p": 2}], ("p",), 2, [1, 2], id="mlflow bare rows"),
    pytest.param(MLFLOW, {"p": 0.5, "k": "u"}, ("p", "k"), 1, [0.5, "u"], id="mlflow bare row"),
    pytest.param(
        MLFLOW,
        {"predictions": {"p": [0.5, 0.6], "k": ["u", "v"]}},
        ("p", "k"),
        2,
        [0.5, "u", 0.6, "v"],
        id="mlflow columns",
    ),
    pytest.param(
        MLFLOW,
        {"predictions": [{"label": "u", "p": [0.1, 0.9]}]},
        ("label", "p[0]", "p[1]"),
        1,
        ["u", 0.1, 0.9],
        id="mlflow label and classes",
    ),
]


@pytest.mark.parametrize(("target", "response", "names", "rows", "values"), PREDICTIONS)
def test_predictions(
    target: bytes, response: object, names: tuple[str, ...], rows: int, values: list[object]
) -> None:
    assert decode(target, {}, response)[1] == Table(names, rows, values)


UNDECODABLE = [
    pytest.param(V1, {}, Reason.WRONG_SHAPE, id="v1 nothing"),
    pytest.param(V1, [1], Reason.WRONG_SHAPE, id="v1 no object"),
    pytest.param(V1, {"instances": []}, Reason.EMPTY, id="v1 no rows"),
    pytest.param(V1, {"instances": [[]]}, Reason.EMPTY, id="v1 no cells"),
    pytest.param(V1, {"instances": [{}]}, Reason.EMPTY, id="v1 no keys"),
    pytest.param(V1, {"instances": [1, {"a": 1}]}, Reason.WRONG_SHAPE, id="v1 mixed"),
    pytest.param(V1, {"inputs": {"a": [1], "b": [1, 2]}}, Reason.WRONG_SHAPE, id="v1 uneven"),
    pytest.param(V2, {"inputs": 3}, Reason.WRONG_SHAPE, id="v2 no list"),
    pytest.param(V2, {"inputs": []}, Reason.EMPTY, id="v2 no tensor"),
    pytest.param(V2, {"inputs": [3]}, Reason.WRONG_SHAPE, id="v2 no tensor object"),
    pytest.param(V2, {"inputs": [{"name": "a"}]}, Reason.WRONG_SHAPE, id="v2 no shape"),
    pytest.param(
        V2, {"inputs": [{"name": "a", "shape": [1]}]}, Reason.WRONG_SHAPE, id="v2 no data"
    ),
    pytest.param(V2, v2(("a", [3], [1, 2])), Reason.WRONG_SHAPE, id="v2 too short"),
    pytest.param(V2, v2(("a", [2, 2], [[1], [2, 3, 4]])), Reason.WRONG_SHAPE, id="v2 ragged"),
    pytest.param(V2, v2(("a", [2], [1, [2]])), Reason.WRONG_SHAPE, id="v2 half nested"),
    pytest.param(V2, v2(("a", [1], [{"k": 1}])), Reason.WRONG_SHAPE, id="v2 no element"),
    pytest.param(V2, v2(("a", [1] * 40, [1])), Reason.WRONG_SHAPE, id="v2 dimensions"),
    pytest.param(
        V2, v2(("a", [1], [1]), ("a", [1], [2])), Reason.WRONG_SHAPE, id="v2 one name twice"
    ),
    pytest.param(V2, v2(("n" * 300, [1], [1])), Reason.TOO_LARGE, id="v2 long name"),
    pytest.param(V1, {"instances": [{"n" * 300: 1}]}, Reason.TOO_LARGE, id="v1 long name"),
    pytest.param(
        V1, {"instances": [{"a": [1, 2], "a[0]": 1}]}, Reason.WRONG_SHAPE, id="v1 names collide"
    ),
    pytest.param(
        V2,
        {"inputs": [{"name": "a", "shape": [1], "parameters": {"shared_memory_region": "r"}}]},
        Reason.SHARED_MEMORY,
        id="v2 shared memory",
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
        Reason.WRONG_SHAPE,
        id="mlflow one name twice",
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"columns": [[1]], "data": [[1]]}},
        Reason.WRONG_SHAPE,
        id="mlflow nested names",
    ),
    pytest.param(
        MLFLOW, {"dataframe_split": {"columns": [], "data": []}}, Reason.EMPTY, id="mlflow no rows"
    ),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"columns": 1, "data": []}},
        Reason.WRONG_SHAPE,
        id="mlflow no columns",
    ),
    pytest.param(MLFLOW, {"dataframe_records": []}, Reason.EMPTY, id="mlflow no records"),
    pytest.param(MLFLOW, {"messages": ["u"]}, Reason.WRONG_SHAPE, id="mlflow chat"),
    pytest.param(V2, v2(("a", [-1, -2], [1, 2])), Reason.WRONG_SHAPE, id="v2 negative"),
    pytest.param(V2, v2(("a", [0], [])), Reason.EMPTY, id="v2 no rows"),
    pytest.param(
        V2,
        {"inputs": [{"name": "a", "shape": [1], "parameters": {"binary_data_size": 8}}]},
        Reason.BINARY,
        id="v2 binary",
    ),
    pytest.param(MLFLOW, {"dataframe_split": 1}, Reason.WRONG_SHAPE, id="mlflow split"),
    pytest.param(
        MLFLOW,
        {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
        Reason.WRONG_SHAPE,
        id="mlflow width",
    ),
    pytest.param(MLFLOW, {"dataframe_records": [1]}, Reason.WRONG_SHAPE, id="mlflow records"),
    pytest.param(b"/own", {"text": 1}, Reason.UNKNOWN_PROTOCOL, id="unknown"),
]


@pytest.mark.parametrize(("target", "request_", "expected"), UNDECODABLE)
def test_undecodable(target: bytes, request_: object, expected: Reason) -> None:
    assert reason(decode(target, request_)[0]) == expected


def test_an_error_answer_has_no_predictions() -> None:
    _, predictions = decode(V1, {"instances": [1]}, {"predictions": [1]}, status=500)
    assert reason(predictions) == Reason.ERROR_RESPONSE


@pytest.mark.parametrize(
    ("target", "response"),
    [
        (V1, {"error": "no such model"}),
        (V2, {"error": "no such model"}),
        (MLFLOW, {"error_code": "BAD_REQUEST", "message": "no"}),
    ],
)
def test_an_error_may_come_with_status_200(target: bytes, response: object) -> None:
    assert reason(decode(target, {"instances": [1]}, response)[1]) == Reason.ERROR_RESPONSE


UNREADABLE_ANSWERS = [
    pytest.param(V1, 3, id="v1 no object"),
    pytest.param(V1, {"scores": [1]}, id="v1 other keys"),
    pytest.param(V1, {"outputs": {"a": [1], "b": [1, 2]}}, id="v1 uneven"),
    pytest.param(V2, {"predictions": [1]}, id="v2 other keys"),
    pytest.param(V2, [1], id="v2 no object"),
    pytest.param(MLFLOW, {"predictions": [1, [2]]}, id="mlflow mixed"),
]


@pytest.mark.parametrize(("target", "response"), UNREADABLE_ANSWERS)
def test_answers_of_another_shape(target: bytes, response: object) -> None:
    features, predictions = decode(target, {"instances": [1]}, response)
    assert reason(predictions) == Reason.WRONG_SHAPE
    assert (features == Table(("x",), 1, [1])) == (target != V2)


def test_no_prediction_at_all() -> None:
    assert reason(decode(MLFLOW, {}, {"predictions": None})[1]) == Reason.EMPTY
    assert reason(decode(V1, {}, {"predictions": []})[1]) == Reason.EMPTY
