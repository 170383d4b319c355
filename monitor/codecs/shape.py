"""From the shapes in which JSON carries tabular data to one :class:`Table`.

The loops over cells are those of C: chain, zip, map. A row wider than MAX_WIDTH without names is
one vector and not a column per element, since nobody would look at ten thousand histograms.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from operator import itemgetter

from monitor.codecs.table import Reason, Table, Undecodable

MAX_WIDTH = 256


@lru_cache(maxsize=1024)
def numbered(stem: str, width: int) -> tuple[str, ...]:
    """``x[0]``, ``x[1]`` …; a single column is ``x``."""
    return (stem,) if width == 1 else tuple(f"{stem}[{i}]" for i in range(width))


def from_rows(rows: object, names: tuple[str, ...], stem: str) -> Table | Undecodable:
    """A list of rows: each a scalar, a list of cells, or a mapping."""
    if not isinstance(rows, list):
        return Undecodable(Reason.WRONG_SHAPE, "rows are not a list")
    if not rows:
        return Undecodable(Reason.EMPTY)
    kinds = set(map(type, rows))
    if kinds == {dict}:
        return from_records(rows)
    if dict in kinds:
        return Undecodable(Reason.WRONG_SHAPE, "rows are of different kinds")
    if list not in kinds:
        return Table(names if len(names) == 1 else (stem,), len(rows), rows)
    if kinds != {list}:
        return Undecodable(Reason.WRONG_SHAPE, "rows are of different kinds")
    width = len(rows[0])
    if width == 0:
        return Undecodable(Reason.EMPTY)
    if set(map(len, rows)) != {width}:
        # Rows of different lengths are sequences (tokens, series), not columns.
        return Table((names[0] if len(names) == 1 else stem,), len(rows), rows)
    values = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    if len(names) == width:
        return Table(names, len(rows), _unwrapped(values))
    if width > MAX_WIDTH or (width > 1 and list in set(map(type, values))):
        return Table((stem,), len(rows), rows)
    return Table(numbered(stem, width), len(rows), _unwrapped(values))


def from_records(rows: list[dict[str, object]]) -> Table | Undecodable:
    """A list of mappings; a key that a row lacks is a cell of None."""
    first = rows[0]
    names = tuple(first)
    if len(rows) == 1:
        values = list(first.values())
    elif len(names) > 1 and all(row.keys() == first.keys() for row in rows):
        values = list(chain.from_iterable(map(itemgetter(*names), rows)))
    else:
        names = tuple(dict.fromkeys(chain.from_iterable(rows)))
        values = [row.get(name) for row in rows for name in names]
    if not names:
        return Undecodable(Reason.EMPTY)
    return Table(names, len(rows), _unwrapped(values))


def from_columns(columns: Mapping[str, object]) -> Table | Undecodable:
    """A mapping of names to columns: each a list of cells or of equal rows, or a scalar."""
    names: list[str] = []
    cells: list[list[object]] = []
    rows = -1
    for name, column in columns.items():
        if not isinstance(column, list):
            column = [column]
        if rows not in (-1, len(column)):
            return Undecodable(Reason.WRONG_SHAPE, "columns differ in length")
        rows = len(column)
        part = from_rows(column, (), name)
        if isinstance(part, Undecodable):
            return part
        width = len(part.names)
        names += part.names
        cells += [part.values] if width == 1 else [part.values[i::width] for i in range(width)]
    return joined(tuple(names), rows, cells)


def joined(names: tuple[str, ...], rows: int, cells: list[list[object]]) -> Table | Undecodable:
    """Columns of ``rows`` cells each, put together."""
    if not names or rows < 1:
        return Undecodable(Reason.EMPTY)
    if len(names) == 1:
        return Table(names, rows, cells[0])
    return Table(names, rows, list(chain.from_iterable(zip(*cells, strict=True))))


def flatten(data: list[object]) -> list[object]:
    """The leaves of a nested list, in row-major order."""
    while data and list in set(map(type, data)):
        data = list(chain.from_iterable(d if type(d) is list else (d,) for d in data))
    return data


def renamed(table: Table | Undecodable, names: tuple[str, ...]) -> Table | Undecodable:
    """The same with the configured names, where their number fits."""
    if isinstance(table, Table) and names and len(names) == len(table.names):
        return Table(names, table.rows, table.values)
    return table


def _unwrapped(values: list[object]) -> list[object]:
    """A vector of one element is the element: ``[[1.0], [2.0]]`` is one column of numbers."""
    if list in set(map(type, values)):
        return [v[0] if type(v) is list and len(v) == 1 else v for v in values]
    return values
