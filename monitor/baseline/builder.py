"""Builds a baseline from rows, in bounded memory however many there are.

The first rows decide what kind each column has and where the edges of its histograms lie; from then
on rows only count. Who has all rows in files hands in a sample of the whole first, see
:meth:`Builder.begin`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.baseline.kinds import expand, infer, prepare
from monitor.baseline.labelled import Labelled
from monitor.baseline.model import Baseline, Column, Kind, Role
from monitor.baseline.profiles import CategoryCounter, NumericProfile, Profile, edges_of
from monitor.baseline.scores import normal_scores
from monitor.evaluation.columns import to_matrix
from monitor.quality.repeats import Repeats, Runs

Floats = NDArray[np.float64]
SAMPLE = 20_000
"""Rows that decide kinds and edges where no sample is handed in."""
MOST_CORRELATED = 64
"""Numeric series of which the correlation is kept."""


class Builder:
    """``roles`` say which columns are predictions or targets, the others are features;
    ``categorical`` names columns whose numbers are codes. Rows come in any number of batches."""

    def __init__(
        self,
        model: str = "",
        model_version: str = "",
        source: str = "",
        roles: Mapping[str, Role] | None = None,
        categorical: Collection[str] = (),
        sample: int = SAMPLE,
    ) -> None:
        self.model = model
        self.model_version = model_version
        self.source = source
        self.roles: dict[str, Role] = dict(roles or {})
        self.categorical = frozenset(categorical)
        self.rows = 0
        self._sample = sample
        self._held: list[tuple[dict[str, list[Any]], list[float] | None]] = []
        self._columns: dict[str, Column] | None = None
        self._series: dict[str, _Numbers | _Categories] = {}
        self._runs: dict[str, Runs] = {}
        self._longest: dict[str, int] = {}
        self._repeats = Repeats()
        self._repeated = 0
        self._correlation = _Correlation()
        self._labelled: Labelled | None = None

    # Rows ---------------------------------------------------------------------------------------

    def begin(
        self,
        names: Sequence[str],
        columns: Sequence[Sequence[Any]],
        times: Sequence[float] | None = None,
    ) -> None:
        """Decide kinds and edges by a sample of the whole, without counting it."""
        cells = {name: list(column) for name, column in zip(names, columns, strict=True)}
        self._decide(cells, times)

    def add(
        self,
        names: Sequence[str],
        columns: Sequence[Sequence[Any]],
        times: Sequence[float] | None = None,
    ) -> None:
        """Rows as columns of cells, in the order of time; ``times`` in unix seconds."""
        if not columns or not len(columns[0]):
            return
        cells = {name: list(column) for name, column in zip(names, columns, strict=True)}
        self.rows += len(columns[0])
        moments = list(times) if times is not None else None
        if self._columns is None:
            self._held.append((cells, moments))
            if self.rows >= self._sample:
                self._settle()
            return
        self._count(cells, moments)

    def add_rows(
        self,
        features: Sequence[str],
        values: Sequence[Any],
        predictions: Sequence[str],
        answers: Sequence[Any],
        started: float,
    ) -> None:
        """Live rows: row-major cells of features and predictions of one request."""
        for name in predictions:
            self.roles.setdefault(name, "prediction")
        names = [*features, *predictions]
        wide, more = len(features), len(predictions)
        columns = [list(values[n::wide]) for n in range(wide)]
        columns += [list(answers[n::more]) for n in range(more)]
        rows = len(columns[0]) if columns else 0
        if self._held and self._columns is None:
            cells, moments = self._held[-1]
            if list(cells) == names and moments is not None and len(moments) < 4096:
                for name, column in zip(names, columns, strict=True):
                    cells[name] += column
                moments += [started] * rows
                self.rows += rows
                if self.rows >= self._sample:
                    self._settle()
                return
        self.add(names, columns, [started] * rows)

    def finish(self) -> Baseline:
        """The baseline of all rows so far."""
        if self._columns is None:
            self._settle()
        columns = self._columns or {}
        for name, column in columns.items():
            for series in column.series:
                column.series[series] = self._series[series].profile()
            if name in self._longest:
                column.extra["longest_run"] = self._longest[name]
        labelled = self._labelled
        return Baseline(
            self.model,
            self.model_version,
            self.source,
            datetime.now(UTC).isoformat(timespec="seconds"),
            self.rows,
            columns,
            self._repeated / self.rows if self.rows else None,
            self._correlation.to_dict(),
            labelled.calibration() if labelled is not None else None,
            labelled.performance() if labelled is not None else None,
        )

    # From the sample ----------------------------------------------------------------------------

    def _settle(self) -> None:
        held, self._held = self._held, []
        names = list(dict.fromkeys(name for cells, _ in held for name in cells))
        whole: dict[str, list[Any]] = {name: [] for name in names}
        times: list[float] | None = []
        for cells, moments in held:
            size = len(next(iter(cells.values())))
            for name in names:
                whole[name] += cells.get(name, [None] * size)
            times = None if times is None or moments is None else times + moments
        self._decide(whole, times)
        for cells, moments in held:
            self._count(cells, moments if times is not None else None)

    def _decide(self, cells: dict[str, list[Any]], times: Sequence[float] | None) -> None:
        self._columns = {}
        sampled: dict[str, Floats] = {}
        for name, column in cells.items():
            kind: Kind = "categorical" if name in self.categorical else infer(column)
            described = Column(name, self.roles.get(name, "feature"), kind)
            prepare(described, column)
            moments = np.array(times, np.float64) if times is not None else None
            for series, values in expand(described, column, moments).items():
                counter: _Numbers | _Categories
                if isinstance(values, list):
                    counter = _Categories()
                else:
                    finite = values[np.isfinite(values)]
                    counter = _Numbers(edges_of(finite))
                    if described.role == "feature" and kind == "numeric":
                        sampled[series] = values
                self._series[series] = counter
                described.series[series] = counter.profile()
            self._columns[name] = described
            if kind in ("numeric", "boolean", "categorical"):
                self._runs[name] = Runs(1)
                self._longest[name] = 0
        self._correlation = _Correlation.of(
            {
                name: (self._edges(name), values)
                for name, values in list(sampled.items())[:MOST_CORRELATED]
            }
        )
        self._labelled = Labelled.of(self._columns, cells, self.roles)

    def _edges(self, series: str) -> Floats:
        counter = self._series[series]
        assert isinstance(counter, _Numbers)
        return counter.edges

    # Counting -----------------------------------------------------------------------------------

    def _count(self, cells: dict[str, list[Any]], times: Sequence[float] | None) -> None:
        assert self._columns is not None
        rows = len(next(iter(cells.values())))
        moments = np.array(times, np.float64) if times is not None else None
        numbers: dict[str, Floats] = {}
        codes: list[Floats] = []
        for name, column in self._columns.items():
            column.rows += rows
            have = cells.get(name)
            if have is None:
                column.missing += rows
                continue
            plain, other = to_matrix(have, 1)
            _tally(column, have, plain[:, 0], other[:, 0] if other is not None else None)
            for series, values in expand(column, have, moments).items():
                counter = self._series.get(series)
                if isinstance(counter, _Numbers) and not isinstance(values, list):
                    counter.add(values)
                    numbers[series] = values
                elif isinstance(counter, _Categories) and isinstance(values, list):
                    counter.add(values)
            if name in self._runs:
                if column.kind == "numeric":
                    keys = plain[:, 0]
                else:
                    keys = np.array([math.nan if c is None else _key(c) for c in have])
                self._longest[name] = max(self._longest[name], _longest(self._runs[name], keys))
                if column.role == "feature":
                    codes.append(keys)
        if codes:
            matrix = np.ascontiguousarray(np.column_stack(codes))
            data, size = matrix.tobytes(), matrix.shape[1] * 8
            hashes = [hash(data[n : n + size]) for n in range(0, len(data), size)]
            self._repeated += int(self._repeats.update(hashes).sum())
        self._correlation.add(numbers)
        if self._labelled is not None:
            self._labelled.add(cells)


def _key(cell: Any) -> float:
    return float(hash(str(cell)) & 0xFFFFFFFFFFFF)


def _longest(runs: Runs, keys: Floats) -> int:
    """The longest run that ends in this batch; ``runs`` knows how the last one ended."""
    before, last = int(runs.length[0]), float(runs.last[0])
    runs.update(keys[:, None])
    changes = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], changes])
    lengths = np.diff(np.concatenate([starts, [len(keys)]]))
    lengths = np.where(np.isnan(keys[starts]), 0, lengths)
    if keys[0] == last:
        lengths[0] += before
    return int(lengths.max())


def _tally(
    column: Column, cells: Sequence[Any], plain: Floats, other: NDArray[np.bool_] | None
) -> None:
    """Count what is wrong with the cells of a column."""
    nothing = np.isnan(plain)
    if other is not None:
        nothing &= ~other
    if nothing.any():
        nulls = sum(1 for place in np.flatnonzero(nothing).tolist() if cells[place] is None)
        column.missing += nulls
        column.nan += int(nothing.sum()) - nulls
    if column.kind == "numeric":
        column.infinite += int(np.isinf(plain).sum())
        if other is not None:
            column.mistyped += int(other.sum())
    elif column.kind in ("boolean", "categorical"):
        column.mistyped += sum(1 for c in cells if isinstance(c, (list, dict)))
    else:
        wanted: tuple[type, ...] = (list, tuple) if column.kind == "vector" else (str, int, float)
        if column.kind == "text":
            wanted = (str,)
        column.mistyped += sum(
            1
            for c in cells
            if c is not None
            and not isinstance(c, wanted)
            and not (isinstance(c, float) and math.isnan(c))
        )


class _Numbers:
    """A numeric series while it is counted."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self.counts: NDArray[np.int64] = np.zeros(len(edges) + 1, np.int64)
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.low = math.inf
        self.high = -math.inf
        self.whole = True
        self._last = math.nan
        self._products = 0.0
        self._pairs = 0
        self._centre: float | None = None
        self._firsts = 0.0
        self._seconds = 0.0

    def add(self, values: Floats) -> None:
        here = np.isfinite(values)
        x = values[here]
        if not len(x):
            return
        places = self.edges.searchsorted(x)
        self.counts += np.bincount(places, minlength=len(self.counts))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(x.mean())
            squares = float(((x - mean) ** 2).sum())
        total = self.count + len(x)
        step = mean - self.mean
        self.squares += squares + step * step * self.count * len(x) / total
        self.mean += step * len(x) / total
        self.count = total
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.whole = self.whole and bool((x == np.floor(x)).all())
        if self._centre is None:
            self._centre = mean
        line = np.concatenate([[self._last], x]) - self._centre
        if math.isnan(self._last):
            line = line[1:]
        if len(line) > 1:
            with np.errstate(over="ignore", invalid="ignore"):
                self._products += float(line[1:] @ line[:-1])
                self._firsts += float(line[:-1].sum())
                self._seconds += float(line[1:].sum())
            self._pairs += len(line) - 1
        self._last = float(x[-1])

    def profile(self) -> Profile:
        lag1 = None
        variance = self.squares / self.count if self.count else 0.0
        if self._pairs > 2 and variance > 0.0 and math.isfinite(variance):
            means = self._firsts * self._seconds / self._pairs**2
            found = (self._products / self._pairs - means) / variance
            lag1 = min(1.0, max(-1.0, found)) if math.isfinite(found) else None
        squares = self.squares if math.isfinite(self.squares) else 0.0
        mean = self.mean if math.isfinite(self.mean) else 0.0
        whole = self.whole and self.count > 0
        return NumericProfile(
            self.edges, self.counts.copy(), self.count, mean, squares, self.low, self.high, lag1,
            whole,
        )  # fmt: skip


