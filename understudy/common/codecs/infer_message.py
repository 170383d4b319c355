"""``ModelInferRequest`` of the Open Inference Protocol over gRPC, from the JSON that says the same.

The counterpart of :mod:`understudy.common.codecs.open_inference_grpc`, without protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from struct import error, pack
from typing import Any

import numpy as np

from understudy.common.protobuf_writer import double, integer, message, packed, text

_MODEL, _VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = range(1, 8)
_INTEGERS = {
    "BOOL": 1,
    **dict.fromkeys(("INT8", "INT16", "INT32"), 2),
    "INT64": 3,
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), 4),
    "UINT64": 5,
}
"""The field of the contents that holds whole numbers of a datatype."""
_DTYPES = {
    "BOOL": "?", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1",
    "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


def infer_request(payload: Any, model: str, version: str = "", raw: bool = True) -> bytes:
    """The message for ``payload``, a V2 request as parsed JSON; its own ``model_name`` counts
    before ``model``. ``raw``: tensors are bytes behind the message, as Triton's clients write them;
    otherwise their elements are in it, but for FP16 and BF16, which have no other form.

    A missing number is NaN where the datatype has one. Raises ValueError for what is not a request,
    or does not fit its datatype.

    >>> infer_request({"inputs": []}, "m").hex()
    '0a016d'
    """
    tensors = payload.get("inputs") if isinstance(payload, Mapping) else None
    if not isinstance(tensors, list) or not all(isinstance(one, Mapping) for one in tensors):
        raise ValueError("not a request of open-inference-v2: there is no list of inputs")
    raw = raw or any(one.get("datatype") in ("FP16", "BF16") for one in tensors)
    parts = [text(_MODEL, str(payload.get("model_name") or model))]
    version = str(payload.get("model_version") or version)
    parts += [text(_VERSION, version)] if version else []
    parts += [text(_ID, str(payload["id"]))] if payload.get("id") else []
    parts += _parameters(_PARAMETERS, payload.get("parameters"))
    raws = []
    for tensor in tensors:
        described, content = _tensor(tensor, raw)
        parts.append(message(_INPUTS, described))
        raws += [message(_RAW, content)] if raw else []
    for wanted in payload.get("outputs") or ():
        fields = [text(1, str(wanted["name"])), *_parameters(2, wanted.get("parameters"))]
        parts.append(message(_OUTPUTS, b"".join(fields)))
    return b"".join(parts + raws)


def _tensor(tensor: Mapping[str, Any], raw: bool) -> tuple[bytes, bytes]:
    """The described tensor, and its raw bytes. Raises ValueError."""
    name, datatype = str(tensor.get("name", "")), tensor.get("datatype")
    shape, data = tensor.get("shape"), tensor.get("data")
    try:
        cells = _flat(data)
        size = int(np.prod([int(one) for one in shape or ()]))
        if shape is None or size != len(cells):
            raise ValueError(f"{len(cells):,} elements do not fit the shape {shape}")
        fields = [text(1, name), text(2, str(datatype)), packed(3, map(int, shape))]
        # What the bytes say stands behind the message, not in it.
        parameters = dict(tensor.get("parameters") or {})
        parameters.pop("binary_data_size", None)
        fields += _parameters(4, parameters)
        if raw:
            return b"".join(fields), _raw(str(datatype), cells)
        return b"".join((*fields, message(5, _contents(str(datatype), cells)))), b""
    except (TypeError, ValueError, OverflowError, error) as problem:
        raise ValueError(f"tensor {name!r}: {problem}") from problem


def _flat(data: Any) -> list[Any]:
    cells = data if isinstance(data, list) else [data]
    while cells and isinstance(cells[0], list):
        cells = list(chain.from_iterable(cells))
    return cells


def _raw(datatype: str, cells: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(pack("<I", len(one)) + one for one in map(_bytes, cells))
    if datatype == "BF16":
        wide = np.array(cells, np.float32).astype("<f4").view("<u2").reshape(-1, 2)
        return bytes(wide[:, 1].tobytes())
    if datatype not in _DTYPES:
        raise ValueError(f"the datatype {datatype!r} is not known")
    return bytes(_array(datatype, cells).tobytes())


def _array(datatype: str, cells: list[Any]) -> Any:
    if datatype in _INTEGERS and any(not isinstance(one, int) for one in cells):
        odd = next(one for one in cells if not isinstance(one, int))
        raise ValueError(f"{odd!r} is not a value of {datatype}")
    return np.array(cells, object).astype(np.dtype(_DTYPES[datatype]))


def _contents(datatype: str, cells: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(message(8, _bytes(one)) for one in cells)
    if datatype in ("FP32", "FP64"):
        return message(6 if datatype == "FP32" else 7, _array(datatype, cells).tobytes())
    if datatype not in _INTEGERS:
        raise ValueError(f"the datatype {datatype!r} is not known")
    return packed(_INTEGERS[datatype], map(int, _array(datatype, cells)))


def _bytes(cell: Any) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _parameters(number: int, parameters: Any) -> list[bytes]:
    found = []
    for name, value in (parameters or {}).items():
        if isinstance(value, bool):
            chosen = integer(1, value)
        elif isinstance(value, int):
            chosen = integer(2, value)
        elif isinstance(value, float):
            chosen = double(4, value)
        else:
            chosen = text(3, str(value))
        found.append(message(number, text(1, str(name)) + message(2, chosen)))
    return found
