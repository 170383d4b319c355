"""Nothing is acknowledged before it is on disk.

The real calls are made; what a test adds is to note their order, or to let one of them fail as a
broken disk does. Where a sync is left out, its failure is not noticed, and the test fails.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.control_api import settings_of
from tests.support.evaluation import SPLIT, config_of
from tests.support.patience import patient
from tests.support.plane_process import encoded
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.model import RecordLog
from understudy.monitor.errors import BaselineError, StateError
from understudy.monitor.experiments.runner import Command, ExperimentRunner
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.service import LabelService
from understudy.monitor.labels.store import Prediction
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records import frames
from understudy.monitor.records.audit import AuditLog
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import SegmentLog
from understudy.monitor.routing.routes import Routes
from understudy.monitor.service.evaluation import make_plane

NAMES = {"generation": 1, "models": [{"name": "delays", "version": "1", "protocol": "auto"}]}


class Disk:
    """What reached the disk, in order: ``sync NAME`` and ``rename NAME``, and notes of the test.
    ``broken`` are names whose sync fails."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.broken: set[str] = set()

    def note(self, event: str) -> None:
        self.events.append(event)

    def sync(self, real: Callable[[int], None], fd: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        if name in self.broken:
            raise OSError(errno.EIO, "Input/output error", name)
        real(fd)
        self.events.append(f"sync {name}")

    def before(self, first: str, second: str) -> bool:
        """Whether both happened, in that order."""
        return self.events.index(first) < self.events.index(second)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found = Disk()
    fsync, fdatasync, replace = os.fsync, os.fdatasync, os.replace

    def renamed(source: Any, target: Any) -> None:
        replace(source, target)
        found.note(f"rename {Path(target).name}")

    monkeypatch.setattr(os, "fsync", lambda fd: found.sync(fsync, fd))
    monkeypatch.setattr(os, "fdatasync", lambda fd: found.sync(fdatasync, fd))
    monkeypatch.setattr(os, "replace", renamed)
    return found


# The saved state, and the workers ---------------------------------------------------------------


class Worker:
    """A worker's end of the hand-off, in the same loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._cutter = frames.FrameReader()
        self._inbox: list[tuple[int, bytes]] = []

    @classmethod
    async def joined(cls, path: Path) -> Worker:
        worker = cls(*await asyncio.open_unix_connection(str(path)))
        hello = {"run": "run-1", "slot": 0, "incarnation": 1, "pid": os.getpid()}
        worker.send(frames.HELLO, json.dumps(hello).encode())
        await worker.wait_for(frames.WELCOME)
        worker.send(frames.NAMES, json.dumps({**NAMES, "arms": ["champion"]}).encode())
        return worker

    def send(self, kind: int, payload: bytes) -> None:
        self._writer.write(frames.frame(kind, payload))

    async def wait_for(self, kind: int) -> None:
        async with asyncio.timeout(patient(20)):
            while True:
                while self._inbox:
                    if self._inbox.pop(0)[0] == kind:
                        return
                self._inbox += self._cutter.feed(await self._reader.read(65536))

    def close(self) -> None:
        self._writer.close()


def plane_of(folder: Path, **changes: Any) -> EvaluationPlane:
    (folder / "run").mkdir()
    config = config_of(folder / "state", **changes)
    settings = replace(settings_of(config), save_seconds=0.01)
    return make_plane(settings, folder / "run", "run-1")


def committed(plane: EvaluationPlane) -> bool:
    """Hand over a batch, save as the service does; whether the worker hears of a commit before
    that has failed several times."""

    async def run() -> bool:
        await plane.server.start()
        worker = await Worker.joined(plane.run_dir / "records.sock")
        batch = frames.BATCH_HEAD.pack(1, 1) + encoded({"a": [1.0]}, {"p": [0.5]})
        worker.send(frames.BATCH, batch)
        await worker.wait_for(frames.ACK)
        line: Any = SimpleNamespace()
        running = asyncio.create_task(plane.mode.run(plane, line))
        heard = asyncio.create_task(worker.wait_for(frames.COMMIT))
        while not heard.done() and plane.saver.failures < 5:
            await asyncio.sleep(0.01)
        told = heard.done() and heard.exception() is None
        running.cancel()
        heard.cancel()
        await asyncio.wait([running, heard])
        worker.close()
        await plane.server.stop(5.0)
        if plane.feedback is not None:
            await plane.feedback.close()
        return told

    return asyncio.run(run())


def test_a_batch_is_committed_once_the_state_is_on_disk(tmp_path: Path, disk: Disk) -> None:
    plane = plane_of(tmp_path)
    told = plane.server.commit

    def commit(saved: Any) -> None:
        disk.note("commit")
        told(saved)

    plane.server.commit = commit  # type: ignore[method-assign]
    assert committed(plane)
    assert disk.before("sync evaluation.json.tmp", "rename evaluation.json")
    assert disk.before("rename evaluation.json", "sync state")
    assert disk.before("sync state", "commit")


@pytest.mark.parametrize("name", ["evaluation.json.tmp", "state"])
def test_a_batch_is_not_committed_when_the_state_could_not_be_synced(
    tmp_path: Path, disk: Disk, name: str
) -> None:
    disk.broken.add(name)
    assert not committed(plane_of(tmp_path))


def prediction(request_id: str) -> Prediction:
    return Prediction(request_id, "champion", False, "delays", 0.0, time.time(), {"p": [0.5]})


def test_a_batch_is_not_committed_while_its_predictions_wait_for_the_disk(tmp_path: Path) -> None:
    plane = plane_of(tmp_path)
    feedback = plane.feedback
    assert isinstance(feedback, LabelService)
    feedback.store.close()
    (tmp_path / "state" / "feedback.sqlite").unlink()
    (tmp_path / "state" / "feedback.sqlite").mkdir()
    feedback.offer(prediction("r-1"))
    assert not committed(plane)
    assert plane.saver.failures > 0


def test_what_waits_for_labels_is_on_disk_before_the_state_says_so(
    tmp_path: Path, disk: Disk
) -> None:
    plane = plane_of(tmp_path)
    feedback = plane.feedback
    assert isinstance(feedback, LabelService)
    add = feedback.store.add_predictions

    def added(batch: Any) -> None:
        add(batch)
        disk.note("predictions")

    feedback.store.add_predictions = added  # type: ignore[method-assign]
    feedback.offer(prediction("r-1"))
    assert committed(plane)
    assert disk.before("predictions", "sync evaluation.json.tmp")


def test_a_label_is_synced_by_the_transaction_that_takes_it(tmp_path: Path) -> None:
    feedback = LabelService(tmp_path, 3600.0, 1 << 24)

    async def add() -> tuple[list[str], int, int]:
        outcomes = await feedback.add([Label("r-1", 0, 1)])
        level = await feedback._call(
            lambda: feedback.store._file.open().execute("PRAGMA synchronous").fetchone()[0]
        )
        # What another connection sees is in the file, and not in this one's memory.
        import sqlite3

        with sqlite3.connect(feedback.store.path) as other:
            there = other.execute("SELECT count(*) FROM labels").fetchone()[0]
        await feedback.close()
        return outcomes, level, there

    full = 2
    assert asyncio.run(add()) == (["orphan"], full, 1)


# Routes, and who moved them -----------------------------------------------------------------------


def runner(folder: Path) -> ExperimentRunner:
    made = ExperimentRunner(config_of(folder / "state", experiments=[SPLIT]))
    assert made.save_changes()
    return made


def test_routes_are_in_force_once_they_and_their_history_are_on_disk(
    tmp_path: Path, disk: Disk
) -> None:
    experiments = runner(tmp_path)
    disk.events.clear()
    experiments.command("divided", "other", Command("pause", "ada"))
    assert experiments.save_changes()
    assert disk.before("sync routes.json.tmp", "rename routes.json")
    assert disk.before("rename routes.json", "sync state")
    assert disk.before("sync state", "sync audit.jsonl")


@pytest.mark.parametrize("name", ["routes.json.tmp", "state", "audit.jsonl"])
def test_routes_that_could_not_be_synced_are_not_told(
    tmp_path: Path, disk: Disk, name: str
) -> None:
    experiments = runner(tmp_path)
    experiments.command("divided", "other", Command("pause", "ada"))
    disk.broken.add(name)
    assert not experiments.save_changes(), "the workers must not be told"
    assert experiments.error is not None
    disk.broken.clear()
    assert experiments.save_changes(), "it is tried again"
    assert experiments.audit.read("divided")[-1]["who"] == "ada"


def test_a_call_hears_of_a_change_after_the_workers_have_it(tmp_path: Path, disk: Disk) -> None:
    import httpx

    from understudy.monitor.api.app import build

    plane = plane_of(tmp_path, experiments=[SPLIT])
    assert plane.experiments is not None
    plane.experiments.save_changes()

    class Line:
        ok = True

        async def routes(self) -> Any:
            disk.note("told")
            return SimpleNamespace(ok=self.ok, error=None if self.ok else "no worker is there")

    line: Any = Line()
    app = build(plane, line)

    async def ask(command: str) -> tuple[int, str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:9090"
        ) as client:
            where = f"/v1/experiments/divided/{command}"
            found = await client.post(where, json={"who": "ada"})
            return found.status_code, found.text

    disk.events.clear()
    assert asyncio.run(ask("pause"))[0] == 200
    assert disk.before("sync routes.json.tmp", "told")
    assert disk.before("sync audit.jsonl", "told")
    line.ok = False
    status, why = asyncio.run(ask("resume"))
    assert (status, "the workers did not apply the change" in why) == (409, True)
    line.ok = True
    disk.events.clear()
    disk.broken.add("routes.json.tmp")
    status, why = asyncio.run(ask("pause"))
    assert (status, "the change could not be saved" in why) == (409, True)
    assert "told" not in disk.events


def test_routes_of_evaluators_are_on_disk_before_the_workers_are_told(
    tmp_path: Path, disk: Disk
) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    from understudy.monitor.kafka.publishing import RouteFollower

    told: list[str] = []

    class Line:
        async def routes(self) -> Any:
            disk.note("told")
            told.append("told")
            return SimpleNamespace(ok=True, error=None)

    config = config_of(tmp_path / "state", kafka={"bootstrap": ["127.0.0.1:1"]})

    async def follow() -> None:
        line: Any = Line()
        assert config.kafka is not None
        follower = RouteFollower(config.kafka, settings_of(config), line)
        assert await asyncio.to_thread(follower._apply, Routes())
        disk.broken.add("routes.json.tmp")
        with pytest.raises(StateError):
            await asyncio.to_thread(follower._apply, Routes())

    asyncio.run(follow())
    assert disk.before("sync state", "told")
    assert told == ["told"]


def test_a_line_of_the_audit_log_is_on_disk_or_is_not_there(tmp_path: Path, disk: Disk) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    assert log.append({"kind": "first"}) == 1
    assert disk.events == ["sync audit.jsonl", f"sync {tmp_path.name}"]
    disk.broken.add("audit.jsonl")
    with pytest.raises(OSError, match="Input/output"):
        log.append({"kind": "second"})
    assert [line["kind"] for line in log.read()] == ["first"]


def test_a_full_audit_log_is_renamed_for_good(tmp_path: Path, disk: Disk) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", file_bytes=1)
    log.append({"kind": "first"})
    disk.events.clear()
    log.append({"kind": "second"})
    assert disk.before("rename audit.1.jsonl", f"sync {tmp_path.name}")
    assert disk.before(f"sync {tmp_path.name}", "sync audit.jsonl")


def test_a_finding_is_on_disk_before_anybody_is_told(tmp_path: Path, disk: Disk) -> None:
    from tests.support.signals import signal
    from tests.support.webhook_receiver import receiver
    from understudy.monitor.config.notify import Notification

    with receiver() as there:
        channel = Notification.model_validate({"kind": "webhook", "url": there.url})
        service = FindingsService(tmp_path, channels=[channel])
        service.load_state({})
        service.ledger.report("watch", [signal()], time.time())
        assert "sync findings.jsonl" in disk.events
        assert there.requests == []
        asyncio.run(service.notifier.flush())
        assert len(there.requests) == 1


# Kafka, and the log of records --------------------------------------------------------------------


def publisher(folder: Path) -> Any:
    from understudy.monitor.kafka.publisher import Publisher

    return Publisher(Kafka.model_validate({"bootstrap": ["127.0.0.1:1"]}), folder, "run-1")


def spooled(made: Any) -> str:
    """The segment that is written to."""
    name: str = made.spool._log.segments[-1].path.name
    return name


def take(made: Any, seq: int) -> None:
    """A batch of one record."""
    from understudy.common.codecs import Table
    from understudy.monitor.records.record import decode_batch

    names = Names(1, (("delays", "1", "auto"),), ("champion",))
    (one,) = decode_batch(encoded({"a": [1.0]}, {"p": [0.5]}, request_id=f"r-{seq}"))
    made.extend(names, [(one, Table(("a",), 1, [1.0]), Table(("p",), 1, [0.5]))], time.time())
    made.slots.of("run-1", 0).last_seq = seq


def test_records_for_kafka_are_committed_once_the_spool_is_synced(
    tmp_path: Path, disk: Disk
) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")

    async def run() -> None:
        made = publisher(tmp_path)
        take(made, 1)
        assert await made.flush()
        assert made.committed == {("run-1", 0): 1}
        assert f"sync {spooled(made)}" in disk.events
        take(made, 2)
        disk.broken.add(spooled(made))
        assert not await made.flush()
        assert made.committed == {("run-1", 0): 1}

    asyncio.run(run())


def test_labels_for_kafka_are_taken_once_the_spool_is_synced(tmp_path: Path, disk: Disk) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")

    async def run() -> None:
        made = publisher(tmp_path)
        await made.add_labels([Label("r-1", 0, 1)])
        assert f"sync {spooled(made)}" in disk.events
        disk.broken.add(spooled(made))
        with pytest.raises(StateError):
            await made.add_labels([Label("r-2", 0, 1)])
        assert made.labels == 1

    asyncio.run(run())


def test_what_the_log_of_records_calls_synced_is_synced(tmp_path: Path, disk: Disk) -> None:
    log = SegmentLog(tmp_path / "log", 1 << 20, None, 1 << 16)
    assert f"sync {(tmp_path / 'log').name}" in disk.events, "the new file's name"
    log.append([b"one"])
    log.sync()
    assert log.synced == 1
    disk.broken.add(log.segments[-1].path.name)
    log.append([b"two"])
    log.sync()
    assert log.synced == 1
    assert log.error is not None


def test_what_was_recorded_is_synced_with_every_flush(tmp_path: Path, disk: Disk) -> None:
    from understudy.monitor.archive.recorder import Recorder

    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    recorder.add_label(Label("r-1", 0, 1), time.time())
    recorder.flush()
    assert recorder._log is not None
    recorder._log.sync_seconds = 3600.0
    disk.events.clear()
    recorder.add_label(Label("r-2", 0, 1), time.time())
    recorder.flush()
    assert recorder._log.synced == recorder._log.end
    assert disk.events == [f"sync {recorder._log.segments[-1].path.name}"]
    recorder.close()


def test_a_baseline_is_synced_before_it_takes_its_name(tmp_path: Path, disk: Disk) -> None:
    builder = Builder(model="m", source="test")
    builder.add(("a",), [[float(number) for number in range(200)]])
    made = builder.finish()
    made.save(tmp_path / "b.json")
    assert disk.before(f"sync .b.json.{os.getpid()}", "rename b.json")
    disk.broken.add(f".c.json.{os.getpid()}")
    with pytest.raises(BaselineError):
        made.save(tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


def test_files_of_the_state_are_for_their_owner(tmp_path: Path) -> None:
    """What lies there is data of people, and of who moved what."""
    before = os.umask(0o022)
    try:
        plane = plane_of(tmp_path, experiments=[SPLIT])
        assert committed(plane)
        assert plane.experiments is not None
        plane.experiments.save_changes()
        AuditLog(tmp_path / "state" / "audit.jsonl").append({"kind": "x"})
    finally:
        os.umask(before)
    for path in (tmp_path / "state").iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077, f"{path.name}: {mode:o}"


def test_totals_that_could_not_be_saved_are_saved_again_soon(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from understudy.monitor.service import evaluation
    from understudy.monitor.stats.totals import FILE_NAME

    # The next one in turn would come after the end of the test.
    monkeypatch.setattr(evaluation, "SAVE_SECONDS", 3600.0)
    monkeypatch.setattr(evaluation, "RETRY_SECONDS", 0.01)
    plane = plane_of(tmp_path)
    plane.mark_run()
    disk.broken.add(f"{FILE_NAME}.tmp")

    async def run() -> None:
        saving = asyncio.create_task(evaluation._save_statistics(plane))
        try:
            async with asyncio.timeout(patient(60)):
                while plane.reader.error is None:
                    await asyncio.sleep(0.01)
                disk.broken.clear()
                while plane.reader.error is not None:
                    await asyncio.sleep(0.01)
        finally:
            saving.cancel()
            await asyncio.wait([saving])

    asyncio.run(run())
    assert (tmp_path / "state" / FILE_NAME).exists()