class _Categories:
    """A categorical series while it is counted."""

    def __init__(self) -> None:
        self._counter = CategoryCounter()
        self._last: str | None = None
        self._both: dict[str, int] = {}
        self._pairs = 0

    def add(self, values: Sequence[str | None]) -> None:
        last, both = self._last, self._both
        tallied: dict[str, int] = {}
        for value in values:
            if value is None:
                continue
            tallied[value] = tallied.get(value, 0) + 1
            if last is not None:
                self._pairs += 1
                if value == last and (value in both or len(both) < 256):
                    both[value] = both.get(value, 0) + 1
            last = value
        for value, count in tallied.items():
            self._counter.add(value, count)
        self._last = last

    def profile(self) -> Profile:
        counts = self._counter.counts
        lag1 = None
        if counts and self._pairs > 2:
            commonest = max(counts, key=counts.__getitem__)
            p = counts[commonest] / max(self._counter.total, 1)
            if 0.0 < p < 1.0:
                found = (self._both.get(commonest, 0) / self._pairs - p * p) / (p * (1.0 - p))
                lag1 = min(1.0, max(-1.0, found))
        return self._counter.profile(lag1)


class _Correlation:
    """Sums of products of normal scores; missing values count as the middle."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._edges: list[Floats] = []
        self._scores: list[Floats] = []
        self._products: Floats = np.zeros((0, 0))
        self._rows = 0

    @classmethod
    def of(cls, sampled: Mapping[str, tuple[Floats, Floats]]) -> _Correlation:
        found = cls()
        for name, (edges, values) in sampled.items():
            finite = values[np.isfinite(values)]
            if not len(finite):
                continue
            counts = np.bincount(edges.searchsorted(finite), minlength=len(edges) + 1)
            scores = normal_scores(counts / counts.sum())
            if scores.any():
                found._names.append(name)
                found._edges.append(edges)
                found._scores.append(scores)
        size = len(found._names)
        found._products = np.zeros((size, size))
        return found

    def add(self, numbers: Mapping[str, Floats]) -> None:
        if not self._names:
            return
        rows = len(next(iter(numbers.values()))) if numbers else 0
        scores = np.zeros((rows, len(self._names)))
        for place, name in enumerate(self._names):
            values = numbers.get(name)
            if values is not None:
                here = np.isfinite(values)
                found = self._edges[place].searchsorted(values[here])
                scores[here, place] = self._scores[place][found]
        self._products += scores.T @ scores
        self._rows += rows

    def to_dict(self) -> dict[str, Any] | None:
        if len(self._names) < 2 or not self._rows:
            return None
        scale = np.sqrt(np.maximum(np.diag(self._products), 1e-12))
        matrix = np.clip(self._products / np.outer(scale, scale), -1.0, 1.0)
        return {
            "series": self._names,
            "matrix": matrix.round(5).tolist(),
            "rows": self._rows,
        }
