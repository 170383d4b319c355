"""Parses and formats durations, shares, rates, sizes and names of percentiles.

Every file and command line of the product is read with these parsers, so that ``5m``, ``0.5 %`` and
``p99.9`` mean the same everywhere. A limit of time, share or rate needs a unit: ``50`` could be 50
milliseconds or 50 seconds, and ``0.5`` half a percent or one half. Zero needs none, nor does a
number whose key has the unit in its name, such as ``seconds``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SECONDS: Mapping[str, float] = {
    "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY,
    "w": 7 * DAY,
}  # fmt: skip
"""Units of a duration, in seconds."""
BYTES: Mapping[str, int] = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
RATES: Mapping[str, float] = {
    "/s": 1.0, "/min": 1 / MINUTE, "/m": 1 / MINUTE, "/h": 1 / HOUR, "/d": 1 / DAY,
}  # fmt: skip
"""Units of a rate, in events per second."""

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
DURATION_PATTERN = (
    rf"^\s*({_NUMBER}\s*(us|µs|ms|s|m|min|h|d|w)|([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)"
    r"\s*$"
)
SHARE_PATTERN = rf"^\s*{_NUMBER}\s*%\s*$"
RATE_PATTERN = rf"^\s*{_NUMBER}\s*/(s|min|m|h|d)\s*$"
SIZE_PATTERN = r"^\s*[0-9]{1,15}\s*(B|KiB|MiB|GiB)\s*$"
"""Patterns of these texts for JSON Schemas."""

_QUANTITY = re.compile(rf"([+-]?{_NUMBER})\s*(\S*)")
_COMPOUND = re.compile(
    r"(?:([0-9]+)w)?(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?"
)
_COMPOUND_STEPS = (7 * DAY, DAY, HOUR, MINUTE, 1.0, 0.001)
_WHOLE = re.compile(r"[0-9]{1,15}")
_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,6})?)")
_PACKED = re.compile(r"p(99)(9{1,4})")
_STEPS = ((7 * 86400, "w", True), (86400, "d", False), (3600, "h", False), (60, "m", False),
          (1, "s", False))  # fmt: skip
_OTHER_NAMES: Mapping[str, str] = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "msecs": "ms",
    "millis": "ms", "millisecond": "ms", "milliseconds": "ms", "usec": "us", "microseconds": "us",
    "mins": "min", "minute": "min", "minutes": "min", "hr": "h", "hrs": "h", "hour": "h",
    "hours": "h", "day": "d", "days": "d", "week": "w", "weeks": "w",
    "percent": "%", "pct": "%", "perc": "%",
    "rps": "/s", "qps": "/s", "/sec": "/s", "/second": "/s", "hz": "/s", "rpm": "/min",
    "/minute": "/min", "/hour": "/h", "/hr": "/h",
    "b": "B", "byte": "B", "bytes": "B", "k": "KiB", "kb": "KiB", "ki": "KiB", "kib": "KiB",
    "m": "MiB", "mb": "MiB", "mi": "MiB", "mib": "MiB", "g": "GiB", "gb": "GiB", "gi": "GiB",
    "gib": "GiB",
}  # fmt: skip
"""What people write for a unit, in lower case; only for a question in an error message."""


def quantity(text: str) -> tuple[str, str] | None:
    """The number and the unit of a text such as ``5 ms``; None where it is not of that form.

    The number may have a sign and an exponent. The unit may be empty and is not checked.
    """
    match = _QUANTITY.fullmatch(text.strip())
    return (match[1], match[2]) if match is not None else None


def seconds(value: object, *, named: bool = False, long: bool = False) -> float:
    """A duration in seconds, from a text such as ``250ms``, ``2 min`` or ``1h30m``.

    ``named``: the key has the unit in its name, so that a number is one of seconds. ``long``: the
    duration is one of hours or days, which only matters for the message. Raises ValueError.
    """
    if isinstance(value, str) and (match := _COMPOUND.fullmatch(value.strip())) and any(match[0]):
        parts = zip(match.groups(), _COMPOUND_STEPS, strict=True)
        return _finite(sum(float(part) * step for part, step in parts if part), value)
    if long:
        meanings, examples = ("h", "d"), "12h, 30d"
    else:
        meanings, examples = ("ms", "s"), "30s, 5m"
    return _measured(value, "duration", SECONDS, meanings, examples, named)


def share(value: object) -> float:
    """A share of at least 0 from a text such as ``99.9 %``. Raises ValueError."""
    return _measured(value, "share", {"%": 0.01}, ("%",), "0.5 %, 99.9 %", False)


def ratio(value: object) -> float:
    """A number without a unit, such as a weight or a probability: 0.1, or ``10 %``.

    Raises ValueError. From 1 to 100 a number is most likely a percentage without its sign.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _finite_number(value)
        if 1.0 < value <= 100.0:
            raise ValueError(
                f"must be less than or equal to 1 (found {value:g}); a percentage needs its sign: "
                f"{value:g} %"
            )
        return float(value)
    found = quantity(value) if isinstance(value, str) else None
    if isinstance(value, bool) or (found is not None and not found[1]):
        raise ValueError(f"must be a number (found {value!r}), such as 0.1, or 10 %")
    return share(value)


