from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.common.units import quantity, seconds, share, size
from understudy.monitor.config.objective import Objective

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
            with pytest.raises(ValueError, match="examples"):
                reader(text)


@pytest.mark.parametrize("value", [True, None, [], {}, "-1s", "1e3s", "1s\x00", "s", "1", "٣s"])
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid duration"):
        seconds(value)


@pytest.mark.parametrize("value", [True, None, 1.0, "1.5MiB", "1MB", "1kb", "-1B", "1", "٣B"])
def test_no_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid size"):
        size(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50ms", 0.05), ("2 min", 120.0), ("2min", 120.0), ("1h", 3600.0), (" 3 ", 3.0), (3, 3.0),
        ("250us", 250e-6), ("250 µs", 250e-6), ("1.5e-3s", 1.5e-3), (".5 s", 0.5), ("1d", 86400.0),
    ],
)  # fmt: skip
def test_durations_of_a_plan(text: object, expected: float) -> None:
    assert seconds(text, loose=True) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["fast", "5 x", "5 %", True, None, "-1s", "+1s", "1s s", ""])
def test_no_durations_of_a_plan(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid duration"):
        seconds(value, loose=True)


@pytest.mark.parametrize("value", ["2min", "2 min", "5us", "5µs", ".5s", "1w"])
def test_a_configuration_takes_the_strict_forms_alone(value: str) -> None:
    with pytest.raises(ValueError, match=r"not a valid duration: '.*' \(examples: 30s, 5m\)"):
        seconds(value)


def test_shares() -> None:
    assert (share("99.9 %"), share("99.9%"), share(0.999), share(1)) == (0.999, 0.999, 0.999, 1.0)
    assert share("0.1 %", loose=True) == pytest.approx(0.001)
    assert (share("0.001", loose=True), share(5, loose=True)) == (0.001, 5.0)
    with pytest.raises(ValueError, match=r"write 99.9 %, or 0.999"):
        share(99.9)


@pytest.mark.parametrize("value", [True, None, "0.999", "5x", "-1 %", "1e1 %", "%", ""])
def test_no_shares(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid share"):
        share(value)


@pytest.mark.parametrize("value", [True, "5x", "-0.1", "5 ms", "pp"])
def test_no_shares_of_a_plan(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid share"):
        share(value, loose=True)


def test_quantities_leave_the_unit_to_the_caller() -> None:
    assert quantity("0.5 pp") == ("0.5", "pp")
    assert quantity("-1e-3units", loose=True) == ("-1e-3", "units")
    assert quantity("-1 pp") is None
    assert quantity("pp", loose=True) is None


@pytest.mark.parametrize(
    ("metric", "text", "limit"),
    [
        ("latency_p99", "<= 50ms", 0.05), ("latency_p99", " <= 0.05 ", 0.05),
        ("latency_p90", "<=50 µs", 50e-6), ("latency_p90", "<=50us", 50e-6),
        ("accuracy", ">= 90 %", 0.9), ("accuracy", ">= 0.9", 0.9), ("error_rate", "<= 1e-3", 1e-3),
        ("throughput", ">= 100 /s", 100.0), ("energy_per_prediction", "<= 5 mJ", 5e-3),
        ("energy_per_prediction", "<= 5 J", 5.0), ("cost_per_prediction", "<= .5", 0.5),
    ],
)  # fmt: skip
def test_limits_of_objectives(metric: str, text: str, limit: float) -> None:
    assert Objective.parse(metric, text).limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("latency_p99", "<= 5 %"), ("latency_p99", "<= 5 m"), ("accuracy", ">= 5 ms"),
        ("latency_p99", "5 ms"), ("latency_p99", "<= x"), ("latency_p99", "<= 1e999"),
        ("throughput", ">= 5 s"), ("latency_p99", "< 5 ms"),
    ],
)  # fmt: skip
def test_limits_with_other_units_are_refused(metric: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"write|unit|finite"):
        Objective.parse(metric, text)
