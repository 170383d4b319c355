"""Turns the shapes of tabular data in JSON into one :class:`Table`.

Loops over cells run in C: chain, zip, map, sum. A row wider than MAX_WIDTH without names is one
vector and not a column per element, since ten thousand histograms would be of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

from understudy.common.codecs.table import Reason, Table, Undecodable

MAX_WIDTH = 256
MAX_NAME = 256
"""Largest length of a name in a payload; names are stored, and become labels."""
MAX_SPARSE = 100_000
"""Above this many cells, a table may have at most eight times the cells of its payload."""

_NESTED = frozenset((list, dict))


@lru_cache(maxsize=1024)
def numbered(stem: str, width: int) -> tuple[str, ...]:
    """``x[0]``, ``x[1]`` …; a single column is ``x``."""
    return (stem,) if width == 1 else tuple(f"{stem}[{i}]" for i in range(width))


def plain(cells: list[Any]) -> bool:
    """Whether no cell is a list or a mapping."""
    try:
        sum(cells, 0.0)  # adding numbers takes a quarter of the time of checking their types
    except (TypeError, OverflowError):
        return _NESTED.isdisjoint(map(type, cells))
    return True


def leaves_of(cells: list[Any]) -> tuple[int, list[Any]]:
    """The number of elements of each cell, and all elements in row-major order.

    The number is 0, and the cells are as they were, unless they are tensors of one shape.
    """
    width, leaves = 1, cells
    while not plain(leaves):
        kinds = set(map(type, leaves))
        if list not in kinds:
            texts = _texts(leaves)
            return (width, texts) if plain(texts) else (0, cells)
        if len(kinds) > 1:
            return 0, cells
        lengths = set(map(len, leaves))
        step = lengths.pop()
        if lengths or not step:
            return 0, cells
        width *= step
        leaves = list(chain.from_iterable(leaves))
    return width, leaves


def is_bytes(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is TensorFlow Serving's encoding of bytes."""
    return len(value) == 1 and type(value.get("b64")) is str


def _texts(cells: list[Any]) -> list[Any]:
    """Bytes as TensorFlow Serving writes them, ``{"b64": text}``, become their (encoded) text."""
    return [cell["b64"] if type(cell) is dict and is_bytes(cell) else cell for cell in cells]


def from_rows(rows: object, names: tuple[str, ...], stem: str) -> Table | Undecodable:
    """A list of rows: each a scalar, a list of cells, or a mapping."""
    if not isinstance(rows, list):
        return Undecodable(Reason.WRONG_SHAPE, "rows are not a list")
    if not rows:
        return Undecodable(Reason.EMPTY)
    kinds = set(map(type, rows))
    if kinds == {dict}:
        return _from_mappings(rows, names, stem)
    if kinds != {list}:
        if not kinds.isdisjoint(_NESTED):
            return Undecodable(Reason.WRONG_SHAPE, "rows are of different kinds")
        return Table(_single(names, stem), len(rows), rows)
    width = len(rows[0])
    if set(map(len, rows)) != {width}:
        # Rows of different lengths are sequences (tokens, series), not columns.
        return Table(_single(names, stem), len(rows), rows)
    if width == 0:
        return Undecodable(Reason.EMPTY)
    values = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    if plain(values):
        return positional(values, len(rows), width, names, stem)
    inner, leaves = leaves_of(values)
    if inner and (len(names) != width or inner == 1):
        return positional(leaves, len(rows), width * inner, names, stem)
    if len(names) != width:
        if width > MAX_WIDTH:
            return Table(_single(names, stem), len(rows), rows)
        names = numbered(stem, width)
    return spread(names, len(rows), values)


def _from_mappings(
    rows: list[dict[str, Any]], names: tuple[str, ...], stem: str
) -> Table | Undecodable:
    if is_bytes(rows[0]):
        texts = _texts(rows)
        if plain(texts):
            return Table(_single(names, stem), len(rows), texts)
    return from_records(rows, names)


def _single(names: tuple[str, ...], stem: str) -> tuple[str, ...]:
    return names if len(names) == 1 else (stem,)


def positional(
    leaves: list[Any], rows: int, width: int, names: tuple[str, ...], stem: str
) -> Table:
    """Names for positional columns: the configured ones if their number fits."""
    if len(names) == width:
        return Table(names, rows, leaves)
    if width > MAX_WIDTH:
        return Table(_single(names, stem), rows, _vectors(leaves, width))
    return Table(numbered(stem, width), rows, leaves)


