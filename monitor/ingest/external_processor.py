"""Messages of Envoy's external processing filter, as exchanges.

In observability mode, Envoy opens a gRPC stream for each request and sends what passes: headers,
pieces of bodies and trailers of both directions. Its messages are read without stubs
(``envoy/service/ext_proc/v3/external_processor.proto``). Times are those at which they arrive.

Pure state: no sockets, clocks are passed in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from understudy.common.codecs import detect
from understudy.common.grpc_messages import STREAM_INFER, FrameReader, Message, framed, model_of
from understudy.common.grpc_streams import StreamCall, StreamCalls
from understudy.common.protobuf import ProtobufError, fields, text
from understudy.monitor.records import grpc_status
from understudy.monitor.records.record import (
    CANCELLED,
    CLIENT_ERROR,
    MODEL_OVERLOAD,
    OK,
    OUTCOMES,
    SERVER_ERROR,
    TIMEOUT,
)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
MAX_ID = 256
MAX_PATH = 4096
_KEPT = frozenset(
    (
        *("content-type", "content-encoding", "inference-header-content-length"),
        *("grpc-encoding", "grpc-status"),
    )
)
_LOOKED_AT = _KEPT | {":path", ":method", ":status", "x-request-id", "traceparent"}
_MAX_VALUE = 256
_BEGINNING = 1024

# Tags of ProcessingRequest: number × 8 + wire type.
_REQUEST_HEADERS, _RESPONSE_HEADERS, _REQUEST_BODY, _RESPONSE_BODY = 0x12, 0x1A, 0x22, 0x2A
_REQUEST_TRAILERS, _RESPONSE_TRAILERS = 0x32, 0x3A
_ATTRIBUTES, _OBSERVABILITY = 0x4A, 0x50
_CLUSTER = "xds.cluster_name"

Send = Callable[[dict[str, Any]], None]


class Room:
    """Bytes of bodies that all exchanges together may keep."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether there is room for ``size`` more bytes, which count from now on."""
        if size > self.left:
            return False
        self.left -= size
        return True


