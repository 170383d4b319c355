"""The log of segments: what is torn is cut off, what is damaged is skipped, what is full goes on."""

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.patience import patient
from understudy.monitor.errors import LogError
from understudy.monitor.records.log import Damage, SegmentLog, is_log, read
from understudy.monitor.records.log.frames import HEADER_SIZE

ROOM = 10**9


def segments(folder):
    return sorted(folder.glob("*.useg"))


def entries(folder, damage=None, **times):
    return [entry for one in read(folder, damage, **times) for entry in one.content.entries]


def filled(folder, count=10, **options):
    log = SegmentLog(folder, ROOM, **options)
    for number in range(count):
        assert log.append([b"%d" % number * 50], oldest=number, newest=number)
    log.close()
    return [b"%d" % number * 50 for number in range(count)]


def test_what_was_appended_is_read_back(tmp_path):
    log = SegmentLog(tmp_path, ROOM)
    assert not is_log(tmp_path / "nowhere")
    assert is_log(tmp_path)
    log.append([b"a", b""], [3, 4], oldest=1.0, newest=2.0, mark=b"m")
    log.append([b"c" * 100_000])
    log.close()
    first, second = read(tmp_path)
    assert (first.content.entries, first.content.weights) == ([b"a", b""], [3, 4])
    assert (first.content.mark, first.frame.records, first.frame.index) == (b"m", 7, 0)
    assert (second.content.entries, second.content.mark) == ([b"c" * 100_000], None)
    assert second.frame.index == 2
    assert sum(path.stat().st_size for path in segments(tmp_path)) < 1000
    assert segments(tmp_path)[0].stat().st_mode & 0o777 == 0o600


def test_frames_outside_of_the_time_are_not_read(tmp_path):
    wanted = filled(tmp_path)
    assert entries(tmp_path, since=3.0, until=5.0) == wanted[3:6]


def test_a_log_goes_on_where_it_ended(tmp_path):
    wanted = filled(tmp_path)
    log = SegmentLog(tmp_path, ROOM)
    assert (log.end, log.synced) == (10, 10)
    log.append([b"more"])
    log.close()
    assert entries(tmp_path) == [*wanted, b"more"]
    assert len(segments(tmp_path)) == 1


@pytest.mark.parametrize("cut", [1, HEADER_SIZE - 1, HEADER_SIZE + 3])
def test_a_torn_tail_is_cut_off(tmp_path, caplog, cut):
    wanted = filled(tmp_path)
    (path,) = segments(tmp_path)
    before = path.stat().st_size
    filled(tmp_path, 1)
    after = path.stat().st_size
    os.truncate(path, before + min(cut, after - before - 1))
    assert entries(tmp_path, damage := Damage()) == wanted
    assert damage.torn == min(cut, after - before - 1)
    assert damage.frames == 0
    log = SegmentLog(tmp_path, ROOM)
    assert log.damage.torn == damage.torn
    assert path.stat().st_size == before
    assert "torn tail" in caplog.text
    log.append([b"more"])
    log.close()
    assert entries(tmp_path, damage := Damage()) == [*wanted, b"more"]
    assert damage == Damage()


def test_any_torn_tail_is_repaired(tmp_path):
    folder = tmp_path / "log"
    wanted = filled(folder, 4)
    whole = segments(folder)[0].read_bytes()
    for size in range(len(whole)):
        segments(folder)[0].write_bytes(whole[:size])
        log = SegmentLog(folder, ROOM, sync_seconds=None)
        log.append([b"more"])
        log.close()
        found = entries(folder, damage := Damage())
        assert found == [*wanted[: len(found) - 1], b"more"]
        assert damage == Damage()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@example(1011633, 1)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_damage_in_the_middle_costs_only_what_it_hits(tmp_path_factory, seed, size):
    folder = tmp_path_factory.mktemp("log")
    wanted = filled(folder, 20, sync_seconds=None)
    chance = random.Random(seed)
    (path,) = segments(folder)
    data = bytearray(path.read_bytes())
    frames = [one.frame for one in read(folder)]
    start = chance.randrange(len(data))
    end = min(start + size, len(data))
    data[start:end] = bytes(byte ^ chance.randrange(1, 256) for byte in data[start:end])
    path.write_bytes(data)
    hit = {f.index for f in frames if f.start < end and start < f.end}
    damage = Damage()
    assert entries(folder, damage) == [w for n, w in enumerate(wanted) if n not in hit]
    in_head = start < frames[0].start  # of the file: it is counted, and no entry is lost by it
    assert (damage.frames > 0 or damage.torn > 0) == (bool(hit) or in_head)
    # The writer goes on behind it, and numbers stay ahead of what was read.
    log = SegmentLog(folder, ROOM, sync_seconds=None)
    assert log.end == max([n for n in range(20) if n not in hit], default=-1) + 1
    log.append([b"more"])
    log.close()
    assert entries(folder)[-1] == b"more"


