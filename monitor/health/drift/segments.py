"""Drift within segments: rows that share the value of a declared feature.

A segment is unlike the whole from the start, so it is compared with itself: its first rows are its
reference, and the error of that is part of the thresholds. What runs is the block form of the CUSUM
union, on sums by segment, so that the number of segments costs next to nothing per row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Encoder
from understudy.monitor.detectors.cusum import CusumUnion
from understudy.monitor.detectors.packed import Packed, Times
from understudy.monitor.health.examples import add
from understudy.monitor.health.options import Options
from understudy.shadow.state import Config, Converter, FieldError, Saved, Stateful, Transient

REFERENCE = 1000
"""Rows of a segment that are its reference."""
_LOW = 0.1
"""Share of a threshold below which a statistic shows no change."""
_TWO_SIDED_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class SegmentShift:
    """The change of a series in a segment: ``since`` (unix time), and ``size`` in standard
    deviations of its ranks against the segment's first rows, with a 95 % interval."""

    since: float | None
    size: float
    low: float
    high: float


def _dump_names(names: list[tuple[str, str]]) -> list[list[str]]:
    return [list(name) for name in names]


def _same_names(name: str, value: Any, now: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if [tuple(one) for one in value] != now:
        raise FieldError(name, "are those of other segments")
    return now


class Segments(Stateful):
    """``run_length`` is that of all segments and series together, in rows of the model;
    ``inflated`` (2 S, slacks) is the variance of long sums of each location and spread, as the
    charts of all rows see it."""

    names: Saved[Annotated[list[tuple[str, str]], Converter(_dump_names, _same_names)]]
    """(feature, value) of each segment."""
    _series: Config[list[int]]
    _first: Config[list[int]]
    _size: Config[list[int]]
    _shape: Config[tuple[int, int]]
    _counts: Saved[Packed]
    _sums: Saved[Packed]
    cusum: Saved[CusumUnion | None]
    alarmed: Saved[NDArray[np.bool_]]
    rows: Saved[NDArray[np.int64]]
    examples: Transient[dict[int, list[str]]]
    """Newest request ids of segments that have alarmed, by number."""
    _since: Saved[Times]
    _seen: Saved[Packed]
    """Since then: the number of values, and their sum."""

    def __init__(
        self,
        encoder: Encoder,
        options: Options,
        run_length: float,
        inflated: NDArray[np.float64],
    ) -> None:
        self.names = []
        self._series = []
        self._first = []
        self._size = []
        free = options.max_segments
        for feature in options.segments:
            if feature not in encoder.names:
                continue
            column = encoder.names.index(feature)
            if encoder.unwatched[column]:
                continue
            number = encoder.first[column]
            labels = encoder.labels(number)[: max(0, free)]
            if not labels:
                continue
            self._series.append(number)
            self._first.append(len(self.names))
            self._size.append(len(labels))
            self.names += [(feature, label) for label in labels]
            free -= len(labels)
        count, width = len(self.names), 2 * len(encoder.series)
        self._shape = (count, width)
        self._counts = np.zeros(self._shape)
        self._sums = np.zeros(self._shape)
        self.cusum = (
            CusumUnion(
                count * width,
                run_length * count * width,
                baseline_rows=np.full(count * width, float(REFERENCE)),
                slacks=options.slacks,
                inflation=np.tile(inflated, (count, 1)),
            )
            if count
            else None
        )
        self.alarmed = np.zeros(self._shape, np.bool_)
        self.rows = np.zeros(count, np.int64)
        self.examples = {}
        self._since = np.full(self._shape, np.nan)
        self._seen = np.zeros((2, *self._shape))

    def widen(self, inflated: NDArray[np.float64]) -> None:
        """Set ``inflated`` (2 S,), for rows that depend on each other more than it seemed at
        first."""
        if self.cusum is not None:
            self.cusum.widen(np.tile(inflated, len(self.names)))

    def update(
        self,
        codes: NDArray[np.int64],
        scores: NDArray[np.float64],
        times: NDArray[np.float64],
        ids: Sequence[bytes],
    ) -> None:
        """``codes`` (n, S) and ``scores`` (n, 2 S) of a batch, with unix times and request ids."""
        if self.cusum is None:
            return
        here = ~np.isnan(scores)
        values = np.where(here, scores, 0.0)
        counts = np.zeros(self._shape)
        sums = np.zeros(self._shape)
        for series, first, size in zip(self._series, self._first, self._size, strict=True):
            member = codes[:, series][:, None] == np.arange(size)
            weights = member.T.astype(np.float64)
            counts[first : first + size] = weights @ here
            sums[first : first + size] = weights @ values
            self.rows[first : first + size] += member.sum(0)
            for number in np.flatnonzero(self.alarmed[first : first + size].any(axis=1)).tolist():
                here_too = np.flatnonzero(member[:, number])
                if len(here_too):
                    add(self.examples.setdefault(first + number, []), ids[int(here_too[-1])])
        learning = self._counts < REFERENCE
        self._counts += np.where(learning, counts, 0.0)
        self._sums += np.where(learning, sums, 0.0)
        usual = self._sums / np.maximum(self._counts, 1.0)
        counts[learning] = 0.0
        against = np.where(learning, 0.0, sums - counts * usual)
        evidence = self.cusum.update_blocks(counts.ravel(), against.ravel())
        self.alarmed |= (evidence.statistic >= evidence.threshold).reshape(self._shape)
        begun = (evidence.statistic >= _LOW).reshape(self._shape)
        self._since = np.where(begun, self._since, times[0])
        self._seen = np.where(begun, self._seen, 0.0) + np.stack([counts, against])

    def moved(self, number: int, index: int) -> SegmentShift:
        """The change in segment ``number`` of the location or spread ``index`` (among 2 S)."""
        count, total = self._seen[:, number, index].tolist()
        since = float(self._since[number, index])
        size = total / max(count, 1.0)
        # The first rows are an estimate as well.
        half = _TWO_SIDED_95 * math.sqrt(1.0 / max(count, 1.0) + 1.0 / REFERENCE)
        return SegmentShift(None if math.isnan(since) else since, size, size - half, size + half)
