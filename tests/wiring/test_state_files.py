"""What lies in the state folder may be damaged, newer, or not ours: the service starts all the same,
keeps the file, and says so."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_api import settings_of
from tests.support.disks import disk
from tests.support.evaluation import SPLIT, config_of
from tests.support.patience import eventually
from tests.support.plane_process import encoded
from tests.support.service import REAL, ROOT, Service
from understudy.common.durable import read_document, replace_document, replace_file
from understudy.monitor.errors import LogError
from understudy.monitor.ingest.cloudevents import MAX_WAITING_BYTES, REQUEST, RESPONSE, Event, Pairs
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.audit import AuditLog
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import SegmentLog
from understudy.monitor.records.log.spool import Spool
from understudy.monitor.records.slots import Slots
from understudy.monitor.routing.routes import Routes
from understudy.monitor.service.evaluation import make_plane
from understudy.monitor.supervisor.faults import FAULT_SECONDS, MOST_FAULTS, Faults
from understudy.monitor.supervisor.run_directory import RunDirectory, StateDirError

NAMES = Names(1, (("delays", "1", "auto"),), ("champion", "candidate"))
DOCUMENTS = ("evaluation.json", "routes.json", "ended.json", "statistics.json")
OTHERS = ("findings.jsonl", "audit.jsonl", "feedback.sqlite")


def plane_of(folder: Path, run: str = "run-1") -> EvaluationPlane:
    (folder / "run").mkdir(exist_ok=True)
    config = config_of(folder / "state", experiments=[SPLIT])
    return make_plane(settings_of(config), folder / "run", run)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a state folder in use, by name."""
    import asyncio

    folder = tmp_path_factory.mktemp("rich")
    plane = plane_of(folder)
    plane.pipeline.take(NAMES, 1, encoded({"a": [1.0, 2.0]}, {"p": [0.5, 0.7]}))
    plane.server.slots.of("run-1", 0).received = 1
    assert plane.experiments is not None
    plane.experiments.tick()
    plane.experiments.ended.save()
    assert asyncio.run(plane.saver.save())
    assert plane.save_statistics()
    assert plane.pipeline.findings_loop is not None
    plane.pipeline.findings_loop.tick(1e9)
    files = {
        path.name: path.read_bytes() for path in (folder / "state").iterdir() if path.is_file()
    }
    assert set(DOCUMENTS) <= files.keys()
    return files


def restored(folder: Path, files: dict[str, bytes]) -> EvaluationPlane:
    (folder / "state").mkdir()
    for name, data in files.items():
        (folder / "state" / name).write_bytes(data)
    return plane_of(folder, "run-2")


def in_use(plane: EvaluationPlane) -> list[str]:
    """Use what was loaded, as every second of a service does; the faults that it reports."""
    import asyncio

    plane.tick()
    assert plane.experiments is not None
    plane.experiments.tick()
    assert plane.pipeline.findings_loop is not None
    plane.pipeline.findings_loop.tick(2e9)
    plane.pipeline.take(NAMES, 1, encoded({"a": [1.0]}, {"p": [0.5]}))
    assert asyncio.run(plane.saver.save())
    assert plane.save_statistics()
    return plane.faults(plane.snapshot())


