"""Numbers with units, as people write them in a plan."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zµ%/]*)\s*")


def seconds_of(value: object) -> float:
    """Seconds of ``50ms``, ``2 min`` or a plain number of seconds. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("is no duration")
    if isinstance(value, (int, float)):
        return float(value)
    match = _NUMBER.fullmatch(str(value))
    if match is None or (match[2] and match[2] not in _SECONDS):
        raise ValueError(f"{value!r} is no duration: write 50ms, 2s, 5m")
    return float(match[1]) * _SECONDS.get(match[2], 1.0)


def share_of(value: object) -> float:
    """A share of ``0.1 %`` or a plain number from 0 to 1. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _NUMBER.fullmatch(str(value))
    if match is None or match[2] not in ("", "%"):
        raise ValueError(f"{value!r} is no share: write 0.1 % or 0.001")
    return float(match[1]) * (0.01 if match[2] == "%" else 1.0)


Seconds = Annotated[float, BeforeValidator(seconds_of)]
Share = Annotated[float, BeforeValidator(share_of)]
