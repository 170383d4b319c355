"""Durations, shares, rates, sizes and names of percentiles: read, written and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.common.units import (
    byte_rate,
    duration,
    figure,
    joules,
    metric_name,
    number,
    percent,
    percentile,
    percentile_name,
    quantile,
    quantity,
    rate,
    ratio,
    seconds,
    share,
    size,
    spoken,
    write_rate,
    write_seconds,
    write_share,
)
from understudy.monitor.config.objective import Objective

SECONDS = {
    "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0,
    "d": 86400.0, "w": 604800.0,
}  # fmt: skip
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@given(st.integers(0, 10**9), st.sampled_from(sorted(SECONDS)), st.sampled_from(["", " "]))
def test_durations(number: int, unit: str, space: str) -> None:
    assert seconds(f"{number}{space}{unit}") == pytest.approx(number * SECONDS[unit])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h30m", 5400.0), ("1d12h", 129600.0), ("2 min", 120.0), ("1.5e-3s", 1.5e-3), ("1w", 604800),
        (".5 s", 0.5), (" 3 s ", 3.0), ("0", 0.0), (0, 0.0), (0.0, 0.0), ("1s500ms", 1.5),
    ],
)  # fmt: skip
def test_forms_of_durations(text: object, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@given(st.decimals("0.001", "9999", places=3))
def test_fractions_of_a_second_survive(number: object) -> None:
    assert seconds(f"{number}s") == float(str(number))


@given(st.floats(0, 1e9))
def test_durations_survive_being_written(number: float) -> None:
    assert seconds(write_seconds(number)) == number


@given(st.floats(0, 1e9))
def test_rates_survive_being_written(number: float) -> None:
    assert rate(write_rate(number)) == number


@given(st.integers(0, 10**6))
def test_shares_survive_being_written(number: int) -> None:
    assert share(write_share(number / 1e6)) == number / 1e6


@given(st.integers(0, 10**12), st.sampled_from(sorted(BYTES)))
def test_sizes_are_exact(number: int, unit: str) -> None:
    assert size(f"{number}{unit}") == number * BYTES[unit]
    assert byte_rate(f"{number}{unit}/s") == number * BYTES[unit]


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (seconds, 50, "50 has no unit: write 50ms or 50s"),
        (seconds, "50", "50 has no unit: write 50ms or 50s"),
        (seconds, 0.05, "0.05 has no unit: write 50ms or 0.05s"),
        (share, 0.5, "0.5 has no unit: write 0.5 % or 50 %"),
        (share, "0.5", "0.5 has no unit: write 0.5 % or 50 %"),
        (share, 1, "1 has no unit: write 1 % or 100 %"),
        (share, 99.9, "99.9 has no unit: write 99.9 %"),
        (rate, 100, "100 has no unit: write 100/s or 100/min"),
        (byte_rate, 1024, "1024 has no unit: write 1024B/s or 1024KiB/s"),
        (ratio, 10, "a percentage needs its sign: 10 %"),
    ],
)
def test_a_number_without_its_unit_is_refused(parse: object, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"has no unit|percentage") as caught:
        parse(value)  # type: ignore[operator]
    assert message in str(caught.value)


@given(st.floats(1e-9, 1e12) | st.integers(1, 10**12))
def test_no_limit_is_read_from_a_bare_number(number: float) -> None:
    for parse in (seconds, share, rate, byte_rate):
        for value in (number, str(number)):
            with pytest.raises(ValueError, match="has no unit"):
                parse(value)


def test_a_number_may_stand_alone_where_the_key_has_the_unit() -> None:
    assert (seconds(60, named=True), seconds("2m", named=True)) == (60.0, 120.0)
    assert (rate(60, named=True), rate("60/min", named=True)) == (60.0, 1.0)


@pytest.mark.parametrize(
    ("parse", "value", "meant"),
    [
        (seconds, "5 sec", "5s"), (seconds, "5 S", "5s"), (seconds, "2 hours", "2h"),
        (seconds, "1,5 s", "1.5s"), (share, "0,5 %", "0.5 %"), (share, "5 pct", "5 %"),
        (rate, "50 rps", "50/s"), (rate, "50/sec", "50/s"), (size, "3MB", "3MiB"), (size, "1k", "1KiB"),
    ],
)  # fmt: skip
def test_the_unit_that_was_meant_is_named(parse: object, value: str, meant: str) -> None:
    with pytest.raises(ValueError, match="did you mean") as caught:
        parse(value)  # type: ignore[operator]
    assert f"did you mean {meant}?" in str(caught.value)


@given(st.integers())
def test_plain_integers_are_bytes(number: int) -> None:
    assert size(number) == number


@given(st.text())
def test_any_other_text_is_refused_with_a_hint(text: str) -> None:
    for reader, units in ((seconds, SECONDS), (size, BYTES)):
        if not any(text.strip().endswith(unit) for unit in (*units, *"0123456789.")):
            with pytest.raises(ValueError, match="examples"):
                reader(text)


@pytest.mark.parametrize(
    "value",
    [True, None, [], {}, "-1s", "+1s", "1s\x00", "s", "", "٣s", "5 x", "5 %", "1s s", -1, "30m1h"],
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid duration"):
        seconds(value)


@pytest.mark.parametrize("value", [True, None, 1.0, "1.5MiB", "1MB", "1kb", "-1B", "1", "٣B"])
def test_no_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid size"):
        size(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1e999s"])
def test_durations_are_finite(value: object) -> None:
    with pytest.raises(ValueError, match=r"finite|not a valid duration: 1e999"):
        seconds(value)


def test_shares() -> None:
    assert (share("99.9 %"), share("99.9%"), share("0.1 %"), share(0)) == (0.999, 0.999, 0.001, 0.0)
    assert (ratio(0.1), ratio("10 %"), ratio(1), ratio(0)) == (0.1, 0.1, 1.0, 0.0)


@pytest.mark.parametrize("value", [True, None, "5x", "-1 %", "%", "", -0.5, "5 ms"])
def test_no_shares(value: object) -> None:
    with pytest.raises(ValueError, match="not a valid share"):
        share(value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p999", 0.999), ("p9999", 0.9999),
        ("p99.99", 0.9999), ("p1", 0.01), ("p0.5", 0.005), ("p100", None), ("p0", None), ("99", None), ("p", None), ("p999.9", None),
    ],
)  # fmt: skip
def test_names_of_percentiles(name: str, expected: float | None) -> None:
    assert percentile(name) == expected


def test_names_of_percentiles_are_written_in_one_way() -> None:
    assert [percentile_name(p) for p in (0.5, 0.99, 0.999, 0.9999)] == [
        "p50",
        "p99",
        "p99.9",
        "p99.99",
    ]
    assert metric_name("latency_p999") == metric_name("latency_p99.9") == "latency_p99.9"
    assert (metric_name("latency_mean"), metric_name("p99")) == ("latency_mean", "p99")
    assert quantile("p99.9") == quantile(0.999) == quantile("99.9 %") == 0.999


def test_quantities_leave_the_unit_to_the_caller() -> None:
    assert quantity("0.5 pp") == ("0.5", "pp")
    assert quantity("-1e-3units") == ("-1e-3", "units")
    assert quantity("pp") is None


@pytest.mark.parametrize(
    ("metric", "text", "limit"),
    [
        ("latency_p99", "<= 50ms", 0.05), ("latency_p99", " <= 0.05s ", 0.05),
        ("latency_p99", "<= 5 m", 300.0), ("latency_p999", "<= 1s", 1.0), ("error_rate", "<= 0", 0.0),
        ("latency_p90", "<=50 µs", 50e-6), ("latency_p90", "<=50us", 50e-6),
        ("accuracy", ">= 90 %", 0.9), ("accuracy", ">= 0.9", 0.9), ("error_rate", "<= 0.1 %", 1e-3),
        ("throughput", ">= 100 /s", 100.0), ("energy_per_prediction", "<= 5 mJ", 5e-3),
        ("energy_per_prediction", "<= 5 J", 5.0), ("cost_per_prediction", "<= .5", 0.5),
    ],
)  # fmt: skip
def test_limits_of_objectives(metric: str, text: str, limit: float) -> None:
    assert Objective.parse(metric, text).limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("latency_p99", "<= 5 %"), ("latency_p99", "<= 50"), ("error_rate", "<= 0.01"),
        ("throughput", ">= 100"), ("energy_per_prediction", "<= 0.5"), ("accuracy", ">= 5 ms"),
        ("latency_p99", "5 ms"), ("latency_p99", "<= x"), ("latency_p99", "<= 1e999"),
        ("throughput", ">= 5 s"), ("latency_p99", "< 5 ms"),
    ],
)  # fmt: skip
def test_limits_with_other_units_are_refused(metric: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"write|unit|finite|not a valid"):
        Objective.parse(metric, text)


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.999, 4, "99.9 %"),
        (0.99999, 4, "99.999 %"),
        (0.9999999, 3, "99.99999 %"),
        (0.99995, 2, "99.995 %"),
        (1.0, 4, "100 %"),
        (0.1 * 3 / 0.3 - 2.0**-52, 4, "100 %"),
        (0.0144, 4, "1.44 %"),
        (0.98765, 4, "98.77 %"),
        (0.0, 4, "0 %"),
        (1.5, 4, "150 %"),
        (0.123, 3, "12.3 %"),
        (0.9996, 3, "99.96 %"),
        (1e-9, 3, "0.0000001 %"),
        (1.234e-7, 3, "0.0000123 %"),
        (123.4, 3, "12,340 %"),
    ],
)
def test_a_share_keeps_the_digits_that_matter(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text


@given(st.floats(0.0, 1.0 - 1e-11), st.integers(2, 6))
def test_only_one_itself_is_a_hundred_percent(share: float, digits: int) -> None:
    assert percent(share, digits) != "100 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0.4 ms"), (0.9999, "999.9 ms"), (1.0, "1 s"), (119.0, "119 s"), (120.0, "2 min"),
        (7199.0, "120 min"), (7200.0, "2 h"), (172_799.0, "48 h"), (172_800.0, "2 d"),
        (864_000.0, "10 d"),
    ],
)  # fmt: skip
def test_times_are_spoken_in_the_unit_that_is_read_best(value: float, text: str) -> None:
    assert spoken(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1s"), (60, "1m"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m"), (86_400, "1d"),
        (604_800, "1w"), (2_419_200, "4w"), (2_592_000, "30d"), (694_861, "8d1h1m1s"),
        (300.0000004, "5m"),
    ],
)  # fmt: skip
def test_durations_in_the_notation_of_prometheus(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize("value", [0, -60, 0.5, 1.00001, 300.1])
def test_durations_of_prometheus_are_whole_seconds(value: float) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        duration(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.001, "1ms"), (0.25, "250ms"), (0.999, "999ms"), (1.0, "1s"), (60.0, "60s"),
        (120.0, "2m"), (90.0, "90s"), (3600.0, "60m"), (7200.0, "2h"), (86_400.0, "24h"),
        (2_592_000.0, "30d"), (0.0005, "0.0005s"), (1.5, "1.5s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(value: float, text: str) -> None:
    assert write_seconds(value) == text
    assert seconds(text) == value


def test_shares_and_rates_are_written_as_people_write_them() -> None:
    assert [write_share(value) for value in (0.0, 0.005, 0.999, 1.0)] == [
        "0 %", "0.5 %", "99.9 %", "100 %"
    ]  # fmt: skip
    assert [write_rate(value) for value in (100.0, 0.5)] == ["100/s", "0.5/s"]
    assert (number(1 - 0.999), number(2.0), number(1 / 3)) == ("0.001", "2", "0.333333333333")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/s", 1.0), ("60/min", 1.0), ("60/m", 1.0), ("3600/h", 1.0), ("86400/d", 1.0),
        ("0", 0.0), ("1e3/s", 1000.0),
    ],
)  # fmt: skip
def test_rates(text: str, expected: float) -> None:
    assert rate(text) == pytest.approx(expected, rel=1e-12)


def test_energies_and_figures() -> None:
    assert (joules("5 mJ"), joules("2 J"), joules(0)) == (0.005, 2.0, 0.0)
    assert (figure(0.9), figure("0.9"), figure("90 %"), figure(-3), figure("-2e3")) == (
        0.9, 0.9, 0.9, -3.0, -2000.0
    )  # fmt: skip
    for value in (True, None, "5 ms", "x", float("nan"), 10**301):
        with pytest.raises(ValueError, match=r"number"):
            figure(value)
    for value in ("5", 5, "5 kJ", -1, True):
        with pytest.raises(ValueError, match=r"energy|unit"):
            joules(value)


@pytest.mark.parametrize("value", [1.0001, 50, 100, True, None, "0.5", "101", float("inf")])
def test_a_ratio_is_between_0_and_1_or_has_its_sign(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be|not a valid"):
        ratio(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.0, "2 has no unit: write 2ms or 2s"),
        (1.0, "1.0 has no unit: write 1ms or 1s"),
        (0.25, "0.25 has no unit: write 250ms or 0.25s"),
    ],
)
def test_what_a_bare_number_may_mean(value: float, message: str) -> None:
    with pytest.raises(ValueError, match="has no unit") as caught:
        seconds(value)
    assert message.partition(": ")[2] in str(caught.value)


def test_long_durations_are_explained_in_hours_and_days() -> None:
    with pytest.raises(ValueError, match="write 30h or 30d"):
        seconds(30, long=True)
    with pytest.raises(ValueError, match=r"examples: 12h, 30d"):
        seconds("x", long=True)


def test_a_long_text_is_cut_in_a_message() -> None:
    with pytest.raises(ValueError, match="has no unit") as caught:
        seconds("1" * 41)
    assert f"{'1' * 40} …" in str(caught.value)
    with pytest.raises(ValueError, match="has no unit") as caught:
        seconds("1" * 40)
    assert "…" not in str(caught.value)
