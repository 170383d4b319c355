"""Durations and sizes as people write them: ``250ms``, ``5s``, ``2m``; ``256KiB``, ``16MiB``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15})\s*(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def seconds(value: object) -> float:
    """A number of seconds, or a text such as ``250ms``. Raises ValueError for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("this is no duration: at most 30 days") from None
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _SECONDS[match[2]]
    raise ValueError(f"{value!r} is no duration: write seconds, or a number with ms, s, m, h or d")


def size(value: object) -> int:
    """A number of bytes, or a text such as ``256KiB``. Raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _BYTES[match[2]]
    raise ValueError(f"{value!r} is no size: write bytes, or a number with KiB, MiB or GiB")


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0, le=30 * 86400, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)$"},
            ],
            "examples": ["250ms", "5s", 2.5],
            "x-unit": "seconds",
        }
    ),
]
"""A positive duration of at most 30 days."""

Bytes = Annotated[
    int,
    BeforeValidator(size),
    Field(gt=0, le=1024**4),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^[0-9]+\s*(B|KiB|MiB|GiB)$"},
            ],
            "examples": ["256KiB", "16MiB", 4096],
            "x-unit": "bytes",
        }
    ),
]
"""A positive size of at most 1 TiB."""
