"""Arrays as short texts: single precision, compressed, base64."""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

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


def pack(array: NDArray[np.float64]) -> str:
    """Seven digits of each number are kept, or all of them; infinities and NaN too."""
    kind = np.float64 if _exact else np.float32
    data = np.ascontiguousarray(array, kind).tobytes()
    return base64.b64encode(zlib.compress(data, 6)).decode()


def unpack(text: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Undo :func:`pack`. Raises ValueError when it is damaged or has another shape."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"a packed array is damaged: {error}") from error
    exact = len(data) == 8 * math.prod(shape) > 0
    found = np.frombuffer(data, np.float64 if exact else np.float32).astype(np.float64)
    return found.reshape(shape)
