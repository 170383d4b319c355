"""The spool: in order, from the last acknowledgement, within its size, nothing uncounted."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.patience import patient
from understudy.monitor.records.log import Spool

ROOM = 10**9


class Model(RuleBasedStateMachine):
    """The spool beside lists; entries are told apart by their number, weights vary."""

    @initialize()
    def begin(self):
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.spool = self.opened()
        self.weights = []
        self.acknowledged = 0
        self.read = 0

    def opened(self):
        # With so short a tail some entries are read from memory, some from disk.
        return Spool(self.folder, ROOM, segment_bytes=4096, sync_seconds=None, tail_bytes=3000)

    @rule(weights=st.lists(st.integers(0, 9), min_size=1, max_size=5), size=st.integers(0, 1500))
    def append(self, weights, size):
        data = [b"%d:" % (len(self.weights) + n) + b"x" * size for n in range(len(weights))]
        self.weights += weights
        assert self.spool.append(data, weights, mark=b"%d" % len(self.weights))

    @rule(most=st.integers(1, 5000))
    def take(self, most):
        for entry in self.spool.read(most):
            assert entry.index == self.read
            assert int(entry.data.partition(b":")[0]) == self.read
            assert entry.records == self.weights[self.read]
            self.read += 1

    @rule(part=st.floats(0, 1))
    def acknowledge(self, part):
        index = round(part * len(self.weights))
        self.spool.acknowledge(index)
        self.acknowledged = max(index, self.acknowledged)
        self.read = max(self.read, self.acknowledged)

    @rule()
    def rewind(self):
        self.spool.rewind()
        self.read = self.acknowledged

    @rule()
    def reopen(self):
        self.spool.close()
        self.spool = self.opened()
        self.read = self.acknowledged
        if self.weights:
            assert self.spool.mark == b"%d" % len(self.weights)

    @invariant()
    def counts(self):
        if hasattr(self, "weights"):
            assert self.spool.pending == sum(self.weights[self.acknowledged :])
            assert self.spool.cursor == self.acknowledged
            assert self.spool.end == len(self.weights)
            assert (self.spool.dropped, self.spool.refused, self.spool.lost) == (0, 0, 0)

    def teardown(self):
        if hasattr(self, "spool"):
            self.spool.close()
            self.temporary.cleanup()


Model.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)
test_the_spool_is_a_queue = Model.TestCase


def test_the_oldest_go_and_are_counted(tmp_path):
    spool = Spool(tmp_path, 64_000, 8_000)
    sent = 0
    for number in range(300):
        spool.append([b"%d" % number + b"x" * 1000], [10])
        if number == 20:
            sent += len(spool.read(5000))
            spool.acknowledge(3)
    assert spool.size <= 64_000
    left = []
    while got := spool.read():
        left += got
    assert [entry.index for entry in left] == list(range(left[0].index, 300))
    # 3 were acknowledged: they are not dropped, though they stood in a file that was.
    assert spool.dropped == 10 * (left[0].index - 3)
    assert spool.pending == 10 * len(left)
    spool.acknowledge(300)
    assert spool.pending == 0
    assert len(list(tmp_path.glob("*.useg"))) == 1
    spool.close()


def test_what_was_just_written_is_not_read_from_disk(tmp_path):
    spool = Spool(tmp_path, ROOM, tail_bytes=1000)
    spool.append([b"a" * 400, b"b"], [2, 3])
    spool.append([b"c" * 700])
    spool.append([b"d"])
    for path in tmp_path.glob("*.useg"):
        path.rename(tmp_path / "away")
    found = spool.read(1)
    assert [(entry.index, entry.data[:1], entry.records) for entry in found] == [
        (0, b"a", 2),
        (1, b"b", 3),
    ]
    (tmp_path / "away").rename(tmp_path / f"{0:020}.useg")
    spool.append([b"e"])
    assert [entry.data[:1] for entry in spool.read()] == [b"c", b"d", b"e"]
    spool.append([b"f"])
    assert [entry.data[:1] for entry in spool.read()] == [b"f"]
    spool.rewind()
    assert b"".join(entry.data[:1] for entry in spool.read()) == b"abcdef"
    spool.close()


def test_damage_on_the_way_is_passed_over(tmp_path):
    spool = Spool(tmp_path, ROOM)
    for number in range(10):
        spool.append([b"%d" % number * 100])
    path = next(tmp_path.glob("*.useg"))
    size = path.stat().st_size // 10
    with path.open("r+b") as file:
        file.seek(5 * size)
        file.write(b"\xff" * 20)
    spool.rewind()
    found = [int(entry.data[:1]) for entry in spool.read()]
    assert 8 <= len(found) < 10
    assert found == sorted(found)
    assert spool.lost == 10 - len(found)
    assert spool.read() == []
    spool.close()


def test_a_cursor_that_was_torn_begins_anew(tmp_path):
    spool = Spool(tmp_path, ROOM)
    spool.append([b"a", b"b"])
    spool.acknowledge(1)
    spool.close()
    os.truncate(tmp_path / "cursor", 5)
    spool = Spool(tmp_path, ROOM)
    assert [entry.data for entry in spool.read()] == [b"a", b"b"]
    spool.close()


def test_numbers_are_not_given_twice_when_the_tail_is_gone(tmp_path):
    spool = Spool(tmp_path, ROOM)
    spool.append([b"a", b"b"])
    spool.append([b"c"])
    spool.acknowledge(3)
    spool.close()
    path = next(tmp_path.glob("*.useg"))
    os.truncate(path, path.stat().st_size - 3)
    spool = Spool(tmp_path, ROOM)
    spool.append([b"d"])
    assert [(entry.index, entry.data) for entry in spool.read()] == [(3, b"d")]
    spool.close()


def test_one_thread_appends_while_another_reads(tmp_path):
    spool = Spool(tmp_path, ROOM, segment_bytes=20_000, sync_seconds=None)
    found = []

    def drain():
        while len(found) < 3000:
            for entry in spool.read(3000):
                found.append(int(entry.data.split(b" ")[0]))
            spool.acknowledge(len(found))

    reader = threading.Thread(target=drain)
    reader.start()
    for number in range(3000):
        spool.append([b"%d " % number + b"x" * 100])
    reader.join(60)
    assert found == list(range(3000))
    assert spool.pending == 0
    spool.close()


SENDER = """
import sys
from pathlib import Path
from understudy.monitor.records.log import Spool
spool = Spool(Path(sys.argv[1]), 10**9, segment_bytes=50_000, sync_seconds=None)
print(spool.cursor, (spool.mark or b"0").decode(), flush=True)
number = spool.end
while True:
    number += 3
    spool.append([b"%d" % n for n in range(number - 3, number)], mark=b"%d" % number)
    if number % 2:
        for entry in spool.read(100):
            assert int(entry.data) == entry.index
            print(entry.index, flush=True)
        spool.acknowledge(entry.index + 1)
"""


def test_a_kill_sends_everything_and_keeps_the_mark(tmp_path):
    chance = random.Random(4)
    seen = []
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", SENDER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        cursor, mark = map(int, child.stdout.readline().split())
        assert cursor <= len(set(seen))
        assert mark % 3 == 0
        lines = [child.stdout.readline() for _ in range(chance.randrange(50, 400))]
        child.send_signal(signal.SIGKILL)
        child.wait(patient(60))
        lines += child.stdout.read().split("\n")[:-1]
        sent = [int(line) for line in lines]
        # It goes on where it was acknowledged, which is not after what was sent.
        assert sent[0] == cursor
        seen += sent
    assert sorted(set(seen)) == list(range(max(seen) + 1))
