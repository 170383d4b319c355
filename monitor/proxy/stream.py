"""Times the events of a streamed response by their bytes, and keeps a copy of it in little memory.

Nothing is parsed but the grammar of the stream: what an event holds is read in the evaluation
plane. The bytes that are forwarded are the same, and none waits for this.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

from understudy.common.events import (
    BINS,
    HEAD_EVENTS,
    MOST_EXCUSED,
    SSE,
    STALL_SECONDS,
    TAIL_EVENTS,
    bin_of,
    encode_times,
    kind_of,
)
from understudy.monitor.proxy.memory import SMALL, Memory
from understudy.monitor.records.record import OK, STREAM_ERROR, TRUNCATED

BLOCK = 16 * 1024
"""Bytes of a stream that are compressed together: a block of its own takes no memory between two
reads, as a compressor that waits for more would."""
MOST_GROWTH = 64
"""A stream may be so many times as large as its compressed copy may be."""
DEFLATED = b"content-encoding: deflate"
"""Kept header line of a response whose copy is compressed."""
_TAIL = 2048
"""Bytes before the last block in which the end of the stream is looked for as well."""
_LONGEST_LINE = 256
"""Bytes of a header line that is remembered, so that odd ones do not fill the memory."""
READ = 16 * 1024
"""Bytes of a stream that are taken in one turn: each event is some work, and may be short."""
_LINE = 64
"""Bytes of a line that is not whole yet: they tell its field."""
_STALL_NS = int(STALL_SECONDS * 1e9)
_ENDS = re.compile(rb"\r\n|\n|\r")
_HAS_DATA = re.compile(rb"^data(?::|$)", re.MULTILINE)
_NAME = re.compile(rb"^event: ?(.{0,32})", re.MULTILINE)
_FAILED_NAMES = frozenset((b"error", b"response.failed"))
_LAST_NAMES = frozenset((b"message_stop", b"response.completed", b"response.incomplete"))
_MEMBER = rb'"[^"\\]*"[ ]*:[ ]*(?:"(?:[^"\\]|\\.)*"|[-+\w.]+)[ ]*,[ ]*'
_FAILED = re.compile(
    rb"^(?:data:[ ]?)?\{[ ]*(?:" + _MEMBER + rb')*?(?:"error"[ ]*:[ ]*(?:\{|"(?!"))'
    rb'|"(?:type|object)"[ ]*:[ ]*"(?:error|response\.failed)")',
    re.MULTILINE,
)
"""An object whose first members say that it is an error; text within an answer has its quotes
escaped."""
_ENDED = re.compile(
    rb'^data:[ ]?\[DONE\]|"(?:finish_reason|stop_reason|done_reason|generated_text)"[ ]*:[ ]*"'
    rb'|"done"[ ]*:[ ]*true|"type"[ ]*:[ ]*"(?:message_stop|response\.(?:completed|incomplete))"',
    re.MULTILINE,
)


@lru_cache(maxsize=256)
def _kind_of(line: bytes) -> int:
    """The grammar that a header line announces; below 0 if the body is compressed."""
    name, _, value = line.partition(b":")
    if name.lower() == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
        return -1
    return kind_of(line)


def stream_kind(kept: Sequence[bytes]) -> int:
    """The grammar of a response's body, by its kept header lines; 0 if it is not a stream."""
    kind = 0
    for line in kept:
        one = _kind_of(line) if len(line) <= _LONGEST_LINE else 0
        if one < 0:
            return 0
        kind = kind or one
    return kind


