"""Requests and answers of one ``ModelStreamInfer`` call, matched by their ids.

A stream lives for hours, so that each of its requests is an exchange of its own. Pure state: times
are passed in. Only the standard library is used, so that workers may import it.

A request may have several answers (a decoupled model). It ends with the answer that says so
(``triton_final_response``), with an error, with the next request of the same id, when nothing more
has come for :data:`QUIET_NS` after an answer that did not say whether it was the last one, or with
the stream. Requests without an id can be matched only while one is open: when a second one begins,
the answers to both, and to all later ones without an id, are :attr:`StreamCalls.unmatched`.
"""

from __future__ import annotations

from understudy.common.grpc_messages import Message, framed, peek

MAX_OPEN = 1000
"""Requests of one stream without their last answer; the oldest one ends when there are more."""
MAX_AMBIGUOUS = 1000
QUIET_NS = 1_000_000_000


class StreamCall:
    """One request of a stream with its answers; times are monotonic nanoseconds.

    ``request`` and ``response`` are the framed messages, None where they are larger than the limit
    or, of the response, where none came; ``*_size`` are bytes on the wire. ``error`` is the message
    of an error inside of the stream.
    """

    __slots__ = (
        *("answers", "ended", "error", "final", "first", "id", "request", "request_size"),
        *("response", "response_size", "started"),
    )

    def __init__(self, id_: str, started: int) -> None:
        self.id = id_
        self.started = started
        self.first = 0
        """When its first answer came; 0 before."""
        self.ended = 0
        """When its last answer came; 0 before."""
        self.request: bytes | None = None
        self.request_size = 0
        self.response: bytes | bytearray | None = None
        self.response_size = 0
        self.answers = 0
        self.error = ""
        self.final: bool | None = None


class StreamCalls:
    """``limit`` bounds the bytes kept of a request, and of the answers to it; ``room`` those of all
    that are open."""

    def __init__(self, limit: int, room: int) -> None:
        self.unmatched = 0
        """Requests and answers that could not be matched."""
        self.kept = 0
        """Bytes of messages that are kept."""
        self._limit = limit
        self._room = room
        self._open: dict[str, StreamCall] = {}
        self._ambiguous: set[str] = set()
        self._all_ambiguous = False

    def request(self, message: Message, encoding: bytes, now: int) -> list[StreamCall]:
        """A request was sent; the calls that end with it."""
        id_ = peek(message, encoding, answer=False).id
        ended: list[StreamCall] = []
        if self._is_ambiguous(id_):
            self.unmatched += 1
            return ended
        before = self._open.get(id_)
        if before is not None:
            if not before.answers:
                self._drop(before)
                self.unmatched += 2
                self._mark(id_)
                return ended
            ended.append(self._close(before))
        elif len(self._open) >= MAX_OPEN:
            oldest = next(iter(self._open.values()))
            if oldest.answers:
                ended.append(self._close(oldest))
            else:
                self._drop(oldest)
                self.unmatched += 1
        call = StreamCall(id_, now)
        call.request_size = message.size
        if message.whole and self._has_room(0, message.size):
            call.request = framed(message.content, message.compressed)
        self._open[id_] = call
        return ended

    def answer(self, message: Message, encoding: bytes, now: int) -> list[StreamCall]:
        """An answer came; the calls that end with it."""
        found = peek(message, encoding, answer=True)
        call = self._open.get(found.id)
        if call is None and not found.id and len(self._open) == 1 and found.error:
            (call,) = self._open.values()  # servers do not always repeat the id in an error
        if call is None:
            if found.error:
                # It counts, whichever request it answers.
                call = StreamCall(found.id, now)
                call.first = call.ended = now
                call.error = found.error
                call.answers = 1
                call.response_size = message.size
                return [call]
            self.unmatched += 1
            return []
        if not call.answers:
            call.first = now
            call.response = bytearray()
        call.ended = now
        call.answers += 1
        call.response_size += message.size
        if isinstance(call.response, bytearray):
            if message.whole and self._has_room(len(call.response), message.size):
                call.response += framed(message.content, message.compressed)
            else:
                self.kept -= len(call.response)
                call.response = None
        call.final = found.final
        call.error = call.error or found.error
        return [self._close(call)] if found.final or call.error else []

    def quiet(self, now: int) -> list[StreamCall]:
        """The calls that end because nothing more came."""
        over = [
            call
            for call in self._open.values()
            if call.answers and call.final is None and now - call.ended >= QUIET_NS
        ]
        return [self._close(call) for call in over]

    def end(self) -> list[StreamCall]:
        """The stream has ended: all open calls, those without an answer too."""
        return [self._close(call) for call in list(self._open.values())]

    def _is_ambiguous(self, id_: str) -> bool:
        return self._all_ambiguous or id_ in self._ambiguous

    def _mark(self, id_: str) -> None:
        self._ambiguous.add(id_)
        self._all_ambiguous = len(self._ambiguous) > MAX_AMBIGUOUS

    def _has_room(self, before: int, size: int) -> bool:
        """Whether ``size`` more bytes may be kept; they count if so."""
        if before + size > self._limit or self.kept + size > self._room:
            return False
        self.kept += size
        return True

    def _drop(self, call: StreamCall) -> None:
        del self._open[call.id]
        self.kept -= len(call.request or b"") + len(call.response or b"")

    def _close(self, call: StreamCall) -> StreamCall:
        self._drop(call)
        if call.response is not None:
            call.response = bytes(call.response)
        return call
