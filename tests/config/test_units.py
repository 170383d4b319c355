from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.config.units import seconds, size

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@given(st.integers(0, 10**9), st.sampled_from(sorted(SECONDS)), st.sampled_from(["", " "]))
def test_durations(number: int, unit: str, space: str) -> None:
    assert seconds(f"{number}{space}{unit}") == pytest.approx(number * SECONDS[unit])


@given(st.decimals("0.001", "9999", places=3))
def test_fractions_of_a_second_survive(number: object) -> None:
    assert seconds(f"{number}s") == float(str(number))


@given(st.integers(0, 10**12), st.sampled_from(sorted(BYTES)))
def test_sizes_are_exact(number: int, unit: str) -> None:
    assert size(f"{number}{unit}") == number * BYTES[unit]


@given(st.one_of(st.integers(), st.floats(allow_nan=False)))
def test_plain_numbers_are_seconds(number: float) -> None:
    try:
        expected = float(number)
    except OverflowError:
        with pytest.raises(ValueError, match="duration"):
            seconds(number)
    else:
        assert seconds(number) == expected


@given(st.integers())
def test_plain_integers_are_bytes(number: int) -> None:
    assert size(number) == number


@given(st.text())
def test_any_other_text_is_refused_with_a_hint(text: str) -> None:
    for reader, units in ((seconds, SECONDS), (size, BYTES)):
        if not any(text.strip().endswith(unit) for unit in units):
            with pytest.raises(ValueError, match="write"):
                reader(text)


@pytest.mark.parametrize("value", [True, None, [], {}, "-1s", "1e3s", "1s\x00", "s", "1", "٣s"])
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds(value)


@pytest.mark.parametrize("value", [True, None, 1.0, "1.5MiB", "1MB", "1kb", "-1B", "1", "٣B"])
def test_no_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="no size"):
        size(value)
