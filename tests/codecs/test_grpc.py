"""The Open Inference Protocol over gRPC: the columns are those of JSON and of binary HTTP."""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.http import InferenceServerClient, InferInput

from tests.support.codecs import SPEC, V2, reason, sound
from tests.support.grpc_calls import (
    CONTENTS,
    HEADERS,
    PATH,
    STREAM_PATH,
    Tensor,
    body_of,
    floats,
    request_message,
    response_message,
)
from understudy.common.codecs import (
    ModelSpec,
    Reason,
    Table,
    Undecodable,
    binary,
    decode_exchange,
)
from understudy.common.codecs.compressed import MAX_DECOMPRESSED
from understudy.common.codecs.open_inference_grpc import MAX_MESSAGES, MAX_TENSORS
from understudy.common.codecs.spec import Classes
from understudy.common.grpc_messages import framed

KINDS: dict[str, Any] = {
    "BOOL": np.bool_, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "UINT16": np.uint16,
    "INT32": np.int32, "UINT32": np.uint32, "INT64": np.int64, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip


def features(body: bytes, headers: bytes = HEADERS, path: bytes = PATH) -> Table | Undecodable:
    return decode_exchange(SPEC, path, headers, body, 200, HEADERS, None).features


def predictions(body: bytes, headers: bytes = HEADERS, path: bytes = PATH) -> Table | Undecodable:
    request = body_of(request_message(("a", "FP32", floats(1.0))))
    return decode_exchange(SPEC, path, HEADERS, request, 200, headers, body).predictions


def by_json(*tensors: Tensor) -> Table | Undecodable:
    inputs = [
        {"name": name, "datatype": datatype, "shape": list(array.shape),
         "data": array.reshape(-1).tolist()}
        for name, datatype, array in tensors
    ]  # fmt: skip
    body = json.dumps({"inputs": inputs}).encode()
    return decode_exchange(SPEC, V2, b"", body, 200, b"", None).features


def by_http(*tensors: Tensor) -> Table | Undecodable:
    inputs = []
    for name, datatype, array in tensors:
        one = InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=True)
        inputs.append(one)
    body, length = InferenceServerClient.generate_request_body(inputs)
    headers = b"Inference-Header-Content-Length: %d" % length
    return decode_exchange(SPEC, V2, headers, body, 200, b"", None).features


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    """One to four tensors of the same number of rows."""
    rows = draw(st.integers(1, 4))
    found: list[Tensor] = []
    for number in range(draw(st.integers(1, 4))):
        datatype = draw(st.sampled_from(list(KINDS)))
        kind = KINDS[datatype]
        if datatype == "BYTES":
            values: Any = st.text(st.characters(codec="utf-8"), max_size=4)
        elif kind is np.bool_:
            values = st.booleans()
        elif issubclass(kind, np.integer):
            values = st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max))
        else:
            values = st.floats(width=np.finfo(kind).bits, allow_nan=False, allow_infinity=False)
        width = draw(st.integers(1, 3))
        cells = draw(st.lists(values, min_size=rows * width, max_size=rows * width))
        array = np.array(cells, kind).reshape(rows, width)
        found.append((f"t{number}", datatype, array))
    return found


@given(tensors())
@settings(max_examples=150, deadline=None)
def test_all_ways_to_send_tensors_have_the_same_columns(sent: list[Tensor]) -> None:
    expected = by_json(*sent)
    assert isinstance(expected, Table)
    assert by_http(*sent) == expected
    assert features(body_of(request_message(*sent))) == expected
    assert predictions(body_of(response_message(*sent))) == expected
    if all(datatype in CONTENTS for _, datatype, _ in sent):
        assert features(body_of(request_message(*sent, raw=False))) == expected
        assert predictions(body_of(response_message(*sent, raw=False))) == expected
    stream = pb.ModelStreamInferResponse(infer_response=response_message(*sent))
    assert predictions(body_of(stream), path=STREAM_PATH) == expected


