"""Shapes of traffic, as profiles of the rate over time. Rates are per second, times in seconds."""

from __future__ import annotations

import math

from understudy.loadtest.engine.arrivals import Piece, Profile
from understudy.loadtest.errors import PlanError

_DAY_PIECES = 48


def steady(rate: float, seconds: float) -> Profile:
    """A constant rate."""
    return _made("steady", (Piece(seconds, rate, rate),))


def ramp(start: float, end: float, seconds: float) -> Profile:
    """A linear change from one rate to another."""
    return _made("ramp", (Piece(seconds, start, end),))


def spike(base: float, peak: float, seconds: float, spike_seconds: float) -> Profile:
    """A sudden peak in the middle."""
    rest = (seconds - spike_seconds) / 2.0
    if rest <= 0.0:
        raise PlanError(f"spike: a spike of {spike_seconds:g} s does not fit into {seconds:g} s")
    return _made(
        "spike",
        (Piece(rest, base, base), Piece(spike_seconds, peak, peak), Piece(rest, base, base)),
    )


def bursts(base: float, peak: float, seconds: float, every: float, burst_seconds: float) -> Profile:
    """A burst of ``burst_seconds`` at the end of every ``every`` seconds."""
    if burst_seconds >= every:
        raise PlanError(f"bursts: a burst of {burst_seconds:g} s does not fit into {every:g} s")
    pieces: list[Piece] = []
    left = seconds
    while left > 1e-9:
        for length, rate in ((every - burst_seconds, base), (burst_seconds, peak)):
            part = min(length, left)
            if part > 1e-9:
                pieces.append(Piece(part, rate, rate))
                left -= part
    return _made("bursts", tuple(pieces))


def diurnal(low: float, high: float, seconds: float) -> Profile:
    """A day from midnight to midnight, as a sine, compressed into ``seconds``."""

    def rate(part: float) -> float:
        return low + (high - low) * (1.0 - math.cos(2.0 * math.pi * part)) / 2.0

    width = seconds / _DAY_PIECES
    return _made(
        "diurnal",
        tuple(
            Piece(width, rate(n / _DAY_PIECES), rate((n + 1) / _DAY_PIECES))
            for n in range(_DAY_PIECES)
        ),
    )


def growth(start: float, end: float, seconds: float) -> Profile:
    """Exponential growth."""
    if start <= 0.0 or end <= 0.0:
        raise PlanError("growth: rates must be positive, because growth is exponential")
    steps = 32
    factor = (end / start) ** (1.0 / steps)
    return _made(
        "growth",
        tuple(
            Piece(seconds / steps, start * factor**n, start * factor ** (n + 1))
            for n in range(steps)
        ),
    )


def steps(start: float, step: float, count: int, step_seconds: float) -> Profile:
    """``count`` steps of ``step_seconds``, each higher by ``step``."""
    if count < 1:
        raise PlanError("steps: must be at least 1")
    rates = [start + step * n for n in range(count)]
    return _made("steps", tuple(Piece(step_seconds, rate, rate) for rate in rates))


def _made(name: str, pieces: tuple[Piece, ...]) -> Profile:
    try:
        return Profile(pieces)
    except ValueError as error:
        raise PlanError(f"{name}: {error}") from error
