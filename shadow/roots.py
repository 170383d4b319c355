"""Roots and minima of functions of one number, by the two methods of Brent that need no derivative.

R. P. Brent, *Algorithms for Minimization without Derivatives*, Prentice-Hall 1973: chapter 4 for
roots (inverse quadratic interpolation and secants inside a bracket, bisection where they are slow),
chapter 5 for minima (parabolas, golden sections where they are slow). ``scipy.optimize`` has the
same methods; it is not used here since its import alone costs a process more than 20 MiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_EPSILON = 2.0**-52
_GOLDEN = 0.5 * (3.0 - math.sqrt(5.0))
_ROOT_EPSILON = math.sqrt(_EPSILON)


def find_root(
    function: Callable[[float], float],
    low: float,
    high: float,
    *,
    xtol: float = 2e-12,
    rtol: float = 4.0 * _EPSILON,
    steps: int = 200,
) -> float:
    """A root of a continuous ``function`` between two ends at which its signs differ.

    The ends may come in either order. A sign change of the function lies within
    ``xtol + rtol * |root|`` of the returned value. Raises ValueError when the signs at the ends
    are equal or a value is NaN, and ArithmeticError when ``steps`` evaluations were not enough.

    >>> round(find_root(lambda x: x * x - 2.0, 0.0, 2.0), 9)
    1.414213562
    """
    # ``best`` is the estimate, ``other`` the end on the far side of the root, ``last`` the estimate
    # before; ``move`` and ``move_before`` are the last two steps.
    last, best = float(low), float(high)
    f_last, f_best = _value(function, last), _value(function, best)
    if f_last == 0.0:
        return last
    if f_best == 0.0:
        return best
    if (f_last > 0.0) == (f_best > 0.0):
        raise ValueError(f"the values at {low} and {high} have the same sign: {f_last}, {f_best}")
    other, f_other = last, f_last
    move = move_before = best - last
    for _ in range(steps):
        if (f_best > 0.0) == (f_other > 0.0):
            other, f_other = last, f_last
            move = move_before = best - last
        if abs(f_other) < abs(f_best):
            last, best, other = best, other, best
            f_last, f_best, f_other = f_best, f_other, f_best
        tolerance = 0.5 * (xtol + rtol * abs(best))
        half = 0.5 * (other - best)
        if f_best == 0.0 or abs(half) <= tolerance:
            return best
        move_before, move = move, half
        if abs(move_before) >= tolerance and abs(f_last) > abs(f_best):
            step = _interpolated(best, other, last, f_best, f_other, f_last)
            # Less than three quarters of the way to the other end, and the steps halve at least
            # every second time; NaN, of infinite values, is neither.
            if 0.0 < step / half < 1.5 - abs(0.5 * tolerance / half) and (
                abs(step) < abs(0.5 * move_before)
            ):
                move = step
            else:
                move_before = half
        else:
            move_before = half
        last, f_last = best, f_best
        best += move if abs(move) > tolerance else math.copysign(tolerance, half)
        f_best = _value(function, best)
    raise ArithmeticError(f"no root within {xtol} after {steps} evaluations")


def _interpolated(
    best: float, other: float, last: float, f_best: float, f_other: float, f_last: float
) -> float:
    """The step from ``best`` to where the interpolation of the inverse function has its root."""
    ratio = f_best / f_last
    if last == other:
        return ratio * (other - best) / (ratio - 1.0)
    q, r = f_last / f_other, f_best / f_other
    top = ratio * ((other - best) * q * (q - r) - (best - last) * (r - 1.0))
    bottom = (q - 1.0) * (r - 1.0) * (ratio - 1.0)
    return -top / bottom if bottom != 0.0 else math.nan


def find_minimum(
    function: Callable[[float], float],
    low: float,
    high: float,
    *,
    xtol: float = 1e-5,
    steps: int = 500,
) -> tuple[float, float]:
    """Where ``function`` is smallest between ``low`` < ``high``, and its value there.

    The place is within about ``xtol`` of a local minimum, the only one of a unimodal function; half
    of the digits of a double are the best that values alone can tell. The ends themselves are not
    evaluated. Raises ValueError for an empty range and a NaN, ArithmeticError when ``steps``
    evaluations were not enough.

    >>> place, value = find_minimum(lambda x: (x - 1.0) ** 2 + 3.0, -4.0, 4.0)
    >>> round(place, 5), round(value, 9)
    (1.0, 3.0)
    """
    low, high = float(low), float(high)
    if not low < high:
        raise ValueError(f"there is nothing between {low} and {high}")
    best = second = third = low + _GOLDEN * (high - low)
    f_best = f_second = f_third = _value(function, best)
    move = move_before = 0.0
    for _ in range(steps):
        middle = 0.5 * (low + high)
        tolerance = _ROOT_EPSILON * abs(best) + xtol / 3.0
        if abs(best - middle) <= 2.0 * tolerance - 0.5 * (high - low):
            return best, f_best
        before_that, move_before = move_before, move
        step = math.nan
        if abs(before_that) > tolerance:
            step = _to_vertex(best, second, third, f_best, f_second, f_third)
        # The vertex lies inside, and the steps halve at least every second time.
        if abs(step) < abs(0.5 * before_that) and low < best + step < high:
            move = step
            if min(best + step - low, high - best - step) < 2.0 * tolerance:
                move = math.copysign(tolerance, middle - best)
        else:
            move_before = (low if best >= middle else high) - best
            move = _GOLDEN * move_before
        place = best + (move if abs(move) >= tolerance else math.copysign(tolerance, move))
        f_place = _value(function, place)
        if f_place <= f_best:
            low, high = (low, best) if place < best else (best, high)
            third, f_third = second, f_second
            second, f_second = best, f_best
            best, f_best = place, f_place
            continue
        low, high = (place, high) if place < best else (low, place)
        if f_place <= f_second or second == best:
            third, f_third = second, f_second
            second, f_second = place, f_place
        elif f_place <= f_third or third in (best, second):
            third, f_third = place, f_place
    raise ArithmeticError(f"no minimum within {xtol} after {steps} evaluations")


def _to_vertex(x: float, w: float, v: float, f_x: float, f_w: float, f_v: float) -> float:
    """The step from ``x`` to the vertex of the parabola through three points; NaN on a line."""
    r, q = (x - w) * (f_x - f_v), (x - v) * (f_x - f_w)
    bottom = 2.0 * (q - r)
    return ((x - w) * r - (x - v) * q) / bottom if bottom != 0.0 else math.nan


def _value(function: Callable[[float], float], at: float) -> float:
    value = float(function(at))
    if math.isnan(value):
        raise ValueError(f"the value at {at} is NaN")
    return value
