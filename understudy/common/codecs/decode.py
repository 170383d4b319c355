"""An exchange's payloads, decoded: body, wire format, codec."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from understudy.common.codecs import detect
from understudy.common.codecs.body import plain_stream, stream_kind
from understudy.common.codecs.classes import with_class
from understudy.common.codecs.llm.columns import Timing
from understudy.common.codecs.spec import ModelSpec, Parser, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable
from understudy.common.events import SSE, decode_times, json_lines, server_sent

UNKNOWN = "unknown"

_NOT_CAPTURED = Undecodable(Reason.NOT_CAPTURED)
_UNKNOWN = Undecodable(Reason.UNKNOWN_PROTOCOL)
_NOT_INFERENCE = Undecodable(Reason.NOT_INFERENCE)
_ERROR = Undecodable(Reason.ERROR_RESPONSE)


@dataclass(frozen=True, slots=True)
class Decoded:
    """``protocol`` is the wire format that was used, or ``unknown``."""

    protocol: str
    features: Table | Undecodable
    predictions: Table | Undecodable


def decode_exchange(
    spec: ModelSpec,
    path: bytes | str,
    request_headers: bytes,
    request_body: bytes | memoryview | None,
    status: int,
    response_headers: bytes,
    response_body: bytes | memoryview | None,
    seconds: float = nan,
    events: bytes = b"",
) -> Decoded:
    """Features and predictions of one exchange.

    ``path`` is the request target, with or without a query. Headers are the kept lines, joined by
    CRLF; a body of None was not captured; ``status`` is 0 when there was no answer. ``seconds`` is
    how long the exchange took, and ``events`` are the packed times of the events of a stream, see
    :func:`understudy.common.events.decode_times`. Never raises: a fault in a codec is an
    Undecodable as well, and costs no more than its own part.

    >>> from understudy.common.codecs.spec import ModelSpec
    >>> found = decode_exchange(
    ...     ModelSpec("delays"), "/v1/models/delays:predict",
    ...     b"content-type: application/json", b'{"instances": [{"distance": 812}]}',
    ...     200, b"content-type: application/json", b'{"predictions": [0.31]}',
    ... )
    >>> found.protocol, found.features.row(0), found.predictions.values
    ('kserve-v1', {'distance': 812}, [0.31])
    """
    features: Table | Undecodable
    predictions: Table | Undecodable
    protocol: str | None = spec.protocol
    codec: WireFormat | None = None
    parse_request, parse_response = detect.JSON
    try:
        found, parsers = detect.look_up(path)
        if protocol == "auto":
            protocol = found
            if protocol == detect.NOT_INFERENCE:
                return Decoded(UNKNOWN, _NOT_INFERENCE, _NOT_INFERENCE)
        codec = detect.FORMATS.get(protocol) if protocol is not None else None
        if found == protocol:
            parse_request, parse_response = parsers
        request = (
            _NOT_CAPTURED if request_body is None else parse_request(request_headers, request_body)
        )
        if isinstance(request, Undecodable):
            features = request
        else:
            if protocol is None:
                protocol = detect.by_content(request)
                codec = detect.FORMATS.get(protocol) if protocol is not None else None
            features = codec.decode_request(request, spec) if codec is not None else _UNKNOWN
    except Exception as error:
        features = _fault(error)
    if codec is None:
        return Decoded(UNKNOWN, features, _UNKNOWN)
    try:
        if not 200 <= status < 300:
            predictions = _ERROR
        elif response_body is None:
            predictions = _NOT_CAPTURED
        else:
            predictions = _answer(
                codec, spec, parse_response, response_headers, response_body, seconds, events
            )
            if spec.classes is not None and isinstance(predictions, Table):
                predictions = with_class(predictions, spec.classes)
    except Exception as error:
        predictions = _fault(error)
    return Decoded(protocol or UNKNOWN, features, predictions)


def _answer(
    codec: WireFormat,
    spec: ModelSpec,
    parse: Parser,
    headers: bytes,
    body: bytes | memoryview,
    seconds: float,
    events: bytes,
) -> Table | Undecodable:
    if codec.timed is None:
        answer = parse(headers, body)
        return answer if isinstance(answer, Undecodable) else codec.decode_response(answer, spec)
    timing = Timing(seconds, decode_times(events), spec.limits, spec.prices)
    if codec.events is not None and (kind := stream_kind(headers)):
        plain = plain_stream(headers, body)
        if isinstance(plain, Undecodable):
            return plain
        return codec.events(list((server_sent if kind == SSE else json_lines)(plain)), timing)
    answer = parse(headers, body)
    return answer if isinstance(answer, Undecodable) else codec.timed(answer, timing)


def _fault(error: Exception) -> Undecodable:
    """The last resort: a fault of ours must never cost more than its own result."""
    return Undecodable(Reason.INTERNAL, type(error).__name__)
