"""Durations, shares and numbers as Prometheus and people write them."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
_STEPS = ((7 * 86400, "w", True), (86400, "d", False), (3600, "h", False), (60, "m", False),
          (1, "s", False))  # fmt: skip


def duration(seconds: float) -> str:
    """As Prometheus writes it: ``5m``, ``1h30m``, ``30d``, and ``4w`` for 28 days.

    Weeks only when there is nothing else, as in its own ``model.Duration``. Less than a second is
    not told. Raises ValueError for what is not a positive whole number of seconds.
    """
    left = round(seconds)
    if left <= 0 or abs(left - seconds) > 1e-6:
        raise ValueError(f"{seconds!r} is not a positive whole number of seconds")
    text = ""
    for size, letter, alone in _STEPS:
        if alone and left % size:
            continue
        count, left = divmod(left, size)
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
    """A time for people: milliseconds, seconds below two minutes, then minutes, hours, days."""
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
    """A burn factor for people."""
    return f"{factor:.4g} x"
