"""Roots and minima beside those of scipy.optimize, which has the same two methods of Brent."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize, special

from understudy.shadow.roots import find_minimum, find_root

Function = Callable[[float], float]

SHAPES: dict[str, Callable[[float], Function]] = {
    "line": lambda c: lambda x: 3.0 * (x - c),
    "cubic": lambda c: lambda x: (x - c) ** 3,
    "steep exponential": lambda c: lambda x: math.expm1(20.0 * (x - c)),
    "flat tails": lambda c: lambda x: math.tanh(8.0 * (x - c)),
    "normal tail": lambda c: lambda x: float(special.log_ndtr(-x)) - float(special.log_ndtr(-c)),
    "pole outside": lambda c: lambda x: 1.0 / (10.5 - x) - 1.0 / (10.5 - c),
    "kink": lambda c: lambda x: (x - c) * (1e-3 if x < c else 1e3),
    "falling": lambda c: lambda x: math.exp(-x) - math.exp(-c),
}
places = st.floats(-5.0, 5.0).map(lambda x: round(x, 6))
shapes = st.sampled_from(sorted(SHAPES))
tolerances = st.sampled_from([1e-4, 1e-6, 1e-10, 2e-12])


@given(shape=shapes, place=places, xtol=tolerances, swapped=st.booleans(), data=st.data())
def test_a_root_is_as_close_as_the_tolerance_says(
    shape: str, place: float, xtol: float, swapped: bool, data: st.DataObject
) -> None:
    """The sign changes within the tolerance of what is returned, and scipy's root is as close."""
    low = place - data.draw(st.floats(1e-3, 5.0))
    high = place + data.draw(st.floats(1e-3, 5.0))
    function = SHAPES[shape](place)
    assume(function(low) * function(high) < 0.0)
    ends = (high, low) if swapped else (low, high)
    root = find_root(function, *ends, xtol=xtol)
    width = xtol + 4.0 * 2.0**-52 * abs(root)
    assert low <= root <= high
    if function(root) != 0.0:
        assert function(max(root - width, low)) * function(min(root + width, high)) <= 0.0
    theirs = optimize.brentq(function, *ends, xtol=xtol, maxiter=1_000)
    # Where a cubic is flat, values around the root underflow to equal ones for both.
    assert root == pytest.approx(theirs, abs=2.0 * width)


@given(shape=shapes, place=places)
def test_a_root_costs_few_evaluations(shape: str, place: float) -> None:
    """At most three times the bisections, Brent's own bound being their square."""
    function, asked = SHAPES[shape](place), []

    def counted(x: float) -> float:
        asked.append(x)
        return function(x)

    assume(function(-6.0) * function(6.0) < 0.0)
    find_root(counted, -6.0, 6.0, xtol=1e-10)
    assert len(asked) <= 3.0 * math.log2(12.0 / 1e-10)


def test_a_root_at_an_end_is_returned() -> None:
    assert find_root(lambda x: x, 0.0, 1.0) == 0.0
    assert find_root(lambda x: x - 1.0, 0.0, 1.0) == 1.0


def test_infinite_values_only_have_a_sign() -> None:
    root = find_root(lambda x: math.inf if x > 0.3 else -1.0, 0.0, 1.0, xtol=1e-10)
    assert root == pytest.approx(0.3, abs=1e-10)


def test_over_many_magnitudes_a_relative_tolerance_stops_the_search() -> None:
    goal = 1.2345e200
    root = find_root(lambda x: x - goal, 1.0, 1e300, steps=2_000)
    assert root == pytest.approx(goal, rel=1e-15)


def test_what_has_no_root_is_refused() -> None:
    with pytest.raises(ValueError, match="same sign"):
        find_root(lambda x: x * x + 1.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="NaN"):
        find_root(lambda x: math.nan, -1.0, 1.0)
    with pytest.raises(ValueError, match="NaN"):
        find_root(lambda x: math.nan if abs(x) < 0.9 else x, -1.0, 1.0)
    with pytest.raises(ArithmeticError, match="3 evaluations"):
        find_root(lambda x: math.exp(x) - 1.1, -5.0, 4.0, steps=3)


@given(
    place=st.floats(-3.0, 3.0),
    width=st.floats(0.1, 10.0),
    left=st.floats(0.01, 5.0),
    right=st.floats(0.01, 5.0),
    xtol=st.sampled_from([1e-5, 1e-9]),
    shape=st.sampled_from(["parabola", "cosh", "log", "skew"]),
)
def test_a_minimum_is_that_of_scipy(
    place: float, width: float, left: float, right: float, xtol: float, shape: str
) -> None:
    def function(x: float) -> float:
        z = (x - place) / width
        if shape == "parabola":
            return z * z
        if shape == "cosh":
            return math.cosh(z)
        if shape == "log":
            return math.log1p(z * z)
        return math.exp(z) - z

    low, high = place - left, place + right
    found, value = find_minimum(function, low, high, xtol=xtol)
    theirs = optimize.minimize_scalar(
        function, bounds=(low, high), method="bounded", options={"xatol": xtol}
    )
    assert value == function(found)
    # Values tell a place to the root of the precision only, relative to the width.
    near = xtol + 1e-7 * width * math.sqrt(max(1.0, abs(value))) + 1e-7
    assert found == pytest.approx(place, abs=2.0 * near)
    assert value == pytest.approx(float(theirs.fun), rel=1e-9, abs=1e-12 + (near / width) ** 2)


@given(xtol=st.sampled_from([1e-5, 1e-9]), rising=st.booleans())
def test_a_minimum_at_an_end_is_approached(xtol: float, rising: bool) -> None:
    sign = 1.0 if rising else -1.0
    found, _ = find_minimum(lambda x: sign * x, 1.0, 2.0, xtol=xtol)
    assert found == pytest.approx(1.0 if rising else 2.0, abs=2.0 * xtol + 1e-7)


def test_a_minimum_beside_a_pole_is_found() -> None:
    """As with the bound of the DKW band: infinite at one end, flat at the other."""
    found, value = find_minimum(lambda x: 1.0 / x + x, 1e-12, 50.0, xtol=1e-9)
    assert (found, value) == (pytest.approx(1.0, abs=1e-7), pytest.approx(2.0, abs=1e-13))


def test_what_has_no_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing between"):
        find_minimum(lambda x: x, 1.0, 1.0)
    with pytest.raises(ValueError, match="NaN"):
        find_minimum(lambda x: math.nan, 0.0, 1.0)
    with pytest.raises(ArithmeticError, match="3 evaluations"):
        find_minimum(lambda x: x * x, -1.0, 2.0, steps=3)
