"""Binary tensors of V2, as Triton's own client writes and reads them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from tests.support.codecs import SPEC, V2, reason, sound
from understudy.common.codecs import Decoded, Reason, Table, Undecodable, decode_exchange

TYPES = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "UINT32": np.uint32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
Sent = tuple[bytes, bytes]
"""Headers and body."""


def sent(*tensors: tuple[str, str, Any], binary: bool) -> Sent:
    """A request by Triton's client: (name, datatype, array) of each tensor."""
    inputs = []
    for name, datatype, array in tensors:
        one = InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=binary)
        inputs.append(one)
    wanted = [InferRequestedOutput("p", binary_data=binary)]
    body, length = InferenceServerClient.generate_request_body(inputs, outputs=wanted)
    if length is None:
        return b"content-type: application/json", body
    headers = b"Inference-Header-Content-Length: %d" % length
    return headers + b"\r\ncontent-type: application/octet-stream", body


def answered(headers: bytes, body: bytes) -> Decoded:
    """The body as a request, and, with its inputs for outputs, as a response."""
    other = body.replace(b'"outputs"', b'"options"').replace(b'"inputs"', b'"outputs"')
    names = headers.lower().split(b"\r\n")
    grown = [
        b"inference-header-content-length: %d" % (int(line.partition(b":")[2]) + 1)
        if line.startswith(b"inference-header")
        else line
        for line in names
    ]
    return decode_exchange(SPEC, V2, headers, body, 200, b"\r\n".join(grown), other)


def features(headers: bytes, body: bytes) -> Table | Undecodable:
    return decode_exchange(SPEC, V2, headers, body, 200, b"", None).features


def by_hand(tail: bytes, *tensors: dict[str, Any]) -> Sent:
    head = json.dumps({"inputs": list(tensors)}).encode()
    return b"Inference-Header-Content-Length: %d" % len(head), head + tail


def described(name: str, datatype: str, size: int, shape: list[int] | None = None) -> Any:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape or [1], "parameters": parameters}


@pytest.mark.parametrize("datatype", TYPES)
@given(data=st.data())
def test_every_datatype_has_the_columns_of_its_json(datatype: str, data: st.DataObject) -> None:
    kind = TYPES[datatype]
    if kind is np.bool_:
        values: Any = st.booleans()
    elif issubclass(kind, np.integer):
        values = st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    else:
        values = st.floats(width=np.finfo(kind).bits, allow_nan=False, allow_infinity=False)
    rows, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    cells = data.draw(st.lists(values, min_size=rows * width, max_size=rows * width))
    array = np.array(cells, kind).reshape(rows, width)
    binary = features(*sent(("a", datatype, array), binary=True))
    if datatype == "FP16":  # the client refuses it as JSON
        expected: Any = {"inputs": [{"name": "a", "datatype": "FP16", "shape": [rows, width],
                                     "data": array.reshape(-1).tolist()}]}  # fmt: skip
        assert binary == features(b"", json.dumps(expected).encode())
    else:
        assert binary == features(*sent(("a", datatype, array), binary=False))
    assert isinstance(binary, Table)
    assert binary.values == array.reshape(-1).tolist()


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_texts_have_the_columns_of_their_json(texts: list[str]) -> None:
    array = np.array(texts, object)
    binary = features(*sent(("a", "BYTES", array), binary=True))
    assert isinstance(binary, Table)
    assert binary == features(*sent(("a", "BYTES", array), binary=False))
    assert binary.values == texts


def test_several_tensors_in_binary_form_and_in_json() -> None:
    number, text = np.array([[1.5], [2.5]], np.float32), np.array([["u"], ["v"]], object)
    binary = answered(*sent(("n", "FP32", number), ("t", "BYTES", text), binary=True))
    assert binary.features == Table(("n", "t"), 2, [1.5, "u", 2.5, "v"])
    assert binary.predictions == binary.features
    whole = {"name": "w", "datatype": "INT64", "shape": [1], "data": [9007199254740993]}
    mixed = by_hand(b"\x00\x3e\x00\xc0", whole, described("h", "FP16", 4, [1, 2]))
    assert features(*mixed) == Table(("w", "h[0]", "h[1]"), 1, [9007199254740993, 1.5, -2.0])


def test_bf16_is_the_upper_half_of_a_number() -> None:
    tail = b"".join(struct.pack("<f", number)[2:] for number in (1.0, -2.5, 1e30))
    table = features(*by_hand(tail, described("a", "BF16", 6, [3])))
    assert isinstance(table, Table)
    assert table.values == [1.0, -2.5, pytest.approx(1e30, rel=0.01)]


def test_bytes_that_are_no_text_are_written_as_one() -> None:
    tail = b"\x02\x00\x00\x00\xffa"
    assert features(*by_hand(tail, described("a", "BYTES", 6))) == Table(("a",), 1, ["\\xffa"])


GOOD = {"name": "g", "datatype": "FP32", "shape": [1], "data": [1.0]}


@pytest.mark.parametrize(
    ("tensor", "tail", "expected"),
    [
        (described("a", "FP32", 4), b"\0\0", Reason.TRUNCATED),
        (described("a", "FP32", 3), b"\0\0\0", Reason.WRONG_SHAPE),
        (described("a", "FP32", 4, [2]), b"\0\0\0\0", Reason.WRONG_SHAPE),
        (described("a", "FP16", 3), b"\0\0\0", Reason.WRONG_SHAPE),
        (described("a", "BF16", 3), b"\0\0\0", Reason.WRONG_SHAPE),
        (described("a", "BYTES", 3), b"\0\0\0", Reason.WRONG_SHAPE),
        (described("a", "BYTES", 5), b"\xff\xff\xff\xffa", Reason.WRONG_SHAPE),
        (described("a", "FP8", 1), b"\0", Reason.BINARY),
        (described("a", "FP32", 0), b"", Reason.EMPTY),
        (
            {"name": "a", "datatype": "FP32", "shape": [1],
             "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}},
            b"", Reason.SHARED_MEMORY,
        ),
    ],
)  # fmt: skip
def test_a_tensor_that_cannot_be_read_costs_itself(
    tensor: Any, tail: bytes, expected: Reason
) -> None:
    assert reason(features(*by_hand(tail, tensor))) == expected
    table = features(*by_hand(tail, tensor, GOOD))
    assert isinstance(table, Table)
    assert (table.names, table.values) == (("a", "g"), [None, 1.0])
    assert [one.reason for one in table.lost] == [expected]


@pytest.mark.parametrize(
    ("length", "expected"),
    [(b"0", Reason.BINARY), (b"999", Reason.TRUNCATED), (b"-1", Reason.TRUNCATED),
     (b"x", Reason.TRUNCATED), (b"9" * 30, Reason.TRUNCATED)],
)  # fmt: skip
def test_lengths_that_do_not_fit(length: bytes, expected: Reason) -> None:
    found = features(b"Inference-Header-Content-Length: " + length, b'{"inputs": []}')
    assert reason(found) == expected


@given(
    st.binary(max_size=40), st.sampled_from([*TYPES, "BF16", "BYTES", "X", 3]), st.integers(-1, 40)
)
def test_any_bytes_give_a_sound_table_or_a_reason(tail: bytes, datatype: Any, size: int) -> None:
    headers, body = by_hand(tail, described("a", datatype, size), GOOD)
    assert sound(features(headers, body))
    assert sound(features(headers, body[:-3]))
