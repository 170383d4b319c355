"""Each wire format, its odd shapes, and the promise that nothing is ever raised."""

from __future__ import annotations

import copy
import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.codecs import ModelSpec, Reason, Table, Undecodable, decode_exchange
from monitor.codecs.decode import MAX_DECOMPRESSED
from monitor.codecs.pointer import follow, steps

V2 = b"/v2/models/m/infer"
V1 = b"/v1/models/m:predict"
MLFLOW = b"/invocations"
SPEC = ModelSpec("m")
NAMED = ModelSpec("m", features=("age", "fare"), predictions=("no", "yes"))


def decode(
    target: bytes,
    request: object,
    response: object = None,
    spec: ModelSpec = SPEC,
    status: int = 200,
) -> tuple[Table | Undecodable, Table | Undecodable]:
    decoded = decode_exchange(
        spec, target, b"", json.dumps(request).encode(), status, b"", json.dumps(response).encode()
    )
    return decoded.features, decoded.predictions


def v2(*tensors: tuple[str, list[int], list[Any]], key: str = "inputs") -> dict[str, Any]:
    return {
        key: [
            {"name": name, "shape": shape, "datatype": "FP64", "data": data}
            for name, shape, data in tensors
        ]
    }


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
        V1, {"instances": [{"b64": "AAE="}]}, ("b64",), 1, ["AAE="], id="v1 bytes stay encoded"
    ),
    pytest.param(V1, {"instances": [[1], [2, 3]]}, ("x",), 2, [[1], [2, 3]], id="v1 sequences"),
    pytest.param(
        V1, {"instances": [[[1, 2]], [[3, 4]]]}, ("x",), 2, [[1, 2], [3, 4]], id="v1 nested"
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
]


@pytest.mark.parametrize(("target", "response", "names", "rows", "values"), PREDICTIONS)
def test_predictions(
    target: bytes, response: object, names: tuple[str, ...], rows: int, values: list[object]
) -> None:
    assert decode(target, {}, response)[1] == Table(names, rows, values)


def test_configured_names_take_the_place_of_positions() -> None:
    features, predictions = decode(
        V2, v2(("x", [1, 2], [7, 8])), v2(("p", [1, 2], [0.1, 0.9]), key="outputs"), NAMED
    )
    assert features == Table(("age", "fare"), 1, [7, 8])
    assert predictions == Table(("no", "yes"), 1, [0.1, 0.9])
    assert features.row(0) == {"age": 7, "fare": 8}
    assert features.column("fare") == [8]


def test_a_very_wide_row_is_one_vector() -> None:
    row = [float(i) for i in range(300)]
    assert decode(V2, v2(("e", [1, 300], row)))[0] == Table(("e",), 1, [row])
    assert decode(V1, {"instances": [row]})[0] == Table(("x",), 1, [row])


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
    pytest.param(V2, v2(("a", [-1, -2], [1, 2])), Reason.WRONG_SHAPE, id="v2 negative"),
    pytest.param(V2, v2(("a", [0], [])), Reason.EMPTY, id="v2 no rows"),
    pytest.param(V2, v2(("a", [1], [1]), ("b", [2], [1, 2])), Reason.WRONG_SHAPE, id="v2 uneven"),
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


@pytest.mark.parametrize(("target", "request_", "reason"), UNDECODABLE)
def test_undecodable(target: bytes, request_: object, reason: Reason) -> None:
    features, _ = decode(target, request_)
    assert isinstance(features, Undecodable)
    assert features.reason == reason


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (b"", None, Reason.NOT_CAPTURED),
        (b"", b"", Reason.EMPTY),
        (b"", b"{", Reason.NOT_JSON),
        (b"", b"\xff\xfe", Reason.NOT_JSON),
        (b"", b"[" * 100_000, Reason.NOT_JSON),
        (b"", b"[" * 100_000 + b"NaN", Reason.NOT_JSON),
        (b"Inference-Header-Content-Length: 3", b"{}", Reason.BINARY),
        (b"Content-Encoding: br", b"{}", Reason.UNSUPPORTED_ENCODING),
        (b"Content-Encoding: gzip", b"{}", Reason.UNSUPPORTED_ENCODING),
        (b"content-encoding: gzip", gzip.compress(bytes(MAX_DECOMPRESSED + 1)), Reason.TOO_LARGE),
    ],
)
def test_unreadable_bodies(headers: bytes, body: bytes | None, reason: Reason) -> None:
    decoded = decode_exchange(SPEC, V1, headers, body, 200, headers, body)
    for part in (decoded.features, decoded.predictions):
        assert isinstance(part, Undecodable)
        assert part.reason == reason


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        (b"gzip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", lambda data: zlib.compress(data, wbits=-15)),
        (b"identity", bytes),
    ],
)
def test_compressed_bodies(coding: bytes, encode: Any) -> None:
    body = encode(b'{"instances": [1, 2]}')
    decoded = decode_exchange(SPEC, V1, b"content-encoding: " + coding, body, 0, b"", None)
    assert decoded.features == Table(("x",), 2, [1, 2])
    assert isinstance(decoded.predictions, Undecodable)
    assert decoded.predictions.reason == Reason.ERROR_RESPONSE


