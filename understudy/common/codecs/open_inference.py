"""Open Inference Protocol V2: named tensors with shape, datatype and data, over REST and gRPC.

``data`` is row-major, flat or nested. The first dimension counts the rows; a tensor with more than
one element in a row becomes as many columns. A single tensor is what servers call ``input-0`` or
``predict``: its columns are positions. Several tensors keep their names; one of them that cannot be
read is a column of None.
"""

from __future__ import annotations

from itertools import chain
from math import prod
from operator import itemgetter
from typing import Any

from understudy.common.codecs import open_inference_grpc as grpc
from understudy.common.codecs.shape import MAX_NAME, leaves_of, named, plain, positional
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable

_MAX_DIMENSIONS = 32
_NOTHING = Undecodable(Reason.EMPTY)
_PARTS = itemgetter("name", "shape", "data")


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    return _decode(payload, "inputs", spec.features)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response, with the version of the model that it says."""
    found = _decode(payload, "outputs", spec.predictions)
    if isinstance(found, Table) and isinstance(payload, dict):
        version = payload.get("model_version")
        if type(version) is str:
            found.version = version
    return found


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
    """Tensors of any kind. One of a single row beside longer ones is shared by their rows; one that
    cannot be read, or has another number of rows than the first of the longer ones, is lost."""
    names: list[str] = []
    read: list[tuple[int, list[Any]] | Undecodable] = []
    for item in tensors:
        tensor = _tensor(item)
        if isinstance(tensor, Undecodable):
            name = item.get("name") if isinstance(item, dict) else None
            if not isinstance(name, str) or len(name) > MAX_NAME:
                return tensor
            read.append(tensor)
        else:
            name, rows, leaves = tensor
            width = len(leaves) // rows
            read.append((rows, leaves if width == 1 else _vectors(leaves, width)))
        names.append(name)
    counts = [one[0] for one in read if not isinstance(one, Undecodable)]
    if not counts:
        return next((one for one in read if isinstance(one, Undecodable)), _NOTHING)
    count = next((rows for rows in counts if rows > 1), 1)
    columns = [_of_rows(one, count) for one in read]
    lost = tuple(one for one in columns if isinstance(one, Undecodable))
    cells = [[None] * count if isinstance(one, Undecodable) else one for one in columns]
    table = named(tuple(names), count, list(chain.from_iterable(zip(*cells, strict=True))))
    if lost and isinstance(table, Table):
        table.lost = lost
    return table


def _of_rows(read: tuple[int, list[Any]] | Undecodable, count: int) -> list[Any] | Undecodable:
    """The cells of a tensor in a table of ``count`` rows."""
    if isinstance(read, Undecodable):
        return read
    rows, cells = read
    if rows == count:
        return cells
    if rows == 1:
        return cells * count
    return Undecodable(Reason.ROWS_DIFFER, "a tensor has another number of rows than others")


def _vectors(leaves: list[Any], width: int) -> list[Any]:
    return [leaves[i : i + width] for i in range(0, len(leaves), width)]


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
        if isinstance(data, Undecodable):
            return data
        parameters = tensor.get("parameters")
        if isinstance(parameters, dict) and "shared_memory_region" in parameters:
            return Undecodable(Reason.SHARED_MEMORY, "the data of a tensor is in shared memory")
        if isinstance(parameters, dict) and "binary_data_size" in parameters:
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


_SERVICE = r".*/inference\.GRPCInferenceService/"
_MODEL = r".*/v2/models/[^/]+(?:/versions/[^/]+)?"
FORMAT = WireFormat(
    decode_request,
    decode_response,
    paths=(_MODEL + "/infer",),
    other_paths=(
        _MODEL + "(?:/(?:ready|config|stats|load|unload))?",
        r".*/v2(?:/health/(?:live|ready))?",
        _SERVICE + r"\w+",
    ),
    calls=(
        (_SERVICE + "ModelInfer", (grpc.request_of, grpc.response_of)),
        (_SERVICE + "ModelStreamInfer", (grpc.request_of, grpc.stream_response_of)),
    ),
    matches=_matches,
)