def test_size_and_age_are_bounds(tmp_path):
    now = [1000.0]
    log = SegmentLog(tmp_path, 64_000, 100.0, 8_000, None, False, clock=lambda: now[0])
    for number in range(200):
        log.append([b"%04d" % number + b"x" * 996])
        now[0] += 0.1
    assert log.pruned > 0
    assert log.size <= 64_000
    assert log.pruned + len(entries(tmp_path)) == 200
    assert entries(tmp_path)[-1].startswith(b"0199")
    now[0] += 90.0
    log.append([b"new"])
    now[0] += 50.0
    log.prune(now[0])
    assert entries(tmp_path) == [b"new"]
    assert log.pruned + log.expired == 200
    # Also what nothing follows has an end.
    now[0] += 200.0
    log.prune(now[0])
    assert entries(tmp_path) == []
    assert log.pruned + log.expired == 201
    log.close()


def test_the_last_mark_outlives_its_segment(tmp_path):
    log = SegmentLog(tmp_path, 40_000, None, 4096, None, False)
    log.append([b"x"], mark=b"first")
    log.append([b"x"], mark=b"second")
    for _ in range(100):
        log.append([b"x" * 1000])
    assert log.pruned > 1
    log.close()
    log = SegmentLog(tmp_path, 40_000)
    assert log.mark == b"second"
    log.close()


def test_two_cannot_write_to_one_folder(tmp_path):
    log = SegmentLog(tmp_path, ROOM)
    with pytest.raises(LogError, match="another process"):
        SegmentLog(tmp_path, ROOM)
    log.close()
    SegmentLog(tmp_path, ROOM).close()


def test_a_folder_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot be used"):
        SegmentLog(tmp_path / "file", ROOM)
    with pytest.raises(LogError, match="cannot be read"):
        list(read(tmp_path / "none"))


def run(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )


def test_a_full_disk_costs_what_was_written_meanwhile(tmp_path):
    # The limit on the size of a file stands in for the end of the disk: the write fails half way.
    code = """
    import resource, signal, sys
    from pathlib import Path
    from understudy.monitor.records.log import SegmentLog
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = SegmentLog(Path(sys.argv[1]), 10**9, compress=False)
    assert log.append([b"a" * 1000])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    assert not log.append([b"b" * 1000], [7])
    assert not log.append([b"c" * 1000])
    assert log.refused == 8, log.refused
    assert "too large" in log.error, log.error
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.append([b"d" * 1000])
    assert log.error is None
    log.close()
    """
    child = run(code, tmp_path)
    _, errors = child.communicate(timeout=patient(60))
    assert child.returncode == 0, errors
    found = entries(tmp_path, damage := Damage())
    assert [entry[:1] for entry in found] == [b"a", b"d"]
    assert damage == Damage()


WRITER = """
import sys
from pathlib import Path
from understudy.monitor.records.log import SegmentLog
log = SegmentLog(Path(sys.argv[1]), 10**9, segment_bytes=64_000, sync_seconds=None)
number = log.end
while True:
    log.append([b"%d" % n for n in range(number, number + 7)])
    number += 7
    if number % 5 == 0:
        log.sync()
        print(log.synced, flush=True)
"""


def test_a_kill_loses_nothing_that_was_said_to_be_synced(tmp_path):
    synced = 0
    for turn in range(4):
        child = run(WRITER, tmp_path)
        for _ in range(5 + 10 * turn):
            synced = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait(patient(60))
        rest = child.stdout.read().split("\n")
        # A last line may have been cut off.
        synced = max([synced, *(int(line) for line in rest[:-1])])
        found = [int(entry) for entry in entries(tmp_path)]
        assert found == list(range(len(found)))
        assert len(found) >= synced
        assert len(found) % 7 == 0
