"""Event streams as bytes: their grammar, and the arrival times of their events.

Two grammars: server-sent events (WHATWG HTML, section 9.2: lines end in CRLF, LF or CR; an empty
line dispatches the event whose ``data`` lines came before it; what follows the last empty line is
dropped) and lines of JSON, one value each. Only the standard library is used here: workers import
this module.
"""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from struct import Struct, error

SSE = 1
"""Server-sent events: ``text/event-stream``."""
LINES = 2
"""Lines of JSON: ``application/x-ndjson`` and its other names."""
_KINDS = re.compile(
    rb"content-type:[ \t]*(?:(text/event-stream)"
    rb"|application/(?:x-ndjson|ndjson|jsonl|stream\+json))[ \t]*(?:;|$)",
    re.IGNORECASE,
)
_BOM = b"\xef\xbb\xbf"


def kind_of(line: bytes) -> int:
    """The grammar that a content-type line announces: SSE, LINES, or 0 for any other body."""
    found = _KINDS.match(line)
    if found is None:
        return 0
    return SSE if found[1] else LINES


def server_sent(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The events of a whole body: name (empty if it has none) and data."""
    for name, data, _ in dispatched(body):
        yield name, data


def dispatched(body: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """The events of a whole body as :func:`server_sent`, each with the number of bytes up to the
    end of the empty line that dispatches it."""
    name = b""
    data: list[bytes] = []
    end = len(_BOM) if body.startswith(_BOM) else 0
    for whole in body[end:].splitlines(True):
        line = whole.rstrip(b"\r\n")
        end += len(whole)
        if not line:
            if data:
                yield name, b"\n".join(data), end
                data = []
            name = b""
            continue
        if len(line) == len(whole):
            return  # has no end
        field_name, _, value = line.partition(b":")
        if field_name == b"data":
            data.append(value.removeprefix(b" "))
        elif field_name == b"event":
            name = value.removeprefix(b" ")


def json_lines(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The lines of a whole body that are not blank, each with an empty name."""
    for line in body.split(b"\n"):
        text = line.strip()
        if text:
            yield b"", text


# Times --------------------------------------------------------------------------------------------

HEAD_EVENTS = 4096
"""Events from the first on whose times are kept one by one."""
TAIL_EVENTS = 16
"""Last events whose times are kept as well: usage and end marks follow the last output."""
MOST_EXCUSED = 64
"""Gaps in which the client did not read that are known one by one."""
STALL_SECONDS = 1.0
"""A longer gap between two events is a stall."""
STEPS = 8
"""Bins of the sketch of gaps in a power of two: a quantile is at most 12 % too large."""
_LARGEST_BITS = 42
BINS = STEPS * _LARGEST_BITS
_HEAD = Struct("<BBIIIQQQ")
"""version · kind · events · stalls · kept times from the first on · longest gap · time of the first
event · time in which the client did not read (microseconds)."""
_VERSION = 1
_SMALL = 512
_MOST_BYTES = 1 << 20


def bin_of(micros: int) -> int:
    """The bin of a gap."""
    bits = micros.bit_length()
    if bits < 4:
        return micros
    return min(BINS - 1, (bits - 3) * STEPS + ((micros >> (bits - 4)) & (STEPS - 1)))


def _upper(index: int) -> float:
    """The largest gap of a bin, in microseconds."""
    if index < STEPS:
        return float(index)
    bits, step = index // STEPS + 3, index % STEPS
    return float(((STEPS + step + 1) << (bits - 4)) - 1)


@dataclass(slots=True)
class EventTimes:
    """When the events of a stream arrived, in microseconds since the request began.

    ``first`` holds the times of the first events, ``last`` those of the last ones where not all are
    in ``first``. ``longest`` is the longest gap, ``stalls`` are the gaps beyond
    :data:`STALL_SECONDS`; both without the gaps in which the client did not read: it did not for
    ``blocked`` in all, and ``excused`` are the indices of the (first) events that such gaps end
    with. ``gaps`` are counts by bin, where ``first`` does not hold all events.
    """

    kind: int
    events: int
    stalls: int
    longest: int
    blocked: int
    first: list[int]
    last: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    excused: list[int] = field(default_factory=list)

    def at(self, index: int) -> float | None:
        """Seconds from the begin of the request to the event with this index; None if that time was
        not kept."""
        if 0 <= index < len(self.first):
            return self.first[index] * 1e-6
        index -= self.events - len(self.last)
        return self.last[index] * 1e-6 if 0 <= index < len(self.last) else None


def encode_times(
    kind: int,
    events: int,
    stalls: int,
    longest: int,
    blocked: int,
    begin: int,
    deltas: array[int],
    last: Sequence[int] = (),
    gaps: Sequence[int] = (),
    excused: Sequence[int] = (),
) -> bytes:
    """Times as :func:`decode_times` reads them. ``begin`` is the time of the first event, and
    ``deltas`` are the gaps before each of the first ones, which is 0 for the first."""
    head = _HEAD.pack(_VERSION, kind, events, stalls, len(deltas), longest, begin, blocked)
    rest = b"".join(
        (
            deltas[1:].tobytes(),
            array("Q", last).tobytes(),
            array("I", excused).tobytes(),
            array("I", gaps).tobytes(),
        )
    )
    packed = zlib.compress(rest, 1) if len(rest) > _SMALL else rest
    return b"".join((head, bytes((packed is not rest, len(last), len(excused))), packed))


def decode_times(data: bytes) -> EventTimes | None:
    """The times that :func:`encode_times` packed; None where there are none, or they are of a
    newer version or damaged."""
    if not data:
        return None
    try:
        version, kind, events, stalls, kept, longest, begin, blocked = _HEAD.unpack_from(data)
        if version != _VERSION or kept > HEAD_EVENTS:
            return None
        deflated, count, pauses = data[_HEAD.size : _HEAD.size + 3]
        rest = data[_HEAD.size + 3 :]
        if deflated:
            rest = zlib.decompressobj().decompress(rest, _MOST_BYTES)
        times = 8 * max(0, kept - 1)
        ends = [times, times + 8 * count, times + 8 * count + 4 * pauses]
        deltas, last = array("Q", rest[: ends[0]]), array("Q", rest[ends[0] : ends[1]])
        excused, gaps = array("I", rest[ends[1] : ends[2]]), array("I", rest[ends[2] :])
    except (error, zlib.error, IndexError, ValueError):
        return None
    first = list(accumulate(deltas, initial=begin)) if kept else []
    if (len(first), len(last), len(excused)) != (kept, count, pauses) or len(gaps) not in (0, BINS):
        return None
    rest_of = (last.tolist(), gaps.tolist(), excused.tolist())
    return EventTimes(kind, events, stalls, longest, blocked, first, *rest_of)


def gap_quantile(gaps: list[int], quantile: float) -> float | None:
    """A quantile of counted gaps, in seconds; None where there are none."""
    sums = list(accumulate(gaps))
    if not sums or not sums[-1]:
        return None
    rank = quantile * (sums[-1] - 1)
    return _upper(bisect_right(sums, rank)) * 1e-6
