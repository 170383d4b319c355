"""Plain JSON, mapped by JSON pointers (RFC 6901) from the configuration.

A step ``*`` stands for every element of an array: ``/rows/*/age`` is a column with one cell a row.
A pointer without it that leads to a list is a column as well; one that leads to a scalar is a cell
that all rows share. A pointer that leads nowhere gives None. Columns have the names of the mapping.
"""

from __future__ import annotations

from functools import lru_cache

from understudy.common.codecs.shape import joined
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    return _decode(payload, spec.json_features)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    predictions = _decode(payload, spec.json_predictions)
    if isinstance(predictions, Undecodable) and isinstance(payload, dict) and payload.get("error"):
        return Undecodable(Reason.ERROR_RESPONSE)
    return predictions


def _decode(payload: object, pointers: tuple[tuple[str, str], ...]) -> Table | Undecodable:
    names, paths = _compiled(pointers)
    parts = [follow(payload, path) for path in paths]
    if parts.count(None) == len(parts):
        return Undecodable(Reason.WRONG_SHAPE, "no pointer of the mapping leads anywhere")
    if list not in set(map(type, parts)):
        return Table(names, 1, parts)
    lengths = {len(value) for value in parts if isinstance(value, list)}
    if len(lengths) > 1:
        return Undecodable(Reason.WRONG_SHAPE, "columns differ in length")
    rows = lengths.pop()
    cells = [value if isinstance(value, list) else [value] * rows for value in parts]
    return joined(names, rows, cells)


@lru_cache(maxsize=256)
def _compiled(
    pointers: tuple[tuple[str, str], ...],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    return tuple(name for name, _ in pointers), tuple(steps(pointer) for _, pointer in pointers)


def steps(pointer: str) -> tuple[str, ...]:
    """The reference tokens of a pointer."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def follow(value: object, path: tuple[str, ...]) -> object:
    """The value at ``path`` within ``value``; None when it does not exist."""
    for index, step in enumerate(path):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list):
            if step == "*":
                rest = path[index + 1 :]
                return [follow(item, rest) for item in value]
            # An index has no sign and no leading zero; "-" is the element after the last.
            if not (step.isascii() and step.isdigit()) or len(step) > 9:
                return None
            if (step[0] == "0" and step != "0") or int(step) >= len(value):
                return None
            value = value[int(step)]
        else:
            return None
    return value


FORMAT = WireFormat(decode_request, decode_response)
