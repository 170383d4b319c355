"""Rows as the sheets that a watch takes; for tests and for benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.columns import column_of
from understudy.monitor.evidence.rows import ROWS, STARTED
from understudy.monitor.health.drift.watch import ModelWatch


def sheet_of(
    names: tuple[str, ...],
    rows: Sequence[Sequence[Any]],
    times: Iterable[float],
    ids: Iterable[bytes] | None = None,
) -> ColumnBatch:
    """Rows of the columns ``names``, features first, as the first stage puts them on a sheet."""
    started = np.array(list(times), np.float64)
    return ColumnBatch(
        (ROWS, "m", "1", "", str(len(names))),
        (STARTED, *names),
        started,
        [b"r-%d" % number for number in range(len(rows))] if ids is None else list(ids),
        np.zeros(len(rows), np.int16),
        [started, *(column_of(cells) for cells in zip(*rows, strict=True))],
    )


def take(
    watch: ModelWatch,
    names: tuple[str, ...],
    rows: Sequence[Sequence[Any]],
    times: Iterable[float],
    ids: Iterable[bytes] | None = None,
    answered: bool = False,
    alone: bool = False,
) -> None:
    """Hand rows to a watch and have them evaluated: together, or each ``alone`` as it comes."""
    sheet = sheet_of(names, rows, times, ids)
    step = 1 if alone else max(len(sheet), 1)
    for start in range(0, len(sheet), step):
        watch.take_rows(sheet.rows(slice(start, start + step)), names, answered)
        watch.flush()