def test_configured_names_and_classes_apply_as_for_json() -> None:
    spec = ModelSpec(
        "m", protocol="open-inference-v2", features=("age", "fare"), classes=Classes("p")
    )
    request = body_of(request_message(("x", "FP32", floats(30.0, 7.5).reshape(1, 2))))
    ranked = np.array([["0.75:281:tabby", "0.25:2:dog"]], object)
    answer = body_of(response_message(("p", "BYTES", ranked)))
    decoded = decode_exchange(spec, PATH, HEADERS, request, 200, HEADERS, answer)
    assert decoded.protocol == "open-inference-v2"
    assert decoded.features == Table(("age", "fare"), 1, [30.0, 7.5])
    assert isinstance(decoded.predictions, Table)
    assert decoded.predictions.row(0)["class"] == "tabby"
    assert decoded.predictions.row(0)["score"] == 0.75
    assert decode_exchange(
        ModelSpec("m"), PATH, HEADERS, request, 200, HEADERS, answer
    ).protocol == ("open-inference-v2")


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31 - 1])
def test_typed_integers_keep_their_sign(number: int) -> None:
    sent = ("a", "INT32", np.array([number], np.int32))
    assert features(body_of(request_message(sent, raw=False))) == Table(("a",), 1, [number])


def test_fields_that_are_not_packed_and_unknown_ones() -> None:
    floats_alone = b"".join(b"\x35" + struct.pack("<f", n) for n in (1.5, 2.5))
    numbers_alone = b"\x18\x07\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    for datatype, contents, expected in (
        (b"FP32", floats_alone, [1.5, 2.5]),
        (b"INT64", numbers_alone, [7, -1]),
    ):
        tensor = b"\x0a\x01a\x12" + bytes([len(datatype)]) + datatype + b"\x18\x02"
        # Two occurrences of a message are one; groups and fixed numbers are skipped.
        middle = len(contents) // 2 if datatype == b"FP32" else 2
        for part in (contents[:middle], contents[middle:]):
            tensor += b"\x2a" + bytes([len(part)]) + part
        unknown = b"\xf5\x01abcd\xf1\x01abcdefgh\xf3\x01\x08\x01\xf3\x02\xf4\x02\xf4\x01"
        message = b"\x0a\x01m" + unknown + b"\x2a" + bytes([len(tensor)]) + tensor
        assert features(framed(message)) == Table(("a",), 2, expected)
        read = pb.ModelInferRequest.FromString(message).inputs[0].contents
        assert [*read.fp32_contents, *read.int64_contents] == expected


GOOD: Tensor = ("g", "FP32", floats(1.0))


def lost(message: Any) -> tuple[Reason | None, list[Reason]]:
    """Why its only tensor is lost, and what is lost beside a good one."""
    alone = reason(features(body_of(message)))
    both = pb.ModelInferRequest()
    both.CopyFrom(message)
    good = request_message(GOOD, raw=bool(message.raw_input_contents))
    both.inputs.extend(good.inputs)
    both.raw_input_contents.extend(good.raw_input_contents)
    table = features(body_of(both))
    assert isinstance(table, Table)
    assert (table.names, table.values) == (("a", "g"), [None, 1.0])
    return alone, [one.reason for one in table.lost]


