"""Arrays as short texts: single precision, compressed, base64. And how arrays stand in a state."""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import zlib
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.shadow.state import Converter, FieldError

Floats = NDArray[np.float64]
_MOST = 64 * 1024 * 1024
_exact: list[bool] = []


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Within it :func:`pack` keeps all digits, so that who goes on from a state elsewhere goes on
    as if it had never been packed."""
    _exact.append(True)
    try:
        yield
    finally:
        _exact.pop()


def exact() -> bool:
    """Whether all digits are kept at present."""
    return bool(_exact)


def pack(array: NDArray[Any], small: type[np.floating[Any]] = np.float32) -> str:
    """Seven digits of each number are kept, or as many as ``small`` has, or all of them; infinities
    and NaN too."""
    if not array.size:
        return ""
    kind = np.float64 if _exact else small
    data = np.ascontiguousarray(array, kind).tobytes()
    return base64.b64encode(zlib.compress(data, 6)).decode()


def unpack(text: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Undo :func:`pack`. Raises ValueError when it is damaged or has another shape."""
    if not text and not math.prod(shape):
        return np.zeros(shape)
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"a packed array is damaged: {error}") from error
    kinds = {8: np.float64, 2: np.float16}
    kind = kinds.get(len(data) // max(math.prod(shape), 1), np.float32)
    result = np.frombuffer(data, kind).astype(np.float64)
    return result.reshape(shape)


def _dump_blocks(blocks: list[Floats]) -> list[Any]:
    if not blocks:
        return [0, 0, ""]
    return [len(blocks), len(blocks[0]), pack(np.array(blocks))]


def _load_blocks(name: str, value: Any, _: Any) -> list[Floats]:
    if not isinstance(value, list) or len(value) != 3:
        raise FieldError(name, "must be a number of blocks, their width, and packed numbers")
    rows, width, text = value
    return list(unpack(text, (int(rows), int(width)))) if rows else []


def rounded(values: list[float], digits: int) -> list[float]:
    """So many digits behind the point, or all of them."""
    return list(values) if _exact else [round(value, digits) for value in values]


def _dump_times(times: Floats) -> list[float | None]:
    digits = 17 if _exact else 3
    return [None if math.isnan(t) else round(t, digits) for t in times.ravel().tolist()]


def _load_times(name: str, value: Any, now: Floats) -> Floats:
    result = np.array([math.nan if t is None else float(t) for t in value], np.float64)
    if result.size != now.size:
        raise FieldError(name, f"must be {now.size} times, not {result.size}")
    return result.reshape(now.shape)


def _dump_open(values: Floats) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values.ravel().tolist()]


def _load_logs(name: str, value: Any, now: Floats) -> Floats:
    result = np.array([-math.inf if v is None else float(v) for v in value], np.float64)
    if result.size != now.size:
        raise FieldError(name, f"must be {now.size} numbers, not {result.size}")
    return result.reshape(now.shape)


# Whole numbers and masks are packed as floats, too.
_PACKED = Converter(
    pack, lambda name, text, now: unpack(text, now.shape).astype(now.dtype, copy=False)
)
Packed = Annotated[Floats, _PACKED]
"""In the shape of the array that the constructor made."""
PackedMask = Annotated[NDArray[np.bool_], _PACKED]
PackedWhole = Annotated[NDArray[np.int64], _PACKED]
PackedBlocks = Annotated[list[Floats], Converter(_dump_blocks, _load_blocks)]
"""Any number of rows of one width."""
Times = Annotated[Floats, Converter(_dump_times, _load_times)]
"""Unix times to the millisecond; NaN, which is null, where there is none."""
TimeList = Annotated[
    list[float],
    Converter(
        lambda times: rounded(times, 3),
        lambda name, value, now: [float(t) for t in value],
    ),
]
"""Any number of unix times, to the millisecond."""
Open = Annotated[Floats, Converter(_dump_open, _load_times)]
"""All digits; null stands for what is not finite, and is read as NaN."""
Logs = Annotated[Floats, Converter(_dump_open, _load_logs)]
"""All digits; minus infinity is null."""
