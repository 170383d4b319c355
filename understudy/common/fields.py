"""Fields of files that are durations, shares, rates or sizes, for models of pydantic.

Numbers are dumped as texts with their unit, which the same fields read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)

from understudy.common import units

SAVED: Mapping[str, bool] = {"saved": True}
"""Validation context of state that an earlier version saved: it has numbers of seconds and events
per second, without their units."""


def _read(parse: Callable[..., float], *, named: bool = False, **how: Any) -> BeforeValidator:
    def read(value: object, info: ValidationInfo) -> float:
        saved = bool(info.context) and info.context is SAVED
        return parse(value, named=named or saved, **how)

    return BeforeValidator(read)


def _schema(
    pattern: str, numbers: dict[str, Any] | None, examples: list[Any], unit: str
) -> WithJsonSchema:
    text: dict[str, Any] = {"type": "string", "pattern": pattern}
    kinds = text if numbers is None else {"anyOf": [numbers, text]}
    return WithJsonSchema({**kinds, "examples": examples, "x-unit": unit})


_ZERO = {"type": "number", "const": 0}
_SECONDS = PlainSerializer(units.write_seconds, return_type=str)
_RATE = PlainSerializer(units.write_rate, return_type=str)
_SHARE = PlainSerializer(units.write_share, return_type=str)
_MONTH = 30 * 86400
_DURATIONS = ["250ms", "5s", "1h30m"]

Seconds = Annotated[
    float,
    _read(units.seconds),
    Field(gt=0, le=_MONTH, allow_inf_nan=False),
    _SECONDS,
    _schema(units.DURATION_PATTERN, None, _DURATIONS, "seconds"),
]
"""A positive duration of at most 30 days."""

SecondsOrZero = Annotated[
    float,
    _read(units.seconds),
    Field(ge=0, le=_MONTH, allow_inf_nan=False),
    _SECONDS,
    _schema(units.DURATION_PATTERN, _ZERO, _DURATIONS, "seconds"),
]
"""A duration of at most 30 days, or 0."""

NamedSeconds = Annotated[
    float,
    _read(units.seconds, named=True),
    Field(ge=0, le=_MONTH, allow_inf_nan=False),
    _SECONDS,
    _schema(units.DURATION_PATTERN, {"type": "number", "minimum": 0}, [60, "10m"], "seconds"),
]
"""A duration of at most 30 days whose key names its unit: a number is one of seconds."""

LongSeconds = Annotated[
    float,
    _read(units.seconds, long=True),
    Field(gt=0, le=366 * 86400, allow_inf_nan=False),
    _SECONDS,
    _schema(units.DURATION_PATTERN, None, ["30d"], "seconds"),
]
"""A duration of at most a year."""

Share = Annotated[
    float,
    BeforeValidator(units.share),
    Field(ge=0.0, le=1.0),
    _SHARE,
    _schema(units.SHARE_PATTERN, _ZERO, ["99.9 %"], "share"),
]
"""A limit of a share, from 0 to 100 %, which needs its sign."""

Ratio = Annotated[
    float,
    BeforeValidator(units.ratio),
    Field(ge=0.0, le=1.0, allow_inf_nan=False),
    _schema(
        units.SHARE_PATTERN, {"type": "number", "minimum": 0, "maximum": 1}, [0.1, "10 %"], "ratio"
    ),
]
"""A weight, a sampling rate or a probability, from 0 to 1: 0.1, or 10 %."""

QuantileShare = Annotated[
    float,
    BeforeValidator(units.quantile),
    Field(gt=0.0, lt=1.0),
    _schema(
        rf"{units.SHARE_PATTERN}|^p[0-9]{{1,4}}(\.[0-9]+)?$",
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        ["p99.9", 0.999],
        "quantile",
    ),
]
"""A quantile: p99.9, 0.999, or 99.9 %."""

Figure = Annotated[
    float,
    BeforeValidator(units.figure),
    Field(allow_inf_nan=False),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": units.SHARE_PATTERN}]}
    ),
]
"""A value of a metric: a number, or ``90 %`` for 0.9."""

Rate = Annotated[
    float,
    _read(units.rate),
    Field(gt=0.0, le=1e9, allow_inf_nan=False),
    _RATE,
    _schema(units.RATE_PATTERN, None, ["100/s", "6000/min"], "rate"),
]
"""A limit of a rate, in events per second, which needs its unit."""

NamedRate = Annotated[
    float,
    _read(units.rate, named=True),
    Field(gt=0.0, le=1e9, allow_inf_nan=False),
    _RATE,
    _schema(
        units.RATE_PATTERN, {"type": "number", "exclusiveMinimum": 0}, [100, "6000/min"], "rate"
    ),
]
"""The rate of a load: a number is one of events per second."""

Bytes = Annotated[
    int,
    BeforeValidator(units.size),
    Field(gt=0, le=1024**4),
    _schema(
        units.SIZE_PATTERN, {"type": "integer", "exclusiveMinimum": 0},
        ["256KiB", "16MiB", 4096], "bytes",
    ),
]  # fmt: skip
"""A positive size of at most 1 TiB; a number is one of bytes."""


def _delimiter(text: str) -> str:
    # Readers of files need what most configurations do not.
    from understudy.common import files

    return files.delimiter(text)


Delimiter = Annotated[
    str,
    AfterValidator(_delimiter),
    WithJsonSchema(
        {"type": "string", "pattern": '^([^"\\r\\n]|tab|\\\\t)$', "examples": [";", "tab"]}
    ),
]
"""What separates the columns of a CSV file: a character, or ``tab``."""

BytesPerSecond = Annotated[
    int,
    BeforeValidator(units.byte_rate),
    Field(gt=0, le=1024**4),
    PlainSerializer(lambda value: f"{value}B/s", return_type=str),
    _schema(r"^\s*[0-9]{1,15}\s*(B|KiB|MiB|GiB)/s\s*$", None, ["1KiB/s"], "bytes/s"),
]
"""A positive rate of bytes, which needs its unit."""