def figure(value: object) -> float:
    """A value of a metric in the metric's own unit, or ``90 %`` for 0.9. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _finite_number(value)
        return float(value)
    found = quantity(value) if isinstance(value, str) else None
    if found is None or found[1] not in ("%", ""):
        raise ValueError(f"not a valid number: {value!r} (examples: 0.9, 90 %)")
    number = float(found[0])
    return _finite(float(f"{number / 100:.12g}") if found[1] else number, value)


def joules(value: object) -> float:
    """An energy in joules, from a text such as ``5 mJ``. Raises ValueError."""
    return _measured(value, "energy", {"J": 1.0, "mJ": 1e-3}, ("mJ", "J"), "5 mJ, 2 J", False)


def rate(value: object, *, named: bool = False) -> float:
    """Events per second, from a text such as ``100/s`` or ``6000/min``.

    ``named``: a number is one per second, as in the description of a load. Raises ValueError.
    """
    return _measured(value, "rate", RATES, ("/s", "/min"), "100/s, 6000/min", named)


def size(value: object) -> int:
    """A number of bytes, or a text such as ``256KiB``. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = quantity(value) if isinstance(value, str) else None
    if found is None or found[1] not in BYTES or not _WHOLE.fullmatch(found[0]):
        close = _question(found, BYTES) if found is not None else ""
        raise ValueError(f"not a valid size: {value!r}{close} (examples: 256KiB, 16MiB)")
    return int(found[0]) * BYTES[found[1]]


def percentile(name: str) -> float | None:
    """0.999 for ``p99.9``, which may also be written ``p999``; None for other names."""
    packed = _PACKED.fullmatch(name)
    match = _PERCENTILE.fullmatch(f"p{packed[1]}.{packed[2]}" if packed is not None else name)
    if match is None or float(match[1]) <= 0.0:
        return None
    return float(f"{float(match[1]) / 100:.12g}")


def percentile_name(share: float) -> str:
    """``p99.9`` for 0.999."""
    return f"p{100 * share:.10g}"


def metric_name(name: str) -> str:
    """``latency_p99.9`` for ``latency_p999``; other names as they are."""
    start, _, end = name.rpartition("_")
    found = percentile(end)
    return f"{start}_{percentile_name(found)}" if start and found is not None else name


def quantile(value: object) -> float:
    """A quantile: 0.999, ``p99.9`` or ``99.9 %``. Raises ValueError."""
    found = percentile(value) if isinstance(value, str) else None
    return found if found is not None else ratio(value)