class _Side:
    """One direction of an exchange. ``body`` is None once it was too large."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.body: bytearray | None = bytearray()
        self.size = 0
        self.began = 0
        self.ended = 0

    def encoding(self) -> bytes:
        return self.fields.get("grpc-encoding", "").encode("latin-1", "replace")


class ExternalExchange:
    """One request that passed Envoy, from its first message to its last.

    ``send`` gets items as :func:`understudy.monitor.ingest.records.item_of` reads them; ``arms``
    are arms by the name of Envoy's cluster. ``limit`` bounds the bytes of a body.
    """

    def __init__(
        self, send: Send, room: Room, limit: int, arms: Mapping[str, str], extra: Mapping[str, Any]
    ) -> None:
        self.observed = True
        """False if Envoy waits for answers: the filter is not in observability mode."""
        self.damaged = 0
        """Messages that could not be read."""
        self.left_out = 0
        """Bodies that were not kept, since there was no room."""
        self._send = send
        self._room = room
        self._limit = limit
        self._arms = arms
        self._extra = extra
        self._request, self._response = _Side(), _Side()
        self._started = 0.0
        self._last = 0
        self._cluster = ""
        self._wanted = False
        self._done = False
        self._streamed: _Streamed | None = None

    # In -----------------------------------------------------------------------------------------

    def feed(self, message: bytes, now: int, wall: float) -> None:
        """Take a message that arrived at ``now`` (monotonic nanoseconds) and ``wall`` (unix
        seconds). Never raises."""
        self._last = now
        try:
            found = dict(self._parts(message))
        except ProtobufError:
            self.damaged += 1
            return
        if _ATTRIBUTES in found:
            self._cluster = _attribute(message, *found[_ATTRIBUTES]) or self._cluster
        for tag, part in found.items():
            if tag == _REQUEST_HEADERS and not self._request.began:
                # Envoy says so in its first message only.
                self.observed = _OBSERVABILITY in found
                self._begin(message, part, now, wall)
            elif tag == _RESPONSE_HEADERS:
                self._headers(message, part, self._response, now)
            elif tag == _REQUEST_BODY:
                self._body(message, part, self._request, now)
            elif tag == _RESPONSE_BODY:
                self._body(message, part, self._response, now)
            elif tag == _REQUEST_TRAILERS:
                self._request.ended = now
            elif tag == _RESPONSE_TRAILERS:
                self._trailers(message, part, now)
        if self._response.ended and not self._done:
            self._finish()

    def quiet(self, now: int) -> None:
        """Send the requests of a stream to which nothing more has come."""
        if self._streamed is not None:
            for call in self._streamed.calls.quiet(now):
                self._stream_call(call)

    def end(self) -> None:
        """Envoy has closed its stream."""
        if not self._done and self._request.began:
            self._finish()
        self._free()

    @staticmethod
    def _parts(message: bytes) -> list[tuple[int, tuple[int, int]]]:
        """The fields by tag. Raises ProtobufError."""
        found = []
        for tag, begin, end in fields(message, 0, len(message)):
            if tag == _OBSERVABILITY and not begin:
                continue
            found.append((tag, (begin, end)))
        return found

    def _begin(self, message: bytes, part: tuple[int, int], now: int, wall: float) -> None:
        self._started = wall
        self._headers(message, part, self._request, now)
        path = self._request.fields.get(":path", "")
        post = self._request.fields.get(":method", "") == "POST"
        known = detect.by_path(path)
        call = self._request.fields.get("content-type", "").startswith("application/grpc")
        self._wanted = (
            self.observed
            and post
            and len(path) <= MAX_PATH
            and known != detect.NOT_INFERENCE
            and (known is not None or not call)
        )
        if self._wanted and path.partition("?")[0].endswith(STREAM_INFER):
            self._streamed = _Streamed(self._limit, self._room)

    def _headers(self, message: bytes, part: tuple[int, int], side: _Side, now: int) -> None:
        side.began = now
        try:
            for tag, begin, end in fields(message, *part):
                if tag == 0x0A:
                    side.fields |= _header_map(message, begin, end)
                elif tag == 0x18 and begin:
                    side.ended = now
        except ProtobufError:
            self.damaged += 1

    def _trailers(self, message: bytes, part: tuple[int, int], now: int) -> None:
        self._response.ended = now
        try:
            for tag, begin, end in fields(message, *part):
                if tag == 0x0A:
                    self._response.fields |= _header_map(message, begin, end)
        except ProtobufError:
            self.damaged += 1

    def _body(self, message: bytes, part: tuple[int, int], side: _Side, now: int) -> None:
        piece, last = b"", False
        try:
            for tag, begin, end in fields(message, *part):
                if tag == 0x0A:
                    piece = message[begin:end]
                elif tag == 0x10:
                    last = bool(begin)
        except ProtobufError:
            self.damaged += 1
            return
        side.size += len(piece)
        if last:
            side.ended = now
        if not self._wanted or self._done or not piece:
            return
        if self._streamed is not None:
            for call in self._streamed.feed(piece, side is self._response, side.encoding(), now):
                self._stream_call(call)
        elif side.body is not None:
            fits = len(side.body) + len(piece) <= self._limit
            if fits and self._room.take(len(piece)):
                side.body += piece
            else:
                self.left_out += fits
                self._room.left += len(side.body)
                if side is self._request:
                    self._extra = {**self._extra, **self._named(bytes(side.body) + piece)}
                side.body = None

    # Out ----------------------------------------------------------------------------------------

    def _named(self, beginning: bytes) -> dict[str, str]:
        """The model of a gRPC call whose body is not kept."""
        if not self._request.fields.get("content-type", "").startswith("application/grpc"):
            return {}
        model, _ = model_of(beginning[: 64 * 1024], self._request.encoding()) or ("", "")
        return {"model": model} if model else {}

    def _finish(self) -> None:
        self._done = True
        if not self._wanted:
            return
        if self._streamed is not None:
            for call in self._streamed.calls.end():
                self._stream_call(call)
            return
        request, response = self._request, self._response
        status, outcome = self._outcome()
        item = self._item(request, response, status, outcome)
        end = response.ended or self._last
        item["time"] = self._started
        item["duration_seconds"] = (end - request.began) / 1e9
        if response.began:
            item["first_byte_seconds"] = (response.began - request.began) / 1e9
        item["request_id"] = request.fields.get("x-request-id", "")[:MAX_ID]
        item["request_bytes"], item["response_bytes"] = max(1, request.size), response.size
        if request.body is not None and request.ended:
            item["request_base64"] = base64.b64encode(request.body).decode()
        if response.body is not None and response.ended:
            item["response_base64"] = base64.b64encode(response.body).decode()
        self._send(item)
        self._free()

    def _item(self, request: _Side, response: _Side, status: int, outcome: int) -> dict[str, Any]:
        item: dict[str, Any] = {
            "path": request.fields.get(":path", ""),
            "status": status,
            "outcome": OUTCOMES[outcome],
            "request_headers": _kept(request.fields),
            "response_headers": _kept(response.fields),
            **self._extra,
        }
        trace = request.fields.get("traceparent", "").split("-")
        if len(trace) > 2 and len(trace[1]) == 32:
            item["trace_id"] = trace[1]
        arm = self._arms.get(self._cluster)
        if arm is not None:
            item["arm"] = arm
        return item

    def _outcome(self) -> tuple[int, int]:
        """HTTP status and outcome."""
        response = self._response
        code = response.fields.get(":status", "")
        if not code.isdecimal() or not 100 <= int(code) <= 599 or not response.ended:
            return 0, CANCELLED
        status = int(code)
        said = response.fields.get("grpc-status")
        if said is not None:
            return status, grpc_status.outcome_of(grpc_status.code_of(said.encode()))
        if status == 504:
            return status, TIMEOUT
        if status == 429:
            return status, MODEL_OVERLOAD
        if status >= 400:
            return status, CLIENT_ERROR if status < 500 else SERVER_ERROR
        call = response.fields.get("content-type", "").startswith("application/grpc")
        return status, SERVER_ERROR if call and not response.size else OK

    def _stream_call(self, call: StreamCall) -> None:
        """Send one request of a stream with its answers."""
        streamed = self._streamed
        assert streamed is not None
        streamed.settle()
        streamed.number += 1
        ended = call.ended or self._last
        if call.error:
            status, outcome = 200, SERVER_ERROR
        elif call.answers:
            status, outcome = 200, OK
        else:
            status, outcome = self._outcome()
            if outcome == OK:
                # The stream has ended well, and there was no answer to this request.
                status, outcome = 200, SERVER_ERROR
        item = self._item(self._request, self._response, status, outcome)
        first = self._request.fields.get("x-request-id", "")[: MAX_ID // 2]
        item["request_id"] = f"{first}/{call.id or streamed.number}"[:MAX_ID] if first else call.id
        item["time"] = self._started + (call.started - self._request.began) / 1e9
        item["duration_seconds"] = (ended - call.started) / 1e9
        if call.first:
            item["first_byte_seconds"] = (call.first - call.started) / 1e9
        item["request_bytes"] = max(1, call.request_size)
        item["response_bytes"] = call.response_size
        if call.request is not None:
            item["request_base64"] = base64.b64encode(call.request).decode()
        elif streamed.model:
            item["model"] = streamed.model
        if call.response is not None:
            item["response_base64"] = base64.b64encode(call.response).decode()
        self._send(item)

    def _free(self) -> None:
        for side in (self._request, self._response):
            self._room.left += len(side.body or b"")
            side.body = None
        if self._streamed is not None:
            self._streamed.free()


class _Streamed:
    """The requests of a ``ModelStreamInfer`` call; what it keeps counts in the shared room."""

    def __init__(self, limit: int, room: Room) -> None:
        self.calls = StreamCalls(limit, 16 * limit)
        self.model = ""
        """The model of the first request: a stream may name others later, which is rare."""
        self.number = 0
        self._readers = FrameReader(limit), FrameReader(limit)
        self._room = room
        self._taken = 0

    def feed(self, piece: bytes, answer: bool, encoding: bytes, now: int) -> list[StreamCall]:
        """The calls that end with a piece of a body."""
        ended: list[StreamCall] = []
        for message in self._readers[answer].feed(piece):
            if answer:
                ended += self.calls.answer(message, encoding, now)
                continue
            if not self.model:
                body = framed(message.content, message.compressed)
                self.model = (model_of(body, encoding) or ("", ""))[0]
            if self._room.left <= 0:  # its id is in the beginning
                message = Message(message.compressed, message.content[:_BEGINNING], message.size)
            ended += self.calls.request(message, encoding, now)
        self.settle()
        return ended

    def settle(self) -> None:
        """Count what is kept now."""
        kept = self.calls.kept + sum(reader.kept for reader in self._readers)
        self._room.left -= kept - self._taken
        self._taken = kept

    def free(self) -> None:
        """Count nothing any longer."""
        self._room.left += self._taken
        self._taken = 0


def _header_map(message: bytes, begin: int, end: int) -> dict[str, str]:
    """The headers that are looked at, by name. Raises ProtobufError."""
    found: dict[str, str] = {}
    for tag, first, last in fields(message, begin, end):
        if tag != 0x0A:
            continue
        name = value = ""
        for inner, start, stop in fields(message, first, last):
            if inner == 0x0A:
                name = text(message, start, stop).lower()
            elif inner in (0x12, 0x1A) and stop > start:  # as text, or as bytes
                value = text(message, start, min(stop, start + MAX_PATH + 1))
        if name in _LOOKED_AT:
            found[name] = value
    return found


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name in _KEPT and len(value) <= _MAX_VALUE and value.isprintable()
    }


def _attribute(message: bytes, begin: int, end: int) -> str:
    """The name of Envoy's cluster in the attributes of a message; empty if it is not there."""
    try:
        for tag, first, last in fields(message, begin, end):
            if tag != 0x12:
                continue
            for entry, start, stop in fields(message, first, last):
                name = value = ""
                for part, at, to in fields(message, start, stop) if entry == 0x0A else ():
                    if part == 0x0A:
                        name = text(message, at, to)
                    elif part == 0x12:
                        for kind, of, till in fields(message, at, to):
                            value = text(message, of, till) if kind == 0x1A else ""
                if name == _CLUSTER:
                    return value
    except ProtobufError:
        pass
    return ""
