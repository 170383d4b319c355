"""Evaluates an experiment on a file of logged pairs or records, with the same results as live.

The rows go through the same :class:`LiveExperiment` as live traffic, in their order, with a look
after every few hundred: the check of the split, units of assignment, final verdicts.

Pairs have columns ``champion.NAME`` and ``challenger.NAME``; records of split traffic have ``arm``
(champion or challenger, or 0 and 1), ``share`` (the challenger's at the time of assignment),
``unit`` where the experiment assigns units, and ``NAME``. ``time`` is the row's clock (unix seconds
or ISO 8601); without it a row counts as a second, and limits of duration do not apply. The names
are those of :mod:`understudy.shadow.experiment.batches`: error, timeout, latency (in seconds),
cost, disagreement, field:OUTPUT, input:FIELD, correct, reward, score, positive and so on. An empty
cell is a missing value. In a file of split traffic every request that did not fail may have a
label; which of them have one is compared between the arms, as live.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from understudy.common.files import FileError, objects
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.errors import ReplayError
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.batch import ColumnBatch, batch_of
from understudy.monitor.evidence.columns import Column
from understudy.monitor.evidence.layout import ASSIGNED, FACTS, LABELS, PAIRS, unit_number
from understudy.monitor.experiments.live import LiveExperiment
from understudy.shadow.experiment import METRICS, Decision, Experiment
from understudy.shadow.experiment.explanation import Arm, Explanation, Situation, explain
from understudy.shadow.experiment.fates import ANSWERED, FAILED
from understudy.shadow.experiment.hypothesis import COVARIATE, Statistic, uncapped

LOOK = 256
"""Rows between two looks."""
_MOST_EPOCHS = 1000
"""Changes of the share in one file."""
_BEGIN = 1e9
"""Unix time of the first row in a file without times."""
_ARMS = {"champion": 0, "challenger": 1, "0": 0, "1": 1}
_BINARY = {metric.column for metric in METRICS.values() if metric.statistic is Statistic.RATE}
_BINARY |= {"true_positive", "predicted_positive", "positive"}


Line = tuple[int, Mapping[str, Any]]
"""Number of a line, and its cells."""


class Replay:
    """An experiment fed from a file. ``rows`` counts the rows read; ``mode`` is set by the
    first."""

    def __init__(self, declared: Declared) -> None:
        self.challenger = declared.challengers[0]
        self._declared = declared.model_copy(update={"challengers": [self.challenger]})
        self.rows = 0
        self.mode = "shadow"
        self.decided_after: int | None = None
        """Number of rows after which the decision was reached first; None while it is open."""
        self.live = self._begin(_BEGIN, timed=False)
        self.columns = self.live.layout.columns
        self._labels = self.live.layout.of_labels
        """Columns whose values come with labels, after their request."""
        self._first = True
        self._timed = False
        self._now = _BEGIN
        self._epoch = 0
        self._share = math.nan

    def _begin(self, now: float, timed: bool) -> LiveExperiment:
        declared = self._declared
        if not timed:
            declared = declared.model_copy(update={"minimum_duration": 0, "max_duration": None})
        arms = Arms("champion", "", {self.challenger: 1.0}, b"")
        return LiveExperiment(declared, arms, now)

    @property
    def experiment(self) -> Experiment:
        """The evidence so far."""
        return self.live.experiment

    def read(
        self,
        path: Path,
        progress: Callable[[int], None] | None = None,
        delimiter: str | None = None,
    ) -> Decision:
        """Read the whole file and return the final decision.

        ``progress`` is called with the number of rows read; ``delimiter`` is that of a CSV file, by
        default detected. Raises ReplayError, which names file and line.
        """
        batch: list[Line] = []
        for line in rows_of(path, delimiter):
            batch.append(line)
            if len(batch) >= LOOK:
                self._take(path, batch)
                batch = []
                if progress is not None:
                    progress(self.rows)
        if batch:
            self._take(path, batch)
        if not self.rows:
            raise ReplayError(f"{path}: contains no rows")
        self.live.finish()
        return self._look()

    def _look(self) -> Decision:
        now = self._now if self._timed else self.live.started
        decision = self.live.look(self.mode, now)[self.challenger]
        contestant = self.live.contestants[self.challenger]
        if decision.verdict != contestant.decision.verdict:
            self.decided_after = self.rows if decision.verdict != "continue" else None
        contestant.decision = decision
        return decision

    def explanation(self, decision: Decision) -> Explanation:
        """Why the decision is what it is, and what to do now."""
        contest, split = self.experiment.contests[self.challenger], self.experiment.split
        arms: tuple[Arm, ...] = ()
        if self.mode == "split" and split is not None:
            counted = zip(self.live.order, split.counts, split.expected, strict=True)
            arms = tuple(Arm(name, n, expected) for name, n, expected in counted)
        requests, unit = contest.requests(self.mode), contest.counted_in(self.mode)
        situation = Situation(
            self._declared.name, self.challenger, self.mode, requests, None, arms, unit
        )
        return explain(self.experiment.rules, decision, situation)

    def _take(self, path: Path, batch: list[Line]) -> None:
        if self._first:
            self._set_up(path, batch[0])
        at = self._times(path, batch)
        # Padded, so that rows of one time keep their order.
        ids = [b"%012d" % (self.rows + i) for i in range(len(batch))]
        rows = self._pairs if self.mode == "shadow" else self._split
        self.live.feed(rows(path, batch, at, ids))
        self.rows += len(batch)
        self._look()

    def _pairs(
        self, path: Path, batch: list[Line], at: np.ndarray, ids: list[bytes]
    ) -> list[ColumnBatch]:
        fates: list[Column] = [self._fates(path, batch, s) for s in ("champion.", "challenger.")]
        columns: list[Column] = [np.ones(len(batch)), *fates]
        for side in ("champion.", "challenger."):
            columns += [self._values(path, batch, side, name) for name in self.columns]
        kind = (PAIRS, self._declared.name, self.challenger)
        names = self.live.layout.pairs_names()
        return [batch_of(kind, names, at, ids, np.zeros(len(batch)), columns)]

    def _split(
        self, path: Path, batch: list[Line], at: np.ndarray, ids: list[bytes]
    ) -> list[ColumnBatch]:
        """The requests, and their labels: apart, as live."""
        n = len(batch)
        share = self._values(path, batch, "", "share")
        bad = ~((share > 0.0) & (share < 1.0))
        if bad.any():
            number = batch[int(np.argmax(bad))][0]
            raise ReplayError(f"{path}: line {number}: share: must lie between 0 and 1")
        changed = share != np.concatenate([[self._share], share[:-1]])
        epochs = self._epoch + np.cumsum(changed)
        if epochs[-1] > _MOST_EPOCHS:
            number = batch[int(np.argmax(epochs > _MOST_EPOCHS))][0]
            raise ReplayError(
                f"{path}: line {number}: share: changes more than {_MOST_EPOCHS:,} times; "
                "rows have to be in the order of time"
            )
        self._epoch, self._share = int(epochs[-1]), float(share[-1])
        fate = self._fates(path, batch, "")
        facts: dict[str, np.ndarray] = {
            "started": at,
            "fate": fate,
            "answered": (fate == float(ANSWERED)).astype(np.float64),
            "epoch": epochs.astype(np.float64),
        }
        units = self._units(path, batch)
        arms = [self._arm(path, number, row) for number, row in batch]
        values = {name: self._values(path, batch, "", name) for name in self.columns}
        columns: list[Column] = [facts.get(name, np.zeros(n)) for name in FACTS]
        columns += [units, 1.0 - share, share]
        missing = np.full(n, math.nan)
        columns += [missing if name in self._labels else values[name] for name in self.columns]
        layout, name = self.live.layout, self._declared.name
        assigned = batch_of((ASSIGNED, name), layout.assigned_names(2), at, ids, arms, columns)

        def with_label(column: str) -> Column:
            there = column in self._labels or column.startswith(COVARIATE)
            return values[column] if there else missing

        labelled = np.zeros(n, np.bool_)
        for column in self._labels:
            labelled |= ~np.isnan(values[column])
        if not labelled.any():
            return [assigned]
        numbers = np.array([unit_number(unit.encode()) for unit in units])
        labels = batch_of(
            (LABELS, name, self.challenger),
            layout.labels_names(),
            at,
            [b"%b/0" % one for one in ids],
            arms,
            [share, at, numbers, *(with_label(name) for name in self.columns)],
        )
        return [assigned, labels.rows(np.flatnonzero(labelled))]

    def _fates(self, path: Path, batch: list[Line], prefix: str) -> np.ndarray:
        """What became of each request: all were answered but those with an error."""
        errors = self._values(path, batch, prefix, "error")
        return np.where(errors == 1.0, float(FAILED), float(ANSWERED))

    def _units(self, path: Path, batch: list[Line]) -> list[str]:
        if not self.live.by_unit:
            return [""] * len(batch)
        units = []
        for number, row in batch:
            unit = row.get("unit")
            if unit is None or unit == "":
                raise ReplayError(f"{path}: line {number}: unit: is missing")
            units.append(str(unit))
        return units

    def _times(self, path: Path, batch: list[Line]) -> np.ndarray:
        """The time of each row, which never decreases."""
        found = np.empty(len(batch))
        for i, (number, row) in enumerate(batch):
            if self._timed:
                at = _time_of(row)
                if at is None:
                    location = f"{path}: line {number}: time"
                    raise ReplayError(f"{location}: {row.get('time')!r} is not a time")
                self._now = max(self._now, at)
            else:
                self._now += 1.0
            found[i] = self._now
        return found

    def _set_up(self, path: Path, line: Line) -> None:
        """Detect the kind of file from the columns of its first row."""
        self._first = False
        _, row = line
        self.mode = "split" if "arm" in row else "shadow"
        if self.mode == "split" and "share" not in row:
            raise ReplayError(f"{path}: the column share is missing: the challenger's probability")
        if self.mode == "split" and self.live.by_unit and "unit" not in row:
            raise ReplayError(
                f"{path}: the column unit is missing: the experiment assigns units "
                f"(unit.by: {self._declared.unit.by})"
            )
        names = dict.fromkeys(uncapped(name)[0] for name in self.columns)
        wanted = [f"champion.{n}" for n in names] if self.mode == "shadow" else list(names)
        if not set(wanted) & set(row):
            raise ReplayError(
                f"{path}: needs one of the columns {', '.join(wanted)}; has "
                f"{', '.join(map(str, row))}"
            )
        self._timed = "time" in row
        if self._timed:
            self._now = _time_of(row) or _BEGIN
            self.live = self._begin(self._now, timed=True)

    def _values(self, path: Path, batch: list[Line], prefix: str, name: str) -> np.ndarray:
        """The values of a column of the evidence, capped where it is."""
        name, cap = uncapped(name)
        if name == "unusable" and prefix + name not in batch[0][1]:
            # It then follows from the errors.
            errors = self._values(path, batch, prefix, "error")
            return np.where(np.isnan(errors), 0.0, errors)
        column = prefix + name
        found = np.empty(len(batch))
        for i, (number, row) in enumerate(batch):
            cell = row.get(column)
            if cell is None or cell == "":
                found[i] = math.nan
                continue
            location = f"{path}: line {number}: {column}"
            try:
                value = float(cell)
            except (TypeError, ValueError):
                raise ReplayError(f"{location}: {cell!r} is not a number") from None
            if name in _BINARY and value not in (0.0, 1.0):
                raise ReplayError(f"{location}: must be 0 or 1, not {cell!r}")
            if not math.isfinite(value):
                raise ReplayError(f"{location}: must be finite, not {cell!r}")
            found[i] = value
        return found if cap is None else np.clip(found, *cap)

    @staticmethod
    def _arm(path: Path, number: int, row: Mapping[str, Any]) -> int:
        given = row.get("arm")
        arm = _ARMS.get(str(given))
        if arm is None:
            location = f"{path}: line {number}: arm"
            raise ReplayError(f"{location}: must be champion or challenger, not {given!r}")
        return arm


def _time_of(row: Mapping[str, Any]) -> float | None:
    cell = row.get("time")
    with contextlib.suppress(TypeError, ValueError):  # a number in a CSV file
        cell = float(cell)  # type: ignore[arg-type]
    return instant(cell)


def rows_of(path: Path, delimiter: str | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a CSV, JSONL, JSON or Parquet file, each with its number. Raises ReplayError."""
    try:
        yield from objects(path, delimiter=delimiter)
    except FileError as error:
        raise ReplayError(str(error)) from error
