"""The open loop over HTTP/2, gRPC calls among it: one process of the engine.

Requests are due, sent and recorded as those of HTTP/1.1 are. A connection carries many at a time,
and another one is opened when all have as many as they may.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from understudy.common import grpc_status, http2
from understudy.loadtest.engine.answer import CALL, Check, connect_error, kept, own_error
from understudy.loadtest.engine.channel import Channel, InFlight, Pair
from understudy.loadtest.engine.sender import Endpoint, Sender
from understudy.loadtest.engine.stream import ReadStream
from understudy.loadtest.engine.timer import now_ns
from understudy.loadtest.engine.wire import READ_BYTES, InvalidResponse, Wire

_IN, _OUT = Sender.IN, Sender.OUT
_DROPPED = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te"))
_CALLS = b"application/grpc"
NOT_HTTP2 = "does not speak HTTP/2"
"""How a connection ends whose server sent something else."""


class Http2Sender(Sender):
    """Sends to ``endpoint`` in an open loop over HTTP/2; see :class:`Sender`.

    ``payloads`` are whole requests as HTTP/1.1 has them, which are translated before the start. One
    with the content type ``application/grpc`` is a call: it is good when it ends with the status
    OK. The status of a call is recorded as :data:`CALL` and its number.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        payloads: Sequence[bytes],
        check: Check | None = None,
        first: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__(endpoint, payloads, check, first, stride)
        scheme = b"http" if endpoint.tls is None else b"https"
        self._requests = [_request(one, scheme) for one in payloads]
        self._free: list[Channel] = []
        """Connections that take another request."""
        self._flying: set[InFlight] = set()
        self._starting = 0
        """Connections that have no settings of the server yet."""

    @property
    def in_flight(self) -> int:
        """Requests that are due and have no response yet."""
        return len(self._flying) + len(self._waiting)

    @property
    def earliest(self) -> float | None:
        """See :attr:`Sender.earliest`."""
        oldest = [one.due for one in self._flying]
        if self._waiting:
            oldest.append(self._waiting[0][1])
        return (min(oldest) - self._origin) / 1e9 if oldest else None

    @property
    def _unfinished(self) -> bool:
        return bool(self._flying or self._waiting)

    # Sending ------------------------------------------------------------------------------------

    def _dispatch(self, payload: int, due: int, picked: int, again: bool = False) -> None:
        free = self._free
        while free:
            channel = free[-1]
            if channel.usable and not channel.goes and len(channel.streams) < channel.limit:
                self._start(channel, payload, due, picked, again)
                return
            free.pop().free = False
        self._waiting.append((payload, due, picked, again))
        self._open()

    def _start(self, channel: Channel, payload: int, due: int, picked: int, again: bool) -> None:
        flying = InFlight(payload, due, picked, again)
        flying.channel = channel
        flying.sent = now_ns()
        fields, body, _ = self._requests[payload]
        try:
            flying.stream = channel.request(fields, body)
        except InvalidResponse:
            self._leave(channel)
            self._waiting.appendleft((payload, due, picked, again))
            self._open()
            return
        channel.streams[flying.stream] = flying
        self._flying.add(flying)
        self._flush(channel)

    def _flush(self, channel: Channel) -> None:
        try:
            channel.flush()
        except InvalidResponse as error:
            self._lose(channel, f"garbage: {error}")
        except OSError as error:
            self._lose(channel, own_error(error))
        else:
            if channel.fd in self._wires:
                self._watch(channel, _IN | _OUT if channel.out else _IN)

    # Connections --------------------------------------------------------------------------------

    def _wire(self, sock: socket.socket, address: int) -> Wire:
        self._starting += 1
        return Channel(sock, address, now_ns(), self._check.body)

    def _open(self) -> None:
        room = self._starting * self._endpoint.streams
        if room < len(self._waiting) and len(self._wires) < self._endpoint.connections:
            self._connect(self._address)

    def _continue(self, wire: Wire, mask: int) -> None:
        super()._continue(wire, mask)
        if wire.ready and wire.fd in self._wires and not wire.out:
            assert isinstance(wire, Channel)
            self._flush(wire)

    def _record_refused(self, error: OSError) -> None:
        self._refuse(connect_error(error))

    def _refuse(self, why: str) -> None:
        """A connection took no request: those that waited for it end, or another one would be
        opened for them, and so on."""
        for _ in range(min(len(self._waiting), self._endpoint.streams)):
            payload, due, picked, _ = self._waiting.popleft()
            self._recorder.record(due, picked, 0, 0, now_ns(), 0, payload, why)

    def _assign(self, wire: Wire) -> None:
        """A connection is open: say what we want, and wait for what the server allows."""
        assert isinstance(wire, Channel)
        if isinstance(wire.sock, ssl.SSLSocket) and wire.sock.selected_alpn_protocol() != "h2":
            self._lose(wire, NOT_HTTP2 + " (ALPN)")
            return
        self._flush(wire)

    def _offer(self, channel: Channel) -> None:
        """Give a connection what waits, as far as it has room."""
        while self._waiting and self._takes(channel):
            self._start(channel, *self._waiting.popleft())
        if self._takes(channel) and not channel.free:
            channel.free = True
            self._free.append(channel)

    def _takes(self, channel: Channel) -> bool:
        return (
            channel.usable
            and not channel.goes
            and channel.fd in self._wires
            and len(channel.streams) < channel.limit
        )

    def _leave(self, channel: Channel) -> None:
        """No more requests over this connection; it is closed when it has none."""
        channel.goes = True
        if not channel.streams:
            self._close(channel)

    def _close(self, wire: Wire) -> None:
        assert isinstance(wire, Channel)
        if wire.fd in self._wires and not wire.usable:
            self._starting -= 1
        wire.goes = True
        super()._close(wire)

    # Responses ----------------------------------------------------------------------------------

    def _read(self, wire: Wire) -> None:
        assert isinstance(wire, Channel)
        try:
            while (data := wire.read()) is not None:
                if not data:
                    self._lose(wire, "closed early")
                    return
                wire.heard = now_ns()
                self._receive(wire, data)
                if wire.fd not in self._wires or not (len(data) >= READ_BYTES or _pending(wire)):
                    break
        except OSError as error:
            self._lose(wire, own_error(error))
            return
        if wire.fd in self._wires:
            self._flush(wire)

    def _receive(self, channel: Channel, data: bytes) -> None:
        broken = ""
        try:
            channel.engine.receive_data(data)
        except http2.EngineError as error:
            broken = f"garbage: {type(error).__name__}" if channel.usable else NOT_HTTP2
        streams = channel.streams
        events: list[Any] = channel.engine.events()
        for event in events:
            kind = type(event)
            if kind is http2.StreamClosed:
                flying = streams.pop(event.stream_id, None)
                if flying is not None:
                    self._ended(flying, event.error_code)
            elif kind is http2.DataReceived:
                self._got_data(channel, event)
            elif kind is http2.ResponseReceived:
                flying = streams.get(event.stream_id)
                if flying is not None:
                    flying.first_byte = flying.first_byte or channel.heard
                    flying.headers = event.headers
            elif kind is http2.TrailersReceived:
                flying = streams.get(event.stream_id)
                if flying is not None:
                    flying.trailers = event.headers
            elif kind is http2.SettingsReceived:
                self._settled(channel)
            elif kind is http2.GoAwayReceived:
                channel.goes = True
        if broken or not (channel.engine.want_read or channel.engine.want_write):
            self._lose(channel, broken or "closed early")
        elif channel.goes:
            if not channel.streams:
                self._close(channel)
            self._open()
        else:
            self._offer(channel)

    def _got_data(self, channel: Channel, event: http2.DataReceived) -> None:
        flying = channel.streams.get(event.stream_id)
        if flying is not None and channel.keep:
            flying.body.append(event.data)
            if self._streams is not None:
                flying.times.append(channel.heard)
        if event.data:
            try:
                channel.engine.acknowledge_received_data(len(event.data), event.stream_id)
            except http2.EngineError:
                pass  # the stream has ended

    def _settled(self, channel: Channel) -> None:
        if not channel.usable:
            channel.usable = True
            self._starting -= 1
        allowed = http2.streams_of(channel.engine)
        channel.limit = max(1, min(allowed, self._endpoint.streams))

    def _ended(self, flying: InFlight, code: int) -> None:
        """A stream is closed: the response is whole, or there is none."""
        channel = flying.channel
        assert channel is not None
        if code == http2.REFUSED and (not flying.again or channel.limit > 1):
            # The server says that it has not seen it: once more, as every client does. It may not
            # have noticed yet that others have ended, so it gets fewer at a time.
            channel.limit = max(1, channel.limit - 1)
            self._flying.discard(flying)
            self._recorder.retry()
            self._waiting.appendleft((flying.payload, flying.due, flying.picked, True))
            self._open()
            return
        if code or not flying.headers:
            self._record(flying, 0, f"reset by the server (code {code})" if code else "reset")
            return
        fields = dict(flying.headers) | dict(flying.trailers)
        number = fields.get(b":status", b"")
        status = int(number) if number.isdigit() else 0
        body = b"".join(flying.body)
        if self._requests[flying.payload][2] and (said := fields.get(b"grpc-status")) is not None:
            found = grpc_status.code_of(said)
            status = CALL + found
            if found:
                body = unquote_to_bytes(fields.get(b"grpc-message", b""))
        elif self._requests[flying.payload][2] and status == 200:
            self._record(flying, status, "no grpc-status")
            return
        headers = kept(fields.items())
        if self._streams is not None and status < CALL:
            read = self._streams.read(flying.payload, status, headers, flying.body, flying.times)
            self._record(flying, status, read.error, read)
            return
        self._record(flying, status, self._check(flying.payload, status, headers, body))

    def _record(
        self, flying: InFlight, status: int, error: str, stream: ReadStream | None = None
    ) -> None:
        self._flying.discard(flying)
        self._recorder.record(
            flying.due, flying.picked, flying.sent, flying.first_byte, now_ns(), status,
            flying.payload, error, stream,
        )  # fmt: skip

    def _lose(self, channel: Channel, why: str) -> None:
        """Close a connection; what it carried has failed."""
        if channel.fd not in self._wires:
            return
        early, usable = tuple(channel.streams.values()), channel.usable
        channel.streams.clear()
        self._close(channel)
        for flying in early:
            self._record(flying, 0, why)
        if not usable:
            self._refuse(why)
        self._open()

    def _fail(self, wire: Wire, why: str) -> None:
        assert isinstance(wire, Channel)
        self._lose(wire, why)

    def _sweep(self, now: int) -> None:
        """Cancel requests that exceed the timeout, and give up connections that do."""
        oldest = now - int(self._endpoint.timeout * 1e9)
        while self._waiting and self._waiting[0][2] < oldest:
            payload, due, picked, _ = self._waiting.popleft()
            self._recorder.record(due, picked, 0, 0, now, 0, payload, "no connection")
        touched: set[Channel] = set()
        for flying in [one for one in self._flying if one.picked < oldest]:
            channel = flying.channel
            assert channel is not None
            channel.streams.pop(flying.stream, None)
            self._record(flying, 0, "timeout")
            channel.reset(flying.stream)
            touched.add(channel)
            if channel.heard < flying.sent:
                channel.goes = True  # nothing comes over it
        for channel in touched:
            if channel.goes and not channel.streams:
                self._close(channel)
            elif channel.fd in self._wires:
                self._flush(channel)
                self._offer(channel)
        for wire in [one for one in self._wires.values() if one.opened < oldest]:
            assert isinstance(wire, Channel)
            if not wire.ready:
                self._connect_failed(wire, TimeoutError())
            elif not wire.usable:
                self._lose(wire, connect_error(TimeoutError()))


def _pending(wire: Wire) -> bool:
    return isinstance(wire.sock, ssl.SSLSocket) and bool(wire.sock.pending())


def _request(whole: bytes, scheme: bytes) -> tuple[tuple[Pair, ...], bytes, bool]:
    """The fields and the body of a request of HTTP/1.1, and whether it is a gRPC call."""
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, path, _ = first.split(b" ")
    fields = [(b":method", method), (b":scheme", scheme), (b":path", path)]
    call = False
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if name == b"host":
            fields.insert(2, (b":authority", value))
        elif name == b"content-type":
            call = value.startswith(_CALLS)
            fields.append((name, value))
        elif name not in _DROPPED:
            fields.append((name, value))
    if call:
        fields = [one for one in fields if one[0] != b"content-length"]
        fields.append((b"te", b"trailers"))
    return tuple(fields), body, call
