"""Blocks to bytes and back, by the schema in docs/records.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.monitor.errors import BlockError, ProtocolError
from understudy.monitor.evidence.blocks.block import (
    NUMBERS,
    TEXTS,
    Block,
    Head,
    Heartbeat,
    LabelBlock,
    RecordBlock,
    Texts,
    check,
    reason_of,
)
from understudy.monitor.evidence.blocks.cells import (
    BIG,
    BOOL,
    FLOAT,
    INT,
    JSON,
    KINDS,
    NULL,
    TEXT,
    Column,
    Grid,
    decimals,
)
from understudy.monitor.evidence.blocks.wire import Reader, Writer
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OUTCOMES, ROLES

SCHEMA = 4
"""2 added the outcome ``open``; 3 those up to ``fell_behind``, and the ids of the proxy, by which
mirrored requests are sampled; 4 later outcomes."""
"""Increased only when older readers must not read a block; additions keep it."""
_NEEDED = ("started",)
_WIDTHS: Mapping[int, type[np.generic]] = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_WHERE = ("request", "response")
_MOST_CELLS = 50_000_000
_MOST_HINTS = 256
_BLIND = 32


def encode(block: Block) -> bytes:
    """The bytes of a block. Raises BlockError when there are too many."""
    writer = Writer()
    head = block.head
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "",
        "source": head.source,
        "run": head.run,
        "partition": head.partition,
        "seq": head.seq,
        "created": head.created,
    }
    if isinstance(block, RecordBlock):
        _put_records(header, writer, block)
    elif isinstance(block, LabelBlock):
        header["kind"] = "labels"
        header["count"] = len(block.labels)
        text = json.dumps([_label_row(*one) for one in block.labels]).encode()
        header["labels"] = {"at": writer.put(text), "size": len(text)}
    else:
        header["kind"] = "heartbeat"
        header["clock"] = block.clock
        header["complete"] = block.complete
        header["dropped"] = block.dropped
    return writer.finish(header)


def decode(data: bytes) -> Block:
    """The block in ``data``. Raises BlockError, whatever the bytes are.

    ``data`` is the value of one message of ``<prefix>.records``. The block is a RecordBlock, a
    LabelBlock or a Heartbeat; the reason of a BlockError is one of ``BlockError.REASONS``.

    >>> decode(b"a message of something else")
    Traceback (most recent call last):
    understudy.monitor.errors.BlockError: not_a_block: ...
    """
    reader = Reader(data)
    header = reader.header
    try:
        schema = int(header["schema"])
        if schema > SCHEMA:
            raise BlockError("newer_schema", f"schema {schema}; this reader knows up to {SCHEMA}")
        head = Head(
            str(header["source"]),
            str(header["run"]),
            int(header["partition"]),
            int(header["seq"]),
            float(header["created"]),
        )
        kind = header["kind"]
        if kind == "records":
            return _records(head, reader)
        if kind == "labels":
            where = header["labels"]
            items = json.loads(reader.data(int(where["at"]), int(where["size"])))
            return LabelBlock(head, tuple(_label(item) for item in items))
        if kind == "heartbeat":
            clock = float(header["clock"])
            complete, dropped = header.get("complete", clock), header.get("dropped", 0)
            return Heartbeat(head, clock, float(complete), int(dropped))
    except BlockError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError) as error:
        raise BlockError("wrong_shape", f"inconsistent header: {error!r}") from error
    except (ProtocolError, RecursionError) as error:
        raise BlockError("wrong_shape", str(error)) from error
    raise BlockError("unknown_kind", f"a block of kind {str(kind)[:40]!r} is not known here")


# Records ----------------------------------------------------------------------------------------


def _put_records(header: dict[str, Any], writer: Writer, block: RecordBlock) -> None:
    header["kind"] = "records"
    header["count"] = block.count
    header["model"] = block.model
    names = _names_bytes(block.names)
    header["names"] = {"at": writer.put(names), "size": len(names)}
    columns: dict[str, dict[str, Any]] = {}
    for name, kind in NUMBERS.items():
        array = block.numbers[name]
        columns[name] = {"type": array.dtype.str[1:], "at": writer.put(array.tobytes())}
        assert array.dtype == kind
    for name in TEXTS:
        texts = block.texts[name]
        if texts.same is not None:
            columns[name] = {"type": "bytes", "same": texts.same.decode("latin-1")}
        else:
            columns[name] = {
                "type": "bytes",
                "lengths": writer.put(texts.lengths.tobytes()),
                "at": writer.put(texts.data),
                "size": len(texts.data),
            }
    for name in ("request", "response", "request_rows", "response_rows"):
        array_ = getattr(block, name)
        if array_ is not None:
            columns[name] = {"type": array_.dtype.str[1:], "at": writer.put(array_.tobytes())}
    header["columns"] = columns
    header["undecodable"] = [[str(u.reason), u.detail] for u in block.undecodable]
    header["features"] = [_put_grid(writer, grid) for grid in block.features]
    header["predictions"] = [_put_grid(writer, grid) for grid in block.predictions]


def _put_grid(writer: Writer, grid: Grid) -> dict[str, Any]:
    result: dict[str, Any] = {"names": grid.names, "rows": grid.rows}
    if grid.matrix is not None:
        result |= _put_floats(writer, grid.names, grid.matrix)
    else:
        result["columns"] = [_put_column(writer, column) for column in grid.columns]
    return result


_hints: dict[tuple[str, ...], int] = {}
"""By names: the last scale of their decimals; below zero, for how many blocks to skip the search.
"""


def _put_floats(
    writer: Writer, names: tuple[str, ...], matrix: NDArray[np.float64]
) -> dict[str, Any]:
    """Columns of floats. Those with few decimals are stored as integers over a power of ten: half
    the bytes, and less CPU than compressing floats takes."""
    hint = _hints.get(names)
    if hint is not None and hint < 0:
        _hints[names] = hint + 1
        return {"floats": writer.put(matrix.tobytes())}
    result = decimals(matrix, hint)
    if len(_hints) >= _MOST_HINTS:
        _hints.clear()
    if result is None:
        _hints[names] = -_BLIND
        return {"floats": writer.put(matrix.tobytes())}
    scale, whole, fits = result
    _hints[names] = scale
    if fits.all():
        return {"decimals": writer.put(whole.tobytes()), "scale": scale}
    return {
        "decimals": writer.put(whole[fits].tobytes()),
        "scale": scale,
        "which": np.flatnonzero(fits).tolist(),
        "floats": writer.put(matrix[~fits].tobytes()),
    }


def _put_column(writer: Writer, column: Column) -> dict[str, Any]:
    result: dict[str, Any] = {"type": KINDS[column.kind] if column.kinds is None else "mixed"}
    if column.kinds is not None:
        result["kinds"] = writer.put(column.kinds.tobytes())
    if column.numbers is not None:
        result["numbers"] = writer.put(column.numbers.tobytes())
    if column.codes is not None:
        texts = [text.encode("utf-8", "surrogatepass") for text in column.texts]
        data = b"".join(texts)
        lengths = np.fromiter(map(len, texts), np.uint32, len(texts))
        result["codes"] = writer.put(column.codes.tobytes())
        result["width"] = column.codes.itemsize
        result["texts"] = len(texts)
        result["lengths"] = writer.put(lengths.tobytes())
        result["at"] = writer.put(data)
        result["size"] = len(data)
    return result


def _records(head: Head, reader: Reader) -> RecordBlock:
    header = reader.header
    count = int(header["count"])
    columns = header["columns"]
    # Memory is allocated by count: reject counts larger than the data.
    check(0 < count <= reader.size // 8, f"{count:,} records do not fit into its data")
    where = header["names"]
    names = _names(reader.data(int(where["at"]), int(where["size"])))
    numbers = {name: _number(reader, columns, name, kind, count) for name, kind in NUMBERS.items()}
    check(int(numbers["outcome"].max()) < len(OUTCOMES), "unknown outcome")
    check(int(numbers["role"].max()) < len(ROLES), "unknown role")
    undecodable = tuple(reason_of(str(r), str(d)) for r, d in header.get("undecodable", ()))
    block = RecordBlock(
        head,
        names,
        int(header["model"]),
        count,
        numbers,
        {name: _texts(reader, columns.get(name), count) for name in TEXTS},
        tuple(_grid(reader, grid) for grid in header.get("features", ())),
        tuple(_grid(reader, grid) for grid in header.get("predictions", ())),
        undecodable,
    )
    check(block.model >= 0, "negative model index")
    for name, grids in zip(_WHERE, (block.features, block.predictions), strict=True):
        grid_indices, rows = _grid_indices(reader, columns, name, count, grids, len(undecodable))
        setattr(block, name, grid_indices)
        setattr(block, f"{name}_rows", rows)
    return block


def _number(
    reader: Reader, columns: Mapping[str, Any], name: str, kind: type[np.generic], count: int
) -> NDArray[Any]:
    location = columns.get(name)
    if location is None:
        check(name not in _NEEDED, f"the column {name} is missing")
        return np.zeros(count, kind)
    stored = np.dtype("<" + str(location["type"]))
    values = reader.array(int(location["at"]), count, stored)
    if stored == kind:
        return values
    # A later writer may need a wider type; its values may still be narrow.
    narrow = values.astype(kind)
    check(bool((narrow == values).all()), f"the column {name} holds values of a wider type")
    return narrow


def _texts(reader: Reader, location: Mapping[str, Any] | None, count: int) -> Texts:
    if location is None:
        return Texts(count, b"")
    if "same" in location:
        return Texts(count, str(location["same"]).encode("latin-1"))
    lengths = reader.array(int(location["lengths"]), count, np.uint16)
    size = int(location["size"])
    check(int(lengths.sum(dtype=np.int64)) == size, "lengths of texts do not add up")
    return Texts(count, None, lengths, reader.data(int(location["at"]), size))


def _grid_indices(
    reader: Reader,
    columns: Mapping[str, Any],
    name: str,
    count: int,
    grids: Sequence[Grid],
    reasons: int,
) -> tuple[NDArray[np.int16] | None, NDArray[np.uint32] | None]:
    grid_indices = rows = None
    if name in columns:
        grid_indices = _number(reader, columns, name, np.int16, count)
        low, high = int(grid_indices.min()), int(grid_indices.max())
        check(-reasons <= low and high < len(grids), f"{name}: index out of range")
    if f"{name}_rows" in columns:
        rows = _number(reader, columns, f"{name}_rows", np.uint32, count)
    if grid_indices is None and rows is None and len(grids) == 1:
        check(grids[0].rows == count, f"{name}: {grids[0].rows} rows for {count} records")
        return None, None
    for number, grid in enumerate(grids):
        mine = np.full(count, number == 0) if grid_indices is None else grid_indices == number
        total = int(mine.sum()) if rows is None else int(rows[mine].sum(dtype=np.int64))
        check(total == grid.rows, f"{name}: {grid.rows} rows for {total} of its records")
    check(grid_indices is not None or len(grids) == 1, f"{name}: {len(grids)} sets of names")
    return grid_indices, rows


def _grid(reader: Reader, data: Mapping[str, Any]) -> Grid:
    names, rows = _interned(tuple(map(str, data["names"]))), int(data["rows"])
    check(bool(names) and 0 <= rows * len(names) <= _MOST_CELLS, "invalid size of a table")
    if "columns" not in data:
        return Grid(names, rows, _floats(reader, data, len(names), rows))
    columns = tuple(_column(reader, rows, column) for column in data["columns"])
    check(len(columns) == len(names), f"{len(columns)} columns for {len(names)} names")
    return Grid(names, rows, None, columns)


def _floats(reader: Reader, data: Mapping[str, Any], width: int, rows: int) -> NDArray[np.float64]:
    if "decimals" not in data:
        return reader.array(int(data["floats"]), width * rows, np.float64).reshape(width, rows)
    which = data.get("which")
    many = width if which is None else len(which)
    whole = reader.array(int(data["decimals"]), many * rows, np.int32).reshape(many, rows)
    cells: NDArray[np.float64] = whole / 10.0 ** int(data["scale"])
    if which is None:
        return cells
    fits = np.zeros(width, np.bool_)
    fits[np.array(which, np.intp)] = True
    check(int(fits.sum()) == many and min(which, default=0) >= 0, "duplicate column")
    others = reader.array(int(data["floats"]), (width - many) * rows, np.float64)
    values = np.empty((width, rows))
    values[fits] = cells
    values[~fits] = others.reshape(width - many, rows)
    return values


def _column(reader: Reader, rows: int, data: Mapping[str, Any]) -> Column:
    mixed = data["type"] == "mixed"
    kind = NULL if mixed else KINDS.index(data["type"])
    kinds = numbers = codes = None
    texts: tuple[str, ...] = ()
    if mixed:
        kinds = reader.array(int(data["kinds"]), rows, np.uint8)
        check(not rows or int(kinds.max()) < len(KINDS), "unknown kind of cell")
    if "numbers" in data:
        stored = np.int64 if kind == INT else np.uint8 if kind == BOOL else np.float64
        numbers = reader.array(int(data["numbers"]), rows, stored)
    if "codes" in data:
        many = int(data["texts"])
        codes = reader.array(int(data["codes"]), rows, _WIDTHS[int(data["width"])])
        check(not rows or int(codes.max()) < many, "text index out of range")
        lengths = reader.array(int(data["lengths"]), many, np.uint32)
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        check((ends[-1] if ends else 0) == int(data["size"]), "lengths of texts do not add up")
        blob = reader.data(int(data["at"]), int(data["size"]))
        texts = tuple(
            blob[a:b].decode("utf-8", "surrogatepass")
            for a, b in zip([0, *ends], ends, strict=False)
        )
    present = {kind} if kinds is None else set(distinct(kinds).tolist())
    check(numbers is not None or present.isdisjoint((FLOAT, INT, BOOL)), "numbers are missing")
    check(codes is not None or present.isdisjoint((TEXT, JSON, BIG)), "texts are missing")
    return Column(rows, kind, numbers, codes, texts, kinds)


@lru_cache(maxsize=256)
def _interned(names: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for the same names of many blocks: they are keys, and are compared often."""
    return names


@lru_cache(maxsize=256)
def _names_bytes(names: Names) -> bytes:
    return orjson.dumps(names.to_dict())


@lru_cache(maxsize=1024)
def _names(data: bytes) -> Names:
    return Names.from_json(data)


# Labels -----------------------------------------------------------------------------------------


def _label_row(received: float, label: Label) -> list[Any]:
    return [
        *(received, label.request_id, label.row, label.label, label.reward, label.at, label.key),
        *([label.source] if label.source is not None else []),
    ]


def _label(item: Sequence[Any]) -> tuple[float, Label]:
    # Ignore fields that a later version appends.
    received, request_id, row, label, reward, at, key = item[:7]
    source = item[7] if len(item) > 7 else None
    check(isinstance(request_id, str) and isinstance(row, int), "a label without request id or row")
    check(label is None or isinstance(label, (str, int, float)), "a label must be a scalar")
    return float(received), Label(
        request_id,
        row,
        label,
        None if reward is None else float(reward),
        None if at is None else float(at),
        None if key is None else str(key),
        None if source is None else str(source),
    )
