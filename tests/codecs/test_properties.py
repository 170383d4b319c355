"""What holds for every payload."""

from __future__ import annotations

import copy
import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.codecs import (
    CELLS,
    JSON,
    MLFLOW,
    NAMED,
    PAYLOADS,
    SPEC,
    TARGETS,
    V1,
    V2,
    decode,
    sound,
    v2,
)
from understudy.common.codecs import (
    ModelSpec,
    Reason,
    Table,
    Undecodable,
    decode_exchange,
    kserve_v1,
    mlflow,
    open_inference,
    pointer,
)

MAPPED = ModelSpec(
    "m",
    protocol="json",
    json_features=(("a", "/a"), ("rows", "/instances/*/a"), ("all", "")),
    json_predictions=(("b", "/outputs/0/data"),),
)
HEADERS = st.sampled_from(
    [
        b"",
        b"content-type: application/json",
        b"content-encoding: gzip",
        b"content-encoding: deflate\r\ncontent-type: image/png",
        b"Content-Encoding:identity",
        b"inference-header-content-length: 9",
    ]
)


@given(TARGETS, PAYLOADS, PAYLOADS, st.sampled_from([SPEC, NAMED, MAPPED]))
def test_any_json_gives_a_sound_table_or_a_reason(
    target: bytes, request: object, response: object, spec: ModelSpec
) -> None:
    features, predictions = decode(target, request, response, spec)
    assert sound(features), features
    assert sound(predictions), predictions


@given(TARGETS, st.binary(max_size=60) | HEADERS, st.binary(max_size=200))
def test_any_bytes_give_a_reason(target: bytes, headers: bytes, body: bytes) -> None:
    decoded = decode_exchange(SPEC, target, headers, body, 200, headers, body)
    assert sound(decoded.features)
    assert sound(decoded.predictions)


@given(TARGETS, HEADERS, PAYLOADS, st.data())
def test_a_damaged_payload_gives_a_reason(
    target: bytes, headers: bytes, payload: object, data: st.DataObject
) -> None:
    body = bytearray(json.dumps(payload).encode())
    if b"gzip" in headers:
        body = bytearray(gzip.compress(body))
    elif b"deflate" in headers:
        body = bytearray(zlib.compress(body))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.integers(0, len(body)))])
    decoded = decode_exchange(SPEC, target, headers, damaged, 200, headers, damaged)
    assert sound(decoded.features)
    assert sound(decoded.predictions)


ODD: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.text() | st.floats() | st.lists(st.none()) | st.builds(object)
)


@given(ODD, ODD, ODD, st.sampled_from([V1, V2, b"/own"]) | ODD)
def test_values_other_than_bytes_are_undecodable_and_do_not_raise(
    headers: Any, body: Any, status: Any, path: Any
) -> None:
    """The last resort. Bytes never get here, so it takes a caller that breaks the contract."""
    body = body if not isinstance(body, int) else {}
    decoded = decode_exchange(SPEC, path, headers, body, status, headers, body)
    assert isinstance(decoded.features, Undecodable)
    assert isinstance(decoded.predictions, Undecodable)


def test_a_fault_in_one_part_keeps_the_other() -> None:
    good = b'{"instances": [1], "predictions": [2]}'
    bad: Any = "no bytes"
    decoded = decode_exchange(SPEC, V1, b"", bad, 200, b"", good)
    assert decoded.features == Undecodable(Reason.INTERNAL, "TypeError")
    assert decoded.predictions == Table(("y",), 1, [2])
    decoded = decode_exchange(SPEC, V1, b"", good, 200, b"", bad)
    assert decoded.features == Table(("x",), 1, [1])
    assert decoded.predictions == Undecodable(Reason.INTERNAL, "TypeError")


@given(PAYLOADS, st.sampled_from([kserve_v1, mlflow, open_inference, pointer]))
def test_codecs_change_nothing(payload: object, codec: Any) -> None:
    before = copy.deepcopy(payload)
    for spec in (NAMED, MAPPED):
        codec.decode_request(payload, spec)
        codec.decode_response(payload, spec)
    assert repr(payload) == repr(before)  # NaN is not equal to itself


