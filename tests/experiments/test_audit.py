"""The audit log: nothing said to be written is lost, and nothing can be changed unseen."""

from __future__ import annotations

import errno
import json
import logging
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.audit_writer import event
from understudy.monitor.records.audit import AuditLog

ROOT = Path(__file__).resolve().parents[2]


def written(path: Path, count: int, file_bytes: int = 1 << 20, files: int = 4) -> AuditLog:
    log = AuditLog(path, file_bytes, files)
    for version in range(1, count + 1):
        log.append(event(version))
    return log


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


class TestLines:
    def test_are_numbered_stamped_and_chained(self, path: Path):
        log = AuditLog(path)
        assert [log.append(event(v)) for v in (1, 2, 3)] == [1, 2, 3]
        assert [line["seq"] for line in lines(path)] == [1, 2, 3]
        assert lines(path)[0]["time"] == "2001-09-09T01:46:41.000Z"
        assert lines(path)[0]["before"] == "0" * 64
        assert len({line["before"] for line in lines(path)}) == 3
        assert log.verify() is None

    def test_events_without_a_time_get_the_current_one(self, path: Path):
        before = datetime.now(UTC)
        AuditLog(path).append({"kind": "began"})
        stamp = datetime.fromisoformat(str(lines(path)[0]["time"]))
        assert (stamp - before).total_seconds() > -0.001
        assert stamp.tzinfo is not None

    def test_values_outside_json_and_reserved_keys_are_rejected(self, path: Path):
        log = AuditLog(path)
        for wrong in ({"seq": 1}, {"before": ""}, {"time": ""}, {"weight": float("nan")}):
            with pytest.raises(ValueError, match=r"must not have|JSON compliant"):
                log.append(wrong)
        assert not path.exists()

    def test_hostile_text_stays_on_its_line(self, path: Path):
        log = AuditLog(path)
        log.append({"why": 'a\nb\r\u2028"}{\x00é\udc80'})
        log.append({"why": ""})
        assert [entry["why"] for entry in log.read()] == ['a\nb\r\u2028"}{\x00é\udc80', ""]
        assert log.verify() is None

    def test_only_the_owner_may_read_it(self, path: Path):
        written(path, 1)
        assert path.stat().st_mode & 0o777 == 0o600

    def test_reading_gives_the_last_of_an_experiment(self, path: Path):
        log = AuditLog(path)
        for version in range(1, 11):
            log.append({**event(version), "experiment": "even" if version % 2 == 0 else "odd"})
        assert [entry["version"] for entry in log.read("even", 3)] == [6, 8, 10]
        assert [entry["version"] for entry in log.read(limit=2)] == [9, 10]
        assert len(log.read()) == 10
        assert log.read("none") == []

    def test_an_empty_log_has_no_entries(self, path: Path):
        log = AuditLog(path)
        assert (log.read(), log.verify(), path.exists()) == ([], None, False)

    def test_repeated_events_are_written_once(self, path: Path):
        AuditLog(path).catch_up([event(1), event(2)])
        log = AuditLog(path)
        log.catch_up([event(1), event(2), event(3)])
        assert [entry["version"] for entry in log.read()] == [1, 2, 3]
        assert log.verify() is None


class TestTorn:
    def test_a_torn_last_line_is_cut_off_and_logged(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ):
        written(path, 3)
        whole = path.read_bytes()
        start = whole.rindex(b"\n", 0, -1) + 1
        for end in range(start + 1, len(whole)):
            path.write_bytes(whole[:end])
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                log = AuditLog(path)
            assert "partial line" in caplog.text
            assert [line.get("version") for line in lines(path)] == [1, 2, None]
            assert lines(path)[2]["why"] == f"{end - start} bytes of a partial line were cut off"
            assert log.verify() is None
            assert log.append(event(3)) == 4

    def test_a_whole_line_is_left_alone(self, path: Path):
        written(path, 3)
        before = path.read_bytes()
        assert AuditLog(path).verify() is None
        assert path.read_bytes() == before

    def test_a_line_torn_while_open_does_not_damage_the_next(self, path: Path):
        log = written(path, 2)
        with open(path, "ab") as file:
            file.write(b'{"seq": 3, "bef')
        assert log.append(event(3)) == 4
        assert [line["kind"] for line in lines(path)] == [
            "advanced",
            "advanced",
            "mended",
            "advanced",
        ]
        assert log.verify() is None


def edited(number: int, change: Callable[[bytes], bytes]) -> Callable[[list[bytes]], None]:
    def edit(found: list[bytes]) -> None:
        found[number] = change(found[number])

    return edit


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], None], int]] = {
    "a word": (edited(3, lambda line: line.replace(b"advanced", b"promoted")), 5),
    "the first": (edited(0, lambda line: line.replace(b"advanced", b"promoted")), 2),
    "the last": (edited(9, lambda line: line.replace(b"advanced", b"promoted")), 11),
    "the number of the last": (
        edited(9, lambda line: line.replace(b'"seq": 10', b'"seq": 99')),
        10,
    ),
    "a space": (edited(3, lambda line: line + b" "), 5),
    "no longer JSON": (edited(3, lambda line: line[:-1]), 4),
    "no object": (edited(3, lambda line: b"5"), 4),
    "taken out": (lambda found: found.pop(3) and None, 4),
    "the first taken out": (lambda found: found.pop(0) and None, 2),
    "the last taken out": (lambda found: found.pop() and None, 10),
    "put in": (lambda found: found.insert(3, found[2]), 4),
    "exchanged": (lambda found: found.insert(3, found.pop(4)), 4),
    "emptied": (lambda found: found.clear(), 1),
}


