"""Builds a baseline from rows, in bounded memory however many there are.

The first rows decide what kind each column has and where the edges of its histograms lie; from then
on rows only count. Who has all rows in files hands in a sample of the whole first, see
:meth:`Builder.begin`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.calibration.regions import RegionalCalibration
from understudy.monitor.baseline.counting import Categories, Correlation, Numbers, Order
from understudy.monitor.baseline.identifiers import MOST_DISTINCT, looks_like
from understudy.monitor.baseline.kinds import expand, infer, instant, prepare
from understudy.monitor.baseline.labelled import THRESHOLD, Labelled
from understudy.monitor.baseline.model import Baseline, Column, Kind, Role
from understudy.monitor.baseline.profiles import NumericProfile, edges_of
from understudy.monitor.baseline.repeats import Repeats, Runs
from understudy.monitor.baseline.scores import normal_scores, spread_scores
from understudy.monitor.baseline.together import JointProfile
from understudy.monitor.evidence.columns import floats_of

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
_TOGETHER = 32
"""Datetimes of which the mean says whether they rise: neighbours need not be in order."""
SAMPLE = 20_000
"""Rows that decide kinds and edges where no sample is handed in."""
MOST_CORRELATED = 64
"""Numeric series of which the correlation is kept."""


class Builder:
    """``roles`` say which columns are predictions or targets, the others are features;
    ``categorical`` names columns whose numbers are codes. Rows come in any number of batches.
    With ``regions`` the rows that decide are also asked what a score means in which part of the
    data, which takes minutes for a hundred thousand of them.

    ``model`` and ``model_version`` are what the baseline is for (empty: any), ``source`` is shown
    with it, ``sample`` is the number of rows that decide kinds and edges, ``threshold`` the score
    above which a prediction is positive. ``declared`` names features that are watched although they
    look like an identifier, a timestamp or a counter, as those in ``categorical`` are; a column
    with more than ``most_categories`` is taken for an identifier. Raises BaselineError for rows
    that cannot be used.

    >>> builder = Builder(model="delays", roles={"late": "prediction"})
    >>> builder.add(["carrier", "late"], [["AA", "DL"] * 500, [0.2, 0.7] * 500])
    >>> baseline = builder.finish()
    >>> baseline.rows, sorted(column.role for column in baseline.columns.values())
    (1000, ['feature', 'prediction'])
    """

    def __init__(
        self,
        model: str = "",
        model_version: str = "",
        source: str = "",
        roles: Mapping[str, Role] | None = None,
        categorical: Collection[str] = (),
        sample: int = SAMPLE,
        regions: bool = False,
        threshold: float = THRESHOLD,
        declared: Collection[str] = (),
        most_categories: int = MOST_DISTINCT,
    ) -> None:
        self.model = model
        self.model_version = model_version
        self.source = source
        self.roles: dict[str, Role] = dict(roles or {})
        self.categorical = frozenset(categorical)
        self.rows = 0
        self._sample = sample
        self._regions = regions
        self._threshold = threshold
        self._declared = frozenset(declared) | self.categorical
        self._most_categories = most_categories
        self._asked: dict[str, list[Any]] = {}
        self._held: list[tuple[dict[str, list[Any]], list[float] | None]] = []
        self._columns: dict[str, Column] | None = None
        self._series: dict[str, Numbers | Categories] = {}
        self._runs: dict[str, Runs] = {}
        self._longest: dict[str, int] = {}
        self._equal: dict[str, int] = {}
        """Rows with the value of the row before, by column."""
        self._orders: dict[str, Order] = {}
        """Of datetimes."""
        self._repeats = Repeats()
        self._repeated = 0
        self._correlation = Correlation()
        self._sampled: dict[str, Floats] = {}
        """Numeric series of the features, of the rows that decided."""
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
                column.extra["repeated"] = round(self._equal[name] / max(column.rows, 1), 9)
            self._look(name, column)
        labelled = self._labelled
        if labelled is not None:
            columns[labelled.prediction].extra["judged"] = True
        correlation = self._correlation.dump_state()
        together = JointProfile.learn(
            {
                name: profile
                for column in columns.values()
                for name, profile in column.series.items()
                if isinstance(profile, NumericProfile)
            },
            self._sampled,
            correlation,
        )
        return Baseline(
            self.model,
            self.model_version,
            self.source,
            datetime.now(UTC).isoformat(timespec="seconds"),
            self.rows,
            columns,
            self._repeated / self.rows if self.rows else None,
            correlation,
            self._calibration(),
            labelled.performance() if labelled is not None else None,
            together.to_dict() if together is not None else None,
        )

    def _look(self, name: str, column: Column) -> None:
        """Say what a feature looks like that is not worth comparing."""
        counter = self._series.get(name)
        order = counter.order if isinstance(counter, Numbers) else self._orders.get(name)
        moves = (order.rose, order.fell) if order is not None else (0, 0)
        column.extra.pop("looks_like", None)
        if name in self._declared:
            column.extra["declared"] = True
        elif column.role == "feature":
            looks = looks_like(column, self._most_categories, *moves)
            if looks is not None:
                column.extra["looks_like"] = looks

    def _calibration(self) -> dict[str, Any] | None:
        labelled = self._labelled
        table = labelled.calibration() if labelled is not None else None
        if labelled is None or table is None or not self._asked or self._columns is None:
            return table
        features = {
            name: self._asked[name]
            for name, column in self._columns.items()
            if column.role == "feature" and column.kind in ("numeric", "boolean", "categorical")
        }
        codes = frozenset(n for n in features if self._columns[n].kind != "numeric")
        try:
            result = RegionalCalibration.fit(*labelled.pairs(self._asked), features, codes)
        except ValueError as error:
            log.warning("scores are not looked at by region: %s", error)
            return table
        return {**table, "regions": result.to_dict()} if result.worthwhile else table

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
                counter: Numbers | Categories
                if isinstance(values, list):
                    counter = Categories.of(values)
                else:
                    counter = _numbers(values[np.isfinite(values)])
                    if described.role == "feature" and kind in ("numeric", "vector"):
                        sampled[series] = values
                self._series[series] = counter
                described.series[series] = counter.profile()
            self._columns[name] = described
            if kind in ("numeric", "boolean", "categorical"):
                self._runs[name] = Runs(1)
                self._longest[name] = 0
                self._equal[name] = 0
            elif kind == "datetime":
                self._orders[name] = Order(_TOGETHER)
        self._sampled = dict(list(sampled.items())[:MOST_CORRELATED])
        self._correlation = Correlation.of(
            {name: (self._edges(name), values) for name, values in self._sampled.items()}
        )
        self._labelled = Labelled.of(self._columns, cells, self.roles, self._threshold)
        if self._regions:
            self._asked = cells

    def _edges(self, series: str) -> Floats:
        counter = self._series[series]
        assert isinstance(counter, Numbers)
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
            plain, other = floats_of(have)
            tally(column, have, plain, other)
            for series, values in expand(column, have, moments).items():
                counter = self._series.get(series)
                if isinstance(counter, Numbers) and not isinstance(values, list):
                    counter.add(values)
                    numbers[series] = values
                elif isinstance(counter, Categories) and isinstance(values, list):
                    counter.add(values)
            if name in self._orders:
                known = [moment for cell in have if (moment := instant(cell)) is not None]
                self._orders[name].add(np.array(known, np.float64))
            if name in self._runs:
                if column.kind == "numeric":
                    keys = plain
                else:
                    keys = np.array([math.nan if c is None else _key(c) for c in have])
                longest, equal = _runs(self._runs[name], keys)
                self._longest[name] = max(self._longest[name], longest)
                self._equal[name] += equal
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


def _numbers(finite: Floats) -> Numbers:
    """A counter whose edges and scores are those of a sample's finite values."""
    edges = edges_of(finite)
    counts = np.bincount(edges.searchsorted(finite), minlength=len(edges) + 1)
    scores = np.zeros((2, len(counts)))
    if len(finite):
        shares = counts / len(finite)
        scores[0] = normal_scores(shares)
        scores[1] = spread_scores(scores[0], shares)
    return Numbers(edges, scores)


def _key(cell: Any) -> float:
    return float(hash(str(cell)) & 0xFFFFFFFFFFFF)


def _runs(runs: Runs, keys: Floats) -> tuple[int, int]:
    """The longest run that ends in this batch, and the rows that equal the one before; ``runs``
    knows how the last one ended."""
    before, last = int(runs.length[0]), float(runs.last[0])
    runs.update(keys[:, None])
    changes = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], changes])
    lengths = np.diff(np.concatenate([starts, [len(keys)]]))
    lengths = np.where(np.isnan(keys[starts]), 0, lengths)
    if keys[0] == last:
        lengths[0] += before
    equal = int((keys[1:] == keys[:-1]).sum()) + int(keys[0] == last)
    return int(lengths.max()), equal


def tally(
    column: Column, cells: Sequence[Any], plain: Floats, other: NDArray[np.bool_] | None
) -> None:
    """Count what is wrong with the cells of a column."""
    nothing = np.isnan(plain)
    if other is not None:
        nothing &= ~other
    if nothing.any():
        nulls = sum(1 for index in np.flatnonzero(nothing).tolist() if cells[index] is None)
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