@given(TARGETS, JSON)
def test_the_same_bytes_give_the_same_result(target: bytes, payload: object) -> None:
    body = json.dumps(payload).encode()
    once = decode_exchange(NAMED, target, b"", body, 200, b"", body)
    view = memoryview(body)
    assert repr(decode_exchange(NAMED, target, b"", view, 200, b"", view)) == repr(once)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Any table of distinct names and scalar cells."""
    names = draw(st.lists(st.text(max_size=5), min_size=1, max_size=6, unique=True))
    rows = draw(st.integers(1, 5))
    size = rows * len(names)
    return Table(tuple(names), rows, draw(st.lists(CELLS, min_size=size, max_size=size)))


def grid(table: Table) -> list[list[object]]:
    width = len(table.names)
    return [table.values[i * width : (i + 1) * width] for i in range(table.rows)]


def by_name(table: Table) -> dict[str, list[object]]:
    return {name: table.column(name) for name in table.names}


@given(tables())
def test_every_format_carries_any_named_table(table: Table) -> None:
    columns, names = by_name(table), table.names
    records = [table.row(i) for i in range(table.rows)]
    flat = [(name, [table.rows], column) for name, column in columns.items()]
    upright = [(n, [table.rows, 1], [[cell] for cell in c]) for n, c in columns.items()]
    forms: list[tuple[bytes, object]] = [
        (V1, {"inputs": columns}),
        (MLFLOW, {"dataframe_split": {"columns": list(names), "data": grid(table)}}),
        (MLFLOW, {"dataframe_records": records}),
        (MLFLOW, {"inputs": columns}),
    ]
    if names != ("b64",):  # whose texts are bytes, for TensorFlow Serving
        forms += [(V1, {"instances": records}), (MLFLOW, {"instances": records})]
    forms += [(V2, v2(*flat)), (V2, v2(*upright))]
    for target, request in forms:
        assert decode(target, request)[0] == table
    mapping = tuple((n, "/c/" + n.replace("~", "~0").replace("/", "~1")) for n in names)
    spec = ModelSpec("m", protocol="json", json_features=mapping)
    assert decode(b"/s", {"c": columns}, spec=spec)[0] == table


@given(tables())
def test_every_format_carries_any_answer(table: Table) -> None:
    columns, names = by_name(table), table.names
    records = [table.row(i) for i in range(table.rows)]
    flat = [(name, [table.rows], column) for name, column in columns.items()]
    forms: list[tuple[bytes, object]] = [
        (V1, {"outputs": columns}),
        (V2, v2(*flat, key="outputs")),
        (MLFLOW, {"predictions": columns}),
    ]
    if names != ("b64",):
        forms += [(V1, {"predictions": records}), (MLFLOW, {"predictions": records})]
        forms.append((MLFLOW, records))
    for target, response in forms:
        assert decode(target, {}, response)[1] == table


@given(tables())
def test_every_format_carries_any_table_by_position(table: Table) -> None:
    spec = ModelSpec("m", features=table.names, predictions=table.names)
    rows, width = table.rows, len(table.names)
    requests: list[tuple[bytes, object]] = [
        (V1, {"instances": grid(table)}),
        (V1, {"inputs": grid(table)}),
        (V2, v2(("x", [rows, width], table.values))),
        (V2, v2(("x", [rows, width], grid(table)))),
        (MLFLOW, {"instances": grid(table)}),
        (MLFLOW, {"inputs": grid(table)}),
        (MLFLOW, {"dataframe_split": {"data": grid(table)}}),
    ]
    if width > 1:
        requests += [
            (V1, {"inputs": {"x": grid(table)}}),
            (V1, {"instances": [{"x": row} for row in grid(table)]}),
        ]
    for target, request in requests:
        assert decode(target, request, spec=spec)[0] == table
    for target, response in (
        (V1, {"predictions": grid(table)}),
        (V2, v2(("y", [rows, width], table.values), key="outputs")),
        (MLFLOW, {"predictions": grid(table)}),
        (MLFLOW, grid(table)),
    ):
        assert decode(target, {}, response, spec)[1] == table


NESTED = st.recursive(CELLS | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@given(st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True), st.data())
def test_row_form_equals_column_form(names: list[str], data: st.DataObject) -> None:
    """Whatever the cells hold: vectors, matrices, sequences, gaps."""
    assume(names != ["b64"])
    rows = data.draw(st.integers(1, 4))
    columns = {name: data.draw(st.lists(NESTED, min_size=rows, max_size=rows)) for name in names}
    records = [{name: columns[name][i] for name in names} for i in range(rows)]
    by_row = decode(V1, {"instances": records}, spec=NAMED)[0]
    assert by_row == decode(V1, {"inputs": columns}, spec=NAMED)[0]
    assert by_row == decode(MLFLOW, {"dataframe_records": records}, spec=NAMED)[0]
    split = {"columns": names, "data": [list(record.values()) for record in records]}
    assert by_row == decode(MLFLOW, {"dataframe_split": split}, spec=NAMED)[0]


def nested(leaves: list[Any], shape: list[int]) -> Any:
    if len(shape) == 1:
        return leaves
    step = len(leaves) // shape[0]
    return [nested(leaves[i : i + step], shape[1:]) for i in range(0, len(leaves), step)]


@given(st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3), st.data())
def test_flat_data_equals_nested_data(shapes: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 3))
    flat, deep = [], []
    for number, inner in enumerate(shapes):
        shape = [rows, *inner]
        size = 1
        for n in shape:
            size *= n
        leaves = data.draw(st.lists(CELLS | st.none(), min_size=size, max_size=size))
        flat.append((f"t{number}", shape, leaves))
        deep.append((f"t{number}", shape, nested(leaves, shape)))
    once = decode(V2, v2(*flat), spec=NAMED)[0]
    assert isinstance(once, Table)
    assert once.rows == rows
    assert once == decode(V2, v2(*deep), spec=NAMED)[0]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@given(table=tables())
def test_compressed_and_plain_are_the_same(coding: str, table: Table) -> None:
    body = json.dumps({"inputs": by_name(table)}).encode()
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    headers = b"content-encoding: " + coding.encode()
    assert decode_exchange(SPEC, V1, headers, packed, 0, b"", None).features == table
