"""Open Inference Protocol V2 over REST: named tensors with shape, datatype and data.

``data`` is row-major, flat or nested. The first dimension counts the rows; a tensor with more than
one element in a row becomes as many columns. A single tensor is what servers call ``input-0`` or
``predict``: its columns are positions. Several tensors keep their names.
"""

from __future__ import annotations

from itertools import chain
from math import prod
from operator import itemgetter
from typing import Any

from understudy.common.codecs.shape import MAX_NAME, leaves_of, named, plain, positional
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable

_MAX_DIMENSIONS = 32
_ELSEWHERE = frozenset(("binary_data_size", "shared_memory_region"))
_PARTS = itemgetter("name", "shape", "data")


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    return _decode(payload, "inputs", spec.features)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    return _decode(payload, "outputs", spec.predictions)


def _decode(payload: object, key: str, configured: tuple[str, ...]) -> Table | Undecodable:
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is not an object")
    tensors = payload.get(key)
    if not isinstance(tensors, list):
        if key == "outputs" and "error" in payload:
            return Undecodable(Reason.ERROR_RESPONSE)
        return Undecodable(Reason.WRONG_SHAPE, f"{key} is not a list")
    if len(tensors) == 1:
        tensor = _tensor(tensors[0])
        if isinstance(tensor, Undecodable):
            return tensor
        name, rows, leaves = tensor
        return positional(leaves, rows, len(leaves) // rows, configured, name)
    table = _plain_columns(tensors)
    return table if table is not None else _columns(tensors)


def _plain_columns(tensors: list[Any]) -> Table | Undecodable | None:
    """The common case, without a Python loop: several tensors of one shape, one column each."""
    try:
        names, shapes, columns = zip(*map(_PARTS, tensors), strict=True)
    except (KeyError, TypeError, ValueError):
        return None
    if set(map(type, columns)) != {list} or set(map(type, names)) != {str}:
        return None
    rows = len(columns[0])
    if rows == 0 or shapes[0] not in ([rows], [rows, 1]) or shapes.count(shapes[0]) != len(shapes):
        return None
    if set(map(len, columns)) != {rows}:
        return None
    across = columns if rows == 1 else zip(*columns, strict=True)
    values = list(chain.from_iterable(across))
    return named(names, rows, values) if plain(values) else None


def _columns(tensors: list[Any]) -> Table | Undecodable:
    names: list[str] = []
    cells: list[list[Any]] = []
    for item in tensors:
        tensor = _tensor(item)
        if isinstance(tensor, Undecodable):
            return tensor
        name, rows, leaves = tensor
        names.append(name)
        width = len(leaves) // rows
        cells.append(
            leaves if width == 1 else [leaves[i : i + width] for i in range(0, len(leaves), width)]
        )
        if len(cells[0]) != rows:
            return Undecodable(Reason.WRONG_SHAPE, "tensors differ in their number of rows")
    if not names:
        return Undecodable(Reason.EMPTY)
    return named(tuple(names), len(cells[0]), list(chain.from_iterable(zip(*cells, strict=True))))


def _tensor(tensor: Any) -> tuple[str, int, list[Any]] | Undecodable:
    """Name, number of rows, and the elements in row-major order, at least one."""
    if not isinstance(tensor, dict):
        return Undecodable(Reason.WRONG_SHAPE, "a tensor is not an object")
    name, shape, data = tensor.get("name"), tensor.get("shape"), tensor.get("data")
    if not isinstance(name, str) or not isinstance(shape, list):
        return Undecodable(Reason.WRONG_SHAPE, "a tensor lacks its name or shape")
    if len(name) > MAX_NAME:
        return Undecodable(Reason.TOO_LARGE, f"a name has more than {MAX_NAME} characters")
    if not isinstance(data, list):
        parameters = tensor.get("parameters")
        if isinstance(parameters, dict) and not _ELSEWHERE.isdisjoint(parameters):
            return Undecodable(Reason.BINARY, "the data of a tensor is not in the JSON")
        return Undecodable(Reason.WRONG_SHAPE, "a tensor lacks its data")
    width, leaves = leaves_of(data)
    if not width:
        return Undecodable(Reason.WRONG_SHAPE, "data is not a tensor")
    if not leaves:
        return Undecodable(Reason.EMPTY)
    rows = _rows(shape, len(leaves))
    if not rows:
        return Undecodable(Reason.WRONG_SHAPE, "shape and data do not agree")
    return name, rows, leaves


def _rows(shape: list[Any], size: int) -> int:
    """The number of rows of a tensor with ``size`` elements; 0 if the shape does not match."""
    if shape == [1, size]:
        return 1
    if shape == [size] or shape == [size, 1]:
        return size
    # Bound the number of dimensions, so that their product takes bounded time.
    if (
        len(shape) > _MAX_DIMENSIONS
        or not {int}.issuperset(map(type, shape))
        or min(shape, default=1) < 1
        or prod(shape) != size
    ):
        return 0
    return int(shape[0]) if shape else 1


def _matches(payload: dict[str, object]) -> bool:
    inputs = payload.get("inputs")
    # With instances it is the V1 protocol, whose column form has inputs as well.
    return (
        "instances" not in payload
        and isinstance(inputs, list)
        and bool(inputs)
        and isinstance(inputs[0], dict)
        and "shape" in inputs[0]
    )


_MODEL = r".*/v2/models/[^/]+(?:/versions/[^/]+)?"
FORMAT = WireFormat(
    decode_request,
    decode_response,
    paths=(_MODEL + "/infer",),
    other_paths=(
        _MODEL + "(?:/(?:ready|config|stats|load|unload))?",
        r".*/v2(?:/health/(?:live|ready))?",
    ),
    matches=_matches,
)
