"""Content codings, JSON and what is neither."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from tests.support.codecs import MLFLOW, SPEC, V1, V2, reason
from understudy.common.codecs import Decoded, Reason, Table, Undecodable, decode_exchange
from understudy.common.codecs.body import parsed
from understudy.common.codecs.compressed import MAX_DECOMPRESSED

DEEP = 100_000
BODY = b'{"instances": [1, 2]}'
ZIPPED = gzip.compress(BODY, mtime=0)
GZIP = b"content-encoding: gzip"


def both(headers: bytes, body: bytes | None) -> Decoded:
    return decode_exchange(SPEC, V1, headers, body, 200, headers, body)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (b"", None, Reason.NOT_CAPTURED),
        (b"", b"", Reason.EMPTY),
        (b"", b" \r\n", Reason.EMPTY),
        (GZIP, b"", Reason.EMPTY),
        (GZIP, gzip.compress(b"", mtime=0), Reason.EMPTY),
        (b"", b"{", Reason.NOT_JSON),
        (b"", b'{"instances": [1, 2', Reason.NOT_JSON),
        (b"", b'{"instances": ["caf\xc3\xa9', Reason.NOT_JSON),
        (b"", b'{"instances": [NaN, 2', Reason.NOT_JSON),
        (b"", b"[1,]", Reason.NOT_JSON),
        (b"", b"[NaN,]", Reason.NOT_JSON),
        (b"", b"\xff\xfe", Reason.NOT_JSON),
        (b"", b'["\xff", NaN]', Reason.NOT_JSON),
        (b"", b'{"instances": [NaN, "\\ud800"]}', Reason.NOT_JSON),
        (b"", b'{"instances": [NaN], "\\udfff": 1}', Reason.NOT_JSON),
        (b"", b"[" * DEEP, Reason.NOT_JSON),
        (b"", b"[" * DEEP + b"]" * DEEP, Reason.NOT_JSON),
        (b"", b"[" * DEEP + b"NaN" + b"]" * DEEP, Reason.NOT_JSON),
        (b"", b'{"a":' * DEEP + b"NaN" + b"}" * DEEP, Reason.NOT_JSON),
        (b"", b"NaN " + b"9" * 10_000, Reason.NOT_JSON),
        (b"content-type: application/octet-stream", b"\x00\x01", Reason.BINARY),
        (b"content-type: application/json", b"\x00\x01", Reason.NOT_JSON),
        (b"content-type: text/csv", b"\xff\xfe", Reason.NOT_CSV),
        (b"content-type: text/csv", b'a\n"b', Reason.NOT_CSV),
        (b"content-type: text/csv", b"a,b\n1\n", Reason.WRONG_SHAPE),
        (b"content-type: application/jsonlines", b"{\n", Reason.NOT_JSON),
        (b"Inference-Header-Content-Length: 3", b"{}", Reason.TRUNCATED),
        (b"Content-Encoding: br", ZIPPED, Reason.UNSUPPORTED_ENCODING),
        (b"Content-Encoding: br", brotli.compress(BODY)[:-3], Reason.TRUNCATED),
        (b"Content-Encoding: br", brotli.compress(bytes(MAX_DECOMPRESSED + 1)), Reason.TOO_LARGE),
        (b"Content-Encoding: zstd", ZIPPED, Reason.UNSUPPORTED_ENCODING),
        (b"Content-Encoding: zstd", zstandard.compress(BODY)[:-3], Reason.NOT_JSON),
        (
            b"Content-Encoding: zstd",
            zstandard.compress(bytes(MAX_DECOMPRESSED + 1)),
            Reason.TOO_LARGE,
        ),
        (b"Content-Encoding: gzip, br", ZIPPED, Reason.UNSUPPORTED_ENCODING),
        (b"Content-Encoding: gzip\r\ncontent-encoding: gzip", ZIPPED, Reason.UNSUPPORTED_ENCODING),
        (b"Content-Encoding: gzip", b"{}", Reason.UNSUPPORTED_ENCODING),
        (b"Content-Encoding: deflate", b"\xff\xff", Reason.UNSUPPORTED_ENCODING),
        (GZIP, gzip.compress(bytes(MAX_DECOMPRESSED + 1)), Reason.TOO_LARGE),
        (GZIP, gzip.compress(bytes(MAX_DECOMPRESSED)) + ZIPPED, Reason.TOO_LARGE),
        (GZIP, ZIPPED[:-10], Reason.TRUNCATED),
        (GZIP, ZIPPED[:-3], Reason.TRUNCATED),
    ],
)
def test_unreadable_bodies(headers: bytes, body: bytes | None, expected: Reason) -> None:
    decoded = both(headers, body)
    assert reason(decoded.features) == expected
    assert reason(decoded.predictions) == expected


@pytest.mark.parametrize(
    ("body", "early"),
    [
        (b"{", True),
        (b'{"instances": [1, 2', True),
        (b'{"instances": ["caf\xc3\xa9', True),
        (b'{"instances": [NaN, 2', True),
        (b"[1,]", False),
        (b"[NaN,]", False),
        (b"\xff\xfe", False),
        (b"[" * DEEP, False),
    ],
)
def test_truncated_json_is_named_in_the_detail(body: bytes, early: bool) -> None:
    told = both(b"", body).features
    assert isinstance(told, Undecodable)
    assert told.detail == ("the JSON ends too early" if early else "")


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"GZIP", gzip.compress),
        (b"identity, gzip", gzip.compress),
        (b"br", brotli.compress),
        (b"zstd", zstandard.compress),
        (b"deflate", zlib.compress),
        (b"deflate", lambda data: zlib.compress(data, wbits=-15)),
        (b"identity", bytes),
        (b"", bytes),
        (b"gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
        (b"gzip", lambda data: gzip.compress(data) + bytes(8)),
    ],
)
def test_compressed_bodies(coding: bytes, encode: Callable[[bytes], bytes]) -> None:
    headers = b"content-type: application/json\r\nContent-Encoding:" + coding
    decoded = decode_exchange(SPEC, V1, headers, encode(BODY), 0, b"", None)
    assert decoded.features == Table(("x",), 2, [1, 2])
    assert reason(decoded.predictions) == Reason.ERROR_RESPONSE


def test_a_payload_may_grow_to_the_limit_and_by_a_factor() -> None:
    padded = BODY + b" " * (MAX_DECOMPRESSED - len(BODY))
    assert both(GZIP, gzip.compress(padded)).features == Table(("x",), 2, [1, 2])
    noise = zlib.compress(bytes(range(256)) * 40_000, 0)[: MAX_DECOMPRESSED // 2]
    large = json.dumps({"instances": [noise.decode("latin-1")] * 1}).encode()
    assert len(large) > MAX_DECOMPRESSED
    stored = gzip.compress(large, 0)
    assert isinstance(both(GZIP, stored).features, Table)


def test_a_header_only_counts_by_its_whole_name() -> None:
    for line in (b"x-content-encoding: gzip", b"x-note: content-encoding: br, inference-header"):
        assert both(line, BODY).features == Table(("x",), 2, [1, 2])


def test_views_of_memory_are_bodies_too() -> None:
    view = memoryview(b"__" + BODY)[2:]
    assert decode_exchange(SPEC, V1, b"", view, 0, b"", None).features == Table(("x",), 2, [1, 2])
    assert parsed(b"", memoryview(b"[NaN, 1]"))[1] == 1


def test_bare_nan_is_read_as_tensorflow_serving_writes_it() -> None:
    body = b'{"instances": [NaN, Infinity, -Infinity], "t": "\\u00e9 \\ud83d\\ude00"}'
    features = decode_exchange(SPEC, V1, b"", body, 200, b"", b"{}").features
    assert isinstance(features, Table)
    assert [str(value) for value in features.values] == ["nan", "inf", "-inf"]


def test_deeply_nested_json_within_the_limit_is_decoded() -> None:
    depth = 900
    for leaf in (b"1", b"NaN"):
        body = b'{"instances": ' + b"[" * depth + leaf + b"]" * depth + b"}"
        features = decode_exchange(SPEC, V1, b"", body, 200, b"", b"{}").features
        if leaf == b"1":
            assert features == Table(("x",), 1, [1])
        else:  # how deep the standard library goes depends on the stack that is left
            assert isinstance(features, Table) or features.reason == Reason.NOT_JSON
    tensor = b'{"inputs": [{"name": "a", "shape": [1], "data": ' + b"[" * depth + b"1"
    features = decode_exchange(
        SPEC, V2, b"", tensor + b"]" * depth + b"}]}", 200, b"", b"{}"
    ).features
    assert features == Table(("a",), 1, [1])


def test_a_request_without_an_answer() -> None:
    decoded = decode_exchange(SPEC, V1, b"", BODY, 0, b"", None)
    assert decoded.protocol == "kserve-v1"
    assert decoded.features == Table(("x",), 2, [1, 2])
    assert decoded.predictions == Undecodable(Reason.ERROR_RESPONSE)


def test_an_answer_without_a_request() -> None:
    decoded = decode_exchange(SPEC, MLFLOW, b"", None, 200, b"", b'{"predictions": [1]}')
    assert decoded.features == Undecodable(Reason.NOT_CAPTURED)
    assert decoded.predictions == Table(("y",), 1, [1])


def test_codings_of_request_and_response_are_independent() -> None:
    decoded = decode_exchange(SPEC, V1, GZIP, ZIPPED, 200, b"", b'{"predictions": [1]}')
    assert decoded.features == Table(("x",), 2, [1, 2])
    assert decoded.predictions == Table(("y",), 1, [1])