def damaged(data: bytes, how: str, rng: random.Random) -> bytes:
    if how == "empty":
        return b""
    if how == "cut":
        return data[: rng.randrange(1, len(data))]
    if how == "zeros":
        return bytes(len(data))
    if how == "nested":
        return b"[" * 100_000
    changed = bytearray(data)
    if how == "bytes":
        for _ in range(8):
            changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    else:  # a digit, as a program or a person might change it
        digits = [at for at, byte in enumerate(data) if 48 <= byte < 57 and at > 50]
        at = rng.choice(digits)
        changed[at] += 1
    return bytes(changed)


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("how", ["empty", "cut", "zeros", "nested", "bytes", "digit"])
def test_a_damaged_document_is_set_aside_and_said(
    tmp_path: Path, rich: dict[str, bytes], name: str, how: str
) -> None:
    wrong = damaged(rich[name], how, random.Random(f"{name} {how}"))
    plane = restored(tmp_path, {**rich, name: wrong})
    faults = in_use(plane)
    assert (tmp_path / "state" / f"{name}.damaged").read_bytes() == wrong
    assert [fault for fault in faults if fault.startswith(f"{name} could not be used")]


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("seal", [True, False])
def test_a_document_of_a_newer_version_is_set_aside(
    tmp_path: Path, rich: dict[str, bytes], name: str, seal: bool
) -> None:
    content = {**json.loads(rich[name]), "version": 99}
    del content["checksum"]
    newer = tmp_path / "newer"
    if seal:
        replace_document(newer, json.dumps(content).encode())
    else:
        newer.write_text(json.dumps(content))
    plane = restored(tmp_path, {**rich, name: newer.read_bytes()})
    in_use(plane)
    assert (tmp_path / "state" / f"{name}.damaged").read_bytes() == newer.read_bytes()


def test_a_state_of_an_earlier_version_has_no_checksum(
    tmp_path: Path, rich: dict[str, bytes]
) -> None:
    content = json.loads(rich["evaluation.json"])
    del content["checksum"]
    plane = restored(tmp_path, {**rich, "evaluation.json": json.dumps(content).encode()})
    assert plane.pipeline.records == 1
    assert in_use(plane) == []


@pytest.mark.parametrize("seed", range(40))
def test_values_that_fit_no_type_are_set_aside(
    tmp_path: Path, rich: dict[str, bytes], seed: int
) -> None:
    """Without a checksum, as a file of an earlier version."""
    rng = random.Random(seed)
    content = json.loads(rich["evaluation.json"])
    del content["checksum"]
    paths: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in list(items):
            paths.append((value, key))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(content["pipeline"])
    for _ in range(3):
        holder, key = rng.choice(paths)
        holder[key] = rng.choice([None, 2**63, "x", [], {}, [None], -1.5, True])
    plane = restored(tmp_path, {**rich, "evaluation.json": json.dumps(content).encode()})
    aside = (tmp_path / "state" / "evaluation.json.damaged").exists()
    slots = plane.server.slots.received("run-1")
    assert slots == (None if aside else 1), "all of it or nothing"


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("how", ["empty", "cut", "zeros", "bytes"])
def test_logs_and_tables_that_are_damaged_stop_nothing(
    tmp_path: Path, rich: dict[str, bytes], name: str, how: str
) -> None:
    data = rich.get(name) or b'{"seq": 1, "kind": "x"}\n' * 20
    plane = restored(tmp_path, {**rich, name: damaged(data, how, random.Random(f"{name} {how}"))})
    in_use(plane)


@pytest.mark.parametrize("name", [*DOCUMENTS, *OTHERS[:2]])
def test_links_are_not_followed(tmp_path: Path, rich: dict[str, bytes], name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(victim)
    plane = restored_beside(tmp_path, rich, name)
    in_use(plane)
    assert victim.read_text() == "precious\n"


def test_labels_are_not_written_through_a_link(tmp_path: Path, rich: dict[str, bytes]) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "feedback.sqlite").symlink_to(victim)
    plane = restored_beside(tmp_path, rich, "feedback.sqlite")
    with pytest.raises(AssertionError):
        in_use(plane)  # the state is not saved without its labels
    assert victim.read_text() == "precious\n"


def restored_beside(folder: Path, files: dict[str, bytes], left_out: str) -> EvaluationPlane:
    for name, data in files.items():
        if name != left_out:
            (folder / "state" / name).write_bytes(data)
    return plane_of(folder, "run-2")


