"""What other servers say: CSV, JSON lines, TensorFlow's examples, Seldon V1, TorchServe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.codecs import MLFLOW, NAMED, SPEC, V1, V2, reason, v2
from understudy.common.codecs import Decoded, ModelSpec, Reason, Table, decode_exchange

CSV = b"Content-Type: text/csv; charset=utf-8"
LINES = b"content-type: application/jsonlines"
CLASSIFY, REGRESS = b"/v1/models/m:classify", b"/v1/models/m/versions/2:regress"
SELDON = b"/seldon/team/m/api/v1.0/predictions"
TORCH = b"/predictions/m/1.0"
BENTO = ModelSpec("m", protocol="bentoml")


def exchange(
    target: bytes, headers: bytes, request: Any, response: Any, spec: ModelSpec = SPEC
) -> Decoded:
    bodies = [
        one if isinstance(one, bytes) else json.dumps(one).encode() for one in (request, response)
    ]
    return decode_exchange(spec, target, headers, bodies[0], 200, headers, bodies[1])


def test_csv_with_names_as_mlflow_takes_it() -> None:
    body = b"when,cat,n\n2026-01-01,a,1\n2026-01-02,,\n"
    found = exchange(MLFLOW, CSV, body, b"0.25\n0.5\n")
    assert found.features == Table(
        ("when", "cat", "n"), 2, ["2026-01-01", "a", 1, "2026-01-02", None, None]
    )
    assert found.predictions == Table(("y",), 2, [0.25, 0.5])


def test_csv_without_names_as_sagemaker_takes_it() -> None:
    found = exchange(MLFLOW, CSV, b"34,7.5\r\n21,8", b"0.25,a\n0.5,b", NAMED)
    assert found.features == Table(("age", "fare"), 2, [34, 7.5, 21, 8.0])
    assert found.predictions == Table(("no", "yes"), 2, [0.25, "a", 0.5, "b"])


def test_a_column_of_csv_has_one_type() -> None:
    found = exchange(MLFLOW, CSV, b"a,b\n1,x\n2.5,7\n", b"1").features
    assert found == Table(("a", "b"), 2, [1.0, "x", 2.5, "7"])


def test_integers_of_csv_that_are_too_large_are_numbers() -> None:
    found = exchange(MLFLOW, CSV, b"1," + b"9" * 30 + b"\n2," + b"9" * 400, b"1").features
    assert found == Table(("x[0]", "x[1]"), 2, [1, 1e30, 2, float("inf")])


def test_one_number_of_csv_is_a_prediction() -> None:
    assert exchange(MLFLOW, CSV, b"1,2", b"0.31\n").predictions == Table(("y",), 1, [0.31])


@pytest.mark.parametrize("kind", [b"jsonlines", b"x-ndjson", b"jsonl"])
def test_json_lines(kind: bytes) -> None:
    body = b'{"features":[1,2]}\n\n{"features":[3,4]}\n'
    answer = b'{"score": 0.5}\n{"score": 0.25}\n'
    found = exchange(MLFLOW, b"content-type: application/" + kind, body, answer)
    assert found.features == Table(("x[0]", "x[1]"), 2, [1, 2, 3, 4])
    assert found.predictions == Table(("score",), 2, [0.5, 0.25])
    assert exchange(V1, LINES, body, b"").features == found.features


def test_tensorflow_classification() -> None:
    request = {"context": {"c": 1}, "examples": [{"a": [5], "b": "u"}, {"a": 6, "b": ["v"]}]}
    response = {"result": [[["no", 0.25], ["yes", 0.75]], [["no", 0.5], ["yes", 0.5]]]}
    found = exchange(CLASSIFY, b"", request, response)
    assert found.protocol == "tf-examples"
    assert found.features == Table(("c", "a", "b"), 2, [1, 5, "u", 1, 6, "v"])
    assert found.predictions == Table(("class", "score"), 2, ["yes", 0.75, "no", 0.5])


def test_tensorflow_regression() -> None:
    found = exchange(REGRESS, b"", {"examples": [{"a": 5}]}, {"result": [0.5]})
    assert (found.features, found.predictions) == (Table(("a",), 1, [5]), Table(("y",), 1, [0.5]))
    for payload in ({}, {"examples": 1}, {"examples": [1]}):
        assert reason(exchange(REGRESS, b"", payload, {}).features) == Reason.WRONG_SHAPE
    assert reason(exchange(REGRESS, b"", {"examples": []}, {"error": "x"}).features) == Reason.EMPTY
    error = exchange(REGRESS, b"", {"examples": []}, {"error": "x"}).predictions
    assert reason(error) == Reason.ERROR_RESPONSE


def test_seldon_rows_and_tensors() -> None:
    rows = {"data": {"names": ["age", "fare"], "ndarray": [[34, "u"], [21, "v"]]}, "meta": {}}
    tensor = {
        "data": {"names": ["t:0", "t:1"], "tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}
    }
    found = exchange(SELDON, b"", rows, tensor)
    assert found.protocol == "seldon-v1"
    assert found.features == Table(("age", "fare"), 2, [34, "u", 21, "v"])
    assert found.predictions == Table(("t:0", "t:1"), 2, [1, 2, 3, 4])
    assert exchange(b"/other", b"", rows, tensor).protocol == "seldon-v1"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"jsonData": {"score": 0.5}}, Table(("score",), 1, [0.5])),
        ({"strData": "spam"}, Table(("y",), 1, ["spam"])),
        ({"binData": "AAA="}, Reason.BINARY),
        ({"data": {"names": []}}, Reason.WRONG_SHAPE),
        ({"data": {"tensor": {"shape": [3], "values": [1, 2]}}}, Reason.WRONG_SHAPE),
        ({"data": {"names": ["a", "a"], "ndarray": [[1, 2]]}}, Reason.WRONG_SHAPE),
        ({"status": {"status": "FAILURE", "info": "boom"}}, Reason.ERROR_RESPONSE),
        ([], Reason.WRONG_SHAPE),
    ],
)
def test_what_else_seldon_says(payload: Any, expected: Table | Reason) -> None:
    found = exchange(SELDON, b"", {"data": {"ndarray": [[1]]}}, payload).predictions
    assert (found if isinstance(expected, Table) else reason(found)) == expected


def test_torchserve() -> None:
    found = exchange(TORCH, b"", {"data": [[1, 2]]}, {"cat": 0.75, "dog": 0.25})
    assert found.features == Table(("x[0]", "x[1]"), 1, [1, 2])
    assert found.predictions == Table(("cat", "dog"), 1, [0.75, 0.25])
    rows = exchange(TORCH, b"", {"instances": [{"a": 1}]}, {"predictions": [1]})
    assert (rows.features, rows.predictions) == (Table(("a",), 1, [1]), Table(("y",), 1, [1]))
    error = {"code": 500, "type": "InternalServerException", "message": "boom"}
    assert reason(exchange(TORCH, b"", [1], error).predictions) == Reason.ERROR_RESPONSE


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"series": [[1, 2], [3, 4]]}, Table(("x[0]", "x[1]"), 2, [1, 2, 3, 4])),
        ([[1, 2]], Table(("x[0]", "x[1]"), 1, [1, 2])),
        ({"x": [1, 2]}, Table(("x[0]", "x[1]"), 1, [1, 2])),
        ({"texts": ["a", "b"]}, Table(("x",), 2, ["a", "b"])),
        ({"df": [{"age": 3, "n": "x"}]}, Table(("age", "n"), 1, [3, "x"])),
        ({"df": {"age": [3, 4], "n": ["x", "y"]}}, Table(("age", "n"), 2, [3, "x", 4, "y"])),
        ({"row": {"age": 3}}, Table(("age",), 1, [3])),
        ({"age": 3, "n": "x"}, Table(("age", "n"), 1, [3, "x"])),
        ({"text": "hello"}, Table(("text",), 1, ["hello"])),
    ],
)
def test_arguments_of_bentoml(payload: Any, expected: Table) -> None:
    found = exchange(b"/predict", b"", payload, [0.25], BENTO)
    assert found.features == expected
    assert found.predictions == Table(("y",), 1, [0.25])
    error = exchange(b"/predict", b"", payload, {"error": "boom"}, BENTO).predictions
    assert reason(error) == Reason.ERROR_RESPONSE


def test_numbers_that_are_infinite_to_others() -> None:
    found = exchange(V1, b"", b'{"instances":[[1e400,1]]}', {"predictions": [1]}).features
    assert found == Table(("x[0]", "x[1]"), 1, [float("inf"), 1])


def test_a_tensor_of_one_row_is_shared_by_all() -> None:
    threshold = v2(("x", [2, 2], [1, 2, 3, 4]), ("threshold", [1], [0.5]))
    found = exchange(V2, b"", threshold, {}).features
    assert found == Table(("x[0]", "x[1]", "threshold"), 2, [1, 2, 0.5, 3, 4, 0.5])


def test_a_tensor_with_other_rows_costs_itself() -> None:
    boxes = v2(("boxes", [2, 2], [1, 2, 3, 4]), ("scores", [3], [1, 2, 3]), key="outputs")
    found = exchange(V2, b"", {}, boxes).predictions
    assert isinstance(found, Table)
    assert found.values == [1, 2, None, 3, 4, None]
    assert [one.reason for one in found.lost] == [Reason.ROWS_DIFFER]
