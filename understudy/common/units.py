"""Parses and formats durations, sizes and shares.

Configuration files accept the strict forms, ``250ms`` or ``5m``. Plans of the gate and limits of
metrics also accept exponents, microseconds, ``2 min``, and texts without a unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
"""Units of a duration in a configuration, in seconds."""
FINE_SECONDS: Mapping[str, float] = {"us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0}
"""Units of a latency, in seconds."""
LOOSE_SECONDS: Mapping[str, float] = {**SECONDS, **FINE_SECONDS, "min": MINUTE, "": 1.0}
BYTES: Mapping[str, int] = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

_STRICT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(\S*)")
_LOOSE = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(\S*)")
_WHOLE = re.compile(r"[0-9]{1,15}")
_STEPS = ((7 * 86400, "w", True), (86400, "d", False), (3600, "h", False), (60, "m", False),
          (1, "s", False))  # fmt: skip


def quantity(text: str, loose: bool = False) -> tuple[str, str] | None:
    """The number and the unit of a text such as ``5 ms``; None where it is not of that form.

    The unit may be empty and is not checked. ``loose`` allows a sign and an exponent.
    """
    match = (_LOOSE if loose else _STRICT).fullmatch(text.strip())
    return (match[1], match[2]) if match is not None else None


def seconds(value: object, loose: bool = False) -> float:
    """A duration in seconds, from a number of seconds or a text such as ``250ms``.

    ``loose`` also takes ``us``, ``µs``, ``min``, exponents, and a text without a unit. Raises
    ValueError.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("not a valid duration: at most 30 days (examples: 30s, 5m)") from None
    units = LOOSE_SECONDS if loose else SECONDS
    found = quantity(value, loose) if isinstance(value, str) else None
    if found is None or found[1] not in units or found[0].startswith(("+", "-")):
        examples = "50ms, 2s, 5m" if loose else "30s, 5m"
        raise ValueError(f"not a valid duration: {value!r} (examples: {examples})")
    return float(found[0]) * units[found[1]]


def size(value: object) -> int:
    """A number of bytes, or a text such as ``256KiB``. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = quantity(value) if isinstance(value, str) else None
    if found is None or found[1] not in BYTES or not _WHOLE.fullmatch(found[0]):
        raise ValueError(f"not a valid size: {value!r} (examples: 256KiB, 16MiB)")
    return int(found[0]) * BYTES[found[1]]


def share(value: object, loose: bool = False) -> float:
    """A share as 0.999 or ``99.9 %``. Raises ValueError.

    ``loose`` also takes ``0.001`` as a text, and numbers above 1. Otherwise a number from 1 to 100
    is refused, since it is most likely a percentage without its sign.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 1.0 < value <= 100.0 and not loose:
            raise ValueError(
                f"not a valid share: {value:g} (write {value:g} %, or {value / 100:g})"
            )
        return float(value)
    found = quantity(value, loose) if isinstance(value, str) else None
    allowed = ("%", "") if loose else ("%",)
    if found is None or found[1] not in allowed or found[0].startswith(("+", "-")):
        raise ValueError(f"not a valid share: {value!r} (examples: 0.999, 99.9 %)")
    if found[1] == "%":
        # Written so that 99.9 % is the same number as 0.999.
        return float(f"{float(found[0]) / 100:.12g}")
    return float(found[0])


def duration(seconds: float) -> str:
    """In the notation of Prometheus: ``5m``, ``1h30m``, ``30d``, and ``4w`` for 28 days.

    Weeks only when there is nothing else, as in its own ``model.Duration``. Raises ValueError for
    what is not a positive whole number of seconds.
    """
    left = round(seconds)
    if left <= 0 or abs(left - seconds) > 1e-6:
        raise ValueError(f"{seconds!r} is not a positive whole number of seconds")
    text = ""
    for step, letter, alone in _STEPS:
        if alone and left % step:
            continue
        count, left = divmod(left, step)
        if count:
            text += f"{count}{letter}"
    return text


def number(value: float) -> str:
    """A number in an expression: at most 12 significant digits, so that 1 - 0.999 is 0.001."""
    return f"{value:.12g}"


def percent(share: float) -> str:
    """``0.0144`` as ``1.44 %``."""
    return f"{share * 100:.4g} %"


def spoken(seconds: float) -> str:
    """A readable time: milliseconds, seconds below two minutes, then minutes, hours, days."""
    if seconds < 1.0:
        return f"{seconds * 1000:.4g} ms"
    if seconds < 2 * MINUTE:
        return f"{seconds:.3g} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.3g} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.3g} h"
    return f"{seconds / DAY:.3g} d"


def times(factor: float) -> str:
    """A readable burn factor."""
    return f"{factor:.4g} x"