def test_a_tensor_that_cannot_be_read_costs_itself() -> None:
    def described(datatype: str = "FP32", raw: bytes | None = None, dims: int = 1) -> Any:
        message = pb.ModelInferRequest(model_name="m")
        message.inputs.add(name="a", datatype=datatype, shape=[1] * dims)
        if raw is not None:
            message.raw_input_contents.append(raw)
        return message

    assert lost(described(raw=b"abc")) == (Reason.WRONG_SHAPE, [Reason.WRONG_SHAPE])
    assert lost(described(raw=b"abcdefgh")) == (Reason.WRONG_SHAPE, [Reason.WRONG_SHAPE])
    assert lost(described("FP8", b"a")) == (Reason.BINARY, [Reason.BINARY])
    assert lost(described(raw=b"")) == (Reason.EMPTY, [Reason.EMPTY])
    assert lost(described()) == (Reason.EMPTY, [Reason.EMPTY])
    assert lost(described(raw=b"abcd", dims=33)) == (Reason.WRONG_SHAPE, [Reason.WRONG_SHAPE])
    for datatype in ("FP16", "FP64"):
        misfit = described(datatype)
        misfit.inputs[0].contents.fp32_contents.append(1.0)
        assert lost(misfit) == (Reason.WRONG_SHAPE, [Reason.WRONG_SHAPE])
    shared = described()
    shared.inputs[0].parameters["shared_memory_byte_size"].int64_param = 4
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert lost(shared) == (Reason.SHARED_MEMORY, [Reason.SHARED_MEMORY])
    # Requests have no raw contents for tensors in shared memory.
    shared.inputs.extend(request_message(GOOD).inputs)
    shared.raw_input_contents.append(b"\0\0\x80?")
    table = features(body_of(shared))
    assert isinstance(table, Table)
    assert table.values == [None, 1.0]


def test_raw_contents_that_are_missing() -> None:
    message = request_message(GOOD, ("h", "FP32", floats(2.0)))
    del message.raw_input_contents[1]
    table = features(body_of(message))
    assert isinstance(table, Table)
    assert table.values == [1.0, None]
    assert [one.reason for one in table.lost] == [Reason.TRUNCATED]


def test_compressed_messages() -> None:
    message = request_message(GOOD).SerializeToString()
    for encoding, packed in (
        (b"gzip", gzip.compress(message)),
        (b"deflate", zlib.compress(message)),
    ):
        headers = HEADERS + b"\r\nGrpc-Encoding: " + encoding
        assert features(framed(packed, True), headers) == Table(("g",), 1, [1.0])
        assert features(framed(message), headers) == Table(("g",), 1, [1.0])
        damaged = features(framed(b"\0\1" + packed[2:], True), headers)
        assert reason(damaged) == Reason.UNSUPPORTED_ENCODING
        cut = features(framed(packed[:-6], True), headers)
        assert reason(cut) == Reason.TRUNCATED
    assert reason(features(framed(message, True))) == Reason.UNSUPPORTED_ENCODING
    snappy = HEADERS + b"\r\ngrpc-encoding: snappy"
    assert reason(features(framed(message, True), snappy)) == Reason.UNSUPPORTED_ENCODING


def test_inflated_messages_are_bounded_together() -> None:
    headers = HEADERS + b"\r\ngrpc-encoding: gzip"
    bomb = framed(gzip.compress(bytes(MAX_DECOMPRESSED - 100)), True)
    assert reason(features(bomb, headers)) == Reason.WRONG_SHAPE  # read, and not a message
    assert reason(features(bomb * 2, headers)) == Reason.TOO_LARGE


def test_bounds() -> None:
    many = request_message(GOOD)
    for number in range(MAX_TENSORS):
        many.inputs.add(name=str(number))
    assert reason(features(body_of(many))) == Reason.TOO_LARGE
    flat = np.zeros(binary.MAX_ELEMENTS + 1, np.bool_)
    for raw in (True, False):
        large = request_message(("a", "BOOL", flat), raw=raw)
        assert reason(features(body_of(large))) == Reason.TOO_LARGE
    texts = request_message(("a", "BYTES", np.array([""] * 2**18 + ["a"], object)), raw=False)
    assert reason(features(body_of(texts))) == Reason.TOO_LARGE
    name = request_message(("n" * 300, "FP32", floats(1.0)))
    assert reason(features(body_of(name))) == Reason.TOO_LARGE
    short = framed(b"")
    assert reason(features(short * (MAX_MESSAGES + 1), path=STREAM_PATH)) == Reason.TOO_LARGE
    deep = b"\xf3\x01" * 100 + b"\xf4\x01" * 100
    assert reason(features(framed(deep))) == Reason.WRONG_SHAPE


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Reason.EMPTY), (b"\0\0\0", Reason.TRUNCATED), (b"\0\0\0\0\5abcd", Reason.TRUNCATED),
        (b"\2\0\0\0\0", Reason.WRONG_SHAPE), (framed(b""), Reason.EMPTY),
        (b'{"inputs": []}', Reason.WRONG_SHAPE), (framed(b"\x0a\x05m"), Reason.WRONG_SHAPE),
    ],
)  # fmt: skip
def test_bodies_that_are_not_messages(body: bytes, expected: Reason) -> None:
    assert reason(features(body)) == expected


