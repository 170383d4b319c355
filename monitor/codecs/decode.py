"""An exchange's payloads, decoded: content coding, JSON, wire format."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from monitor.codecs import detect, kserve_v1, mlflow, open_inference, pointer
from monitor.codecs.spec import ModelSpec
from monitor.codecs.table import Reason, Table, Undecodable

MAX_DECOMPRESSED = 8 * 1024 * 1024
"""Bytes that a compressed payload may grow to; a small bomb must not fill the memory."""

_Codec = Callable[[object, ModelSpec], Table | Undecodable]
_CODECS: dict[str, tuple[_Codec, _Codec]] = {
    "open-inference-v2": (open_inference.decode_request, open_inference.decode_response),
    "kserve-v1": (kserve_v1.decode_request, kserve_v1.decode_response),
    "mlflow": (mlflow.decode_request, mlflow.decode_response),
    "json": (pointer.decode_request, pointer.decode_response),
}
_NOT_CAPTURED = Undecodable(Reason.NOT_CAPTURED)
_UNKNOWN = Undecodable(Reason.UNKNOWN_PROTOCOL)
_ERROR = Undecodable(Reason.ERROR_RESPONSE)


@dataclass(frozen=True, slots=True)
class Decoded:
    """``protocol`` is the wire format that was used, or ``unknown``."""

    protocol: str
    features: Table | Undecodable
    predictions: Table | Undecodable


def decode_exchange(
    spec: ModelSpec,
    target: bytes,
    request_headers: bytes,
    request_body: bytes | None,
    status: int,
    response_headers: bytes,
    response_body: bytes | None,
) -> Decoded:
    """Features and predictions of one exchange.

    Headers are the kept lines, joined by CRLF; a body of None was not captured; ``status`` is 0
    when there was no answer. Never raises: a fault in a codec is an Undecodable as well.
    """
    try:
        request: object = None
        features: Table | Undecodable | None = None
        if request_body is None:
            features = _NOT_CAPTURED
        else:
            parsed = _parse(request_headers, request_body)
            if isinstance(parsed, Undecodable):
                features = parsed
            else:
                request = parsed[0]
        protocol: str | None = spec.protocol
        if protocol == "auto":
            protocol = detect.by_path(target) or detect.by_content(request)
        codec = _CODECS.get(protocol or "")
        if codec is None:
            return Decoded("unknown", features or _UNKNOWN, _UNKNOWN)
        if features is None:
            features = codec[0](request, spec)
        return Decoded(
            protocol or "unknown",
            features,
            _predictions(codec[1], spec, status, response_headers, response_body),
        )
    except Exception as error:  # a codec's fault must never cost more than its own result
        fault = Undecodable(Reason.INTERNAL, type(error).__name__)
        return Decoded("unknown", fault, fault)


def _predictions(
    codec: _Codec, spec: ModelSpec, status: int, headers: bytes, body: bytes | None
) -> Table | Undecodable:
    if not 200 <= status < 300:
        return _ERROR
    if body is None:
        return _NOT_CAPTURED
    parsed = _parse(headers, body)
    return parsed if isinstance(parsed, Undecodable) else codec(parsed[0], spec)


def _parse(headers: bytes, body: bytes) -> tuple[object] | Undecodable:
    """The JSON of a body, in a tuple so that ``null`` is not nothing."""
    lowered = headers.lower()
    if b"inference-header-content-length:" in lowered:
        return Undecodable(Reason.BINARY, "tensors are in binary form")
    if b"content-encoding:" in lowered:
        plain = _decompressed(lowered, body)
        if isinstance(plain, Undecodable):
            return plain
        body = plain
    if not body:
        return Undecodable(Reason.EMPTY)
    try:
        return (orjson.loads(body),)
    except orjson.JSONDecodeError:
        pass
    # TensorFlow Serving reads and writes bare NaN and Infinity, which are no JSON.
    if b"NaN" in body or b"Infinity" in body:
        try:
            return (json.loads(body),)
        except (ValueError, RecursionError):
            pass
    return Undecodable(Reason.NOT_JSON)


def _decompressed(lowered: bytes, body: bytes) -> bytes | Undecodable:
    coding = lowered.partition(b"content-encoding:")[2].partition(b"\r\n")[0].strip()
    if coding == b"identity":
        return body
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return Undecodable(Reason.UNSUPPORTED_ENCODING)
    # 47: gzip or zlib, told apart by the header. "deflate" is also sent without zlib's header.
    for window in (47, -15) if coding == b"deflate" else (47,):
        inflater = zlib.decompressobj(window)
        try:
            plain = inflater.decompress(body, MAX_DECOMPRESSED)
        except zlib.error:
            continue
        if inflater.unconsumed_tail:
            return Undecodable(Reason.TOO_LARGE, "the payload grows too large when decompressed")
        return plain
    return Undecodable(Reason.UNSUPPORTED_ENCODING, "the compressed payload is damaged")
