"""The history in three resolutions: it merges without loss, over crashes and jumps of the clock."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.monitor.history.series import course, step_of
from understudy.monitor.history.span import Span, dump, load, merged
from understudy.monitor.history.store import RESOLUTIONS, History
from understudy.monitor.records.log.writer import SegmentLog
from understudy.monitor.stats.distribution import Distribution
from understudy.monitor.stats.reader import labels_of
from understudy.monitor.stats.windows import Delta, Slot, total_of

START = 1_800_000_000.0
KEY = ("delays", "champion", "primary")


def slot(seconds: float, *durations: float, outcome: str = "ok", arm: str = "champion") -> Slot:
    """Requests that took so long, within so many seconds."""
    labels = labels_of({"model": "delays", "arm": arm, "role": "primary", "outcome": outcome})
    result = Slot(100.0, 100.0 + seconds)
    if durations:
        whole = Distribution.of(durations)
        filled = np.flatnonzero(whole.counts)
        delta = Delta(filled.astype(np.uint16), whole.counts[filled], whole.sum_ns, whole.max_ns)
        result.counters["requests", labels] = len(durations)
        result.sketches["duration", labels] = delta
    return result


def opened(folder: Path, **options: Any) -> History:
    history = History(folder, **options)
    history.flush()
    return history


def contents(history: History, index: int, since: float = 0.0, until: float = 1e11) -> Any:
    """All requests of a resolution: counts by outcome, buckets, and the sum of durations."""
    counts: Counter[str] = Counter()
    buckets: Counter[int] = Counter()
    total = 0
    for span in history.spans(index, since, until):
        for key, traffic in span.traffic.items():
            for outcome, count in traffic.counts.items():
                counts["/".join((*key, outcome))] += count
            if traffic.durations is not None:
                pairs = zip(traffic.durations.buckets, traffic.durations.counts, strict=True)
                for bucket, count in pairs:
                    buckets[int(bucket)] += int(count)
                total += traffic.durations.sum_ns
    return counts, buckets, total


STEPS = st.lists(
    st.tuples(
        # The clock goes on, stands still, jumps ahead for hours, and back.
        st.sampled_from([1.0, 1.0, 1.0, 7.0, 31.0, 400.0, 5000.0, 0.0, -30.0, -4000.0]),
        st.lists(st.floats(1e-4, 30.0), max_size=4),
        st.sampled_from(["take", "take", "take", "flush", "restart"]),
        st.sampled_from(["champion", "candidate"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_every_resolution_holds_the_merge_of_all_that_came(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("history")
    history, now = opened(folder), START
    expected: tuple[Counter[str], Counter[int], int] = (Counter(), Counter(), 0)
    for move, durations, then, arm in steps:
        now += move
        history.take(slot(1.0, *durations, arm=arm), now)
        whole = Distribution.of(durations)
        expected[0].update({f"delays/{arm}/primary/ok": len(durations)} if durations else {})
        expected[1].update({int(n): int(whole.counts[n]) for n in np.flatnonzero(whole.counts)})
        expected = (expected[0], expected[1], expected[2] + whole.sum_ns)
        if then == "flush":
            history.flush()
        if then == "restart":
            history.close()
            history = opened(folder)
    for index in range(len(RESOLUTIONS)):
        assert contents(history, index) == expected, RESOLUTIONS[index].name
    history.close()


def test_a_killed_process_loses_the_open_slot_alone(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in range(200):
        history.take(slot(1.0, 0.01), START + second)
        history.flush()
    for ring in history._rings:  # as if killed: nothing is written or synced any more
        assert ring.log is not None
        ring.log.close()
    again = opened(tmp_path)
    for index in range(3):
        assert contents(again, index)[0] == {"delays/champion/primary/ok": 190}
    again.take(slot(1.0, 0.01), START + 201)
    assert contents(again, 2)[0] == {"delays/champion/primary/ok": 191}
    again.close()


def test_a_damaged_file_costs_its_damaged_part(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in range(0, 300, 10):
        history.take(slot(10.0, 0.01), START + second)
    history.close()
    (file,) = (tmp_path / "10s").glob("*.useg")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    again = opened(tmp_path)
    assert contents(again, 0)[0] == {"delays/champion/primary/ok": 29}
    assert contents(again, 1)[0] == {"delays/champion/primary/ok": 30}
    again.close()


def test_a_ring_keeps_a_number_of_slots_and_a_size(tmp_path: Path) -> None:
    chance = random.Random(1)
    for size, name in ((3 << 20, "by slots"), (3 << 16, "by size")):
        history = opened(tmp_path / name, max_bytes=size)
        for number in range(3000):
            came = [chance.expovariate(10) for _ in range(3)]
            history.take(slot(10.0, *came), START + 10 * number)
            if number % 100 == 0:
                history.flush()
        history.flush()
        for index, one in enumerate(RESOLUTIONS):
            folder = tmp_path / name / one.name
            kept = sum(file.stat().st_size for file in folder.glob("*.useg"))
            assert kept <= size // 3 + 4096
            spans = history.spans(index, 0.0, 1e11)
            assert len(spans) <= 1.25 * one.slots
            assert (len(spans) >= one.slots) == (index == 0 and name == "by slots")
        # Where the finest one does not reach any more, a coarser one is shown.
        begin = course(history, ["requests"], START, START + 30_000)
        assert begin.resolution != "10s"
        assert sum(v or 0 for v in begin.series[0]["values"]) == 9000
        history.close()


def test_a_folder_that_cannot_be_used_holds_nothing_up(tmp_path: Path) -> None:
    holder = SegmentLog(tmp_path / "10s", 1 << 20)
    history = opened(tmp_path)
    assert history.error is not None
    for second in range(0, 100, 10):
        history.take(slot(10.0, 0.01), START + second)
    history.flush()
    assert contents(history, 0)[0] == {"delays/champion/primary/ok": 10}, "shown all the same"
    holder.close()
    history.flush()
    assert history.error is None
    history.close()
    again = opened(tmp_path)
    for index in range(3):
        assert contents(again, index)[0] == {"delays/champion/primary/ok": 10}
    again.close()


def test_series_have_one_value_for_each_step(tmp_path: Path) -> None:
    history = opened(tmp_path, gauges=lambda: {("delays", "age", "statistic"): 0.5})
    for second in range(0, 120, 2):
        history.take(slot(2.0, 0.01, 0.03), START + second)
        history.take(slot(0.0, 0.5, outcome="timeout"), START + second)
    found = course(history, ["rate", "error_rate", "p99", "requests"], START, START + 120, 60)
    values = {one["name"]: one["values"] for one in found.series}
    assert found.step == 60
    assert values["requests"] == [90, 90]
    assert values["rate"] == [pytest.approx(1.5), pytest.approx(1.5)]
    assert values["error_rate"] == [pytest.approx(1 / 3)] * 2
    assert values["p99"] == [pytest.approx(0.5, rel=0.01)] * 2
    later = course(history, ["requests"], START - 600, START + 120, 60)
    assert later.series[0]["values"][:10] == [None] * 10, "nothing was observed, which is not zero"
    (gauge,) = course(history, ["statistic"], START, START + 120).series
    assert gauge["column"] == "age"
    assert gauge["values"] == [0.5, None], "of slots that are over"
    assert course(history, ["requests"], START, START + 120, arm="other").series == []
    history.close()


def test_a_chart_that_fits_begins_with_what_is_kept(tmp_path: Path) -> None:
    history = opened(tmp_path, gauges=lambda: {("delays", "age", "statistic"): 0.5})
    begun = START + 40_000.0
    for second in range(0, 300, 2):
        history.take(slot(2.0, 0.01), begun + second)
    now = begun + 300.0
    for ago in (900.0, 3600.0, 86_400.0, 2_592_000.0):
        found = course(history, ["requests"], now - ago, now, fit=True)
        assert found.since == begun, ago
        assert found.step == 10, "as fine as it is kept"
        assert None not in found.series[0]["values"]
        assert sum(found.series[0]["values"]) == 150
    gauges = course(history, ["statistic"], now - 3600.0, now, fit=True)
    assert gauges.since >= begun - 60
    assert gauges.series[0]["values"][0] == 0.5
    shorter = course(history, ["requests"], now - 100.0, now, fit=True)
    assert shorter.since == now - 100.0, "never before what was asked for"
    plain = course(history, ["requests"], now - 3600.0, now)
    assert plain.since == now - 3600.0
    assert len(plain.times) > len(course(history, ["requests"], now - 3600.0, now, fit=True).times)
    history.close()


def test_an_empty_history_fits_to_nothing(tmp_path: Path) -> None:
    history = opened(tmp_path)
    found = course(history, ["rate"], START, START + 3600.0, fit=True)
    assert (found.since, found.series) == (START, [])
    history.close()


def test_a_chart_gets_a_bounded_number_of_points() -> None:
    for seconds in (60.0, 900.0, 21_600.0, 172_800.0, 2_592_000.0, 1e9):
        assert seconds / step_of(seconds, None) <= 200
        assert seconds / step_of(seconds, 10.0) <= 1000
    assert step_of(900.0, None) == 10
    assert step_of(900.0, 25.0) == 30


def test_a_span_comes_back_from_disk_and_anything_else_is_refused() -> None:
    span = Span(1_800_000_000, 10.0)
    span.observe(slot(10.0, 0.01, 0.02))
    span.gauges["delays", "age", "psi"] = 0.25
    back, through = load(dump(span, 7))
    assert through == 7
    assert back.gauges == span.gauges
    assert back.traffic[KEY].counts == {"ok": 2}
    first, second = back.traffic[KEY].durations, span.traffic[KEY].durations
    assert first is not None
    assert second is not None
    assert total_of([first]).quantiles() == total_of([second]).quantiles()
    assert merged([back, span], 0).traffic[KEY].counts == {"ok": 4}
    good = dump(span, 7)
    for wrong in (b"", b"{}", b"[1]", good[:-9], good.replace(b'"version":1', b'"version":9'),
                  good.replace(b'"seconds":20.0', b'"seconds":-1.5'),
                  good.replace(b'"ok":2', b'"ok":1.5')):  # fmt: skip
        assert wrong != good
        with pytest.raises((ValueError, KeyError, TypeError)):
            load(wrong)
