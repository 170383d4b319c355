"""One connection of the open loop over HTTP/2: many requests at a time."""

from __future__ import annotations

import socket

from understudy.common import http2
from understudy.loadtest.engine.wire import InvalidResponse, Wire

_FIELDS = 1024
"""Fields of a response that are unpacked."""
Pair = tuple[bytes, bytes]


class InFlight:
    """A request in flight. Times are monotonic nanoseconds, as those of a :class:`Wire` are;
    ``trailers`` are the fields behind the body."""

    __slots__ = (
        "again", "body", "channel", "due", "first_byte", "headers", "payload", "picked", "sent",
        "stream", "times", "trailers",
    )  # fmt: skip

    def __init__(self, payload: int, due: int, picked: int, again: bool) -> None:
        self.payload, self.due, self.picked, self.again = payload, due, picked, again
        self.channel: Channel | None = None
        self.stream = self.sent = self.first_byte = 0
        self.headers: tuple[Pair, ...] = ()
        self.trailers: tuple[Pair, ...] = ()
        self.body: list[bytes] = []
        self.times: list[int] = []


class Channel(Wire):
    """A non-blocking socket that speaks HTTP/2. ``streams`` are the requests in flight by number.

    ``usable``: the server has sent its settings, and takes requests; ``goes``: it takes no more,
    and is closed when it has none; ``limit`` is how many it takes at a time; ``heard`` is when
    bytes last came.
    """

    __slots__ = ("engine", "free", "goes", "heard", "limit", "streams", "usable")

    def __init__(self, sock: socket.socket, address: int, opened: int, keep: bool) -> None:
        super().__init__(sock, address, opened, keep)
        self.engine = http2.client(_FIELDS)
        self.streams: dict[int, InFlight] = {}
        self.usable = self.goes = self.free = False
        self.limit = 0
        self.heard = opened

    def request(self, fields: tuple[Pair, ...], body: bytes) -> int:
        """Queue a request; its number. Raises InvalidResponse where none can be sent any more."""
        try:
            stream = self.engine.send_request(fields, end_stream=not body)
            if body:
                self.engine.send_data(stream, body, end_stream=True)
        except http2.EngineError as error:
            raise InvalidResponse(type(error).__name__) from None
        return stream

    def reset(self, stream: int) -> None:
        """Cancel a request."""
        try:
            self.engine.reset_stream(stream, http2.CANCEL)
        except http2.EngineError:
            pass  # it has just ended

    def flush(self) -> None:
        """Send what is queued, as far as the peer's windows and the kernel have room. Raises
        OSError and InvalidResponse."""
        try:
            while not self.out and (data := self.engine.data_to_send()):
                self.write(data)
        except http2.EngineError as error:
            raise InvalidResponse(type(error).__name__) from None
