"""Fuzz the codecs: mutated exchanges of every format, as bytes and as JSON.

``python -m tests.fuzz.codecs_fuzz --inputs 200000 --seed 1``

Whatever the bytes: nothing is raised, no fault of ours is reported, a table is whole, its names are
different and can be written out, and the same bytes give the same result. A failure prints the
exchange and how to run it again, and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import brotli
import zstandard

from understudy.common.codecs import (
    Decoded,
    ModelSpec,
    Reason,
    Table,
    Undecodable,
    decode_exchange,
)
from understudy.common.codecs.spec import Classes
from understudy.common.extensions import WIRE_FORMATS
from understudy.common.grpc_messages import INFER, STREAM_INFER, framed

Exchange = tuple[int, bytes, bytes, bytes, int, bytes, bytes]
"""Which spec, path, request headers and body, status, answer headers and body."""

SPECS = (
    ModelSpec("m"),
    ModelSpec("m", features=("a", "b", "c"), predictions=("no", "yes")),
    ModelSpec("m", features=("a",), predictions=("p",), classes=Classes("p", ("no", "yes"))),
    *(ModelSpec("m", protocol=name) for name in WIRE_FORMATS if name != "json"),
    ModelSpec(
        "m",
        protocol="json",
        json_features=(("age", "/customer/age"), ("amount", "/items/*/amount"), ("all", "")),
        json_predictions=(("score", "/result/0/score"), ("deep", "/a/*/b/*/c")),
    ),
)
V2, V1, MLFLOW = b"/v2/models/m/infer", b"/v1/models/m:predict", b"/invocations"
GRPC, GRPC_STREAM = INFER.encode(), STREAM_INFER.encode()
PATHS = (
    V2,
    V1,
    MLFLOW,
    GRPC,
    GRPC_STREAM,
    V2 + b"?q=1",
    b"/score",
    b"/v2/health/live",
    b"/v1/models/m",
    b"",
    b"\xff%00",
)


def _field(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


_X = _field(0x0A, b"x") + _field(0x12, b"FP32") + _field(0x1A, b"\1\2")
_TYPED = _X + _field(0x2A, _field(0x32, b"\0\0\x80?\0\0\0@"))
_WORD = _field(0x0A, b"t") + _field(0x12, b"BYTES") + b"\x18\1"
_NUMBER = (
    _field(0x0A, b"n") + _field(0x12, b"INT32") + b"\x18\1" + _field(0x2A, _field(0x12, b"\x80\1"))
)
_HEAD = _field(0x0A, b"m") + _field(0x12, b"1") + _field(0x1A, b"id")
_RAW = b"\0\0\x80?\0\0\0@", b"\2\0\0\0hi"
_SHARED = _X + _field(0x22, _field(0x0A, b"shared_memory_region") + _field(0x12, b"\x1a\1r"))
_REQUESTS = (
    _HEAD + _field(0x2A, _X) + _field(0x2A, _WORD) + _field(0x3A, _RAW[0]) + _field(0x3A, _RAW[1]),
    _HEAD + _field(0x2A, _TYPED) + _field(0x2A, _NUMBER) + b"\xf3\1\x08\1\xf4\1",
    _field(0x2A, _SHARED) + _field(0x2A, _X) + _field(0x3A, _RAW[0]),
)
_ANSWERS = tuple(
    _HEAD + _field(0x2A, _X) + _field(0x2A, _WORD) + _field(0x32, _RAW[0]) + _field(0x32, text)
    for text in (_RAW[1], b"\1\0\0\0!")
)
_STREAMED = *(framed(_field(0x12, one)) for one in _ANSWERS), framed(_field(0x0A, b"boom"))
CALLS = (
    *((framed(request), framed(_ANSWERS[0])) for request in _REQUESTS),
    *((framed(request), _STREAMED[0] + _STREAMED[1]) for request in _REQUESTS),
    (framed(_REQUESTS[0]) * 2, _STREAMED[0] + _STREAMED[2]),
    (framed(gzip.compress(_REQUESTS[0]), True), framed(zlib.compress(_ANSWERS[0]), True)),
)
"""Bodies of gRPC calls."""
SEEDS: tuple[tuple[bytes, Any, Any], ...] = (
    (
        V2,
        {"id": "1", "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP64", "data": [1, 2.5, 3, 4, 5, 6]}]},
        {"outputs": [{"name": "p", "shape": [2, 2], "datatype": "FP32", "data": [[0.1, 0.9], [0.2, 0.8]]}]},
    ),
    (
        V2,
        {"inputs": [
            {"name": "a", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]},
            {"name": "b", "shape": [2], "datatype": "BYTES", "data": ["u", None]},
            {"name": "c", "shape": [2, 2], "datatype": "BOOL", "data": [True, False, True, True]},
        ]},
        {"outputs": [{"name": "p", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]},
    ),
    (V1, {"signature_name": "s", "instances": [[1, 2, 3], [4, 5, 6.5]]}, {"predictions": [0.1, 0.9]}),
    (V1, {"instances": [{"a": 1, "b": [1, 2]}, {"a": None, "b": [3, 4]}]}, {"predictions": [{"p": [0.1, 0.9]}]}),
    (V1, {"instances": [{"b64": "AAEC"}, {"b64": ""}]}, {"error": "no"}),
    (V1, {"inputs": {"a": [1, 2], "b": [[1, 2], [3, 4]]}}, {"outputs": {"p": [[0.1], [0.2]]}}),
    (V1, {"inputs": [[[1, 2], [3, 4]]]}, {"outputs": 3}),
    (
        MLFLOW,
        {"dataframe_split": {"columns": ["a", "b"], "index": [0], "data": [[1, "u"], [2, [3]]]}, "params": {}},
        {"predictions": [[0.1, 0.9], [0.5, 0.5]]},
    ),
    (MLFLOW, {"dataframe_records": [{"a": 1}, {"b": 2}]}, [{"p": 1, "q": "u"}, {"p": 2}]),
    (MLFLOW, {"inputs": {"a": 1, "b": True}}, {"predictions": {"p": [1, 2], "q": [3, 4]}}),
    (MLFLOW, {"instances": []}, {"error_code": "BAD_REQUEST", "message": "no"}),
    (
        V2,
        {"inputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "b", "shape": [2, 2], "datatype": "FP16", "parameters": {"binary_data_size": 8}},
            {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
            {"name": "d", "shape": [1], "datatype": "BF16", "parameters": {"binary_data_size": 2}},
            {"name": "e", "shape": [2], "datatype": "INT64", "data": [1, 2]},
        ]},
        {"outputs": [
            {"name": "q", "shape": [1], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}},
        ]},
    ),
    (
        b"/v1/models/m:classify",
        {"context": {"c": 1}, "examples": [{"a": [5], "b": "u"}, {"a": 6}]},
        {"result": [[["no", 0.25], ["yes", 0.75]], [["no", 1.0]]]},
    ),
    (
        b"/api/v1.0/predictions",
        {"data": {"names": ["a", "b"], "ndarray": [[1, "u"], [2, "v"]]}, "meta": {}},
        {"data": {"names": ["p"], "tensor": {"shape": [2, 1], "values": [0.5, 0.25]}}},
    ),
    (b"/predictions/m", {"data": [[1, 2]]}, {"cat": 0.75, "dog": 0.25}),
    *((path, request, answer) for path in (GRPC, GRPC_STREAM) for request, answer in CALLS),
    (
        b"/score",
        {"customer": {"age": 30}, "items": [{"amount": 1.5}, {"amount": 2}]},
        {"result": [{"score": 0.5}], "a": [{"b": [{"c": 1}]}]},
    ),
)  # fmt: skip
KEYS = (
    *("inputs", "outputs", "instances", "predictions", "dataframe_split", "dataframe_records"),
    *("columns", "data", "shape", "name", "datatype", "parameters", "binary_data_size", "b64"),
    *("examples", "context", "result", "ndarray", "tensor", "names", "values", "jsonData"),
    *("error", "customer", "items", "a", "b", "", "x[0]", "a[0]", "\U0001f600", "n" * 300),
)
LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 2**53 + 1, 2**63, -(2**64), 1e308, -0.0, 0.1, "", "u"),
    *("NaN", "b64", "\u0000", "\U0001f600", [], {}, [[]], [{}], {"b64": "AA=="}, {"b64": 1}),
    *([1, 2], [[1, 2]], [[1], [2, 3]], [1, [2]], [None, [1]], [0], [2, 3], [2**40] * 5, [1] * 300),
)
PIECES = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\ud800", b"\\u0000", b"null", b"true"),
    *(b"NaN", b"-Infinity", b"Infinity", b"1e999", b"9" * 400, b"-", b"\xff", b"\xed\xa0\x80", b"\x00"),
    *(b"\xef\xbb\xbf", b" ", b"\r\n", b"[" * 1100, b"[" * 700, b"]" * 700, b'{"a":' * 700, b"0" * 50),
)  # fmt: skip
HEADERS = (
    *(b"", b"content-type: application/json", b"Content-Encoding: gzip", b"content-encoding: deflate"),
    *(b"content-encoding: identity", b"content-encoding: br", b"content-encoding: gzip,gzip"),
    *(b"content-encoding: zstd", b"Inference-Header-Content-Length: 20", b"content-type: text/csv"),
    *(b"content-type: application/jsonlines", b"content-type: application/octet-stream"),
    *(b"content-encoding", b":\r\n:", b"content-encoding:\xff\r\ncontent-encoding:", b"\r\n\r\n"),
)  # fmt: skip


LINES = (
    (b"content-type: text/csv", b'a,b\r\n1,"x, y"\r\n2.5,\r\n'),
    (b"Content-Type: text/csv; charset=utf-8", b"1,2\n3,4\n"),
    (b"content-type: application/jsonlines", b'{"features": [1, 2]}\n{"features": [3, 4]}\n'),
)


class Failure(AssertionError):
    """An invariant does not hold."""


def _nodes(value: Any, found: list[tuple[Any, Any]]) -> None:
    """Every place below a value: its container and its key or index."""
    places = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, inner in places:
        found.append((value, key))
        if isinstance(inner, (dict, list)):
            _nodes(inner, found)


def reshape(pick: random.Random, payload: Any) -> Any:
    """The payload with a few places changed; the original stays as it was."""
    payload = json.loads(json.dumps(payload))
    for _ in range(pick.choice((0, 0, 1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        if isinstance(payload, (dict, list)):
            _nodes(payload, places)
        if not places:
            return pick.choice(LEAVES)
        holder, key = pick.choice(places)
        kind = pick.randrange(7)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = pick.choice(LEAVES)
        elif kind == 2:
            holder[key] = [holder[key]] * pick.choice((1, 1, 2, 300))
        elif kind == 3 and isinstance(holder, dict):
            holder[pick.choice(KEYS)] = holder.pop(key)
        elif kind == 4 and isinstance(holder, list):
            holder += holder[: pick.randrange(1, 4)]
        elif kind == 5:
            holder[key] = {pick.choice(KEYS): holder[key]}
        else:
            other, name = pick.choice(places)
            holder[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
        payload = json.loads(json.dumps(payload))
    return payload


def _keys(holder: Any) -> Any:
    return holder.keys() if isinstance(holder, dict) else range(len(holder))


def damage(pick: random.Random, data: bytes) -> bytes:
    """The bytes with a few of them changed."""
    out = bytearray(data)
    for _ in range(pick.choice((0, 0, 0, 1, 1, 2, 5))):
        at = pick.randrange(len(out) + 1)
        kind = pick.randrange(5)
        if kind == 0:
            out[at:at] = pick.choice(PIECES)
        elif kind == 1:
            del out[at : at + pick.choice((1, 2, 16))]
        elif kind == 2 and at < len(out):
            out[at] = pick.randrange(256)
        elif kind == 3:
            out[at:at] = out[at : at + pick.randrange(40)] * pick.choice((1, 2, 50))
        elif pick.random() < 0.3:
            del out[at:]
    return bytes(out)


def message(pick: random.Random, payload: Any) -> tuple[bytes, bytes]:
    """Headers and body of one direction."""
    if isinstance(payload, bytes):
        headers = HEADERS[-1] if pick.random() < 0.2 else b"content-type: application/grpc"
        if payload[:1] == b"\1" and pick.random() < 0.9:
            headers += b"\r\ngrpc-encoding: " + (b"gzip" if payload[5] == 0x1F else b"deflate")
        return headers, damage(pick, payload)
    if "binary_data_size" in str(payload) and pick.random() < 0.8:
        head = json.dumps(reshape(pick, payload)).encode()
        tail = b"\0\0\x80?\0\0\0@\0<\0@\0\xc0\x01\0\x02\0\0\0hi"
        headers = b"Inference-Header-Content-Length: %d" % (
            len(head) + pick.choice((0, 0, 0, 1, 99))
        )
        return headers, damage(pick, head + damage(pick, tail))
    if pick.random() < 0.05:
        return pick.choice(LINES)[0], damage(pick, pick.choice(LINES)[1])
    body = damage(pick, json.dumps(reshape(pick, payload)).encode())
    if pick.random() < 0.75:
        return HEADERS[1], body
    headers = pick.choice(HEADERS)
    if b"gzip" in headers:
        body = gzip.compress(body, 1)
    elif b"br" in headers:
        body = brotli.compress(body, quality=1)
    elif b"zstd" in headers:
        body = zstandard.compress(body, 1)
    elif b"deflate" in headers:
        body = zlib.compress(body, 1, pick.choice((15, -15)))
    return damage(pick, headers) if pick.random() < 0.2 else headers, damage(pick, body)


def exchange(seed: int, number: int) -> Exchange:
    """The input of that number, always the same for the same seed."""
    pick = random.Random(f"{seed}/{number}")
    path, request, answer = pick.choice(SEEDS)
    if pick.random() < 0.2:
        answer = pick.choice(SEEDS)[2]
    if pick.random() < 0.2:
        path = pick.choice(PATHS)
    # Plain JSON has no path by which it is known: only its spec selects the codec.
    spec = len(SPECS) - 1 if path == b"/score" else pick.randrange(len(SPECS))
    if path in (GRPC, GRPC_STREAM) and pick.random() < 0.9:
        spec = pick.randrange(3)  # the others read no messages
    status = pick.choice((200, 200, 200, 200, 0, 204, 500))
    return (spec, path, *message(pick, request), status, *message(pick, answer))


def judge(part: Table | Undecodable) -> None:
    """Raises Failure unless a result is sound."""
    if isinstance(part, Undecodable):
        if part.reason == Reason.INTERNAL:
            raise Failure(f"a fault: {part.detail}")
        return
    if part.rows < 1 or not part.names or len(part.values) != part.rows * len(part.names):
        raise Failure(f"{part.rows} rows, {len(part.names)} names, {len(part.values)} values")
    if len(set(part.names)) != len(part.names):
        raise Failure(f"names are not different: {part.names}")
    for name in part.names:
        name.encode("utf-8")


def one(given: Exchange) -> tuple[Decoded, float]:
    """Run one input; return its result and how many seconds of CPU it took.

    Raises Failure, or whatever should not have been raised.
    """
    spec, path, request_headers, request, status, answer_headers, answer = given
    begun = time.process_time()
    first = decode_exchange(
        SPECS[spec], path, request_headers, request, status, answer_headers, answer
    )
    took = time.process_time() - begun
    judge(first.features)
    judge(first.predictions)
    again = decode_exchange(
        *(SPECS[spec], path.decode("latin-1"), request_headers, memoryview(request)),
        *(status, answer_headers, memoryview(answer)),
    )
    if repr(first) != repr(again):
        raise Failure("the same bytes gave another result")
    return first, took


def fuzz(numbers: Sequence[int], seed: int, seconds: float, quiet: bool) -> Counter[str]:
    """Run; return how often there was which result. Raises Failure with a way to repeat it."""
    results: Counter[str] = Counter()
    slowest = (0.0, 0)
    started = told = time.monotonic()
    for done, number in enumerate(numbers, 1):
        given = exchange(seed, number)
        try:
            decoded, took = one(given)
        except Exception as error:
            raise Failure(
                f"input {number} of seed {seed}: {error!r}\n"
                f"spec: {SPECS[given[0]]}\nexchange: {given[1:]!r}\n"
                f"again: python -m tests.fuzz.codecs_fuzz --seed {seed} --only {number}"
            ) from error
        slowest = max(slowest, (took, number))
        for part in (decoded.features, decoded.predictions):
            results["table" if isinstance(part, Table) else part.reason.value] += 1
        now = time.monotonic()
        if not quiet and (now - told > 5 or done == len(numbers)):
            told = now
            print(
                f"{done:,} inputs, {done / (now - started):,.0f}/s; slowest: input {slowest[1]} "
                f"took {1000 * slowest[0]:.1f} ms",
                file=sys.stderr,
            )
        if seconds and now - started > seconds:
            break
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run the input of this number alone")
    parser.add_argument("--seconds", type=float, default=0, help="stop after this long; 0: never")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    numbers = range(options.inputs) if options.only is None else (options.only,)
    try:
        results = fuzz(numbers, options.seed, options.seconds, options.quiet)
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    done = sum(results.values()) // 2
    if options.json:
        print(json.dumps({"inputs": done, "outcomes": dict(results.most_common())}))
        return 0
    print("; ".join(f"{name}: {count:,}" for name, count in results.most_common()))
    print(f"{done:,} inputs, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
