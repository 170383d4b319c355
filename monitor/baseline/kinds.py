"""Kinds of columns, and the series that each is looked at by.

A numeric, boolean or categorical column is its own series. Of a datetime the hour, the weekday and
the age are looked at; of a text its length, what it is made of, and how much of it is new; of a
vector its norm and a few fixed random projections. Builder and live service call the same
:func:`expand`.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.model import TOKEN_BYTES, Column, Kind

Floats = NDArray[np.float64]
Series = dict[str, "Floats | list[str | None]"]

PROJECTIONS = 8
TOKEN_BITS = 8 * TOKEN_BYTES
"""Size of the sketch of known tokens: 4 KiB, and at most one token in fifty is taken for another's
when it holds five thousand."""
_SAMPLE = 500
_LONG_TEXT = 40
_MILLISECONDS = 1e11
_SEED = 20160917
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def infer(cells: Sequence[Any]) -> Kind:
    """The kind of a column by its cells; categorical where there is nothing to see."""
    present = [c for c in cells if c is not None and not (isinstance(c, float) and math.isnan(c))]
    sample = present[:: max(1, len(present) // _SAMPLE)]
    if not sample:
        return "numeric" if any(isinstance(c, float) for c in cells) else "categorical"
    count = len(sample)

    def share(kind: Any) -> float:
        return sum(1 for c in sample if isinstance(c, kind)) / count

    if share(bool) > 0.5:
        return "boolean"
    if share((int, float)) > 0.5:
        return "numeric"
    if share((list, tuple)) > 0.5:
        return "vector"
    texts = [c for c in sample if isinstance(c, str)]
    if not texts:
        return "categorical"
    if sum(1 for c in texts if instant(c) is not None) >= 0.95 * len(texts):
        return "datetime"
    different = len(set(texts)) / len(texts)
    length = sum(map(len, texts)) / len(texts)
    if different > 0.5 and (length > _LONG_TEXT or sum(1 for t in texts if " " in t) > count / 2):
        return "text"
    return "categorical"


def instant(cell: Any) -> float | None:
    """Unix seconds of an ISO 8601 text or of an epoch in seconds or milliseconds; else None."""
    if isinstance(cell, datetime):
        return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()
    if isinstance(cell, str):
        if len(cell) < 8 or not cell[:4].isdigit():
            return None
        try:
            return instant(datetime.fromisoformat(cell))
        except (ValueError, OverflowError):
            return None
    if isinstance(cell, (int, float)) and not isinstance(cell, bool) and math.isfinite(cell):
        return cell / 1000.0 if abs(cell) > _MILLISECONDS else float(cell)
    return None


def category(cell: Any) -> str | None:
    """A cell's category as text; None for what is missing or no scalar."""
    if isinstance(cell, str):
        text = cell[:128]
        # JSON can spell half a surrogate pair, which no file can hold.
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
    if cell is None:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    return None


def number(cell: Any) -> float:
    """A cell as a float; NaN for what is missing or no number."""
    if isinstance(cell, (int, float)):
        try:
            return float(cell)
        except OverflowError:
            return math.inf if cell > 0 else -math.inf
    return math.nan


def prepare(column: Column, cells: Sequence[Any]) -> None:
    """Take from the first cells of a column what its kind has to know before :func:`expand`."""
    if column.kind == "text" and "tokens" not in column.extra:
        sketch = bytearray(TOKEN_BITS // 8)
        for cell in cells:
            if isinstance(cell, str):
                for token in cell.split():
                    index = _place(token)
                    sketch[index >> 3] |= 1 << (index & 7)
        column.extra["tokens"] = base64.b64encode(sketch).decode()
    if column.kind == "vector" and "length" not in column.extra:
        lengths = [len(c) for c in cells if isinstance(c, (list, tuple))]
        column.extra["length"] = max(set(lengths), key=lengths.count) if lengths else 0


def expand(column: Column, cells: Sequence[Any], times: Floats | None) -> Series:
    """The series of a column's cells, by full name; NaN or None for what is missing or mistyped.

    ``times`` are the unix times of the rows, where they are known.
    """
    name = column.name
    if column.kind == "numeric":
        return {name: np.array([number(c) for c in cells], np.float64)}
    if column.kind in ("boolean", "categorical"):
        return {name: [category(c) for c in cells]}
    if column.kind == "datetime":
        return _datetimes(name, cells, times)
    if column.kind == "text":
        return _texts(name, cells, column.extra.get("tokens", ""))
    return _vectors(name, cells, int(column.extra.get("length", 0)))


def _datetimes(name: str, cells: Sequence[Any], times: Floats | None) -> Series:
    moments = [instant(c) for c in cells]
    hours: list[str | None] = []
    days: list[str | None] = []
    for moment in moments:
        try:
            when = datetime.fromtimestamp(moment, UTC) if moment is not None else None
        except (ValueError, OverflowError, OSError):
            when = None
        hours.append(f"{when.hour:02d}" if when else None)
        days.append(_WEEKDAYS[when.weekday()] if when else None)
    result: Series = {f"{name}.hour": hours, f"{name}.weekday": days}
    if times is not None:
        seconds = np.array([math.nan if m is None else m for m in moments], np.float64)
        result[f"{name}.age"] = times - seconds
    return result


def _texts(name: str, cells: Sequence[Any], tokens: str) -> Series:
    sketch = _known(tokens)
    rows = np.full((len(cells), 5), np.nan)
    for row, cell in enumerate(cells):
        if not isinstance(cell, str):
            continue
        length = len(cell)
        letters = sum(map(str.isalpha, cell))
        digits = sum(map(str.isdigit, cell))
        words = cell.split()
        new = sum(1 for w in words if not sketch[_place(w) >> 3] >> (_place(w) & 7) & 1)
        rows[row] = (
            length,
            letters / max(length, 1),
            digits / max(length, 1),
            sum(map(str.isspace, cell)) / max(length, 1),
            new / max(len(words), 1),
        )
    parts = ("length", "letters", "digits", "spaces", "unseen")
    return {f"{name}.{part}": rows[:, index].copy() for index, part in enumerate(parts)}


@lru_cache(maxsize=64)
def _known(tokens: str) -> bytes:
    return base64.b64decode(tokens) if tokens else bytes(TOKEN_BITS // 8)


def _place(token: str) -> int:
    return zlib.crc32(token.lower().encode("utf-8", "replace")) % TOKEN_BITS


def _vectors(name: str, cells: Sequence[Any], length: int) -> Series:
    rows = np.full((len(cells), length), np.nan)
    for row, cell in enumerate(cells):
        if isinstance(cell, (list, tuple)) and len(cell) == length:
            try:
                rows[row] = cell
            except (TypeError, ValueError):
                rows[row] = np.nan
    with np.errstate(over="ignore", invalid="ignore"):
        projected = rows @ _directions(length).T
        result: Series = {f"{name}.norm": np.sqrt((rows**2).sum(axis=1))}
    if not length:
        result[f"{name}.norm"] = np.full(len(cells), np.nan)
    for index in range(PROJECTIONS):
        values = projected[:, index] if length else np.full(len(cells), np.nan)
        result[f"{name}.p{index + 1}"] = values
    return result


@lru_cache(maxsize=16)
def _directions(length: int) -> Floats:
    """Fixed directions of unit length: the same for every build and every replica."""
    drawn = np.random.default_rng(_SEED).normal(size=(PROJECTIONS, length))
    norms = np.sqrt((drawn**2).sum(axis=1, keepdims=True))
    directions: Floats = drawn / np.maximum(norms, 1e-12)
    return directions
