"""The evaluation plane as a process: started, fed, killed, restarted, drained."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import eventually
from tests.support.plane_process import LABELS, PlaneProcess, WorkerEnd, encoded
from understudy.monitor.records import frames
from understudy.monitor.records.record import FIXED_OFFSETS
from understudy.monitor.stats.sketch import observe


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    with PlaneProcess(tmp_path) as process:
        yield process


ROW = encoded({"a": [1.0], "b": [2.0]}, {"p": [0.25]})


def evaluated(plane: PlaneProcess) -> int:
    return int(plane.status()["records"]["evaluated"])


def test_killed_and_restarted_it_resumes_and_counts_nothing_twice(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    stats.words[stats.counter("requests", LABELS)] = 41
    with plane:
        worker = WorkerEnd(plane)
        assert worker.welcome == {"last_seq": 0, "received": 0}
        for seq in range(1, 11):
            worker.batch(seq, [ROW] * 20)
        worker.wait_for(frames.ACK, 10)
        worker.wait_for(frames.COMMIT, 10)
        assert evaluated(plane) == 200
        plane.kill()
        worker.close()
        plane.start()
        stats.words[stats.counter("requests", LABELS)] += 1
        again = WorkerEnd(plane)
        assert again.welcome == {"last_seq": 10, "received": 200}
        for seq in (9, 10, 11):  # the worker cannot know that 9 and 10 are safe
            again.batch(seq, [ROW] * 20)
        again.wait_for(frames.ACK, 11)
        status = eventually(lambda: plane.status() if evaluated(plane) == 220 else None)
        (prediction,) = status["predictions"]
        assert prediction["count"] == 220
        assert prediction["mean"] == pytest.approx(0.25)
        labels = {"arm": "champion", "outcome": "ok"}
        eventually(lambda: plane.metric("understudy_requests_total", **labels) == 42)


def test_what_was_not_committed_is_taken_again_after_a_crash(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        worker = WorkerEnd(plane)
        worker.batch(1, [ROW] * 5)
        worker.wait_for(frames.COMMIT, 1)
        worker.batch(2, [ROW] * 5)
        worker.wait_for(frames.ACK, 2)
        plane.kill()  # most likely before the next save; both cases must add up
        plane.start()
        again = WorkerEnd(plane)
        assert again.welcome["received"] == again.welcome["last_seq"] * 5
        again.batch(2, [ROW] * 5)
        again.wait_for(frames.ACK, 2)
        assert evaluated(plane) == 10


def test_drain_saves_what_was_sent_last_and_ends_with_0(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        worker = WorkerEnd(plane)
        worker.batch(1, [ROW] * 3)
        worker.batch(2, [ROW] * 4)
        worker.close()
        assert plane.drain() == 0
        saved = json.loads((plane.state_dir / "evaluation.json").read_text())
        assert saved["slots"] == [{"run": "run-1", "slot": 0, "last_seq": 2, "received": 7}]
        assert saved["pipeline"]["records"] == 7
        assert not (plane.run_dir / "records.sock").exists()


def test_the_death_of_the_supervisor_is_the_end(plane: PlaneProcess) -> None:
    plane.hang_up()
    assert plane.wait() == 0


def test_an_orphan_leaves_the_state_to_its_successor(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        worker = WorkerEnd(plane)
        worker.batch(1, [ROW])
        worker.wait_for(frames.COMMIT, 1)
        saved = (plane.state_dir / "evaluation.json").read_bytes()
        (plane.run_dir / "started").write_text("run-2")
        worker.batch(2, [ROW])
        worker.wait_for(frames.ACK, 2)
        worker.close()
        plane.hang_up()
        assert plane.wait() == 0
        assert (plane.state_dir / "evaluation.json").read_bytes() == saved


def test_another_run_keeps_the_statistics_and_forgets_the_slots(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        worker = WorkerEnd(plane)
        worker.batch(7, [ROW])
        worker.wait_for(frames.ACK, 7)
        worker.close()
        assert plane.drain() == 0
    with PlaneProcess(tmp_path, run="run-2") as plane:
        assert WorkerEnd(plane).welcome == {"last_seq": 0, "received": 0}
        assert evaluated(plane) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99}', b'{"version": 1}'])
def test_a_damaged_state_is_set_aside(tmp_path: Path, content: bytes) -> None:
    plane = PlaneProcess(tmp_path)
    plane.state_dir.mkdir()
    (plane.state_dir / "evaluation.json").write_bytes(content)
    with plane:
        assert evaluated(plane) == 0
        assert (plane.state_dir / "evaluation.json.damaged").read_bytes() == content
        worker = WorkerEnd(plane)
        worker.batch(1, [ROW])
        worker.wait_for(frames.COMMIT, 1)


def test_a_state_that_cannot_be_written_stops_only_the_commits(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    plane.state_dir.write_text("a file where the folder should be")
    with plane:
        worker = WorkerEnd(plane)
        worker.batch(1, [ROW])
        worker.wait_for(frames.ACK, 1)
        status = eventually(lambda: plane.status() if plane.status()["state"]["error"] else None)
        assert str(plane.state_dir) in status["state"]["error"]
        assert status["state"]["write_failures"] >= 1
        failures = plane.metric("understudy_state_write_failures_total")
        assert failures is not None
        assert failures >= 1
        worker.batch(2, [ROW])
        worker.wait_for(frames.ACK, 2)
        assert evaluated(plane) == 2
        plane.state_dir.unlink()
        worker.wait_for(frames.COMMIT, 2)
        assert plane.status()["state"]["error"] is None


def test_a_full_disk_stops_only_the_commits(plane: PlaneProcess) -> None:
    assert plane.process is not None
    worker = WorkerEnd(plane)
    worker.batch(1, [ROW])
    worker.wait_for(frames.COMMIT, 1)
    before = (plane.state_dir / "evaluation.json").read_bytes()
    _, hard = resource.prlimit(plane.process.pid, resource.RLIMIT_FSIZE, (64, -1))
    worker.batch(2, [ROW])
    worker.wait_for(frames.ACK, 2)
    eventually(lambda: plane.status()["state"]["error"])
    # What was saved before is whole, and nothing half-written lies beside it.
    assert (plane.state_dir / "evaluation.json").read_bytes() == before
    left = plane.state_dir.glob
    eventually(lambda: [path.name for path in left("evaluation*")] == ["evaluation.json"])
    resource.prlimit(plane.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    worker.wait_for(frames.COMMIT, 2)
    assert plane.status()["state"]["error"] is None


def test_a_bad_record_does_not_stop_its_batch(plane: PlaneProcess) -> None:
    worker = WorkerEnd(plane)
    cut_off = bytearray(ROW)
    cut_off[7] ^= 0xFF  # another arm: an index that nobody has
    worker.batch(1, [ROW, encoded(b"no json", b"{}"), bytes(cut_off), encoded(), ROW])
    damaged = bytearray(ROW)
    damaged[FIXED_OFFSETS["proxy_id"] + 8] ^= 0x01  # the first length: it no longer fits
    worker.batch(2, [ROW, bytes(damaged), ROW])
    worker.batch(3, [b"\xff" * 30])
    worker.batch(4, [ROW])
    worker.wait_for(frames.ACK, 4)
    status = plane.status()
    assert status["records"]["evaluated"] == 10
    by_arm = {p["arm"]: p["count"] for p in status["predictions"]}
    assert by_arm == {"champion": 5, "other": 1}
    counts = {(u["part"], u["reason"]): u["count"] for u in status["undecodable"]}
    assert counts["record", "damaged"] == 2
    assert sum(n for (part, _), n in counts.items() if part == "request") == 2
    assert sum(n for (part, _), n in counts.items() if part == "response") == 2


def test_status_and_reload_orders_of_the_supervisor(plane: PlaneProcess) -> None:
    plane.report(0, generation=4, config_error="champion.url: nonsense")
    config = eventually(
        lambda: plane.status()["config"] if plane.status()["config"]["generation"] else None
    )
    assert config == {"generation": 4, "error": "champion.url: nonsense"}
    plane.config["challengers"] = []
    plane.config_path.write_text(json.dumps(plane.config))
    plane.tell({"do": "reload", "config": str(plane.config_path)})
    assert plane.listen()["event"] == "reloaded"
    assert [arm["arm"] for arm in plane.status()["arms"]] == ["champion"]
    plane.config_path.write_text('{"models": 7}')
    plane.tell({"do": "reload", "config": str(plane.config_path)})
    assert plane.listen()["event"] == "reload_failed"
    assert [arm["arm"] for arm in plane.status()["arms"]] == ["champion"]
    plane.tell({"do": "unheard of"})
    assert plane.get("/healthz").status_code == 200


def test_signals_of_the_terminal_do_not_end_it(plane: PlaneProcess) -> None:
    assert plane.process is not None
    for number in (2, 15, 1):
        os.kill(plane.process.pid, number)
    assert plane.get("/healthz").status_code == 200


def test_windows_quantiles_and_accounts(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    sketch = stats.sketch("duration", LABELS)
    bad = stats.sketch("duration", {**LABELS, "outcome": "timeout"})
    eligible, sent = stats.counter("records_eligible"), stats.counter("records_sent")
    dropped = stats.counter("records_dropped", {"reason": "queue_full"})
    with plane:
        for _ in range(99):
            observe(stats.words, sketch, 20_000_000)
        observe(stats.words, bad, 3_000_000_000)
        stats.words[eligible], stats.words[sent], stats.words[dropped] = 100, 90, 7

        def shown() -> dict[str, float] | None:
            window: dict[str, float] = plane.status()["arms"][0]["windows"]["10s"]
            return window if window["count"] == 100 else None

        window = eventually(shown)
        assert window["p50"] == pytest.approx(0.02, rel=0.01)
        assert window["p99_9"] == pytest.approx(3.0, rel=0.01)
        assert window["max"] == pytest.approx(3.0)
        assert window["errors"] == 1
        assert window["error_rate"] == 0.01
        records = plane.status()["records"]
        assert (records["eligible"], records["sent"], records["pending"]) == (100, 90, 3)
        assert records["dropped"] == {"queue_full": 7}
