"""Group-sequential boundaries against the published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from understudy.shadow.sequential import (
    SequentialError,
    boundaries,
    exit_probabilities,
    obrien_fleming,
    pocock,
    power_family,
)

FIVE = [0.2, 0.4, 0.6, 0.8, 1.0]
# Reboussin, DeMets, Kim & Lan 2000 / R's ldbounds; four printed digits, the last from a coarser
# quadrature than ours.
PRINTED = 1.5e-4


def test_obrien_fleming_table() -> None:
    result = boundaries(FIVE, obrien_fleming(0.05))
    assert result.upper == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=PRINTED)
    z = norm.isf(0.0125)
    assert result.spent == pytest.approx([4 * norm.sf(z / math.sqrt(t)) for t in FIVE], rel=1e-9)
    assert result.lower == tuple(-z for z in result.upper)


def test_pocock_table() -> None:
    result = boundaries(FIVE, pocock(0.05))
    assert result.upper == pytest.approx([2.4380, 2.4268, 2.4101, 2.3966, 2.3859], abs=PRINTED)


def test_the_two_conventions_differ_and_agree_where_they_should() -> None:
    two_sided = boundaries(FIVE, obrien_fleming(0.05))
    one_sided = boundaries(FIVE, obrien_fleming(0.025, "one-sided"), sided=1)
    # Each side of the two-sided test spends .025 by the one-sided formula.
    assert one_sided.upper == pytest.approx(two_sided.upper, abs=1e-4)
    other = boundaries(FIVE, obrien_fleming(0.05, "one-sided"))
    assert other.upper[0] < two_sided.upper[0] - 0.4
    assert one_sided.lower == (-math.inf,) * 5


@pytest.mark.parametrize("sided", [1, 2])
@pytest.mark.parametrize("spending", [pocock(0.05), obrien_fleming(0.05), power_family(0.05, 2.0)])
def test_boundaries_spend_what_they_should(spending: object, sided: int) -> None:
    times = [0.1, 0.35, 0.4, 0.75, 0.99, 1.0]
    result = boundaries(times, spending, sided=sided)  # type: ignore[arg-type]
    below, above = exit_probabilities(times, result.lower, result.upper)
    assert np.cumsum(below + above) == pytest.approx(result.spent, abs=1e-9)


def test_one_look_is_the_fixed_sample_test() -> None:
    assert boundaries([1.0], pocock(0.05)).upper[0] == pytest.approx(norm.isf(0.025), abs=1e-9)
    below, above = exit_probabilities([1.0], [-math.inf], [1.645], drift=2.0)
    assert above[0] == pytest.approx(norm.sf(1.645 - 2.0), abs=1e-10)
    assert below[0] == 0.0


def test_power_by_simulation() -> None:
    result = boundaries(FIVE, obrien_fleming(0.05))
    _, above = exit_probabilities(FIVE, result.lower, result.upper, drift=3.2415)
    assert above.sum() == pytest.approx(0.893, abs=0.002)
    rng = np.random.default_rng(0)
    steps = rng.normal(3.2415 * 0.2, math.sqrt(0.2), size=(100_000, 5))
    z = np.cumsum(steps, axis=1) / np.sqrt(FIVE)
    first = np.argmax(z >= np.array(result.upper), axis=1)
    hit = (z >= np.array(result.upper)).any(axis=1)
    simulated = np.bincount(first[hit], minlength=5) / 100_000
    assert simulated == pytest.approx(above, abs=5 * 0.5 / math.sqrt(100_000))


def test_a_later_look_changes_nothing_earlier() -> None:
    short = boundaries([0.3, 0.5], pocock(0.05))
    long = boundaries([0.3, 0.5, 0.51, 1.0], pocock(0.05))
    assert long.upper[:2] == pytest.approx(short.upper, abs=1e-9)


def test_many_looks_and_looks_too_early_to_stop() -> None:
    many = boundaries([(i + 1) / 100 for i in range(100)], pocock(0.05))
    assert np.isfinite(many.upper).all()
    early = boundaries([0.005, 1.0], obrien_fleming(0.05))
    assert early.upper[0] == math.inf
    assert early.upper[1] == pytest.approx(norm.isf(0.025), abs=1e-6)


def test_crossed() -> None:
    result = boundaries(FIVE, pocock(0.05))
    assert result.crossed([1.0, 2.0]) is None
    assert result.crossed([1.0, -2.5, 3.0]) == 1
    assert boundaries(FIVE, pocock(0.05), sided=1).crossed([-9.0, 0.0]) is None
    assert result.nominal[0] == pytest.approx(2 * norm.sf(result.upper[0]))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: boundaries([], pocock(0.05)), "times"),
        (lambda: boundaries([0.5, 0.5], pocock(0.05)), "times"),
        (lambda: boundaries([0.5, 1.1], pocock(0.05)), "times"),
        (lambda: boundaries([0.5, 1.0], lambda t: 0.05 * (1 - t)), "spending"),
        (lambda: boundaries([1.0], pocock(0.05), sided=3), "sided"),
        (lambda: pocock(1.0), "alpha"),
        (lambda: obrien_fleming(0.05, "r"), "convention"),
        (lambda: power_family(0.05, 0.0), "exponent"),
        (lambda: exit_probabilities([0.5, 1.0], [-2.0], [2.0, 2.0]), "upper"),
        (lambda: boundaries([1.0], pocock(0.05)).crossed([1.0, 2.0]), "z"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]