def test_a_planted_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "file.tmp").symlink_to(victim)
    replace_file(tmp_path / "file", b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    replace_document(path, b'{"a":1}')
    assert json.loads(path.read_bytes()).keys() == {"checksum", "a"}
    assert read_document(path) == b'{"a":1}'
    path.write_bytes(path.read_bytes().replace(b'"a":1', b'"a":2'))
    with pytest.raises(ValueError, match="checksum"):
        read_document(path)


def test_a_document_behind_a_link_is_not_read(tmp_path: Path) -> None:
    replace_document(tmp_path / "real.json", b'{"a":1}')
    (tmp_path / "one.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(OSError, match="symbolic links"):
        read_document(tmp_path / "one.json")


def test_links_in_the_state_folder_are_set_aside_at_the_start(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "audit.jsonl").symlink_to(victim)
    directory = RunDirectory(state)
    directory.open("run1")
    directory.close()
    assert not (state / "audit.jsonl").exists()
    assert (state / "audit.jsonl.damaged").is_symlink()


def test_a_folder_that_every_user_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with Service(tmp_path, REAL).start(wait=False) as service:
        assert service.wait() == 2
    assert "every user may write to" in service.log
    with disk(tmp_path / "state", 8) as volume:
        volume.path.chmod(0o777)  # as Kubernetes makes an emptyDir: as private as the container
        directory = RunDirectory(volume.path)
        directory.open("run1")
        directory.close()
        volume.path.chmod(0o1777)
        with pytest.raises(StateDirError, match="every user"):
            RunDirectory(volume.path).open("run1")


def test_every_file_of_the_service_is_for_its_user(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        service = Service(tmp_path, REAL, workers=1, records={"log": {"path": "state/records"}})
        with service.start():
            eventually(lambda: (service.state / "evaluation.json").exists())
            paths = [*service.state.rglob("*"), *(service.state / "run").resolve().rglob("*")]
            shown = [
                str(path)
                for path in paths
                if not path.is_symlink() and path.exists() and path.stat().st_mode & 0o077
            ]
            assert shown == []
            assert service.stop() == 0
    finally:
        os.umask(before)


def test_the_folder_in_memory_is_gone_after_an_orderly_stop(tmp_path: Path) -> None:
    service = Service(tmp_path, REAL, workers=1)
    with service.start():
        link = service.state / "run"
        memory = link.resolve()
        assert (memory / "plan.json").is_file()
        assert service.stop() == 0
    assert not memory.exists()
    assert not link.is_symlink()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder with a short path: sockets are bound in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_folders_in_memory_of_services_that_are_gone_are_removed(
    tmp_path: Path, memory: Path
) -> None:
    gone, stays = tmp_path / "gone", tmp_path / "stays"
    for state in (gone, stays):
        directory = RunDirectory(state, memory)
        directory.open("run1")
        (directory.path / "worker-0.stats").write_text("kept over a crash")
        directory.close()
    assert len(list(memory.iterdir())) == 2
    (gone / "lock").unlink()
    (gone / "run").unlink()
    gone.rmdir()
    third = RunDirectory(tmp_path / "third", memory)
    third.open("run1")
    kept = {path.name for path in memory.iterdir()}
    assert kept == {third.path.name, (stays / "run").resolve().name}
    third.close()


def test_a_state_that_fails_again_and_again_is_set_aside(
    tmp_path: Path, rich: dict[str, bytes]
) -> None:
    """It could be loaded, and the process ended by an error each time soon after."""
    (tmp_path / "state").mkdir()
    (tmp_path / "run").mkdir()
    config = config_of(tmp_path / "state", experiments=[SPLIT])
    document = tmp_path / "run" / "config.json"
    document.write_text(json.dumps(config.model_dump(mode="json", by_alias=True)))
    state = tmp_path / "state" / "evaluation.json"
    state.write_bytes(rich["evaluation.json"])
    code = (
        "import socket, sys; from understudy.monitor.service import evaluation as e\n"
        "async def run(plane, control, heartbeat): raise RuntimeError(f'records {plane.pipeline.records}')\n"
        "e.run = run\n"
        "line, _ = socket.socketpair()\n"
        "e.main(['--config-json', sys.argv[1], '--run-dir', sys.argv[2], '--run-id', 'run-1',"
        " '--control-fd', str(line.fileno())])"
    )
    seen = []
    for _ in range(MOST_FAULTS + 1):
        done = subprocess.run(
            [sys.executable, "-c", code, str(document), str(tmp_path / "run")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        seen.append(done.stderr.splitlines()[-1])
    assert seen == ["RuntimeError: records 1"] * MOST_FAULTS + ["RuntimeError: records 0"]
    assert state.with_name("evaluation.json.damaged").exists()


def test_errors_that_are_far_apart_do_not_cost_the_state(tmp_path: Path) -> None:
    for _ in range(3 * MOST_FAULTS):
        faults = Faults(tmp_path)
        assert not faults.again()
        faults.note(FAULT_SECONDS)


# Bounds -------------------------------------------------------------------------------------------


def event(number: int, kind: str, size: int) -> Event:
    return Event(f"e{number}", kind, "m", None, b"x" * size)


def test_events_that_wait_for_their_other_half_are_bounded_in_bytes() -> None:
    pairs = Pairs()
    size = MAX_WAITING_BYTES // 4
    for number in range(10):
        assert pairs.add(event(number, REQUEST, size), 0.0) is None
    assert pairs.waiting == 4
    assert pairs.outcomes["overflow"] == 6
    assert pairs.add(event(9, RESPONSE, 1), 0.0) is not None
    assert pairs.waiting == 3
    assert pairs.add(event(99, REQUEST, MAX_WAITING_BYTES + 1), 0.0) is None
    assert pairs.waiting == 3, "what is too large by itself costs the others nothing"
    again = Pairs()
    again.load_state(pairs.dump_state())
    assert again.waiting == 3
    assert again.add(event(100, REQUEST, size), 0.0) is None
    assert again.add(event(101, REQUEST, size), 0.0) is None
    assert again.waiting == 4
    again.expire(1e9)
    for number in range(10):
        again.add(event(number, REQUEST, size), 1e9)
    assert again.waiting == 4


def test_a_record_log_leaves_room_on_its_disk(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 16) as small:
        log = SegmentLog(small.path / "log", 1 << 30, segment_bytes=1 << 20, compress=False)
        for _ in range(200):
            assert log.append([os.urandom(200_000)])
        room = os.statvfs(small.path)
        assert room.f_bavail * room.f_frsize >= 0.05 * 16 * 2**20
        assert log.pruned > 50, "the oldest give way"
        assert log.refused == 0
        log.close()


@pytest.mark.timeout(120)  # without the guard it would not end
def test_a_queue_on_a_full_disk_keeps_what_it_has(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 16) as small:
        spool = Spool(small.path / "spool", 1 << 30, segment_bytes=1 << 20)
        taken = 0
        while spool.append([os.urandom(200_000)]):
            taken += 1
        assert spool.refused == 1
        assert spool.error is not None
        assert spool.pending == taken
        assert spool.dropped == 0
        room = os.statvfs(small.path)
        assert room.f_bavail * room.f_frsize >= 0.05 * 16 * 2**20
        spool.close()


def test_a_log_refuses_a_lock_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(LogError):
        SegmentLog(tmp_path / "log", 1 << 20)
    assert not (tmp_path / "victim").exists()


def test_an_audit_log_that_cannot_be_read_does_not_end_the_start(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    log = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(OSError, match=r"audit\.jsonl"):
        log.append({"kind": "x"})
    assert log.read() == []


def test_slots_of_earlier_runs_are_kept_until_their_accounts_are_settled() -> None:
    slots = Slots()
    slots.of("one", 0).received = 5
    slots.of("one", 1).received = 6
    later = Slots.from_state(slots.dump_state(), "two")
    assert list(later) == []
    assert later.received("one") == 11
    again = Slots.from_state(later.dump_state(), "two")
    assert again.received("one") == 11
    again.forget("one")
    assert again.dump_state() == []
    assert Slots(known=False).received("one") is None


def test_routes_that_cannot_be_used_send_everything_to_the_champion(tmp_path: Path) -> None:
    from understudy.monitor.routing.routes import load_or_set_aside

    Routes().save(tmp_path)
    path = tmp_path / "routes.json"
    path.write_bytes(path.read_bytes().replace(b'"declared": []', b'"declared": [1]'))
    assert load_or_set_aside(tmp_path) == Routes()
    assert (tmp_path / "routes.json.damaged").exists()
