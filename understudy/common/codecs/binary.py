"""Binary tensors of the Open Inference Protocol V2 over HTTP, put where JSON would have their data.

The JSON of a body comes first, as long as the header ``Inference-Header-Content-Length`` says; the
bytes of the tensors that have ``binary_data_size`` in their parameters follow in order, row-major
and little-endian. Elements of BYTES are a length of four bytes and the bytes.

A tensor that cannot be read costs only itself: its data is an :class:`Undecodable`.
"""

from __future__ import annotations

import sys
from struct import calcsize, error, iter_unpack, unpack_from
from typing import Any

from understudy.common.codecs.table import Reason, Undecodable

MAX_ELEMENTS = 1024 * 1024
"""Elements of one tensor: each takes some thirty bytes of memory here."""
_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "UINT8": "B",
    "INT16": "h",
    "UINT16": "H",
    "INT32": "i",
    "UINT32": "I",
    "INT64": "q",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}
_SIZES = {"FP16": 2, "BF16": 2} | {name: calcsize("<" + form) for name, form in _FORMATS.items()}
"""Bytes of an element."""
MANY = Undecodable(Reason.TOO_LARGE, f"a tensor has more than {MAX_ELEMENTS:,} elements")
_NATIVE = sys.byteorder == "little"


def place(payload: object, tail: memoryview) -> None:
    """Give the tensors of a request or a response the elements that are in ``tail``.

    ``payload`` is parsed JSON of any kind; only what is a tensor with binary data changes. Elements
    of BYTES are read as UTF-8; bytes that are none are written as ``\\xff``.
    """
    if not isinstance(payload, dict):
        return
    begin = 0
    for key in ("inputs", "outputs"):
        tensors = payload.get(key)
        for tensor in tensors if isinstance(tensors, list) else ():
            parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
            size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
            if type(size) is not int or size < 0:
                continue
            data = tail[begin : begin + size]
            begin += size
            if len(data) < size:
                tensor["data"] = Undecodable(Reason.TRUNCATED, "the data of a tensor is cut off")
            else:
                tensor["data"] = elements(data, tensor.get("datatype"))


def elements(data: memoryview, datatype: Any) -> list[Any] | Undecodable:
    """The elements of one tensor, in row-major order.

    >>> elements(memoryview(b"\\x00\\x00\\x80\\x3f"), "FP32")
    [1.0]
    """
    try:
        if datatype == "BYTES":
            return _texts(data)
        size = _SIZES.get(datatype) if isinstance(datatype, str) else None
        if size is not None and len(data) > size * MAX_ELEMENTS:
            return MANY
        if datatype == "FP16":
            return [value for (value,) in iter_unpack("<e", data)]
        if datatype == "BF16":
            # The upper half of a 32-bit number.
            wide = bytearray(2 * len(data))
            wide[2::4], wide[3::4] = data[::2], data[1::2]
            return _numbers(memoryview(wide), "f")
        if size is not None:
            return _numbers(data, _FORMATS[datatype])
    except (error, TypeError, ValueError):
        return Undecodable(Reason.WRONG_SHAPE, "the size of a tensor does not fit its datatype")
    return Undecodable(Reason.BINARY, "the datatype of a tensor is not known")


def _numbers(data: memoryview, form: Any) -> list[Any]:
    """Raises TypeError or struct.error where the size does not fit."""
    if _NATIVE:
        numbers: list[Any] = data.cast(form).tolist()
        return numbers
    return [value for (value,) in iter_unpack("<" + form, data)]  # pragma: no cover


def _texts(data: memoryview) -> list[Any] | Undecodable:
    """Raises struct.error or ValueError where the lengths do not fit."""
    found: list[Any] = []
    at, end = 0, len(data)
    while at < end:
        (length,) = unpack_from("<I", data, at)
        at += 4
        if length > end - at:
            raise ValueError("an element is longer than the data")
        found.append(str(data[at : at + length], "utf-8", "backslashreplace"))
        at += length
        if len(found) > MAX_ELEMENTS:
            return MANY
    return found
