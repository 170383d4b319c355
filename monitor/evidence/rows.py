"""The first stage of everything but experiments: decoded rows by model, and what was not read."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.monitor.codecs import Table
from understudy.monitor.evidence.batch import Column, ColumnBatch, column_of
from understudy.monitor.evidence.columns import Cells
from understudy.monitor.records.record import OK, ROLE_PRIMARY, Record

ROWS, ANSWERS, REQUESTS, UNDECODABLE = "rows", "answers", "requests", "undecodable"
"""Sorts of rows: features with the champion's answers where there are any; answers alone; whether a
request could be read; and why something could not."""
STARTED = "started"
"""The first column of rows and answers: unix time of the request."""
_Layout = tuple[tuple[str, ...], tuple[str, ...]]


class _Gathered:
    """Rows of one layout."""

    __slots__ = ("at", "ids", "side", "started", "values")

    def __init__(self) -> None:
        self.at: list[float] = []
        self.ids: list[bytes] = []
        self.side: list[int] = []
        self.started: list[float] = []
        self.values: list[Any] = []

    def add(self, record: Record, at: float, rows: int) -> None:
        if rows == 1:
            self.at.append(at)
            self.ids.append(record.request_id)
            self.side.append(record.role)
            self.started.append(record.started)
        else:
            self.at += [at] * rows
            self.ids += [record.request_id] * rows
            self.side += [record.role] * rows
            self.started += [record.started] * rows


class RowCollector:
    """``champion`` is the arm whose answers are kept beside their requests."""

    def __init__(self, champion: str) -> None:
        self.champion = champion
        self._rows: dict[_Layout, _Gathered] = {}
        self._ready: list[ColumnBatch] = []

    def take(
        self, key: tuple[str, str], record: Record, arm: str, of_request: object, answer: object
    ) -> None:
        """Take one record of the model ``key``, (name, version)."""
        model, version = key
        at = record.started + record.duration_ns * 1e-9
        answered = record.outcome == OK
        if record.role == ROLE_PRIMARY:
            self._of(((REQUESTS, model, version), ("broken",)), record, at).values.append(
                0.0 if isinstance(of_request, Table) else 1.0
            )
            if isinstance(of_request, Table):
                width = str(len(of_request.names))
                if (
                    answered
                    and arm == self.champion
                    and isinstance(answer, Table)
                    and answer.rows == of_request.rows
                ):
                    kind: tuple[str, ...] = (ROWS, model, version, arm, width)
                    names = (STARTED, *of_request.names, *answer.names)
                    rows = self._of((kind, names), record, at, of_request.rows)
                    _interleave(rows.values, of_request, answer)
                    return
                kind = (ROWS, model, version, "", width)
                names = (STARTED, *of_request.names)
                self._of((kind, names), record, at, of_request.rows).values += of_request.values
            else:
                self._undecodable(record, at, (model, version, arm, "request", of_request))
        if answered:
            if isinstance(answer, Table):
                kind = (ANSWERS, model, version, arm)
                names = (STARTED, *answer.names)
                self._of((kind, names), record, at, answer.rows).values += answer.values
            else:
                self._undecodable(record, at, (model, version, arm, "response", answer))

    def _of(self, layout: _Layout, record: Record, at: float, rows: int = 1) -> _Gathered:
        found = self._rows.get(layout)
        if found is None:
            found = self._rows[layout] = _Gathered()
        found.add(record, at, rows)
        return found

    def _undecodable(self, record: Record, at: float, what: tuple[Any, ...]) -> None:
        *where, undecodable = what
        kind = (UNDECODABLE, *where, str(undecodable.reason))
        self._of((kind, ()), record, at)

    def add(self, sheet: ColumnBatch) -> None:
        """Rows that were gathered as columns."""
        self._ready.append(sheet)

    def drain(self) -> list[ColumnBatch]:
        """What was gathered since the last time."""
        found, self._ready = self._ready, []
        gathered, self._rows = self._rows, {}
        for (kind, names), rows in gathered.items():
            columns: list[Column] = []
            width = len(names)
            if kind[0] in (ROWS, ANSWERS):
                columns.append(np.array(rows.started, np.float64))
                width -= 1
            columns += [column_of(rows.values[place::width]) for place in range(width)]
            at, side = np.array(rows.at, np.float64), np.array(rows.side, np.int16)
            found.append(ColumnBatch(kind, names, at, rows.ids, side, columns))
        return found


def _interleave(values: list[Any], first: Table, second: Table) -> None:
    if first.rows == 1:
        values += first.values
        values += second.values
        return
    wide, more = len(first.names), len(second.names)
    for row in range(first.rows):
        values += first.values[row * wide : (row + 1) * wide]
        values += second.values[row * more : (row + 1) * more]


def parts_of(sheet: ColumnBatch) -> tuple[tuple[str, ...], Cells, tuple[str, ...], Cells]:
    """Names and cells of the features of rows, and of their answers."""
    rows, end = len(sheet), 1 + int(sheet.kind[4])
    return (
        sheet.names[1:end],
        Cells(sheet.columns[1:end], rows),
        sheet.names[end:],
        Cells(sheet.columns[end:], rows),
    )
