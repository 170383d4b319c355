"""The reader against files that real writers make, and against files that are broken."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from understudy.monitor.stats.distribution import Distribution, classic_counts
from understudy.monitor.stats.reader import Snapshot, StatsReader
from understudy.monitor.stats.shared import SharedStats
from understudy.monitor.stats.sketch import observe

ARM = {"arm": "champion"}


def duration(snapshot: Snapshot) -> Distribution:
    (words,) = snapshot.sketches_named("duration").values()
    return Distribution.from_words(words)


def test_sums_over_workers(tmp_path: Path) -> None:
    for slot, requests in ((0, 3), (1, 4)):
        stats = SharedStats(tmp_path / f"worker-{slot}.stats", 1 << 20)
        stats.words[stats.counter("requests", ARM)] += requests
        stats.words[stats.gauge("in_flight", ARM)] = slot + 1
        sketch = stats.sketch("duration", ARM)
        for _ in range(requests):
            observe(stats.words, sketch, (slot + 1) * 10_000_000)
    (tmp_path / "worker-x.stats").write_bytes(b"not one of ours")
    snapshot = StatsReader(tmp_path).read()
    assert snapshot.counter("requests", arm="champion") == 7
    assert snapshot.counter("requests", arm="candidate") == 0
    assert snapshot.gauge("in_flight") == 3
    assert snapshot.gauges_named("in_flight") == {(("arm", "champion"),): {0: 1, 1: 2}}
    total = duration(snapshot)
    assert total.count == 7
    assert total.maximum == pytest.approx(0.02)
    assert total.sum_ns == 110_000_000
    (words,) = snapshot.sketches_named("duration").values()
    assert classic_counts(words)[1:] == [3] + [7] * 13


def test_a_file_that_appears_later_and_series_that_appear_later(tmp_path: Path) -> None:
    reader = StatsReader(tmp_path / "later")
    assert reader.read().counters == {}
    (tmp_path / "later").mkdir()
    stats = SharedStats(tmp_path / "later" / "worker-0.stats", 1 << 20)
    stats.words[stats.counter("requests", ARM)] = 1
    assert reader.read().counter("requests") == 1
    stats.words[stats.counter("requests", {"arm": "b"})] = 5
    stats.words[stats.counter("requests", ARM)] += 1
    assert reader.read().counter("requests") == 7


def test_a_restarted_writer_continues_its_counts(tmp_path: Path) -> None:
    reader = StatsReader(tmp_path)
    for expected in (1, 2, 3):
        stats = SharedStats(tmp_path / "worker-0.stats", 1 << 20)
        stats.words[stats.counter("requests", ARM)] += 1
        assert reader.read().counter("requests") == expected
        stats.close()


_WRITER = """
import sys
from pathlib import Path
from understudy.monitor.stats import buckets
buckets.CLASSIC_EDGES = tuple(float(edge) for edge in sys.argv[2].split(","))
buckets.CLASSIC = len(buckets.CLASSIC_EDGES) + 1
from understudy.monitor.stats.shared import SharedStats
stats = SharedStats(Path(sys.argv[1]), 1 << 20)
stats.words[stats.counter("requests", {"arm": "champion"})] += 5
stats.sketch("duration", {"arm": "champion"})
"""


@pytest.mark.parametrize("edges", ["0.5", "0.001" + ",0.02" * 13, "1,2,3"])
def test_a_file_with_other_buckets_is_replaced(tmp_path: Path, edges: str) -> None:
    path = tmp_path / "worker-0.stats"
    subprocess.run([sys.executable, "-c", _WRITER, path, edges], check=True)
    assert StatsReader(tmp_path).read().counters == {}
    stats = SharedStats(path, 1 << 20)
    assert stats.words[stats.counter("requests", ARM)] == 0
    observe(stats.words, stats.sketch("duration", ARM), 10_000_000)
    assert duration(StatsReader(tmp_path).read()).count == 1


@pytest.mark.parametrize("how", ["truncated", "emptied", "zeroed", "garbage", "removed"])
def test_totals_stay_when_a_file_breaks_and_grow_when_it_is_replaced(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "worker-0.stats"
    stats = SharedStats(path, 1 << 20)
    stats.words[stats.counter("requests", ARM)] = 10
    sketch = stats.sketch("duration", ARM)
    observe(stats.words, sketch, 5_000_000)
    stats.close()
    reader = StatsReader(tmp_path)
    assert reader.read().counter("requests") == 10
    if how == "truncated":
        os.truncate(path, 100)
    elif how == "emptied":
        os.truncate(path, 0)
    elif how == "zeroed":
        path.write_bytes(bytes(1 << 20))
    elif how == "garbage":
        path.write_bytes(path.read_bytes()[:64] + b"\xff" * ((1 << 20) - 64))
    else:
        path.unlink()
    assert reader.read().counter("requests") == 10
    fresh = SharedStats(path, 1 << 20)
    fresh.words[fresh.counter("requests", {"arm": "other"})] = 1
    fresh.words[fresh.counter("requests", ARM)] = 2
    observe(fresh.words, fresh.sketch("duration", ARM), 7_000_000)
    again = reader.read()
    assert again.counter("requests") == 13
    assert again.counter("requests", arm="champion") == 12
    assert duration(again).count == 2
    assert reader.read().counter("requests") == 13


def test_random_damage_never_raises(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.stats"
    stats = SharedStats(path, 1 << 16)
    for name in ("a", "b", "c"):
        stats.words[stats.counter(name, ARM)] = 1
    stats.sketch("duration", ARM)
    used = stats.words[1]
    stats.close()
    good = path.read_bytes()
    rng = random.Random(3)
    reader = StatsReader(tmp_path)
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(min(used, 400))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        snapshot = reader.read()
        assert all(value >= 0 for value in snapshot.counters.values())


def test_gauges_of_a_dead_worker_do_not_count(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from understudy.monitor.stats.shared import SharedStats;"
        "s = SharedStats(Path(sys.argv[1]), 1 << 20); s.words[s.gauge('in_flight')] = 4;"
        "s.words[s.counter('requests')] = 9"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "worker-0.stats")], check=True)
    snapshot = StatsReader(tmp_path).read()
    assert snapshot.gauges == {}
    assert snapshot.counter("requests") == 9


def test_totals_of_a_live_writer_never_decrease(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from understudy.monitor.stats.shared import SharedStats; from understudy.monitor.stats.sketch import observe;"
        "s = SharedStats(Path(sys.argv[1]), 1 << 20); r = s.counter('requests');"
        "d = s.sketch('duration');\n"
        "for i in range(60000):\n  s.words[r] += 1; observe(s.words, d, i * 1000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "worker-0.stats")])
    reader = StatsReader(tmp_path)
    seen = 0
    try:
        while writer.poll() is None:
            now = reader.read().counter("requests")
            assert now >= seen
            seen = now
    finally:
        writer.kill()
        writer.wait()
    final = reader.read()
    assert final.counter("requests") == 60000
    assert duration(final).count == 60000
    assert int(np.sum(duration(final).counts)) == 60000
