"""Arrays as short texts: few digits, compressed, base64. And how arrays stand in a state."""

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
    return _deflated(np.ascontiguousarray(array, np.float64 if _exact else small))


def unpack(text: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Undo :func:`pack`. Raises ValueError when it is damaged or has another shape."""
    if not text and not math.prod(shape):
        return np.zeros(shape)
    data = _inflated(text)
    kinds = {8: np.float64, 2: np.float16}
    kind = kinds.get(len(data) // max(math.prod(shape), 1), np.float32)
    result = np.frombuffer(data, kind).astype(np.float64)
    return result.reshape(shape)


def pack_steps(array: Floats, step: float) -> str:
    """The nearest multiples of ``step``, at most 32,767 of them; or all digits."""
    if _exact or not array.size:
        return pack(array)
    steps = np.clip(np.rint(array / step), -32_767.0, 32_767.0)
    return _deflated(_by_weight(steps.astype("<i2")))


def unpack_steps(text: str, shape: tuple[int, ...], step: float) -> Floats:
    """Undo :func:`pack_steps`. Raises ValueError when it is damaged or has another shape."""
    data = _inflated(text) if text else b""
    if len(data) != 2 * math.prod(shape):
        return unpack(text, shape)
    return _from_weights(data, "<i2").reshape(shape) * step


def _pack_rounded(array: Floats) -> str:
    """16 binary digits of each number, or all of them."""
    if _exact or not array.size:
        return pack(array)
    mantissa, exponent = np.frexp(array)
    rounded = np.ldexp(np.rint(mantissa * 65_536.0) / 65_536.0, exponent)
    return _deflated(_by_weight(rounded.astype("<f4")))


def _unpack_rounded(name: str, text: Any, now: Floats) -> Floats:
    data = _inflated(text) if text else b""
    if len(data) != 4 * now.size:
        return unpack(text, now.shape)
    return _from_weights(data, "<f4").reshape(now.shape)


def _by_weight(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Bytes of one weight next to each other: those of the highest are alike, and take little."""
    return array.reshape(-1, 1).view(np.uint8).T.copy()


def _from_weights(data: bytes, kind: str) -> Floats:
    """Undo :func:`_by_weight`."""
    weights = np.frombuffer(data, np.uint8).reshape(np.dtype(kind).itemsize, -1)
    return weights.T.copy().view(kind)[:, 0].astype(np.float64)


def _deflated(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 6)).decode()


def _inflated(text: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"a packed array must be a text, not {text!r}")
    try:
        return zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"a packed array is damaged: {error}") from error


def _dump_blocks(blocks: list[Floats]) -> list[Any]:
    if not blocks:
        return [0, 0, ""]
    return [len(blocks), len(blocks[0]), pack(np.array(blocks))]


def _load_blocks(name: str, value: Any, _: Any) -> list[Floats]:
    if not isinstance(value, list) or len(value) != 3:
        raise FieldError(name, "must be a number of blocks, their width, and packed numbers")
    rows, width, text = value
    return list(unpack(text, (int(rows), int(width)))) if rows else []


def _dump_scaled(blocks: list[Floats]) -> list[Any]:
    if _exact or not blocks:
        return [*_dump_blocks(blocks), ""]
    rows = np.array(blocks)
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32).astype(np.float64)
    scale = np.where(largest > 0.0, largest, 1.0)
    return [*rows.shape, pack(rows / scale[:, None], np.float16), pack(scale)]


def _load_scaled(name: str, value: Any, now: Any) -> list[Floats]:
    if not isinstance(value, list) or len(value) != 4:
        raise FieldError(name, "must be a number of blocks, their width, numbers and their scales")
    blocks = _load_blocks(name, value[:3], now)
    if not value[3]:
        return blocks
    scale = unpack(value[3], (len(blocks),)).tolist()
    return [block * one for block, one in zip(blocks, scale, strict=True)]


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


def _pack_times(times: Floats) -> str:
    return pack(times if _exact else np.round(times, 3), np.float64)


def _dump_open(values: Floats) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values.ravel().tolist()]


def _load_logs(name: str, value: Any, now: Floats) -> Floats:
    result = np.array([-math.inf if v is None else float(v) for v in value], np.float64)
    if result.size != now.size:
        raise FieldError(name, f"must be {now.size} numbers, not {result.size}")
    return result.reshape(now.shape)


def _load_like(name: str, text: Any, now: NDArray[Any]) -> NDArray[Any]:
    return unpack(text, now.shape).astype(now.dtype, copy=False)


# Whole numbers and masks are packed as floats, too.
_PACKED = Converter(pack, _load_like)
_HALF = Converter(lambda array: pack(array, np.float16), _load_like)
_ALL_DIGITS = Converter(lambda array: pack(array, np.float64), _load_like)
Packed = Annotated[Floats, _PACKED]
"""In the shape of the array that the constructor made."""
PackedRounded = Annotated[Floats, Converter(_pack_rounded, _unpack_rounded)]
"""Nearly five digits."""
PackedMask = Annotated[NDArray[np.bool_], _HALF]
PackedSigns = Annotated[NDArray[np.int8], _HALF]
PackedWhole = Annotated[NDArray[np.int64], _PACKED]
PackedRows = Annotated[NDArray[np.int64], _ALL_DIGITS]
"""Numbers of rows, exact."""
PackedBlocks = Annotated[list[Floats], Converter(_dump_blocks, _load_blocks)]
"""Any number of rows of one width."""
PackedSums = Annotated[list[Floats], Converter(_dump_scaled, _load_scaled)]
"""The same in three digits, relative to the largest of its row where they are much smaller."""
Times = Annotated[Floats, Converter(_dump_times, _load_times)]
"""Unix times to the millisecond; NaN, which is null, where there is none."""
PackedTimes = Annotated[Floats, Converter(_pack_times, _load_like)]
"""The same, of many that are mostly NaN."""
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
