"""When alerts fire, and which can fire at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.common.units import DAY, HOUR, MINUTE, duration, percent, spoken
from understudy.monitor.slo.burn import (
    WORKBOOK,
    PeriodError,
    UnreachableError,
    Window,
    burns,
    false_pages,
    first,
    windows_of,
)

MONTH = 30 * DAY


def simulated(bad: float, threshold: float, long: float, short: float, step: float) -> float:
    """Seconds until both windows exceed the threshold, step by step."""
    elapsed = 0.0
    while elapsed < long:
        elapsed += step
        if all(min(elapsed, w) / w * bad > threshold for w in (long, short)):
            return elapsed
    return math.inf


def test_factors_are_those_of_the_workbook() -> None:
    found = burns(0.999, MONTH)
    assert [burn.factor for burn in found] == pytest.approx([14.4, 6, 3, 1])
    assert not any(burn.reason for burn in found)


@pytest.mark.parametrize(
    ("bad", "minutes"), [(1.0, 0.864), (0.5, 1.728), (0.1, 8.64), (0.0216, 40), (0.01, 216)]
)
def test_minutes_to_page_of_three_nines(bad: float, minutes: float) -> None:
    found = first(burns(0.999, MONTH), "page", bad, MONTH)
    assert found is not None
    assert found.seconds / 60 == pytest.approx(minutes)
    assert not found.guarded


@given(st.floats(0.002, 1.0), st.sampled_from([0.99, 0.995, 0.999, 0.9999]))
def test_the_closed_form_equals_a_simulation(bad: float, objective: float) -> None:
    for burn in burns(objective, MONTH):
        step = burn.window.long / 5000
        window = burn.window
        found = simulated(bad, burn.threshold, window.long, window.short, step)
        predicted = burn.to_fire(bad)
        if bad > burn.threshold * 1.001:
            assert predicted <= found <= predicted + 2 * step
        elif bad < burn.threshold * 0.999:
            assert math.isinf(found)
            assert math.isinf(predicted)


def test_the_budget_spent_is_the_intended_share() -> None:
    for objective in (0.99, 0.999, 0.9999):
        found = burns(objective, MONTH)
        for burn in found:
            one = first([burn], burn.window.severity, 1.0, MONTH)
            assert one is not None
            assert one.spent == pytest.approx(burn.window.share)


def test_an_alert_that_cannot_fire_is_lowered_with_its_reason() -> None:
    fast, slow, *_ = burns(0.9, MONTH)
    assert fast.factor == pytest.approx(8)
    assert fast.threshold == pytest.approx(0.8)
    assert "144 % bad events: it can never fire; lowered to 8 x" in fast.reason
    assert slow.factor == pytest.approx(6)
    assert not slow.reason
    assert burns(0.95, MONTH)[0].factor == pytest.approx(14.4), "72 % can be reached"


def test_an_alert_that_cannot_fire_is_rejected_on_request() -> None:
    with pytest.raises(UnreachableError, match=r"144 % bad events.*long window of 108 min"):
        burns(0.9, MONTH, refuse=True)
    with pytest.raises(UnreachableError, match=r"an objective above|long window of"):
        burns(0.1, MONTH)


def test_a_factor_below_one_is_raised() -> None:
    found = burns(0.99, 7 * DAY)
    assert [burn.factor for burn in found] == pytest.approx([3.36, 1.4, 1, 1])
    assert "raised to 1" in found[3].reason


def test_few_events_wait_for_the_minimum_number() -> None:
    found = burns(0.999, MONTH)
    many = first(found, "page", 1.0, MONTH, rate=10.0)
    few = first(found, "page", 1.0, MONTH, rate=5 / 3600)
    assert many is not None
    assert not many.guarded
    assert few is not None
    assert few.guarded
    assert few.seconds == pytest.approx(HOUR)
    assert few.burn.window.long == HOUR, "the window holds the first one until the last one comes"
    half = first(found, "page", 0.5, MONTH, rate=10 / 3600)
    assert half is not None
    assert half.seconds == pytest.approx(HOUR), "half of the events are bad"
    rare = first(found, "page", 1.0, MONTH, rate=5 / (7 * HOUR))
    assert rare is None, "in six hours there are never five"
    assert first(found, "ticket", 1.0, MONTH, rate=5 / (7 * HOUR)) is not None


def test_the_minimum_number_bounds_false_pages() -> None:
    assert false_pages(14.4, 1) > 0.05
    assert false_pages(14.4, 5) < 1e-4
    assert false_pages(6.0, 5) < 5e-3


def test_alerts_end_when_the_short_window_recovers() -> None:
    burn = burns(0.999, MONTH)[0]
    assert burn.to_end(1.0) == pytest.approx(300 * (1 - 0.0144))
    assert burn.to_end(0.01) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(300, "5m"), (3600, "1h"), (5400, "1h30m"), (30 * DAY, "30d"), (28 * DAY, "4w"), (15, "15s")],
)
def test_durations_are_written_as_prometheus_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_are_formatted_for_display() -> None:
    assert percent(0.0144) == "1.44 %"
    assert [spoken(s) for s in (51.84, 518.4, 12960, 6 * DAY)] == [
        "51.8 s", "8.64 min", "3.6 h", "6 d"]  # fmt: skip
    for bad in (0, -1, 0.5):
        with pytest.raises(ValueError, match="whole number"):
            duration(bad)
    assert len(WORKBOOK) == 4


@pytest.mark.parametrize("days", [6, 7, 28, 30, 90])
def test_long_periods_have_the_windows_of_the_workbook(days: int) -> None:
    assert windows_of(days * DAY) == WORKBOOK


@given(st.integers(7200, int(6 * DAY) - 1))
def test_short_periods_get_windows_of_the_same_factors(period: int) -> None:
    factors = {one.share * MONTH / one.long for one in WORKBOOK}
    windows = windows_of(float(period))
    assert windows
    for window in windows:
        assert window.long < period
        assert MINUTE <= window.short < window.long
        factor = window.share * period / window.long
        # Windows are whole minutes, of at least twelve.
        assert min(abs(factor / one - 1.0) for one in factors) < 0.05


def test_a_period_too_short_for_any_window_is_refused() -> None:
    with pytest.raises(PeriodError, match=r"60 min is too short: .* use 2h or more"):
        windows_of(HOUR)
    own = [Window("page", 0.1, HOUR, 5 * MINUTE)]
    assert windows_of(2 * HOUR, own) == own
    with pytest.raises(PeriodError, match="not longer than the long window of 1h"):
        windows_of(HOUR, own)


def test_the_windows_of_the_workbook() -> None:
    assert [(one.severity, one.share, one.long, one.short) for one in WORKBOOK] == [
        ("page", 0.02, 3600, 300),
        ("page", 0.05, 21_600, 1800),
        ("ticket", 0.10, 86_400, 7200),
        ("ticket", 0.10, 259_200, 21_600),
    ]


@pytest.mark.parametrize(
    ("period", "minutes"),
    [(3 * DAY, [(36, 3), (144, 12), (432, 36)]), (DAY, [(12, 1), (48, 4), (144, 12)]),
     (2 * HOUR, [(12, 1)])],
)  # fmt: skip
def test_the_short_window_is_a_twelfth(period: float, minutes: list[tuple[int, int]]) -> None:
    found = [(one.long / MINUTE, one.short / MINUTE) for one in windows_of(period)]
    assert found == minutes


def test_a_fault_on_top_of_another_is_noticed_earlier() -> None:
    burn = burns(0.999, MONTH)[0]
    assert burn.to_fire(0.5, 0.004) == pytest.approx(3600 * (0.0144 - 0.004) / (0.5 - 0.004))
    assert burn.to_fire(0.5, 0.02) == 0.0, "it fires already"
    assert math.isinf(burn.to_fire(0.5, 0.5)), "nothing changes"
    assert math.isinf(burn.to_fire(0.01, 0.02)), "it gets better"
    assert math.isinf(burn.to_fire(burn.threshold)), "a threshold is to be exceeded"


def test_thresholds_at_the_edges() -> None:
    reached = burns(0.95, MONTH, highest=14.4 * (1.0 - 0.95))[0]
    assert (reached.factor, reached.reason) == (pytest.approx(14.4), "")
    hardly = burns(0.94, MONTH)[0]
    assert "86.4 % bad events: it hardly ever fires; lowered to" in hardly.reason
    for objective in (1.0 - 1.0 / 14.4, 0.92):
        assert "it can never fire; lowered to" in burns(objective, MONTH)[0].reason
    # Just above a burn rate of one, there is something to lower to.
    assert burns(0.3, MONTH)[0].factor == pytest.approx(0.8 / 0.7)
    one = burns(0.2, MONTH)
    assert [burn.factor for burn in one] == pytest.approx([1.0] * 4)
    spent = burns(0.9, MONTH)[0].reason
    assert "lowered to 8 x (80 % bad events), which is reached after 1.111 % of the budget" in spent


def test_a_factor_just_below_one_is_raised() -> None:
    last = burns(0.99, 27 * DAY)[3]
    assert last.factor == 1.0
    assert "raised to 1" in last.reason
    assert not burns(0.99, MONTH)[3].reason


def test_where_no_window_can_help_another_objective_is_proposed() -> None:
    window = Window("page", 0.9, HOUR, 5 * MINUTE)
    with pytest.raises(UnreachableError, match=r"an objective above 20 % can"):
        burns(0.05, MONTH, [window])
    with pytest.raises(UnreachableError, match=r"a long window of 28\.5 d or more"):
        burns(0.05, MONTH, [Window("page", 0.8, HOUR, 5 * MINUTE)])


def test_of_two_alerts_at_the_same_moment_the_first_counts() -> None:
    twice = [Window("page", 0.02, HOUR, short * MINUTE) for short in (5, 10)]
    found = first(burns(0.999, MONTH, twice), "page", 1.0, MONTH)
    assert found is not None
    assert found.burn.window.short == 5 * MINUTE


@pytest.mark.parametrize(("factor", "least"), [(14.4, 1), (14.4, 5), (6.0, 5), (3.0, 2.5)])
def test_false_pages_are_tails_of_poisson(factor: float, least: float) -> None:
    from scipy.stats import poisson

    expected = np.arange(0.02, 40.0, 0.02)
    enough = np.maximum(math.ceil(least), np.floor(factor * expected) + 1)
    # The grid meets the discontinuities of the tail, so it is the same up to rounding.
    worst = float(poisson.sf(enough - 1, expected).max())
    assert false_pages(factor, least) == pytest.approx(worst, rel=1e-6)
