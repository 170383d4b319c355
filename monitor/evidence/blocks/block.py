"""Blocks: many records of one source as columns, labels, or a heartbeat.

A block is the content of one message of the topic ``….records``. Its *source* is a sidecar, a *run*
one start of its evaluation plane. The sequence numbers of a (source, run) increase by one in each
partition, so a reader detects duplicates and gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.errors import BlockError
from understudy.monitor.evidence.blocks.cells import Grid
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import Record
from understudy.monitor.records.trace import is_sampled

NUMBERS: Mapping[str, type[np.generic]] = {
    "arm": np.uint16,
    "status": np.uint16,
    "role": np.uint8,
    "outcome": np.uint8,
    "assigned": np.uint8,
    "started": np.float64,
    "duration_ns": np.uint64,
    "first_byte_ns": np.uint64,
    "queue_ns": np.uint64,
    "request_size": np.uint64,
    "response_size": np.uint64,
    "proxy_id": np.uint64,
}
"""Columns of numbers, by the attribute of a record."""
TEXTS = ("request_id", "trace_id", "span", "unit", "target")
"""Columns of bytes, by the attribute of a record."""

Decoded: TypeAlias = Table | Undecodable
Row: TypeAlias = tuple[Names, Record, Decoded, Decoded]
"""Input of the evaluation: names, record (without payloads and headers), request, response."""


@dataclass(frozen=True, slots=True)
class Head:
    """The origin of a block.

    ``seq`` counts from 1 within (source, run, partition), over records and labels. ``created`` is
    the unix time at which the source closed the block.
    """

    source: str
    run: str
    partition: int
    seq: int
    created: float


@dataclass(slots=True)
class Texts:
    """``count`` byte strings: all equal, or concatenated in ``data``."""

    count: int
    same: bytes | None
    lengths: NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    data: bytes = b""

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Texts:
        """Pack byte strings of at most 65,535 bytes each."""
        first = values[0]
        if first == values[-1] and values.count(first) == len(values):
            return cls(len(values), first)
        lengths = np.fromiter(map(len, values), np.uint16, len(values))
        return cls(len(values), None, lengths, b"".join(values))

    def values(self) -> list[bytes]:
        """Unpack."""
        if self.same is not None:
            return [self.same] * self.count
        data, ends = self.data, np.cumsum(self.lengths, dtype=np.int64).tolist()
        return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@dataclass(slots=True)
class RecordBlock:
    """``count`` records of one model: ``names.models[model]``, or an unknown one.

    ``numbers`` and ``texts`` hold the columns by name. ``request`` locates the features of each
    record: k ≥ 0 in ``features[k]``; k < 0 means undecodable, for the reason
    ``undecodable[-1 - k]``. ``response`` locates ``predictions`` likewise. A record has ``*_rows``
    rows there, after those of the records before it. None stands for zeros, and for one row each.

    >>> from understudy.monitor.records.handoff import Names
    >>> block = RecordBlock(
    ...     Head("pod-0", "run-1", partition=0, seq=1, created=1_790_000_000.0),
    ...     Names(models=(("delays", "1", "auto"),)), model=0, count=2,
    ...     numbers={name: np.zeros(2, kind) for name, kind in NUMBERS.items()},
    ...     texts={name: Texts.of([b"a", b"b"]) for name in TEXTS},
    ...     undecodable=(reason_of("not_captured", ""),),
    ...     request=np.full(2, -1, np.int16), response=np.full(2, -1, np.int16),
    ... )
    >>> [record.request_id for _, record, features, predictions in block.rows()]
    [b'a', b'b']
    """

    head: Head
    names: Names
    model: int
    count: int
    numbers: dict[str, NDArray[Any]]
    texts: dict[str, Texts]
    features: tuple[Grid, ...] = ()
    predictions: tuple[Grid, ...] = ()
    undecodable: tuple[Undecodable, ...] = ()
    request: NDArray[np.int16] | None = None
    response: NDArray[np.int16] | None = None
    request_rows: NDArray[np.uint32] | None = None
    response_rows: NDArray[np.uint32] | None = None

    def rows(self) -> Iterator[Row]:
        """The records one by one, with their decoded tables, without headers and payloads."""
        requests = tables(self.count, self.request, self.request_rows, self.features, self)
        responses = tables(self.count, self.response, self.response_rows, self.predictions, self)
        for record, request, response in zip(self.records(), requests, responses, strict=True):
            yield self.names, record, request, response

    def records(self) -> Iterator[Record]:
        """The records one by one, without headers and payloads."""
        model = self.model
        numbers = [self.numbers[name].tolist() for name in NUMBERS]
        texts = [self.texts[name].values() for name in TEXTS]
        for (
            arm, status, role, outcome, assigned, started, duration, first_byte, queue,
            request_size, response_size, proxy_id, request_id, trace_id, span, unit, target,
        ) in zip(*numbers, *texts, strict=True):  # fmt: skip
            record = Record()
            record.model = model
            record.arm = arm
            record.status = status
            record.role = role
            record.outcome = outcome
            record.assigned = assigned
            record.started = started
            record.duration_ns = duration
            record.first_byte_ns = first_byte
            record.queue_ns = queue
            record.request_size = request_size
            record.response_size = response_size
            record.proxy_id = proxy_id
            record.request_id = request_id
            record.trace_id = trace_id
            record.sampled = is_sampled(span)
            record.span = span
            record.events = b""
            record.unit = unit
            record.target = target
            record.request_headers = record.response_headers = b""
            record.request_body = record.response_body = None
            yield record


def tables(
    count: int,
    grid_indices: NDArray[np.int16] | None,
    rows: NDArray[np.uint32] | None,
    grids: Sequence[Grid],
    block: RecordBlock,
) -> list[Decoded]:
    """For each record its table, or the reason why it was not decoded."""
    if grid_indices is None and rows is None and len(grids) == 1 and grids[0].rows == count:
        names, values = grids[0].names, grids[0].values()
        width = len(names)
        return [Table(names, 1, values[at : at + width]) for at in range(0, count * width, width)]
    cells = [grid.values() for grid in grids]
    used = [0] * len(grids)
    decoded: list[Decoded] = []
    for grid_index, n in zip(
        [0] * count if grid_indices is None else grid_indices.tolist(),
        [1] * count if rows is None else rows.tolist(),
        strict=True,
    ):
        if grid_index < 0:
            decoded.append(block.undecodable[-1 - grid_index])
            continue
        names = grids[grid_index].names
        start = used[grid_index]
        used[grid_index] = end = start + n * len(names)
        decoded.append(Table(names, n, cells[grid_index][start:end]))
    return decoded


@dataclass(frozen=True, slots=True)
class LabelBlock:
    """Feedback, each with the unix time at which the source received it."""

    head: Head
    labels: tuple[tuple[float, Label], ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A source is alive.

    ``head.seq`` is the number of its last block in this partition (0: none yet); a heartbeat does
    not increase it. ``clock`` is the source's unix time. All records that ended before the unix
    time ``complete`` are in blocks up to that number. ``dropped`` counts the records of this run
    that the source dropped.
    """

    head: Head
    clock: float
    complete: float
    dropped: int = 0


Block: TypeAlias = RecordBlock | LabelBlock | Heartbeat


def reason_of(text: str, detail: str) -> Undecodable:
    """The reason by name. A reason added by a later version becomes ``internal``, with its name in
    the detail."""
    try:
        return Undecodable(Reason(text), detail)
    except ValueError:
        return Undecodable(Reason.INTERNAL, f"{text}: {detail}" if detail else text)


def check(condition: bool, message: str) -> None:
    """Raise BlockError (``wrong_shape``) with ``message`` unless ``condition`` holds."""
    if not condition:
        raise BlockError("wrong_shape", message)