def _measured(
    value: object,
    what: str,
    units: Mapping[str, float],
    meanings: tuple[str, ...],
    examples: str,
    named: bool,
) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"not a valid {what}: {value!r} (examples: {examples})")
    if isinstance(value, str):
        found = quantity(value)
        if found is None or found[0].startswith(("+", "-")) or found[1] not in {"", *units}:
            close = _question(found or quantity(value.replace(",", ".")), units)
            raise ValueError(f"not a valid {what}: {value!r}{close} (examples: {examples})")
        text, unit = found
    else:
        text, unit = f"{value!r}", ""
    if isinstance(value, float):
        _finite_number(value)
    number = float(text)
    if isinstance(value, str):
        _finite(number, value)
    if not math.isfinite(number) or number < 0.0:
        raise ValueError(f"not a valid {what}: {_short(text)} (examples: {examples})")
    if unit:
        factor = units[unit]
    elif number == 0.0 or named:
        factor = 1.0
    else:
        raise ValueError(f"{_short(text)} has no unit: write {_likely(number, what, meanings)}")
    scaled = number * factor
    # Rounded so that 99.9 % is the same number as 0.999.
    return _finite(float(f"{scaled:.12g}") if unit == "%" else scaled, value)


def _likely(value: float, what: str, meanings: tuple[str, ...]) -> str:
    """What a number without a unit may mean, as texts with a unit."""
    if what == "share":
        likely = [f"{value:.10g} %"]
        if value <= 1.0:
            likely.append(f"{100 * value:.10g} %")
    elif what == "duration" and value < 1.0:
        likely = [f"{1000 * value:.10g}ms", f"{value:.10g}{meanings[-1]}"]
    else:
        likely = [f"{value:.10g}{unit}" for unit in meanings]
    return " or ".join(likely)


def _question(found: tuple[str, str] | None, units: Mapping[str, float]) -> str:
    """``; did you mean 5s?`` for a unit that is written in another way."""
    if found is None or found[0].startswith(("+", "-")):
        return ""
    number, written = found
    lower = written.lower()
    for unit in (written, lower, written.upper(), _OTHER_NAMES.get(lower, "")):
        if unit in units and unit:
            space = " " if unit == "%" else ""
            return f"; did you mean {number}{space}{unit}?"
    return ""


def _finite_number(value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number (found {value!r})")
    if isinstance(value, int) and abs(value) > 10**300:
        raise ValueError("must be a smaller number")


def _finite(number: float, value: object) -> float:
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {_short(str(value))}")
    return number


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + " …"


def byte_rate(value: object) -> int:
    """Bytes per second, from a text such as ``16KiB/s``. Raises ValueError."""
    per_second = {f"{unit}/s": float(factor) for unit, factor in BYTES.items()}
    found = _measured(value, "rate", per_second, ("B/s", "KiB/s"), "1KiB/s, 1MiB/s", False)
    return round(found)


def write_seconds(value: float) -> str:
    """A duration as one writes it in a file, such as ``250ms`` or ``2m``.

    :func:`seconds` reads exactly ``value`` from it.
    """
    for unit, factor in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1.0), ("ms", 0.001)):
        count = round(value / factor)
        fits = value > factor if factor > 1.0 else factor == 1.0 or value < 1.0
        if count and count * factor == value and fits:
            return f"{count}{unit}"
    return f"{value!r}s" if value else "0"


def write_share(value: float) -> str:
    """A share as one writes it in a file, such as ``0.5 %``."""
    return f"{value * 100:.12g} %"


def write_rate(value: float) -> str:
    """A rate as one writes it in a file, such as ``100/s``; :func:`rate` reads exactly ``value``
    from it."""
    return f"{int(value) if value == int(value) else repr(value)}/s"


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


def percent(share: float, digits: int = 4) -> str:
    """``0.0144`` as ``1.44 %``, in so many significant digits.

    Near 1 the digits that matter are those of the distance to 1, of which at least two are kept:
    ``0.99999`` is ``99.999 %``, and only 1, to the rounding of sums, is ``100 %``. Nothing but 0 is
    ``0 %``.
    """
    value, rest = share * 100.0, (1.0 - share) * 100.0
    size = abs(value)
    if 1e-10 < rest < 1.0:
        decimals = max(digits - 2, 1 - math.floor(math.log10(rest)))
    elif 1e-10 < size < 1e-4:  # else it would have an exponent
        decimals = digits - 1 - math.floor(math.log10(size))
    elif 10.0**digits <= size < 1e15:
        return f"{value:,.0f} %"
    else:
        return f"{value:.{digits}g} %"
    return f"{f'{value:.{decimals}f}'.rstrip('0').rstrip('.')} %"


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
