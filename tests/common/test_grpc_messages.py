"""Framing of gRPC bodies, and the model that a beginning of one names."""

from __future__ import annotations

import gzip
import random
import zlib

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.support.grpc_calls import body_of, request_message
from understudy.common.grpc_messages import (
    MAX_PEEKED,
    FrameReader,
    FramingError,
    Message,
    Peeked,
    framed,
    frames,
    model_of,
    peek,
)
from understudy.common.protobuf import ProtobufError, fields, packed, signed, varint

LARGE = request_message(("x", "FP32", np.zeros(100_000, np.float32)), model="delays", id_="7")


def test_frames_of_several_messages() -> None:
    body = framed(b"ab") + framed(b"", True) + framed(b"c")
    assert [(flag, body[a:b]) for flag, a, b in frames(body)] == [
        (False, b"ab"), (True, b""), (False, b"c"),
    ]  # fmt: skip
    for bad in (body[:-1], body + b"\0", b"\2\0\0\0\0", b"HTTP/"):
        with pytest.raises(FramingError):
            list(frames(bad))


def of(content: bytes, compressed: bool = False) -> Message:
    return Message(compressed, content, len(content) + 5)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_messages_that_arrive_in_pieces(size: int) -> None:
    body = framed(b"ab") + framed(b"", True) + framed(b"x" * 300_000) + framed(b"c")
    reader = FrameReader(limit=100)
    found = [one for at in range(0, len(body), size) for one in reader.feed(body[at : at + size])]
    assert [(one.compressed, one.size, one.whole) for one in found] == [
        (False, 7, True), (True, 5, True), (False, 300_005, False), (False, 6, True),
    ]  # fmt: skip
    assert (found[0].content, found[3].content) == (b"ab", b"c")
    assert found[2].content == b"x" * MAX_PEEKED
    assert (reader.kept, reader.broken) == (0, False)
    assert reader.feed(b"HTTP/1.1 200") == []
    assert (reader.kept, reader.broken) == (0, True)
    assert reader.feed(framed(b"ab")) == []


@pytest.mark.parametrize("version", ["", "3"])
def test_the_model_is_known_from_the_beginning(version: str) -> None:
    LARGE.model_version = version
    body = body_of(LARGE)
    for size in range(120):
        found = model_of(body[:size])
        # The head, the fields of name and version, and the tag behind them.
        needed = 5 + 8 + (3 if version else 0) + 1
        assert found == (None if size <= needed else ("delays", version)), size
    assert model_of(body_of(pb.ModelInferRequest(model_name="m"))) == ("m", "")
    assert model_of(framed(b"")) == ("", "")


def test_the_model_of_compressed_messages() -> None:
    LARGE.model_version = "3"
    message = LARGE.SerializeToString()
    for encoding, body in (
        (b"gzip", framed(gzip.compress(message), True)),
        (b"deflate", framed(zlib.compress(message), True)),
    ):
        assert model_of(body, encoding) == ("delays", "3")
        assert model_of(body[:200], encoding) in (None, ("delays", "3"))
        assert model_of(body, b"snappy") == ("", "")
    bomb = framed(gzip.compress(bytes(50_000_000)), True)
    assert model_of(bomb, b"gzip") == ("", "")


def test_the_model_of_what_is_not_a_message() -> None:
    assert model_of(b'{"inputs": []}') == ("", "")
    assert model_of(framed(b"\x0a\xffm")) == ("", "")
    assert model_of(framed(b"\x0a\x01m\xff" + bytes(MAX_PEEKED)))
    pick = random.Random(5)
    whole = body_of(pb.ModelInferRequest(model_name="m", model_version="1", id="x"))
    for _ in range(5000):
        body = bytearray(whole)
        for _ in range(pick.randrange(1, 4)):
            body[pick.randrange(len(body))] = pick.randrange(256)
        found = model_of(bytes(body), pick.choice((b"", b"gzip")))
        assert found is None or all(isinstance(name, str) for name in found)


def test_ids_errors_and_ends_of_answers() -> None:
    def said(found: Peeked) -> tuple[str, str, bool | None]:
        return found.id, found.error, found.final

    answer = pb.ModelInferResponse(model_name="m", id="9")
    wrapped = pb.ModelStreamInferResponse(infer_response=answer)
    message = wrapped.SerializeToString()
    assert said(peek(of(message), b"", True)) == ("9", "", None)
    for final in (True, False):
        answer.parameters["other"].int64_param = 1
        answer.parameters["triton_final_response"].bool_param = final
        wrapped = pb.ModelStreamInferResponse(infer_response=answer)
        packed_ = gzip.compress(wrapped.SerializeToString())
        assert said(peek(of(packed_, True), b"gzip", True)) == ("9", "", final)
    failed = pb.ModelStreamInferResponse(error_message="boom").SerializeToString()
    assert said(peek(of(failed), b"", True)) == ("", "boom", None)
    assert said(peek(of(LARGE.SerializeToString()), b"", False)) == ("7", "", None)
    pick = random.Random(6)
    for _ in range(5000):
        body = bytearray(message)
        body[pick.randrange(len(body))] = pick.randrange(256)
        peek(of(bytes(body), pick.random() < 0.2), b"gzip", pick.random() < 0.8)


def test_numbers() -> None:
    assert signed(varint(b"\xff" * 9 + b"\x01", 0, 10)[0]) == -1
    assert packed(b"\x01\xac\x02\x7f", 0, 4) == [1, 300, 127]
    for bad in (b"\x80", b"\xff" * 11, b"\x01\x80"):
        with pytest.raises(ProtobufError):
            packed(bad, 0, len(bad))
    for bad in (b"\x07", b"\x0a", b"\x0a\x02a", b"\x0d\0\0", b"\x0e", b"\x0c", b"\x0b\x08\x01"):
        with pytest.raises(ProtobufError):
            list(fields(bad, 0, len(bad)))