def test_calls_that_fail() -> None:
    assert reason(predictions(b"")) == Reason.ERROR_RESPONSE
    answer = body_of(response_message(GOOD))
    failed = HEADERS + b"\r\ngrpc-status: 13"
    assert reason(predictions(answer, failed)) == Reason.ERROR_RESPONSE
    assert isinstance(predictions(answer, HEADERS + b"\r\ngrpc-status: 0"), Table)
    error = body_of(pb.ModelStreamInferResponse(error_message="boom"))
    assert reason(predictions(error, path=STREAM_PATH)) == Reason.ERROR_RESPONSE


def answered(*messages: Any) -> Table | Undecodable:
    wrapped = [pb.ModelStreamInferResponse(infer_response=one) for one in messages]
    return predictions(body_of(*wrapped), path=STREAM_PATH)


def test_several_answers_to_one_request() -> None:
    pieces = [
        response_message(("text", "BYTES", np.array([piece], object)), GOOD, id_="1")
        for piece in ("Hel", "lo", "")
    ]
    last = response_message(id_="1")
    last.parameters["triton_final_response"].bool_param = True
    assert answered(*pieces, last) == Table(("text", "g"), 1, ["Hello", 1.0])
    assert answered(pieces[0], response_message(("o", "FP32", floats(3.0)), id_="1")) == Table(
        ("o",), 1, [3.0]
    )
    assert reason(answered(last)) == Reason.EMPTY


def test_a_stream_of_several_requests_has_the_rows_of_all() -> None:
    sent = [
        request_message(("a", "FP32", floats(n, 2 * n).reshape(1, 2)), id_=str(n)) for n in (1, 2)
    ]
    table = features(body_of(*sent), path=STREAM_PATH)
    assert table == Table(("a[0]", "a[1]"), 2, [1.0, 2.0, 2.0, 4.0])
    answers = [response_message(("p", "FP32", floats(n)), id_=str(n)) for n in (1, 2)]
    assert answered(*answers) == Table(("p",), 2, [1.0, 2.0])
    other = request_message(("b", "FP32", floats(1.0)))
    assert reason(features(body_of(sent[0], other), path=STREAM_PATH)) == Reason.WRONG_SHAPE


def test_mutated_messages_never_raise() -> None:
    pick = random.Random(21)
    whole = [
        request_message(GOOD, ("t", "BYTES", np.array(["u", "v"], object)), id_="1"),
        request_message(GOOD, ("i", "INT32", np.array([[-1, 2]], np.int32)), raw=False),
    ]
    bodies = [body_of(*whole), *map(body_of, whole)]
    answer = pb.ModelStreamInferResponse(infer_response=response_message(GOOD, id_="1"))
    bodies.append(body_of(answer, answer))
    read = 0
    for _ in range(3000):
        body = bytearray(pick.choice(bodies))
        for _ in range(pick.randrange(1, 4)):
            at = pick.randrange(len(body))
            kind = pick.randrange(3)
            if kind == 0:
                body[at] = pick.randrange(256)
            elif kind == 1:
                del body[at : at + pick.randrange(1, 4)]
            else:
                body[at:at] = body[at : at + pick.randrange(9)]
        for path in (PATH, STREAM_PATH):
            found = decode_exchange(
                SPEC, path, HEADERS, bytes(body), 200, HEADERS, memoryview(body)
            )
            assert sound(found.features), bytes(body)
            assert sound(found.predictions), bytes(body)
            read += isinstance(found.features, Table)
    assert read > 300
