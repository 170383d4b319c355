"""The statistics of a worker: full memory, removed arms, broken files. Nothing raises."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.disks import disk
from understudy.monitor.proxy.series import SeriesRow
from understudy.monitor.records.record import OK, TIMEOUT
from understudy.monitor.stats import shared
from understudy.monitor.stats.reader import Snapshot, StatsReader
from understudy.monitor.stats.shared import IsLive, SharedStats
from understudy.monitor.stats.totals import FILE_NAME, Statistics, earlier_name
from understudy.monitor.stats.windows import Windows

SMALL = 1 << 20
"""Room for some 45 sketches."""


def row_of(stats: SharedStats, arm: str, role: str = "primary") -> SeriesRow:
    labels = {"model": "m", "version": "", "protocol": "auto", "arm": arm, "role": role}
    return SeriesRow(stats, labels)


def count(stats: SharedStats, row: SeriesRow, times: int = 1, outcome: int = OK) -> None:
    for _ in range(times):
        row.of(outcome).add(stats.words, 5_000_000, 1_000_000, 0, 10, 20)


def requests(snapshot: Snapshot, arm: str) -> int:
    return snapshot.counter("requests", arm=arm)


def durations(snapshot: Snapshot) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels, words in snapshot.sketches_named("duration").items():
        arm = dict(labels)["arm"]
        found[arm] = found.get(arm, 0) + int(words[0])
    return found


def only(names: set[str]) -> IsLive:
    return lambda labels: labels.get("arm", "other") in names


def test_what_has_no_room_is_counted_as_other(tmp_path: Path) -> None:
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    rows = [row_of(stats, f"arm-{number}") for number in range(60)]
    for row in rows:
        count(stats, row, 2)
        count(stats, row, 1, TIMEOUT)
    snapshot = StatsReader(tmp_path).read()
    assert snapshot.counter("requests") == sum(durations(snapshot).values()) == 180
    assert requests(snapshot, "arm-0") == 3
    assert durations(snapshot)["other"] > 100
    assert snapshot.counter("statistics_overflowed") > 0
    assert snapshot.gauge("statistics_full") == 1
    assert snapshot.counter("requests", arm="other", model="other", outcome="timeout") > 0


def test_a_name_that_is_too_long_is_counted_as_other(tmp_path: Path) -> None:
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    count(stats, row_of(stats, "a" * 5000))
    assert requests(StatsReader(tmp_path).read(), "other") == 1


def test_rows_of_removed_arms_are_used_again_and_no_count_is_lost(tmp_path: Path) -> None:
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    reader = StatsReader(tmp_path)
    seen = total = 0
    for generation in range(40):
        names = {f"sha-{generation:03}-{number}" for number in range(5)}
        stats.retire(only(names))
        for name in sorted(names):
            count(stats, row_of(stats, name), 3)
            total += 3
        snapshot = reader.read()
        assert snapshot.counter("requests") == sum(durations(snapshot).values()) == total
        assert all(requests(snapshot, name) == 3 for name in names)
        assert requests(snapshot, "other") >= seen
        seen = requests(snapshot, "other")
    assert snapshot.counter("statistics_reclaimed") > 100
    assert snapshot.counter("statistics_overflowed") == 0
    assert stats.words[shared.USED] <= SMALL


def test_a_row_that_is_used_while_it_is_freed_counts_as_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "RETENTION", -1.0)
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    old = row_of(stats, "old")
    hold = stats.hold(old.forget)
    count(stats, old, 4)
    stats.retire(only({"other", "new"}))
    stats.tidy()
    for number in range(4):
        count(stats, row_of(stats, "new", f"role-{number}"))  # in the place of the old one
    count(stats, old, 2)  # a request that was in flight
    snapshot = StatsReader(tmp_path).read()
    assert requests(snapshot, "old") == 0
    assert requests(snapshot, "other") == 6
    del hold
    assert requests(snapshot, "new") == 4
    assert durations(snapshot) == {"other": 6, "new": 4}


def test_an_arm_that_returns_keeps_its_counts(tmp_path: Path) -> None:
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    count(stats, row_of(stats, "a"), 7)
    stats.retire(lambda _: False)
    stats.tidy()
    stats.retire(lambda _: True)
    stats.tidy()
    count(stats, row_of(stats, "a"))
    snapshot = StatsReader(tmp_path).read()
    assert requests(snapshot, "a") == 8
    assert requests(snapshot, "other") == 0


def test_removed_arms_are_kept_for_a_while_and_then_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    count(stats, row_of(stats, "a"), 7)
    gauge = stats.gauge("in_flight", {"arm": "a"})
    stats.words[gauge] = 1
    stats.retire(lambda labels: labels.get("arm", "other") == "other")
    stats.tidy()
    assert requests(StatsReader(tmp_path).read(), "a") == 7
    monkeypatch.setattr(shared, "RETENTION", -1.0)
    stats.tidy()
    snapshot = StatsReader(tmp_path).read()
    assert requests(snapshot, "a") == 0
    assert requests(snapshot, "other") == 7
    assert snapshot.gauge("in_flight") == 1, "a gauge in use is not freed"


def test_the_successor_of_a_worker_with_full_statistics_starts(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.stats"
    stats = SharedStats(path, SMALL)
    for number in range(60):
        count(stats, row_of(stats, f"arm-{number}"))
    before = StatsReader(tmp_path).read().counter("requests")
    stats.close()
    successor = SharedStats(path, SMALL)
    successor.retire(lambda labels: labels.get("arm", "other") == "last")
    count(successor, row_of(successor, "last"))
    snapshot = StatsReader(tmp_path).read()
    assert snapshot.counter("requests") == before + 1 == 61
    assert requests(snapshot, "last") == 1
    assert snapshot.gauge("statistics_full") == 0


def test_a_successor_uses_places_that_were_freed(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.stats"
    stats = SharedStats(path, SMALL)
    count(stats, row_of(stats, "old"))
    stats.words[shared.GENERATION] += 1  # it was killed while it freed an entry
    stats.close()
    successor = SharedStats(path, SMALL)
    assert successor.words[shared.GENERATION] % 2 == 0
    assert requests(StatsReader(tmp_path).read(), "old") == 1


def test_a_count_that_would_overflow_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.stats"
    stats = SharedStats(path, SMALL)
    stats.words[stats.counter("requests", {"arm": "a"})] = (1 << 64) - 1
    stats.close()
    successor = SharedStats(path, SMALL)
    successor.words[successor.counter("requests", {"arm": "a"})] += 1
    assert StatsReader(tmp_path).read().counter("requests") == 1


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "worker-0.stats").symlink_to(victim)
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    stats.words[stats.counter("requests")] += 1
    assert victim.read_text() == "precious"
    assert stats.in_memory is None, "a file takes the place of the link"
    assert StatsReader(tmp_path).read().counter("requests") == 1


def test_every_page_that_is_stored_to_has_room_on_the_disk(tmp_path: Path) -> None:
    """Without it, the first outcome of a new kind kills the worker: SIGBUS."""
    with disk(tmp_path / "disk", 8) as small:
        stats = SharedStats(small.path / "worker-0.stats")
        small.fill()
        child = os.fork()
        if not child:
            for number in range(100):
                count(stats, row_of(stats, f"arm-{number}"), 1, number % 8)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        snapshot = StatsReader(small.path).read()
        assert snapshot.counter("requests") == sum(durations(snapshot).values()) == 100
        assert requests(snapshot, "other") > 0
        small.free()
        stats.close()


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_without_a_disk_the_numbers_are_in_memory(tmp_path: Path, state: str) -> None:
    with disk(tmp_path / "disk", 8) as small:
        small.fill() if state == "full" else small.read_only()
        stats = SharedStats(small.path / "worker-0.stats")
        assert stats.in_memory is not None
        for number in range(100):
            count(stats, row_of(stats, f"arm-{number}"))
        stats.close()
        if state == "read-only":
            small.read_only(False)


def test_numbers_in_memory_are_read_while_the_worker_lives(tmp_path: Path) -> None:
    (tmp_path / "worker-0.stats").mkdir()  # stands in the way, also for root
    assert SharedStats(tmp_path / "worker-0.stats", SMALL).in_memory is not None
    (tmp_path / "worker-0.stats").rmdir()
    with disk(tmp_path / "disk", 1) as small:
        stats = SharedStats(small.path / "worker-0.stats")
        assert stats.in_memory is not None
        count(stats, row_of(stats, "a"), 3)
        reader = StatsReader(small.path)
        assert requests(reader.read(), "a") == 3
        stats.close()
        assert requests(reader.read(), "a") == 3, "the last good values stay"
        successor = SharedStats(small.path / "worker-0.stats")
        count(successor, row_of(successor, "a"), 2)
        assert requests(reader.read(), "a") == 5
        successor.close()


def test_moving_counts_to_other_is_not_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "RETENTION", -1.0)
    stats = SharedStats(tmp_path / "worker-0.stats", SMALL)
    count(stats, row_of(stats, "old"), 50)
    reader, windows = StatsReader(tmp_path), Windows()

    def tick(at: float) -> None:
        snapshot = reader.read()
        snapshot.time = at
        windows.add(snapshot)

    tick(0.0)
    count(stats, row_of(stats, "old"), 2)
    stats.retire(only({"other", "new"}))
    stats.tidy()
    count(stats, row_of(stats, "new"))
    assert requests(reader.read(), "other") == 52
    tick(1.0)
    grown = {dict(k)["arm"]: n for k, n in windows.counters("requests", 10.0).items()}
    assert grown == {"other": 2, "new": 1}
    seen = {dict(k)["arm"]: d.count for k, d in windows.sketches("duration", 10.0).items()}
    assert seen == {"other": 2, "new": 1}


# Over runs ----------------------------------------------------------------------------------------


def run_of(folder: Path, run: str, received: int | None = None) -> Statistics:
    (folder / "run").mkdir(exist_ok=True)
    path = folder / FILE_NAME
    return Statistics(folder / "run", path, run, lambda _: received)


def worker(folder: Path, times: int, arm: str = "a") -> SharedStats:
    (folder / "run").mkdir(exist_ok=True)
    stats = SharedStats(folder / "run" / "worker-0.stats", SMALL)
    count(stats, row_of(stats, arm), times)
    return stats


def dead(stats: SharedStats) -> None:
    stats.close()


def next_run(folder: Path, run: str) -> None:
    (folder / "run" / "worker-0.stats").rename(folder / "run" / earlier_name(run, 0))


def test_counters_go_on_after_an_orderly_stop(tmp_path: Path) -> None:
    dead(worker(tmp_path, 5))
    assert run_of(tmp_path, "one").save(last=True)
    assert list((tmp_path / "run").iterdir()) == []
    second = run_of(tmp_path, "two")
    worker(tmp_path, 3)
    snapshot = second.read()
    assert requests(snapshot, "a") == 8
    assert durations(snapshot) == {"a": 3}, "of this run"
    assert {int(words[0]) for words in snapshot.total_sketches("duration").values()} == {8}


def test_counters_go_on_after_a_kill_from_the_files(tmp_path: Path) -> None:
    first = run_of(tmp_path, "one")
    stats = worker(tmp_path, 5)
    assert first.save()
    count(stats, row_of(stats, "a"), 2)  # after the last write to disk
    dead(stats)
    next_run(tmp_path, "one")
    second = run_of(tmp_path, "two")
    assert requests(second.read(), "a") == 7
    assert second.save()
    assert not list((tmp_path / "run").glob("earlier-*"))
    assert requests(second.read(), "a") == 7
    assert requests(run_of(tmp_path, "three").read(), "a") == 7


def test_a_crash_between_the_write_and_the_deletion_counts_nothing_twice(tmp_path: Path) -> None:
    dead(worker(tmp_path, 5))
    next_run(tmp_path, "one")
    kept = (tmp_path / "run" / earlier_name("one", 0)).read_bytes()
    second = run_of(tmp_path, "two")
    assert requests(second.read(), "a") == 5
    assert second.save()
    (tmp_path / "run" / earlier_name("one", 0)).write_bytes(kept)
    assert requests(run_of(tmp_path, "two").read(), "a") == 5


def test_a_worker_that_outlives_its_run_is_counted(tmp_path: Path) -> None:
    stats = worker(tmp_path, 5)
    next_run(tmp_path, "one")
    second = run_of(tmp_path, "two")
    assert requests(second.read(), "a") == 5
    count(stats, row_of(stats, "a"), 2)
    assert requests(second.read(), "a") == 7
    assert "one" not in second.added
    dead(stats)
    assert requests(second.read(), "a") == 7
    assert "one" in second.added


def test_the_accounts_of_a_killed_run_are_settled(tmp_path: Path) -> None:
    stats = worker(tmp_path, 1)
    words = stats.words
    words[stats.counter("records_eligible")] = 100
    words[stats.counter("records_sent")] = 90
    words[stats.counter("records_dropped", {"reason": "queue_full"})] = 4
    dead(stats)
    next_run(tmp_path, "one")
    snapshot = run_of(tmp_path, "two", received=83).read()
    assert snapshot.counter("records_lost") == 7, "sent, and not part of the saved state"
    assert snapshot.counter("records_dropped", reason="worker_lost") == 6
    assert snapshot.counter("records_dropped") + 90 == 100


@pytest.mark.parametrize("how", ["cut", "changed", "newer", "huge", "empty", "list"])
def test_damaged_totals_are_set_aside(tmp_path: Path, how: str) -> None:
    dead(worker(tmp_path, 5))
    run_of(tmp_path, "one").save(last=True)
    path = tmp_path / FILE_NAME
    data = path.read_bytes()
    if how == "cut":
        data = data[:-20]
    elif how == "changed":
        data = data.replace(b'"a"', b'"b"')
    elif how == "newer":
        data = json.dumps({**json.loads(data), "checksum": 1, "version": 99}).encode()
    elif how == "huge":
        data = json.dumps(
            {"version": 1, "run": "one", "added": [], "earlier": {"counters": [["r", {}, 2**63]]}}
        ).encode()
    else:
        data = b"" if how == "empty" else b"[1]"
    path.write_bytes(data)
    again = run_of(tmp_path, "two")
    assert requests(again.read(), "a") == 0
    assert path.with_name(FILE_NAME + ".damaged").read_bytes() == data
    worker(tmp_path, 2)
    assert again.save()
    assert requests(run_of(tmp_path, "two").read(), "a") == 2


def test_a_disk_that_is_full_costs_no_counts(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 1) as small:
        stats = worker(tmp_path, 5)
        run_dir = tmp_path / "run"
        one = Statistics(run_dir, small.path / FILE_NAME, "one")
        small.fill()
        assert not one.save(last=True)
        assert one.error is not None
        assert (run_dir / "worker-0.stats").exists(), "nothing else has the counts"
        small.free()
        assert one.save()
        assert one.error is None
        stats.close()
