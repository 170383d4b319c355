"""Rows of live traffic as bucket codes of a baseline, and what is wrong with single cells."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.buckets import Buckets
from understudy.monitor.baseline.identifiers import ignored
from understudy.monitor.baseline.kinds import category, expand, instant
from understudy.monitor.baseline.model import (
    Baseline,
    CategoryProfile,
    Column,
    Kind,
    NumericProfile,
)
from understudy.monitor.baseline.profiles import discount, group_of
from understudy.monitor.baseline.rules import Rule
from understudy.monitor.baseline.scores import normal_scores, spread_scores
from understudy.monitor.evidence.columns import Column as Cells
from understudy.monitor.evidence.columns import listed, matrix_of

MISSING = 256
"""Code of a value that is not there; buckets are 0 … 255."""
WIDTH = MISSING + 1
_WIDENED = 0.1
"""By this part of its range a feature may go beyond what the baseline has seen."""
_MOST_MEMORY = 4096
_MOST_LAYOUTS = 64
_LOOKED_AT = 32
_NAMED = 5
"""Values that are named as examples."""
PLAIN = ("numeric", "boolean", "categorical")
"""Kinds of columns with a single series, of the values themselves."""

_NO_EDGES: NDArray[np.float64] = np.zeros(0)

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Batch:
    """``columns`` are the cells of each of the ``names``; ids and times one for each row.

    ``answered`` is False for rows of which no prediction is known, as when the request failed.
    """

    names: tuple[str, ...]
    columns: Sequence[Cells]
    ids: list[bytes]
    times: Any
    answered: bool = True

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.ids)


@dataclass(slots=True)
class Encoded:
    """``codes`` (n, S) of the series; ``broken`` by rule (n, C) of the raw columns; ``raw`` (n, C)
    numbers by which equal values are known; ``unseen`` by raw column some values that the baseline
    does not know; ``added`` are columns that the baseline does not know."""

    rows: int
    codes: NDArray[np.int64]
    raw: NDArray[np.float64]
    broken: dict[Rule, Mask] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    unseen: dict[int, list[str]] = field(default_factory=dict)

    def mark(self, rule: Rule, column: int, mask: Mask | bool, columns: int) -> None:
        """Say that a rule is broken in some rows of a column."""
        if mask is not True and not np.any(mask):
            return
        have = self.broken.get(rule)
        if have is None:
            have = self.broken[rule] = np.zeros((self.rows, columns), np.bool_)
        have[:, column] |= mask


@dataclass(frozen=True, slots=True)
class _Layout:
    """``numeric`` and ``others`` are pairs of our column and its place in the batch; ``gathered``
    are vectors whose elements have a column each there, with the places of these; ``unwatched``
    are those of which only missing and equal values are looked for; ``indices``,
    ``numbers``, ``firsts`` (series), ``low``, ``high`` and ``buckets`` are those of the numeric
    ones; ``absent`` are ours that are not there."""

    numeric: list[tuple[int, int]]
    others: list[tuple[int, int]]
    gathered: list[tuple[int, list[int]]]
    unwatched: list[tuple[int, int]]
    absent: list[int]
    added: tuple[str, ...]
    indices: NDArray[np.intp]
    numbers: NDArray[np.intp]
    firsts: NDArray[np.intp]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    buckets: Buckets


class Encoder:
    """Everything that is needed of a baseline to read live rows. Targets are left out.

    A feature that looks like an identifier, a timestamp or a counter has no series, unless
    ``declared`` names it.
    """

    def __init__(self, baseline: Baseline, declared: Collection[str] = ()) -> None:
        self.columns: list[Column] = [
            c for c in baseline.columns.values() if c.role != "target" and c.series
        ]
        self.names = [column.name for column in self.columns]
        self.is_feature = np.array([c.role == "feature" for c in self.columns], np.bool_)
        self.unwatched = np.array([ignored(c, declared) for c in self.columns], np.bool_)
        """Columns without series."""
        self.series: list[str] = []
        self.column_of: list[int] = []
        self.first: list[int] = []
        """Number of a column's first series."""
        profiles: list[NumericProfile | CategoryProfile] = []
        for number, column in enumerate(self.columns):
            self.first.append(len(self.series))
            if self.unwatched[number]:
                continue
            for name, profile in column.series.items():
                self.series.append(name)
                self.column_of.append(number)
                profiles.append(profile)
        self.profiles = profiles
        self.counts: NDArray[np.float64] = np.zeros((len(profiles), MISSING))
        self.location: NDArray[np.float64] = np.full((len(profiles), WIDTH), np.nan)
        self.spread: NDArray[np.float64] = np.full((len(profiles), WIDTH), np.nan)
        self._codes: list[dict[str, int] | None] = []
        self._groups = [len(p.groups) if isinstance(p, CategoryProfile) else 0 for p in profiles]
        self._low: list[float] = []
        self._high: list[float] = []
        for number, profile in enumerate(profiles):
            self._add(number, profile)
        self._offsets = np.arange(len(profiles), dtype=np.int64) * WIDTH
        self._index = {name: number for number, name in enumerate(self.names)}
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self.edges = [p.edges if isinstance(p, NumericProfile) else _NO_EDGES for p in profiles]
        self._memory: list[dict[Any, int]] = [{} for _ in profiles]
        """Codes of the cells that were met lately, by series."""

    def _add(self, number: int, profile: NumericProfile | CategoryProfile) -> None:
        """Tables of one series."""
        if isinstance(profile, NumericProfile):
            counts = profile.counts.astype(np.float64)
            self._codes.append(None)
            margin = _WIDENED * (profile.maximum - profile.minimum)
            self._low.append(profile.minimum - margin if profile.count else -math.inf)
            self._high.append(profile.maximum + margin if profile.count else math.inf)
        else:
            ranked = sorted(profile.counts.items(), key=lambda item: (-item[1], item[0]))
            # Behind the names the groups of all others, or a place for what was not seen.
            rest = profile.groups or (0,)
            counts = np.array([*(count for _, count in ranked), *rest], np.float64)
            # What was seen so seldom will come less often, and others instead, not seen before.
            less = np.minimum(discount(profile), counts[: len(ranked)])
            counts[: len(ranked)] -= less
            counts[len(ranked)] += less.sum()
            self._codes.append({name: code for code, (name, _) in enumerate(ranked)})
            self._low.append(-math.inf)
            self._high.append(math.inf)
        total = counts.sum()
        if total <= 0.0:
            return
        self.counts[number, : len(counts)] = counts
        shares = counts / total
        location = normal_scores(shares)
        self.location[number, : len(counts)] = location
        self.spread[number, : len(counts)] = spread_scores(location, shares)

    def labels(self, series: int) -> list[str]:
        """Categories of a series in the order of their codes; empty for numbers."""
        return list(self._codes[series] or ())

    def scores(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Locations, then spreads, of codes (n, S): an array (n, 2 S); NaN for missing values."""
        flat = codes + self._offsets
        result = np.empty((len(codes), 2 * len(self.series)))
        result[:, : len(self.series)] = self.location.ravel()[flat]
        result[:, len(self.series) :] = self.spread.ravel()[flat]
        return result

    def counted(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How often each code occurs: (S, WIDTH)."""
        flat = np.bincount((codes + self._offsets).ravel(), minlength=len(self.series) * WIDTH)
        return flat.reshape(len(self.series), WIDTH)

    def encode(self, batch: Batch) -> Encoded:
        """Codes and broken rules of a batch."""
        layout = self._layout(batch.names)
        rows, columns = batch.rows, len(self.columns)
        matrix, other = matrix_of(batch.columns, rows)
        codes = np.full((len(self.series), rows), MISSING, np.int64).T
        raw = np.full((rows, columns), np.nan)
        result = Encoded(rows, codes, raw, added=layout.added)
        missing = np.isnan(matrix)
        any_missing = bool(missing.any())
        x = np.ascontiguousarray(matrix.T[layout.indices])
        raw[:, layout.numbers] = x.T
        # Comparisons with NaN are false, and most batches stay inside.
        outside = ((x < layout.low[:, None]) | (x > layout.high[:, None])).T
        any_outside = bool(outside.any())
        for number in layout.absent:
            if batch.answered or self.columns[number].role == "feature":
                result.mark(Rule.MISSING, number, True, columns)
        if layout.numeric:
            code = layout.buckets.find(x)
            if any_missing:
                code[missing.T[layout.indices]] = MISSING
            result.codes[:, layout.firsts] = code.T
        for turn, (number, index) in enumerate(
            layout.numeric if any_outside or any_missing else ()
        ):
            if any_outside:
                infinite = np.isinf(x[turn])
                result.mark(Rule.INFINITE, number, infinite, columns)
                result.mark(Rule.RANGE, number, outside[:, turn] & ~infinite, columns)
            if any_missing:
                wrong = other[:, index] if other is not None else False
                result.mark(Rule.TYPE, number, wrong, columns)
                result.mark(Rule.MISSING, number, missing[:, index] & ~np.asarray(wrong), columns)
        for number, index in layout.others:
            cells = listed(batch.columns[index])
            if self.columns[number].kind in PLAIN:
                self._category(result, self.first[number], number, cells)
            else:
                self._expanded(result, number, cells, batch.times)
        for number, elements in layout.gathered:
            parts = [listed(batch.columns[index]) for index in elements]
            vectors = [list(vector) for vector in zip(*parts, strict=True)]
            self._expanded(result, number, vectors, batch.times)
        for number, index in layout.unwatched:
            self._presence(result, number, listed(batch.columns[index]))
        return result

    def _numeric(
        self, result: Encoded, series: int, x: NDArray[np.float64], nan: Mask | None
    ) -> None:
        code = self.edges[series].searchsorted(x)
        if nan is not None:
            code[nan] = MISSING
        result.codes[:, series] = code

    def _category(self, result: Encoded, series: int, column: int, cells: Sequence[Any]) -> None:
        memory = self._memory[series]
        codes = [-1] * len(cells)
        for row, cell in enumerate(cells):
            # True, 1 and 1.0 are equal keys, and different categories.
            key = cell if isinstance(cell, str) else (type(cell), cell)
            try:
                codes[row] = memory[key]
            except KeyError:
                codes[row] = memory[key] = self._code(series, column, cell)
            except TypeError:  # something nested
                codes[row] = -2
        if len(memory) > _MOST_MEMORY:
            memory.clear()
        self._take_codes(result, series, column, np.array(codes, np.int64), cells)

    def _code(self, series: int, column: int, cell: Any) -> int:
        """Of one cell: its code, MISSING, -1 for an unseen category, -2 for the wrong type."""
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return MISSING
        if not isinstance(cell, (str, bool, int, float)):
            return -2
        name = self.series[series]
        texts: Any = expand(self.columns[column], [cell], None)[name]
        if texts[0] is None:
            return -2
        return self._code_of(series, texts[0])

    def _code_of(self, series: int, text: str) -> int:
        """Of a category; -1 for one that is known to be unseen."""
        known = self._codes[series]
        assert known is not None
        code = known.get(text)
        if code is not None:
            return code
        groups = self._groups[series]
        return len(known) + group_of(text, groups) if groups else -1

    def _take_codes(
        self,
        result: Encoded,
        series: int,
        column: int,
        codes: NDArray[np.int64],
        cells: Sequence[Any],
    ) -> None:
        columns = len(self.columns)
        known = self._codes[series]
        assert known is not None
        result.mark(Rule.MISSING, column, codes == MISSING, columns)
        result.mark(Rule.TYPE, column, codes == -2, columns)
        unseen = codes == -1
        if unseen.any():
            result.mark(Rule.UNSEEN, column, unseen, columns)
            result.unseen[column] = self._named(cells, np.flatnonzero(unseen))
        codes[unseen] = len(known)
        codes[codes == -2] = MISSING
        result.codes[:, series] = codes
        raw = np.where(codes == MISSING, np.nan, codes)
        # Categories that share a code are not equal.
        for row in np.flatnonzero((codes >= len(known)) & (codes < MISSING)).tolist():
            raw[row] = _key(cells[row])
        result.raw[:, column] = raw

    @staticmethod
    def _named(cells: Sequence[Any], rows: NDArray[np.intp]) -> list[str]:
        """The newest values in some rows, each once."""
        texts = (category(cells[row]) for row in rows[::-1][:_LOOKED_AT].tolist())
        return list(dict.fromkeys(text for text in texts if text is not None))[:_NAMED]

    def _presence(self, result: Encoded, column: int, cells: Sequence[Any]) -> None:
        """A column without series: whether its values are there and of its type, and whether they
        change."""
        kind, columns = self.columns[column].kind, len(self.columns)
        missing = np.array([_nothing(cell) for cell in cells], np.bool_)
        wrong = np.array([not _fits(cell, kind) for cell in cells], np.bool_) & ~missing
        gone = missing | wrong
        result.raw[:, column] = [
            math.nan if no else _key(cell) for cell, no in zip(cells, gone.tolist(), strict=True)
        ]
        result.mark(Rule.MISSING, column, missing, columns)
        result.mark(Rule.TYPE, column, wrong, columns)

    def _expanded(
        self,
        result: Encoded,
        column: int,
        cells: Sequence[Any],
        times: Sequence[float] | NDArray[np.float64],
    ) -> None:
        described = self.columns[column]
        columns = len(self.columns)
        empty = np.array([_nothing(cell) for cell in cells], np.bool_)
        result.mark(Rule.MISSING, column, empty, columns)
        wrong = np.ones(len(cells), np.bool_)
        series = expand(described, cells, np.array(times, np.float64))
        for offset, (_, values) in enumerate((name, series[name]) for name in described.series):
            number = self.first[column] + offset
            if isinstance(values, list):
                codes = np.array(
                    [MISSING if v is None else self._code_of(number, v) for v in values], np.int64
                )
                codes[codes == -1] = len(self._codes[number] or ())
                result.codes[:, number] = codes
                wrong &= codes == MISSING
            else:
                nan = np.isnan(values)
                self._numeric(result, number, values, nan)
                beyond = (values < self._low[number]) | (values > self._high[number])
                result.mark(Rule.RANGE, column, beyond, columns)
                wrong &= nan
        result.mark(Rule.TYPE, column, wrong & ~empty, columns)
        result.raw[:, column] = [
            math.nan if e else _key(c) for c, e in zip(cells, empty, strict=True)
        ]

    def _layout(self, names: tuple[str, ...]) -> _Layout:
        """Where our columns are in a batch of these columns."""
        layout = self._layouts.get(names)
        if layout is None:
            where = {name: index for index, name in enumerate(names)}
            numeric: list[tuple[int, int]] = []
            others: list[tuple[int, int]] = []
            gathered: list[tuple[int, list[int]]] = []
            unwatched: list[tuple[int, int]] = []
            absent: list[int] = []
            known = set(self._index)
            for number, column in enumerate(self.columns):
                index = where.get(column.name)
                elements = _elements(column.name, where) if column.kind == "vector" else []
                if index is None and elements:
                    gathered.append((number, elements))
                    known.update(names[element] for element in elements)
                elif index is None:
                    absent.append(number)
                elif self.unwatched[number]:
                    unwatched.append((number, index))
                else:
                    (numeric if column.kind == "numeric" else others).append((number, index))
            firsts = [self.first[number] for number, _ in numeric]
            layout = _Layout(
                numeric,
                others,
                gathered,
                unwatched,
                absent,
                tuple(name for name in names if name not in known),
                np.array([index for _, index in numeric], np.intp),
                np.array([number for number, _ in numeric], np.intp),
                np.array(firsts, np.intp),
                np.array([self._low[first] for first in firsts], np.float64),
                np.array([self._high[first] for first in firsts], np.float64),
                Buckets([self.edges[first] for first in firsts]),
            )
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[names] = layout
        return layout


def _nothing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _fits(cell: Any, kind: Kind) -> bool:
    """Whether a cell is of the type of a column's kind."""
    if kind == "numeric":
        return isinstance(cell, (int, float))
    if kind == "datetime":
        return instant(cell) is not None
    return not isinstance(cell, (list, dict))


def _key(cell: Any) -> float:
    """A number by which equal values are known, above those of codes."""
    return float(WIDTH + crc32(str(cell).encode("utf-8", "replace")))


def _elements(name: str, where: dict[str, int]) -> list[int]:
    """Places of ``name[0]``, ``name[1]`` and so on, as short vectors come out of a payload."""
    result: list[int] = []
    while (index := where.get(f"{name}[{len(result)}]")) is not None:
        result.append(index)
    return result
