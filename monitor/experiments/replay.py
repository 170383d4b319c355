"""Evaluates an experiment on a file of logged pairs or records, with the same results as live.

Pairs have columns ``champion.NAME`` and ``challenger.NAME``; records of split traffic have ``arm``
(champion or challenger, or 0 and 1), ``share`` (the challenger's at the time of assignment) and
``NAME``. The names are those of :mod:`understudy.shadow.experiment.batches`: error, timeout,
latency (in seconds), cost, disagreement, field:OUTPUT, input:FIELD, correct, reward, score,
positive and so on. An empty cell is a missing value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.common.files import (
    CSV,
    LINES,
    PARQUET,
    FileError,
    ParquetFile,
    csv_objects,
    json_objects,
)
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import rules_of
from understudy.monitor.errors import ReplayError
from understudy.shadow.experiment import METRICS, Decision, Experiment, Pairs, Split
from understudy.shadow.experiment.explanation import Explanation, Situation, explain
from understudy.shadow.experiment.hypothesis import Statistic, uncapped

BATCH = 4096
_ARMS = {"champion": 0.0, "challenger": 1.0, "0": 0.0, "1": 1.0}
_BINARY = {metric.column for metric in METRICS.values() if metric.statistic is Statistic.RATE}
_BINARY |= {"true_positive", "predicted_positive", "positive"}


class Replay:
    """An experiment fed from a file. ``rows`` counts the rows read; ``mode`` is set by the
    first."""

    def __init__(self, declared: Declared) -> None:
        self.challenger = declared.challengers[0]
        by_unit = declared.unit.by != "request"
        rules = replace(rules_of(declared), min_seconds=0.0)  # rows have no time
        self.experiment = Experiment(declared.name, [self.challenger], rules, by_unit=by_unit)
        self.columns = sorted(
            {column for h in self.experiment.rules.hypotheses for column in h.columns}
        )
        self.rows = 0
        self.mode = "shadow"
        self._first = True

    def read(self, path: Path, progress: Callable[[int], None] | None = None) -> Decision:
        """Read the whole file and return the final decision.

        ``progress`` is called with the number of rows read. Raises ReplayError, which names file
        and line.
        """
        batch: list[tuple[int, Mapping[str, Any]]] = []
        for line in rows_of(path):
            batch.append(line)
            if len(batch) >= BATCH:
                self._take(path, batch)
                batch = []
                if progress is not None:
                    progress(self.rows)
        if batch:
            self._take(path, batch)
        if not self.rows:
            raise ReplayError(f"{path}: contains no rows")
        return self.decision()

    def decision(self) -> Decision:
        """The decision on the rows read so far."""
        return self.experiment.decide(self.mode, 0.0)[self.challenger]

    def explanation(self, decision: Decision) -> Explanation:
        """Why the decision is what it is, and what to do now."""
        requests = self.experiment.contests[self.challenger].requests(self.mode)
        situation = Situation(self.experiment.name, self.challenger, self.mode, requests)
        return explain(self.experiment.rules, decision, situation)

    def _take(self, path: Path, batch: list[tuple[int, Mapping[str, Any]]]) -> None:
        if self._first:
            self._set_up(path, batch[0][1])
        contest = self.experiment.contests[self.challenger]
        if self.mode == "shadow":
            columns = {
                name: (
                    self._values(path, batch, "champion.", name),
                    self._values(path, batch, "challenger.", name),
                )
                for name in self.columns
            }
            contest.update_pairs(Pairs(columns, len(batch)))
        else:
            arms = np.array([self._arm(path, number, row) for number, row in batch])
            share = self._values(path, batch, "", "share")
            bad = ~((share > 0.0) & (share < 1.0))
            if bad.any():
                number = batch[int(np.argmax(bad))][0]
                raise ReplayError(f"{path}: line {number}: share: must lie between 0 and 1")
            columns_ = {name: self._values(path, batch, "", name) for name in self.columns}
            contest.update_split(Split(arms, share, columns_))
        self.rows += len(batch)

    def _set_up(self, path: Path, row: Mapping[str, Any]) -> None:
        """Detect the kind of file from the columns of its first row."""
        self._first = False
        self.mode = "split" if "arm" in row else "shadow"
        if self.mode == "split" and "share" not in row:
            raise ReplayError(f"{path}: the column share is missing: the challenger's probability")
        names = dict.fromkeys(uncapped(name)[0] for name in self.columns)
        wanted = [f"champion.{n}" for n in names] if self.mode == "shadow" else list(names)
        if not set(wanted) & set(row):
            raise ReplayError(
                f"{path}: needs one of the columns {', '.join(wanted)}; has "
                f"{', '.join(map(str, row))}"
            )

    def _values(
        self, path: Path, batch: list[tuple[int, Mapping[str, Any]]], prefix: str, name: str
    ) -> np.ndarray:
        """The values of a column of the evidence, capped where it is."""
        name, cap = uncapped(name)
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
    def _arm(path: Path, number: int, row: Mapping[str, Any]) -> float:
        given = row.get("arm")
        arm = _ARMS.get(str(given))
        if arm is None:
            location = f"{path}: line {number}: arm"
            raise ReplayError(f"{location}: must be champion or challenger, not {given!r}")
        return arm


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a CSV, JSONL or Parquet file, each with its line number. Raises ReplayError."""
    kind = path.suffix.lower()
    try:
        if kind in CSV:
            yield from csv_objects(path)
        elif kind in LINES:
            yield from ((number, row) for number, _, row in json_objects(path))
        elif kind in PARQUET:
            yield from _of_parquet(path)
        else:
            raise ReplayError(f"{path}: must end in .csv, .jsonl or .parquet")
    except FileError as error:
        raise ReplayError(str(error)) from error


def _of_parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    for batch in ParquetFile(path).batches(BATCH):
        for row in batch.to_pylist():
            number += 1
            yield number, row
