"""Numbers as people read them."""

from __future__ import annotations

import math


def shown(value: float, digits: int = 4) -> str:
    """About ``digits`` significant digits, with commas for thousands: ``7,700``, ``0.0129``."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == int(value) and size < 1e6:
        return f"{value:,.0f}"
    if size >= 1e18 or 0.0 < size < 1e-4:
        return f"{value:.{digits}g}"
    whole = max(0, math.floor(math.log10(size)) + 1) if size else 0
    if whole >= digits:
        rounded = round(value, digits - whole)
        return f"{rounded:,.0f}"
    places = digits - whole if whole else digits - 1 - math.floor(math.log10(size))
    text = f"{value:,.{min(12, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def both(now: float, before: float) -> tuple[str, str]:
    """Two values with as many digits as it takes to tell them apart."""
    for digits in range(4, 18):
        pair = shown(now, digits), shown(before, digits)
        if pair[0] != pair[1] or now == before:
            return pair
    return repr(now), repr(before)
