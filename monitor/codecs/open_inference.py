"""Open Inference Protocol V2 over REST: named tensors with shape, datatype and data.

``data`` is row-major, flat or nested. The first dimension counts the rows; a tensor with more than
one element in a row becomes as many columns.
"""

from __future__ import annotations

from itertools import chain
from math import prod
from operator import itemgetter

from monitor.codecs.shape import MAX_WIDTH, flatten, joined, numbered, renamed
from monitor.codecs.spec import ModelSpec
from monitor.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    return _decode(payload, "inputs", spec.features)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    return _decode(payload, "outputs", spec.predictions)


_PARTS = itemgetter("name", "shape", "data")


def _plain_columns(tensors: list[object]) -> Table | None:
    """The usual case, without a loop of ours: several tensors of one shape, a column each."""
    if len(tensors) < 2 or set(map(type, tensors)) != {dict}:
        return None
    try:
        names, shapes, columns = zip(*map(_PARTS, tensors), strict=True)  # type: ignore[arg-type]
    except KeyError:
        return None
    if set(map(type, names)) != {str} or set(map(type, columns)) != {list}:
        return None
    rows = len(columns[0])
    if rows == 0 or shapes[0] not in ([rows], [rows, 1]) or shapes.count(shapes[0]) != len(shapes):
        return None
    if set(map(len, columns)) != {rows}:
        return None
    values = list(chain.from_iterable(zip(*columns, strict=True)))
    return None if list in set(map(type, values)) else Table(names, rows, values)


def _decode(payload: object, key: str, configured: tuple[str, ...]) -> Table | Undecodable:
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is no object")
    tensors = payload.get(key)
    if not isinstance(tensors, list):
        return Undecodable(Reason.WRONG_SHAPE, f"{key} is not a list")
    table = _plain_columns(tensors)
    if table is not None:
        return renamed(table, configured)
    names: list[str] = []
    cells: list[list[object]] = []
    rows = -1
    for tensor in tensors:
        if not isinstance(tensor, dict):
            return Undecodable(Reason.WRONG_SHAPE, "a tensor is no object")
        name, data, shape = tensor.get("name"), tensor.get("data"), tensor.get("shape")
        if not isinstance(name, str) or not isinstance(shape, list):
            return Undecodable(Reason.WRONG_SHAPE, "a tensor lacks its name or shape")
        if not isinstance(data, list):
            parameters = tensor.get("parameters")
            if isinstance(parameters, dict) and "binary_data_size" in parameters:
                return Undecodable(Reason.BINARY, "tensors are in binary form")
            return Undecodable(Reason.WRONG_SHAPE, "a tensor lacks its data")
        if data and type(data[0]) is list:
            data = flatten(data)
        size = len(data)
        if shape == [size, 1] or shape == [size]:
            height = size
        else:
            if any(type(n) is not int or n < 0 for n in shape) or prod(shape) != size:
                return Undecodable(Reason.WRONG_SHAPE, "shape and data do not agree")
            height = shape[0] if shape else 1
        if size == 0:
            return Undecodable(Reason.EMPTY)
        if rows not in (-1, height):
            return Undecodable(Reason.WRONG_SHAPE, "tensors differ in their number of rows")
        rows = height
        width = size // height
        if width == 1:
            names.append(name)
            cells.append(data)
        elif len(tensors) == 1 and len(configured) == width:
            return Table(configured, height, data)
        elif width > MAX_WIDTH:
            names.append(name)
            cells.append([data[i : i + width] for i in range(0, size, width)])
        elif len(tensors) == 1:
            return Table(numbered(name, width), height, data)
        else:
            names += numbered(name, width)
            cells += [data[i::width] for i in range(width)]
    return renamed(joined(tuple(names), rows, cells), configured)
