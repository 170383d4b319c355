"""No traffic: at night it is usual, in the middle of a day it is not, and it stays a finding."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.sheets import take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.silence import Silence
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options
from understudy.shadow.state import FieldError

HOUR, DAY = 3600.0, 86400.0
START = 1767571200.0
"""A Monday, 00:00 UTC."""


def office(days: int, chance: random.Random) -> Iterator[float]:
    """A request every 20 s on average on working days, from about 8 to about 18."""
    for day in range(days):
        if day % 7 >= 5:
            continue
        now = START + day * DAY + 8 * HOUR + chance.uniform(-600.0, 600.0)
        end = START + day * DAY + 18 * HOUR + chance.uniform(-600.0, 600.0)
        while now < end:
            yield now
            now += chance.expovariate(0.05)


def problems(
    silence: Silence, times: Iterator[float], until: float, batch: int = 50
) -> list[float]:
    """The hours since the start at which it is a problem, looking every ten minutes."""
    found = []
    waiting: list[float] = []
    look = START
    pending = next(times, None)
    while look < until:
        while pending is not None and pending <= look:
            waiting.append(pending)
            pending = next(times, None)
            if len(waiting) == batch:
                silence.arrived(np.array(waiting))
                waiting = []
        if waiting:
            silence.arrived(np.array(waiting))
            waiting = []
        if silence.newest and silence.longer_than_usual(look):
            found.append((look - START) / HOUR)
        look += 600.0
    return found


@pytest.mark.parametrize("batch", [1, 50])
def test_nights_and_weekends_are_usual(batch: int) -> None:
    silence = Silence()
    found = problems(silence, office(28, random.Random(1)), START + 28 * DAY, batch)
    # The first night and the first weekend could not be known.
    nights = [(18, 33), (4 * 24 + 18, 7 * 24 + 9)]
    assert {n for hour in found for n, (a, b) in enumerate(nights) if a < hour < b} == {0, 1}
    assert all(any(a < hour < b for a, b in nights) for hour in found)
    # Five of the longest gaps of a working day, doubled by these two.
    assert silence.limit <= 3000.0


def test_an_outage_at_work_is_noticed_at_once_and_lasts() -> None:
    """Over the night, the weekend, and until the next request."""
    stops, again = START + 18 * DAY + 14 * HOUR, START + 23 * DAY + 9 * HOUR

    def times() -> Iterator[float]:
        return (t for t in office(28, random.Random(2)) if not stops <= t < again)

    before, silence = Silence(), Silence()
    problems(before, times(), stops)
    found = [hour * HOUR + START for hour in problems(silence, times(), START + 28 * DAY)]
    late = [one for one in found if one >= START + 8 * DAY]
    assert late[0] - stops <= before.limit + 1200.0 <= 2 * HOUR
    assert late == [late[0] + 600.0 * n for n in range(len(late))]
    assert again - 600.0 <= late[-1] < again + 600.0
    assert silence.limit == pytest.approx(2.0 * before.limit), "days are not a usual gap"


def test_a_job_of_every_week_is_missed_after_eight_days() -> None:
    def weekly() -> Iterator[float]:
        for week in range(5):
            yield from (START + 7 * week * DAY + 3 * HOUR + n for n in range(500))

    found = problems(Silence(), weekly(), START + 38 * DAY)
    assert [hour for hour in found if 8 * 24 <= hour < 28 * 24] == []
    assert min(hour for hour in found if hour > 8 * 24) == pytest.approx(36 * 24 + 3.3, abs=0.4)


def test_usual_gaps_raise_the_limit() -> None:
    """A request every ten minutes: no finding once that is known, one after an hour of silence."""
    chance = random.Random(3)

    def rare(until: float) -> Iterator[float]:
        now = START
        while now < until:
            yield now
            now += chance.uniform(500.0, 700.0)

    silence = Silence()
    stops = START + 9 * DAY
    found = problems(silence, rare(stops), stops + 3 * DAY)
    assert all(hour < 1 or hour > 9 * 24 for hour in found)
    assert 2500.0 <= silence.limit <= 3500.0
    assert found[-1] >= 12 * 24 - 1
    assert min(hour for hour in found if hour > 1) <= 9 * 24 + 1.2


@pytest.mark.parametrize("stops", [5 * DAY + 12 * HOUR, 10 * HOUR, 30 * HOUR, 20 * DAY])
def test_it_never_ends_by_itself(stops: float) -> None:
    times = (START + 30.0 * n for n in range(int(stops / 30.0)))
    found = problems(Silence(), times, START + stops + 20 * DAY)
    begins = found[0] * HOUR - stops
    assert begins <= 1200.0
    assert len(found) == pytest.approx((20 * DAY - begins) / 600.0, abs=1)


def test_the_state_goes_on_where_it_was() -> None:
    one, other = Silence(), Silence()
    times = list(office(10, random.Random(4)))
    one.arrived(np.array(times[:9000]))
    state = json.loads(json.dumps(one.dump_state()))
    other.load_state(state)
    for silence in (one, other):
        silence.arrived(np.array(times[9000:]))
    assert one.dump_state() == other.dump_state()
    assert len(json.dumps(state)) < 250
    for bad in ("0x" + "f" * 90, "-0x1", "x", 7):
        with pytest.raises(FieldError, match="active"):
            Silence().load_state({**state, "active": bad})


def test_requests_out_of_order_and_jumps_of_the_clock() -> None:
    chance = random.Random(5)
    times = list(office(10, chance))
    shuffled = times[:]
    for begin in range(0, len(times), 50):
        part = shuffled[begin : begin + 50]
        chance.shuffle(part)
        shuffled[begin : begin + 50] = part
    one, other = Silence(), Silence()
    for begin in range(0, len(times), 50):
        one.arrived(np.array(times[begin : begin + 50]))
        other.arrived(np.array(shuffled[begin : begin + 50]))
    assert one.dump_state() == other.dump_state()
    one.arrived(np.array([-1e9, 0.0, 1e12]))
    assert one.limit <= 86400.0 * 5
    assert not one.longer_than_usual(START)


@pytest.mark.parametrize(("stale", "hour"), [(None, 15), (None, 22), (120.0, 15), (120.0, 22)])
def test_a_finding_of_a_model(stale: float | None, hour: int) -> None:
    """At 15 o'clock it is one, at 22 o'clock only where a limit for every hour is configured."""
    chance = random.Random(6)

    def cells(count: int) -> list[list[float]]:
        return [[chance.gauss(0.0, 1.0)] for _ in range(count)]

    builder = Builder(model="m", model_version="1")
    builder.add(("x",), [[value for (value,) in cells(2000)]])
    watch = ModelWatch(builder.finish(), Options(stale=stale))
    now = START + 9 * DAY + hour * HOUR
    # Every tenth, which are enough, and as usual gaps of minutes.
    times = [t for t in list(office(10, chance))[::5] if t < now - (2 * HOUR if hour == 15 else 0)]
    take(watch, ("x",), cells(len(times)), times, alone=False)
    watch.flush()
    found = [s for s in signals_of(watch, "m", "1", now) if s.key.endswith("//stale")]
    if stale is None and hour == 22:
        assert found == []
    else:
        (signal,) = found
        assert signal.title == "No traffic for longer than usual"
        assert signal.since == times[-1]
