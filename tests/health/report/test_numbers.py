"""Numbers in reasons, and the axes of charts."""

from __future__ import annotations

import pytest

from understudy.monitor.health.report.numbers import both, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7_700.0, "7,700"),
        (129.0, "129"),
        (129.456, "129.5"),
        (0.0129, "0.0129"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1_357_000_123.4, "1,357,000,000"),
        (3e-7, "3e-07"),
        (float("inf"), "inf"),
    ],
)
def test_values(value: float, text: str) -> None:
    assert shown(value) == text


def test_two_values_have_the_digits_that_tell_them_apart() -> None:
    assert both(7_700.0, 129.0) == ("7,700", "129")
    assert both(2.0**53 + 5_000, 2.0**53) == (
        "9,007,199,254,750,000",
        "9,007,199,254,740,000",
    )
    assert both(5.0, 5.0) == ("5", "5")
