"""Blocks as Arrow tables, to read records with pandas, DuckDB, Spark …

One row for each row of a record; an undecodable record has one row. Features are
columns ``feature.NAME``, predictions ``prediction.NAME``. Needs pyarrow, which is an extra.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.monitor.errors import MissingExtraError
from understudy.monitor.evidence.blocks.block import RecordBlock
from understudy.monitor.evidence.blocks.cells import (
    BIG,
    BOOL,
    FLOAT,
    INT,
    NULL,
    TEXT,
    Column,
    Grid,
)
from understudy.monitor.records.record import OUTCOMES, ROLES

try:
    import pyarrow
except ImportError as error:
    message = "Arrow tables need pyarrow: pip install 'understudy-serving[parquet]'"
    raise MissingExtraError(message) from error

_NUMERIC = {NULL, FLOAT, INT, BIG, BOOL}
_SIDES = (("feature", "request", "features"), ("prediction", "response", "predictions"))
Hides = Callable[[str], bool]


def _fixed() -> list[tuple[str, Any]]:
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return [
        ("time", pyarrow.timestamp("us", "UTC")),
        ("model", text),
        ("version", text),
        ("arm", text),
        ("assigned", text),
        ("role", text),
        ("outcome", text),
        ("status", pyarrow.uint16()),
        ("duration_seconds", pyarrow.float64()),
        ("first_byte_seconds", pyarrow.float64()),
        ("queue_seconds", pyarrow.float64()),
        ("request_bytes", pyarrow.uint64()),
        ("response_bytes", pyarrow.uint64()),
        ("request_id", pyarrow.string()),
        ("trace_id", pyarrow.string()),
        ("unit", pyarrow.string()),
        ("target", text),
        ("row", pyarrow.uint32()),
        ("request_error", text),
        ("response_error", text),
    ]


class Layout:
    """Collects the columns and types of several blocks into one schema.

    ``hides`` returns whether the column of a name has to be left out.
    """

    def __init__(self, hides: Hides = lambda name: False) -> None:
        self._hides = hides
        self._kinds: dict[str, set[int]] = {}

    def add(self, block: RecordBlock) -> None:
        """Add the columns of a block that will be written."""
        for prefix, _, side in _SIDES:
            for grid in getattr(block, side):
                for name, column in columns_of(grid):
                    if not self._hides(name):
                        known = self._kinds.setdefault(f"{prefix}.{name}", set())
                        known |= kinds_of(column)

    def schema(self) -> Any:
        """The pyarrow.Schema. Columns of several kinds of cells are numbers, or texts of JSON."""
        fields = [*_fixed()]
        fields += [(name, _type(kinds)) for name, kinds in self._kinds.items()]
        return pyarrow.schema(fields)


def kinds_of(column: Column) -> set[int]:
    """The kinds of cells of a column."""
    if column.kinds is None:
        return {column.kind} if column.rows else set()
    return set(distinct(column.kinds).tolist())


def columns_of(grid: Grid) -> Iterator[tuple[str, Column]]:
    """Names and columns."""
    for name in grid.names:
        yield name, grid.column(name)


def _type(kinds: set[int]) -> Any:
    known = kinds - {NULL}
    if known == {BOOL}:
        return pyarrow.bool_()
    if known == {INT}:
        return pyarrow.int64()
    return pyarrow.float64() if known <= _NUMERIC and known else pyarrow.string()


def to_arrow(block: RecordBlock, schema: Any | None = None) -> Any:
    """The pyarrow.RecordBatch of a block, with the schema of a :class:`Layout` or its own."""
    if schema is None:
        layout = Layout()
        layout.add(block)
        schema = layout.schema()
    count = block.count
    request_rows = _rows_of(block.request, block.request_rows, count)
    response_rows = _rows_of(block.response, block.response_rows, count)
    rows = np.maximum(np.maximum(request_rows, response_rows), 1)
    starts = np.concatenate([[0], np.cumsum(rows)[:-1]])
    total = int(rows.sum())
    record = np.repeat(np.arange(count), rows)
    result: dict[str, Any] = dict(_of_records(block, record))
    result["row"] = pyarrow.array((np.arange(total) - starts[record]).astype(np.uint32))
    for prefix, where, side in _SIDES:
        grid_indices = getattr(block, where)
        result[f"{where}_error"] = _errors(block, grid_indices, record)
        many = request_rows if where == "request" else response_rows
        for number, grid in enumerate(getattr(block, side)):
            mine = (
                np.arange(count) if grid_indices is None else np.flatnonzero(grid_indices == number)
            )
            at = _spread(starts[mine], many[mine])
            for name, column in columns_of(grid):
                field = f"{prefix}.{name}"
                if schema.get_field_index(field) >= 0:
                    _put(result, field, schema.field(field).type, column, at, total)
    arrays = [
        result[field.name] if field.name in result else pyarrow.nulls(total, field.type)
        for field in schema
    ]
    arrays = [
        pyarrow.array(cells, field.type) if isinstance(cells, list) else cells.cast(field.type)
        for cells, field in zip(arrays, schema, strict=True)
    ]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def _of_records(block: RecordBlock, record: NDArray[np.intp]) -> Iterator[tuple[str, Any]]:
    numbers = {name: array[record] for name, array in block.numbers.items()}
    models, arms = block.names.models, block.names.arms
    name, version, _ = models[block.model] if block.model < len(models) else ("other", "", "")
    yield (
        "time",
        pyarrow.array((numbers["started"] * 1e6).round().astype(np.int64)).cast(
            pyarrow.timestamp("us", "UTC")
        ),
    )
    yield "model", _codes(np.zeros(len(record), np.int32), [name])
    yield "version", _codes(np.zeros(len(record), np.int32), [version])
    known = [*arms, "other"]
    yield "arm", _codes(np.minimum(numbers["arm"], len(arms)), known)
    # Each experiment of a model numbers the arms anew, one after another.
    assigned = numbers["assigned"].astype(np.int32) - 1
    unknown = assigned >= len(arms) * max(1, len(block.names.splits))
    assigned[~unknown & (assigned >= 0)] %= max(1, len(arms))
    assigned[unknown] = len(arms)
    yield "assigned", _codes(assigned, known)
    yield "role", _codes(numbers["role"], ROLES)
    yield "outcome", _codes(numbers["outcome"], OUTCOMES)
    yield "status", pyarrow.array(numbers["status"])
    for short in ("duration", "first_byte", "queue"):
        yield f"{short}_seconds", pyarrow.array(numbers[f"{short}_ns"] / 1e9)
    yield "request_bytes", pyarrow.array(numbers["request_size"])
    yield "response_bytes", pyarrow.array(numbers["response_size"])
    records = record.tolist()
    for field in ("request_id", "trace_id", "unit", "target"):
        texts = [text.decode("latin-1") for text in block.texts[field].values()]
        column = pyarrow.array([texts[index] for index in records], pyarrow.string())
        yield field, column.dictionary_encode() if field == "target" else column


def _codes(codes: NDArray[Any], texts: Sequence[str]) -> Any:
    """Negative codes are null."""
    wide = codes.astype(np.int32)
    return pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(wide, mask=wide < 0), pyarrow.array(list(texts), pyarrow.string())
    )


def _errors(
    block: RecordBlock, grid_indices: NDArray[np.int16] | None, record: NDArray[np.intp]
) -> Any:
    if grid_indices is None:
        return pyarrow.nulls(len(record), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))
    wide = -1 - grid_indices.astype(np.int32)
    return _codes(wide[record], [str(why.reason) for why in block.undecodable])


def _rows_of(
    grid_indices: NDArray[np.int16] | None, rows: NDArray[np.uint32] | None, count: int
) -> NDArray[np.int64]:
    result = np.ones(count, np.int64) if rows is None else rows.astype(np.int64)
    return result if grid_indices is None else np.where(grid_indices < 0, 0, result)


def _spread(starts: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row indices of records whose rows are contiguous from ``starts``."""
    before = np.cumsum(rows) - rows
    values: NDArray[np.int64] = np.arange(int(rows.sum())) + np.repeat(starts - before, rows)
    return values