class TestTampering:
    @pytest.mark.parametrize("name", TAMPERINGS)
    def test_shows(self, path: Path, name: str):
        change, damaged = TAMPERINGS[name]
        log = written(path, 10)
        found = path.read_bytes().split(b"\n")[:-1]
        change(found)
        path.write_bytes(b"".join(line + b"\n" for line in found))
        assert log.verify() == damaged
        if name not in ("the last", "the last taken out", "emptied"):
            # A change before the remembered hash cannot be detected after a restart.
            assert AuditLog(path).verify() == damaged

    def test_tampering_is_left_visible_and_the_log_continues(self, path: Path):
        written(path, 4)
        path.write_bytes(path.read_bytes().replace(b'"version": 2', b'"version": 9'))
        log = AuditLog(path)
        assert log.append(event(5)) == 5
        assert log.verify() == 3
        assert [entry["version"] for entry in log.read()] == [1, 9, 3, 4, 5]

    def test_lines_cut_off_at_run_time_are_reported_in_the_next(self, path: Path):
        log = written(path, 4)
        first = path.read_bytes().splitlines(keepends=True)[0]
        path.write_bytes(first)
        log.append(event(5))
        assert [line["kind"] for line in lines(path)] == ["advanced", "mended", "advanced"]
        assert "the last line was 4" in str(lines(path)[1]["why"])


class TestRotation:
    def test_keeps_a_number_of_files_and_continues_the_chain(self, path: Path):
        log = written(path, 60, file_bytes=1000, files=3)
        names = sorted(one.name for one in path.parent.iterdir())
        assert names == ["audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl", "audit.jsonl"]
        assert all(one.stat().st_size < 2000 for one in path.parent.iterdir())
        assert log.verify() is None
        assert AuditLog(path, 1000, 3).verify() is None
        versions = [entry["version"] for entry in log.read("delays")]
        assert versions == list(range(versions[0], 61))
        numbers = [entry["seq"] for entry in log.read()]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))

    def test_the_last_entries_are_read_over_several_files(self, path: Path):
        log = written(path, 30, file_bytes=500, files=40)
        assert [entry["version"] for entry in log.read("delays", 12)] == list(range(19, 31))

    def test_events_handed_over_again_behind_a_rotation_are_known(self, path: Path):
        written(path, 20, file_bytes=500, files=3)
        log = AuditLog(path, 500, 3)
        log.catch_up([event(v) for v in (18, 19, 20)])
        assert [entry["version"] for entry in log.read("delays", 3)] == [18, 19, 20]

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_a_file_that_is_gone_shows(self, path: Path, number: int):
        log = written(path, 60, file_bytes=1000, files=3)
        path.with_name(f"audit.{number}.jsonl").unlink()
        assert log.verify() is not None
        assert AuditLog(path, 1000, 3).verify() is not None

    def test_a_first_line_taken_out_shows(self, path: Path):
        log = written(path, 60, file_bytes=1000, files=3)
        oldest = path.with_name("audit.3.jsonl")
        oldest.write_bytes(b"".join(oldest.read_bytes().splitlines(keepends=True)[1:]))
        assert log.verify() is not None
        assert AuditLog(path, 1000, 3).verify() is not None

    @pytest.mark.parametrize("renamed", [1, 2, 3])
    def test_a_crash_between_renames_is_repaired(self, path: Path, renamed: int):
        count = 60
        while True:  # until the next line rotates
            log = written(path, count, file_bytes=1000, files=3)
            if path.stat().st_size >= 1000:
                break
            for one in path.parent.iterdir():
                one.unlink()
            count += 1
        last = log.read()[-1]["seq"]
        moves = [("audit.2", "audit.3"), ("audit.1", "audit.2"), ("audit", "audit.1")]
        for source, target in moves[:renamed]:
            path.with_name(f"{source}.jsonl").replace(path.with_name(f"{target}.jsonl"))
        log = AuditLog(path, 1000, 3)
        assert log.verify() is None
        assert log.append(event(99)) == last + 2
        assert log.verify() is None
        assert [entry["kind"] for entry in log.read(limit=2)] == ["continued", "advanced"]


class TestCrashes:
    @pytest.mark.parametrize("file_bytes", [1 << 20, 1500])
    def test_kill_9_in_a_loop_loses_nothing_that_was_said_to_be_written(
        self, path: Path, file_bytes: int
    ):
        chance, said = random.Random(file_bytes), 0
        for _ in range(12):
            command = ("write", str(path), str(file_bytes), str(said + 1))
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.support.audit_writer", *command],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 40)):
                said = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:  # what it had said before it died
                said = int(line)
            child.wait()
            child.stdout.close()
            log = AuditLog(path, file_bytes, 4)
            assert log.verify() is None
            versions = [entry["version"] for entry in log.read("delays")]
            assert versions == list(range(versions[0], versions[-1] + 1))
            # It may have died between writing a line and saying so.
            assert versions[-1] in (said, said + 1)
            said = versions[-1]
            assert file_bytes < 1 << 20 or versions[0] == 1

    @pytest.mark.parametrize("limit", [700, 1000, 1303])
    def test_a_full_disk_leaves_no_partial_line_and_the_log_recovers(self, path: Path, limit: int):
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.audit_writer", "fill", path, str(limit)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        first, second = done.stdout.splitlines()
        count, number, size, verdict = first.split()
        assert int(count) >= 1
        assert (int(number), verdict) == (errno.EFBIG, "None")
        assert int(size) <= limit
        assert second == f"{int(count) + 1} None"
        assert [entry["version"] for entry in AuditLog(path).read()] == list(
            range(1, int(count) + 2)
        )
