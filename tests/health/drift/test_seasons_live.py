"""Hours that exist, and cycles that live rows show."""

from __future__ import annotations

import json

import numpy as np
import pytest

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.cycles import learn_cycles
from understudy.monitor.baseline.encoder import Batch
from understudy.monitor.detectors.seasons import CELLS, LiveSeasons, hour_of_week
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

MONDAY = 1_767_571_200.0
DAY = 86_400.0


def office(rng: np.random.Generator, first: int, weeks: int) -> tuple[np.ndarray, np.ndarray]:
    """Forty rows an hour from 8 to 19 o'clock; Mondays are 1.5 higher, afternoons up to one."""
    days = np.arange(7 * first, 7 * (first + weeks))
    offsets = np.array([hour * 3600.0 + 90.0 * n for hour in range(8, 19) for n in range(40)])
    times = (MONDAY + days[:, None] * DAY + offsets).ravel()
    hour = (times % DAY) // 3600.0
    monday = hour_of_week(times) < 24
    return rng.normal(size=len(times)) + 1.5 * monday + 0.1 * hour, times


@pytest.mark.parametrize("weeks", [2, 8])
def test_office_hours_do_not_alarm_on_mondays(weeks: int) -> None:
    # A chart has a run length of a million rows; ten weeks have 15,400. What is found has a
    # probability of about 1.5 % by the run length alone; the seed is one of the others.
    rng = np.random.default_rng(1)
    x, times = office(rng, 0, weeks)
    builder = Builder(model="m")
    builder.begin(["x"], [x.tolist()])
    builder.add(["x"], [x.tolist()])
    baseline = builder.finish()
    baseline.seasons = learn_cycles(baseline, lambda: [(["x"], [x.tolist()], times.tolist())])
    assert baseline.seasons is not None
    watch = ModelWatch(baseline, Options())
    later, moments = office(rng, weeks, 5)
    for start in range(0, len(later), 110):
        part = slice(start, start + 110)
        batch = Batch(("x",), [later[part]], [b""] * len(later[part]), moments[part], False)
        watch.evaluate(batch)
        found = signals_of(watch, "m", "", float(moments[part][-1]))
        assert [signal.title for signal in found if signal.kind == "drift"] == []
    assert "the weekly cycle (UTC) is that of the baseline" in " ".join(watch.assumptions)
    # And a level that is not one of the week is found on a Monday as on any other day.
    gone, moments = office(rng, weeks + 5, 1)
    batch = Batch(("x",), [gone + 1.0], [b""] * len(gone), moments, False)
    watch.evaluate(batch)
    assert watch.drifted().tolist() == [True]


def cycle(times: np.ndarray) -> np.ndarray:
    return np.asarray(0.7 * np.sin(2.0 * np.pi * times / DAY))


def fed(seasons: LiveSeasons, x: np.ndarray, times: np.ndarray) -> LiveSeasons:
    for start in range(0, len(x), 200):
        seasons.update(x[start : start + 200], times[start : start + 200])
    return seasons


def test_live_rows_teach_the_shape_of_the_week() -> None:
    rng = np.random.default_rng(2)
    times = MONDAY + 60.0 * np.arange(14 * 1440)
    x = rng.normal(size=(len(times), 2))
    x[:, 0] += cycle(times)
    seasons = fed(LiveSeasons(np.full((CELLS, 2), np.inf)), x, times)
    assert seasons.learned.tolist()[0] is True
    hours = MONDAY + 3600.0 * (np.arange(CELLS) + 0.5)
    # A mean of 840 rows of the hour of a day has a standard error of 0.035, drawn to the others.
    np.testing.assert_allclose(seasons.offsets[:, 0], cycle(hours), atol=0.3)
    assert np.abs(seasons.offsets[:, 1]).max() < 0.2
    again = LiveSeasons(np.full((CELLS, 2), np.inf))
    again.load_state(json.loads(json.dumps(seasons.dump_state())))
    seasons.update(x[:1], times[-1:])
    np.testing.assert_allclose(again.offsets, seasons.offsets, atol=2e-3)


def test_a_drift_is_not_learned_as_a_cycle() -> None:
    rng = np.random.default_rng(3)
    times = MONDAY + 60.0 * np.arange(21 * 1440)
    x = rng.normal(size=(len(times), 1))
    x[7 * 1440 :] += 1.0  # from the second week on
    seasons = fed(LiveSeasons(np.full((CELLS, 1), np.inf)), x, times)
    assert np.abs(seasons.offsets).max() < 0.2
    # Where the baseline knows its hours, they move by three standard errors at most.
    x[:, 0] += cycle(times)
    known = fed(LiveSeasons(np.full((CELLS, 1), 0.03)), x, times)
    assert np.abs(known.offsets).max() <= 0.1


def test_late_rows_do_not_count_as_visits() -> None:
    seasons = LiveSeasons(np.full((CELLS, 1), np.inf))
    times = MONDAY + np.array([0.0, 3600.0, 10.0, 3700.0, 7200.0])
    seasons.update(np.ones((5, 1)), times)
    assert seasons._visits.sum() == 2.0
    assert seasons._counts.sum() == 3.0  # the late one, of the first hour, counts for nothing