def _put(
    found: dict[str, Any],
    name: str,
    kind: Any,
    column: Column,
    at: NDArray[np.int64],
    total: int,
) -> None:
    """Add the cells of a column at their rows; several sets of names may have the same column."""
    if len(at) == total and column.kinds is None and column.numbers is not None:
        numbers = column.numbers
        found[name] = pyarrow.array(numbers != 0 if column.kind == BOOL else numbers)
        if pyarrow.types.is_string(kind):
            found[name] = [json.dumps(cell) for cell in column.values()]
        elif column.kind == BOOL and not pyarrow.types.is_boolean(kind):
            found[name] = pyarrow.array(numbers)
        return
    cells: list[Any] = found.setdefault(name, [None] * total)
    values = column.values()
    if pyarrow.types.is_string(kind):
        plain = kinds_of(column) <= {TEXT, NULL}
        if not plain:
            values = [_text(cell) for cell in values]
    elif pyarrow.types.is_float64(kind):
        values = [None if cell is None else _float(cell) for cell in values]
    for index, cell in zip(at.tolist(), values, strict=True):
        cells[index] = cell


def _text(cell: object) -> str | None:
    return cell if cell is None or isinstance(cell, str) else json.dumps(cell)


def _float(cell: Any) -> float:
    try:
        return float(cell)
    except OverflowError:
        return float("inf") if cell > 0 else float("-inf")
