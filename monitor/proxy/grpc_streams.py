"""The requests of a gRPC stream to a model: each of them is a request in metrics and records.

A stream (``ModelStreamInfer``) lives for hours, and an error in it is a message. Its messages pass
as they are; what is kept of them, for records, is a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from understudy.common.grpc_messages import STREAM_INFER, FrameReader, Message
from understudy.common.grpc_streams import StreamCall, StreamCalls
from understudy.monitor.proxy.memory import Memory
from understudy.monitor.records.record import OK

PATH = STREAM_INFER.encode()
MOST_KEPT = 16
"""Bytes kept of a stream, as a multiple of the capture limit."""
_BEGINNING = 1024
"""Bytes of a message without room that are looked at for its id."""


class StreamRecords:
    """The requests of one stream. ``ended`` is called with each that has ended and the outcome of
    the stream, OK as long as it lasts; ``kept`` are the lines of the request's head that are kept
    for records, ``limit`` is the capture limit."""

    __slots__ = (
        *("_calls", "_charged", "_encoding", "_ended", "_memory", "_request", "_response"),
        *("_response_encoding", "recorded"),
    )

    def __init__(
        self,
        kept: Iterable[bytes],
        limit: int,
        memory: Memory,
        ended: Callable[[StreamCall, int], None],
    ) -> None:
        self.recorded = 0
        """Requests that have ended."""
        self._calls = StreamCalls(limit, MOST_KEPT * limit)
        self._request, self._response = FrameReader(limit), FrameReader(limit)
        self._encoding = _encoding(kept)
        self._response_encoding = b""
        self._memory = memory
        self._charged = 0
        self._ended = ended

    def sent(self, data: bytes, now_ns: int) -> None:
        """More of the client's messages; ``now_ns`` is monotonic."""
        for message in self._request.feed(data):
            self._report(self._calls.request(self._fitted(message), self._encoding, now_ns))
        self._account()

    def head(self, kept: Iterable[bytes]) -> None:
        """The kept lines of the response's head."""
        self._response_encoding = _encoding(kept)

    def answered(self, data: bytes, now_ns: int) -> None:
        """More of the model server's messages."""
        for message in self._response.feed(data):
            found = self._calls.answer(self._fitted(message), self._response_encoding, now_ns)
            self._report(found)
        self._account()

    def check(self, now_ns: int) -> None:
        """Called periodically."""
        self._report(self._calls.quiet(now_ns))
        self._account()

    def end(self, outcome: int) -> None:
        """The stream is over."""
        self._report(self._calls.end(), outcome)
        self._memory.give(self._charged)
        self._charged = 0

    def _report(self, calls: Sequence[StreamCall], outcome: int = OK) -> None:
        for call in calls:
            self.recorded += 1
            self._ended(call, outcome)

    def _fitted(self, message: Message) -> Message:
        """The message, or its beginning where the worker has no room for copies."""
        if self._memory.fits(message.size):
            return message
        self._memory.dropped += 1
        return Message(message.compressed, message.content[:_BEGINNING], message.size)

    def _account(self) -> None:
        kept = self._calls.kept + self._request.kept + self._response.kept
        self._memory.give(self._charged - kept)
        self._charged = kept


def _encoding(lines: Iterable[bytes]) -> bytes:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"grpc-encoding":
            return value.strip().lower()
    return b""
