"""Fields of the configuration that are durations or sizes: ``250ms``, ``2m``; ``256KiB``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from understudy.common.units import seconds, size

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
