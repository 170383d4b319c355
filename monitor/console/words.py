"""How the console writes figures, times and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.common.units import percent
from understudy.monitor.findings.words import moment, span

MISSING = "–"
_TONES = {
    "ok": "good", "no_traffic": "neutral", "critical": "bad", "warning": "warn", "info": "neutral",
    "harmed": "bad", "blind": "bad", "passed": "good", "ok so far": "neutral",
}  # fmt: skip
_OF_ARMS = ("failing", "partly_down", "down")


def number(value: float | None) -> str:
    """A count with separators, or four significant digits."""
    if value is None:
        return MISSING
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}"


def rate(value: float | None) -> str:
    """Per second."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """A latency in a unit that fits."""
    if value is None:
        return MISSING
    if value == 0:
        return "0 s"
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if value * factor >= 1.0:
            shown = value * factor
            return f"{shown:,.0f} {unit}" if shown >= 100 else f"{shown:.3g} {unit}"
    return f"{value * 1e6:.0f} µs"


def share(value: float | None) -> str:
    """A share in percent: only all of it is 100 %, and only none of it 0 %."""
    return MISSING if value is None else percent(value, 3)


def age(value: float | None) -> str:
    """How long ago, or for how long."""
    return MISSING if value is None else span(value)


def plain(text: str | None) -> str:
    """A name of the API in words."""
    return MISSING if text is None else str(text).replace("_", " ")


def counts(values: Mapping[str, float] | None) -> str:
    """Counts by name, in one line."""
    return ", ".join(f"{plain(k)} {number(v)}" for k, v in (values or {}).items()) or "none"


def tone(state: str | None) -> str:
    """The class of a state: good, neutral, warn or bad; an unknown state is a warning."""
    if state in _OF_ARMS:
        return "bad"
    return _TONES.get(str(state), "warn")


def tone_of_outcome(experiment_tone: str | None) -> str:
    """The class of a decision on a challenger."""
    known = {"good": "good", "bad": "bad", "neutral": "warn", "open": "neutral"}
    return known.get(str(experiment_tone), "neutral")


def utc(at: float | None) -> str:
    """A moment for people."""
    return MISSING if at is None else moment(at).replace("T", " ").replace("Z", " UTC")


def stamp(at: float | None) -> str:
    """The same for machines."""
    return "" if at is None else moment(at)


def size(value: float | None) -> str:
    """Bytes."""
    return MISSING if value is None else f"{value / 1048576:,.1f} MiB"


FILTERS: Mapping[str, Any] = {
    "number": number, "rate": rate, "seconds": seconds, "share": share, "age": age, "plain": plain,
    "counts": counts, "tone": tone, "outcome": tone_of_outcome, "utc": utc, "stamp": stamp,
    "size": size,
}  # fmt: skip