def _vectors(leaves: list[Any], width: int) -> list[Any]:
    return [leaves[start : start + width] for start in range(0, len(leaves), width)]


def from_records(
    rows: list[dict[str, Any]], configured: tuple[str, ...] = ()
) -> Table | Undecodable:
    """A list of mappings, at least one; a key that a row lacks is a cell of None."""
    names = tuple(rows[0])
    values: list[Any] | None = None
    if len(rows) == 1:
        values = list(rows[0].values())
    elif names and set(map(len, rows)) == {len(names)}:
        try:
            cells = map(itemgetter(*names), rows)
            values = list(cells if len(names) == 1 else chain.from_iterable(cells))
        except KeyError:
            pass
    if values is None:
        names = tuple(dict.fromkeys(chain.from_iterable(rows)))
        size = len(names) * len(rows)
        if size > MAX_SPARSE and size > 8 * sum(map(len, rows)):
            return Undecodable(Reason.TOO_LARGE, "rows have too few keys in common")
        empty = dict.fromkeys(names)
        values = list(chain.from_iterable(map(dict.values, map(empty.__or__, rows))))
    if not names:
        return Undecodable(Reason.EMPTY)
    return keyed(names, len(rows), values, configured)


def from_columns(
    columns: Mapping[str, Any], configured: tuple[str, ...] = ()
) -> Table | Undecodable:
    """A mapping of names to columns: each a list of cells or of equal rows, or a scalar."""
    cells = [column if type(column) is list else [column] for column in columns.values()]
    lengths = set(map(len, cells))
    if len(lengths) > 1:
        return Undecodable(Reason.WRONG_SHAPE, "columns differ in length")
    rows = lengths.pop() if lengths else 0
    table = joined(tuple(columns), rows, cells)
    if isinstance(table, Undecodable):
        return table
    return keyed(table.names, rows, table.values, configured)


def named(
    names: tuple[str, ...], rows: int, values: list[Any], configured: tuple[str, ...] = ()
) -> Table | Undecodable:
    """Columns as in :func:`keyed`, with names that may contain duplicates."""
    if len(set(names)) < len(names):
        return Undecodable(Reason.WRONG_SHAPE, "two columns have the same name")
    return keyed(names, rows, values, configured)


def keyed(
    names: tuple[str, ...], rows: int, values: list[Any], configured: tuple[str, ...] = ()
) -> Table | Undecodable:
    """Columns with different names of the payload, which they keep.

    The elements of one single tensor have none, and take the configured ones if their number fits.
    """
    if len("".join(names)) > MAX_NAME and max(map(len, names)) > MAX_NAME:
        return Undecodable(Reason.TOO_LARGE, f"a name has more than {MAX_NAME} characters")
    return Table(names, rows, values) if plain(values) else spread(names, rows, values, configured)


def spread(
    names: tuple[str, ...], rows: int, values: list[Any], configured: tuple[str, ...] = ()
) -> Table | Undecodable:
    """Columns of which some hold tensors: of one shape, they become a column per element."""
    columns: list[str] = []
    cells: list[list[Any]] = []
    for position, name in enumerate(names):
        column = values[position :: len(names)]
        width, leaves = leaves_of(column)
        if width <= 1:
            columns.append(name)
            cells.append(leaves)
        elif len(names) == 1 and len(configured) == width:
            return Table(configured, rows, leaves)
        elif width > MAX_WIDTH:
            columns.append(name)
            cells.append(_vectors(leaves, width))
        else:
            columns += numbered(name, width)
            cells += [leaves[i::width] for i in range(width)]
    if len(set(columns)) < len(columns):
        return Undecodable(Reason.WRONG_SHAPE, "two columns have the same name")
    return joined(tuple(columns), rows, cells)


def joined(names: tuple[str, ...], rows: int, cells: list[list[Any]]) -> Table | Undecodable:
    """Columns of ``rows`` cells each, put together."""
    if not names or rows < 1:
        return Undecodable(Reason.EMPTY)
    if len(names) == 1:
        return Table(names, rows, cells[0])
    across = cells if rows == 1 else zip(*cells, strict=True)
    return Table(names, rows, list(chain.from_iterable(across)))