def test_bare_nan_is_read_as_tensorflow_serving_writes_it() -> None:
    body = b'{"instances": [NaN, Infinity, -Infinity]}'
    features = decode_exchange(SPEC, V1, b"", body, 200, b"", b"{}").features
    assert isinstance(features, Table)
    assert [str(value) for value in features.values] == ["nan", "inf", "-inf"]


def test_an_error_answer_has_no_predictions() -> None:
    _, predictions = decode(V1, {"instances": [1]}, {"predictions": [1]}, status=500)
    assert predictions == Undecodable(Reason.ERROR_RESPONSE)


def test_the_configuration_overrides_the_path() -> None:
    spec = ModelSpec("m", protocol="kserve-v1")
    assert decode(V2, {"instances": [4]}, spec=spec)[0] == Table(("x",), 1, [4])


def test_json_pointers() -> None:
    spec = ModelSpec(
        "m",
        protocol="json",
        json_features=(("age", "/rows/*/age"), ("city", "/where/city"), ("a/b", "/a~1b")),
        json_predictions=(("score", "/scores"),),
    )
    request = {"rows": [{"age": 3}, {}], "where": {"city": "Ulm"}}
    features, predictions = decode(b"/score", request, {"scores": [0.5, 0.7]}, spec)
    assert features == Table(("age", "city", "a/b"), 2, [3, "Ulm", None, None, "Ulm", None])
    assert predictions == Table(("score",), 2, [0.5, 0.7])
    assert decode(b"/score", {"other": 1}, spec=spec)[0] == Undecodable(
        Reason.WRONG_SHAPE, "no pointer of the mapping leads anywhere"
    )


# RFC 6901, section 5: the document and where its pointers lead.
RFC = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, " ": 7, "m~n": 8}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/foo/2", None),
        ("/foo/x", None),
        ("/a~1b/c", None),
    ],
)
def test_pointers_of_the_rfc(pointer: str, value: object) -> None:
    assert follow(RFC, steps(pointer)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "inputs",
                    "instances",
                    "outputs",
                    "predictions",
                    "data",
                    "shape",
                    "name",
                    "columns",
                    "dataframe_split",
                    "dataframe_records",
                    "parameters",
                    "a",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)
TARGETS = st.sampled_from([V1, V2, MLFLOW, b"/own", b"\xff"])


def whole(part: Table | Undecodable) -> bool:
    if isinstance(part, Undecodable):
        return part.reason != Reason.INTERNAL
    return part.rows > 0 and len(part.values) == part.rows * len(part.names)


@given(TARGETS, JSON, JSON)
def test_any_json_gives_a_whole_table_or_a_reason(
    target: bytes, request: object, response: object
) -> None:
    features, predictions = decode(target, request, response, NAMED)
    assert whole(features)
    assert whole(predictions)


@given(TARGETS, st.binary(max_size=60), st.binary(max_size=200))
def test_any_bytes_give_a_reason(target: bytes, headers: bytes, body: bytes) -> None:
    decoded = decode_exchange(SPEC, target, headers, body, 200, headers, body)
    assert whole(decoded.features)
    assert whole(decoded.predictions)


CELLS = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.text(max_size=4)


@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_every_format_carries_the_same_table(rows: int, width: int, data: st.DataObject) -> None:
    cells = data.draw(st.lists(CELLS, min_size=rows * width, max_size=rows * width))
    names = tuple(f"f{i}" for i in range(width))
    spec = ModelSpec("m", features=names)
    grid = [cells[i * width : (i + 1) * width] for i in range(rows)]
    columns = {name: cells[i::width] for i, name in enumerate(names)}
    expected = Table(names, rows, cells)
    tensors = [(name, [rows], column) for name, column in columns.items()]
    for target, request in (
        (V1, {"instances": grid}),
        (V1, {"instances": [dict(zip(names, row, strict=True)) for row in grid]}),
        (V1, {"inputs": columns}),
        (V2, v2(("x", [rows, width], cells))),
        (V2, v2(("x", [rows, width], grid))),
        (V2, v2(*tensors)),
        (MLFLOW, {"dataframe_split": {"columns": list(names), "data": grid}}),
        (MLFLOW, {"inputs": columns}),
    ):
        assert decode(target, request, spec=spec)[0] == expected