class StreamMeter:
    """Follows one streamed body of the grammar ``kind`` through any split of its bytes.

    ``limit`` is the largest compressed copy in bytes, 0 for none. Times are monotonic nanoseconds.
    """

    __slots__ = (
        *("_bins", "_blocked", "_blocked_since", "_blocks", "_charged", "_clear", "_deltas"),
        *(
            "_ended",
            "_excused",
            "_failed",
            "_fed_ns",
            "_first_line",
            "_has_data",
            "_last",
            "_limit",
        ),
        *("_line", "_memory", "_name", "_raw", "_size", "_skip", "_stored", "_tail"),
        *("blocked_ns", "events", "first_ns", "kind", "last_ns", "longest_ns", "stalls"),
    )

    def __init__(self, kind: int, limit: int, memory: Memory) -> None:
        self.kind = kind
        self.events = 0
        self.first_ns = 0
        self.last_ns = 0
        self.longest_ns = 0
        self.stalls = 0
        self.blocked_ns = 0
        """How long the client did not read."""
        self._memory = memory
        self._limit = limit
        self._blocks: list[bytes] | None = [] if limit else None
        self._raw = bytearray()
        self._tail = b""
        self._size = 0
        self._stored = 0
        self._charged = 0
        self._deltas = array("Q")
        """Gaps between the first events, in microseconds."""
        self._last: deque[int] | None = None
        self._bins: array[int] | None = None
        self._clear = False
        """The bytes so far end with an event, so that the next ones begin with a line."""
        self._first_line = True
        self._line = b""
        self._has_data = False
        self._skip = False
        self._name = b""
        self._fed_ns = 0
        self._failed = False
        self._ended = False
        """Whether an event had a name that only the last ones have."""
        self._blocked_since = 0
        self._blocked = False
        """The client did not read during the present gap."""
        self._excused = array("I")

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take bytes that arrived together."""
        self._fed_ns = now_ns
        raw = self._raw
        raw += data
        if len(raw) > SMALL:
            self._keep()
        if self.kind != SSE:
            found = self._count_lines(data)
        elif not self._clear or data[-2:] != b"\n\n" or b"\r" in data:
            found = self._count_events(data)
        elif data.find(b"\n\n") + 2 == len(data):
            # Nearly always: one event, whole.
            found = 1 if data[:5] == b"data:" and b"\nevent" not in data else self._block(data)
        else:
            found = sum(map(self._block, data[:-2].split(b"\n\n")))
        if found:
            self._arrived(found, now_ns)

    def pause(self, now_ns: int) -> None:
        """The client does not read."""
        self._blocked_since = now_ns
        self._blocked = True

    def resume(self, now_ns: int) -> None:
        """The client reads again."""
        if self._blocked_since:
            self.blocked_ns += now_ns - self._blocked_since
            self._blocked_since = 0

    def _arrived(self, found: int, now_ns: int) -> None:
        events = self.events
        if not events:
            self.first_ns = self.last_ns = now_ns
            gap = 0
        else:
            gap = now_ns - self.last_ns
            self.last_ns = now_ns
            if self._blocked:
                self._blocked = self._blocked_since != 0
                if events < HEAD_EVENTS and len(self._excused) < MOST_EXCUSED:
                    self._excused.append(events)
            else:
                if gap > self.longest_ns:
                    self.longest_ns = gap
                if gap > _STALL_NS:
                    self.stalls += 1
        self.events = events + found
        if events + found <= HEAD_EVENTS:
            self._deltas.append(gap // 1000)
            if found > 1:
                self._deltas.extend((0,) * (found - 1))
        else:
            self._beyond(events, found, gap // 1000)

    def _beyond(self, events: int, found: int, gap: int) -> None:
        """Count gaps in bins, and keep the last times: there are too many events for all."""
        bins, last, deltas = self._bins, self._last, self._deltas
        if bins is None or last is None:
            bins = self._bins = array("I", bytes(4 * BINS))
            for delta in deltas[1:]:
                bins[bin_of(delta)] += 1
            last = self._last = deque(maxlen=TAIL_EVENTS)
        room = HEAD_EVENTS - len(deltas)
        if room:
            deltas.append(gap)
            deltas.extend((0,) * (room - 1))
        if events:
            bins[bin_of(gap)] += 1
        bins[0] += found - 1
        since = (self.last_ns - self.first_ns) // 1000
        last.extend((since,) * min(found, TAIL_EVENTS))

    # Grammar ------------------------------------------------------------------------------------

    def _block(self, block: bytes) -> int:
        """Whether lines that an empty line follows are an event."""
        if _HAS_DATA.search(block) is None:
            return 0
        name = _NAME.search(block)
        if name is not None:
            self._named(name[1])
        return 1

    def _named(self, name: bytes) -> None:
        """An event with that name has ended."""
        self._failed |= name in _FAILED_NAMES
        self._ended |= name in _LAST_NAMES

    def _count_events(self, data: bytes) -> int:
        """Line by line, for bytes that do not begin and end with an event, or whose lines end in
        another way than LF."""
        if self._skip:
            self._skip = False
            if data[:1] == b"\n":
                data = data[1:]
        if not data:
            return 0
        self._skip = data[-1:] == b"\r"
        lines = _ENDS.split(data)
        lines[0] = self._line + lines[0]
        self._line = lines.pop()[:_LINE]
        found = 0
        for line in lines:
            if self._first_line:
                self._first_line = False
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line:
                if self._has_data:
                    found += 1
                    self._has_data = False
                    self._named(self._name)
                self._name = b""
            elif line[:4] == b"data" and line[4:5] in (b"", b":"):
                self._has_data = True
            elif line[:6] == b"event:":
                self._name = line[6:].removeprefix(b" ")[:32]
        self._clear = not (self._has_data or self._line or self._name or self._skip)
        return found

    def _count_lines(self, data: bytes) -> int:
        if data[:1] == b"{" and not self._line and data.find(b"\n") + 1 == len(data):
            return 1
        lines = data.split(b"\n")
        lines[0] = self._line + lines[0]
        self._line = lines.pop().lstrip()[:_LINE]
        return sum(1 for line in lines if line and not line.isspace())

    # The copy -----------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Account for the copy; compress it when it is as long as a block."""
        raw = self._raw
        if self._blocks is not None and not self._charged:
            self._charge(BLOCK)
        if len(raw) < BLOCK:
            return
        self._size += len(raw)
        self._tail = bytes(raw[-_TAIL:])
        if self._blocks is not None:
            deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
            block = deflate.compress(raw) + deflate.flush(zlib.Z_SYNC_FLUSH)
            self._stored += len(block)
            if self._stored > self._limit or self._size > MOST_GROWTH * self._limit:
                self.drop()
            else:
                self._blocks.append(block)
                self._charge(len(block))
        raw.clear()

    def _charge(self, size: int) -> None:
        if self._memory.copy(size):
            self._charged += size
        else:
            self._memory.dropped += 1
            self.drop()

    def drop(self) -> None:
        """Keep no copy any longer."""
        self._blocks = None
        if self._charged:
            self._memory.give(self._charged)
            self._charged = 0

    def take_copy(self, whole: bool = True) -> tuple[bytes | None, bool]:
        """The body and whether it is deflated, once; None if it was too large or is not whole."""
        blocks = self._blocks
        raw = bytes(self._raw)
        if not whole or blocks is None or self._size + len(raw) > MOST_GROWTH * self._limit:
            self.drop()
            return None, False
        deflated = bool(blocks)
        if deflated or len(raw) > self._limit:
            deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
            raw = b"".join((*blocks, deflate.compress(raw), deflate.flush()))
            deflated = True
        self.drop()
        return (raw if len(raw) <= self._limit else None), deflated

    # The end ------------------------------------------------------------------------------------

    def failed(self) -> bool:
        """Whether the last events hold an error."""
        return self._failed or _FAILED.search(self._end()) is not None

    def ended(self) -> bool:
        """Whether the last events hold a finish reason, or the end mark of a protocol."""
        return self._ended or _ENDED.search(self._end()) is not None

    def _end(self) -> bytes:
        raw = self._raw
        end = self._tail + raw if len(raw) < _TAIL else bytes(raw[-2 * _TAIL :])
        # The grammar's line ends are one for the expressions.
        return end.replace(b"\r", b"\n")

    def outcome(self, has_end: bool) -> int:
        """The outcome of a whole response of status 2xx; ``has_end``: its protocol marks ends."""
        if self.kind != SSE and self._line:
            # The last line of JSON may lack its end.
            self._line = b""
            self._arrived(1, self._fed_ns)
        if self.failed():
            return STREAM_ERROR
        return OK if self.ended() or not has_end else TRUNCATED

    def times(self, started_ns: int) -> bytes:
        """When the events arrived, for a request that began at ``started_ns``; see
        :func:`understudy.common.events.encode_times`."""
        begin = max(0, self.first_ns - started_ns) // 1000 if self.events else 0
        return encode_times(
            self.kind,
            self.events,
            self.stalls,
            self.longest_ns // 1000,
            self.blocked_ns // 1000,
            begin,
            self._deltas,
            [begin + since for since in self._last or ()],
            self._bins or (),
            self._excused,
        )
