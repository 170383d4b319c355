"""Bodies of lines: CSV and JSON lines, as the JSON that says the same.

CSV becomes MLflow's ``dataframe_split``. Its first line names the columns unless one of its cells
is a number (SageMaker sends no names). JSON lines become the rows of ``instances``.
"""

from __future__ import annotations

import csv
import re
from typing import Any

import orjson

from understudy.common.cells import ColumnCells, value_of
from understudy.common.codecs.table import Reason, Undecodable

_CSV = b"text/csv"
_JSON_LINES = re.compile(rb"jsonl|ndjson|json-seq")
_ROW = ("features", "instances", "data", "inputs")
"""Keys below which a line may have its row."""


def is_lines(kind: bytes) -> bool:
    """Whether a content type, in lower case, is one of these."""
    return _CSV in kind or _JSON_LINES.search(kind) is not None


def rows_of(kind: bytes, body: bytes) -> Any:
    """The JSON for a body of such a content type, or an :class:`Undecodable`."""
    return _csv(body) if _CSV in kind else _json_lines(body)


def _csv(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(), strict=True) if row]
    except (UnicodeDecodeError, csv.Error):
        return Undecodable(Reason.NOT_CSV)
    if not rows:
        return Undecodable(Reason.EMPTY)
    head = [ColumnCells() for _ in rows[0]]
    for column, cell in zip(head, rows[0], strict=True):
        column.add_text(cell)
    names = None if any(one.numeric_share and one.present for one in head) else rows.pop(0)
    if not rows:
        return Undecodable(Reason.EMPTY)
    if len(set(map(len, rows))) > 1 or (names is not None and len(names) != len(rows[0])):
        return Undecodable(Reason.WRONG_SHAPE, "lines of CSV have different numbers of cells")
    columns = []
    for cells in zip(*rows, strict=True):
        counted = ColumnCells()
        for cell in cells:
            counted.add_text(cell)
        kind = counted.kind(texts=True)
        columns.append([value_of(cell, kind) for cell in cells])
    data = [list(row) for row in zip(*columns, strict=True)]
    return {"dataframe_split": {"data": data, **({"columns": names} if names else {})}}


def _json_lines(body: bytes) -> Any:
    try:
        lines = body.replace(b"\x1e", b"").splitlines()
        rows = [orjson.loads(line) for line in lines if line.strip()]
    except orjson.JSONDecodeError:
        return Undecodable(Reason.NOT_JSON, "a line is not JSON")
    if not rows:
        return Undecodable(Reason.EMPTY)
    return {"instances": [_row(row) for row in rows]}


def _row(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        if key in _ROW:
            return inner
    return value
