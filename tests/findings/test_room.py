"""The history on disk: what was told survives, whatever is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal as signals
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.signals import signal
from tests.support.webhook_receiver import receiver
from understudy.monitor.config.notify import Notification
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService

START = 1_790_000_000.0
LIMITS = Limits(hold=0, grace=0, max_openings=10_000)


def room(folder: Path, state: object = None, now: float = START) -> FindingsService:
    made = FindingsService(folder, LIMITS, clock=lambda: now)
    made.load_state(state)  # type: ignore[arg-type]
    return made


def saved(one: FindingsService) -> object:
    return json.loads(json.dumps(one.dump_state()))


def told(findings: Findings) -> list[dict[str, Any]]:
    """All findings, without when they were seen last: nobody writes that down each time."""
    return [{**f.dump(), "seen": None, "absent": None} for f in findings.all()]


def same(one: Findings, other: Findings) -> None:
    assert told(one) == told(other)
    assert one.number == other.number
    assert one.totals == other.totals
    assert one.silences.dump_state() == other.silences.dump_state()


def test_the_history_alone_is_enough(tmp_path: Path) -> None:
    one = room(tmp_path)
    one.findings.report("watch", [signal(), signal("quality/delays/1//")], START)
    one.findings.report("watch", [signal()], START + 1)
    one.acknowledge(one.findings.open()[0].id, "ada", "known")
    one.silence("drift/*", 3600.0, "ada", "maintenance")
    same(room(tmp_path).findings, one.findings)


def test_what_happened_after_the_state_was_saved_is_taken_in_once(tmp_path: Path) -> None:
    one = room(tmp_path)
    for step in range(10):
        one.findings.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
        if step == 5:
            state = saved(one)
    again = room(tmp_path, state)
    same(again.findings, one.findings)
    assert again.findings.totals["delays", "drift"] == 10
    # A second time nothing is left to take in.
    same(room(tmp_path, saved(again)).findings, one.findings)


def test_closed_findings_are_remembered_beyond_the_saved_state(tmp_path: Path) -> None:
    one = room(tmp_path)
    for step in range(200):
        one.findings.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    state = saved(one)
    assert len(json.dumps(state)) < 120_000
    again = room(tmp_path, state)
    assert len(again.findings.closed()) == 199
    same(again.findings, one.findings)


def test_the_files_are_bounded(tmp_path: Path) -> None:
    made = FindingsService(tmp_path, LIMITS, clock=lambda: START)
    made.load_state(None)
    assert made.history is not None
    made.history._log._file_bytes = 20_000
    for step in range(200):
        made.findings.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    files = sorted(tmp_path.glob("findings*.jsonl"))
    assert len(files) == 5
    assert sum(path.stat().st_size for path in files) < 150_000
    again = room(tmp_path)
    assert again.findings.open() == made.findings.open()
    assert again.findings.number == 200


@pytest.mark.parametrize("state", [{}, {"findings": 3}, {"findings": {}, "notifier": {}}, None])
def test_a_state_that_cannot_be_used_costs_nothing(tmp_path: Path, state: object) -> None:
    one = room(tmp_path)
    one.findings.report("watch", [signal()], START)
    same(room(tmp_path, state).findings, one.findings)


def test_a_torn_or_damaged_history_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    one = room(tmp_path)
    for step in range(3):
        one.findings.report(
            "watch", [signal(f"drift/delays/1/{n}/") for n in range(step + 1)], START
        )
    path = tmp_path / "findings.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"title"', b'"tilte"')
    path.write_bytes(b"".join(lines) + b'{"half')
    again = room(tmp_path)
    keys = {f.key for f in again.findings.open()}
    assert keys == {"drift/delays/1/0/", "drift/delays/1/2/"}
    again.findings.report("watch", [signal(f"drift/delays/1/{n}/") for n in range(3)], START + 1)
    same(room(tmp_path).findings, again.findings)


def test_another_history_than_that_of_the_state(tmp_path: Path) -> None:
    one = room(tmp_path / "a")
    for step in range(5):
        one.findings.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    state = saved(one)
    again = room(tmp_path / "b", state)
    assert again.findings.open() == one.findings.open()
    again.findings.report("watch", [signal("drift/delays/1/new/")], START + 10)
    same(room(tmp_path / "b", saved(again)).findings, again.findings)


def test_a_full_disk_is_counted_and_findings_go_on(tmp_path: Path) -> None:
    made = room(tmp_path)
    (tmp_path / "findings.jsonl").mkdir()
    made.findings.report("watch", [signal()], START)
    assert made.history is not None
    assert made.history.failures == 1
    assert made.history.error
    assert len(made.findings.open()) == 1
    (tmp_path / "findings.jsonl").rmdir()
    made.findings.report("watch", [], START + 1)
    assert made.history.error is None


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    made = FindingsService(None, LIMITS)
    made.load_state(None)
    made.findings.report("watch", [signal()], START)
    assert made.dump_state()["history"] == 0
    assert list(tmp_path.iterdir()) == []


def test_the_version_changes_with_everything_that_should_be_saved(tmp_path: Path) -> None:
    with receiver() as there:
        channel = Notification.model_validate({"kind": "webhook", "url": there.url})
        made = FindingsService(tmp_path, LIMITS, [channel], clock=lambda: START)
        made.load_state(None)
        seen = [made.version]
        made.findings.report("watch", [signal()], START)
        seen.append(made.version)
        made.findings.report("watch", [signal()], START + 1)
        assert made.version == seen[-1]
        asyncio.run(made.notifier.flush())
        seen.append(made.version)
        silence = made.silence("*", 10.0, "ada", "")
        seen.append(made.version)
        made.end_silence(silence.id)
        seen.append(made.version)
        assert len(set(seen)) == len(seen)
        made.configure(LIMITS, [])
        assert made.notifier.pending() == {}


_LIFE = """
import json, sys
from pathlib import Path
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService
from tests.support.signals import signal

folder = Path(sys.argv[1])
room = FindingsService(folder, Limits(hold=0, grace=0, max_open=3, max_openings=10**9))
state = folder / "state.json"
room.load_state(json.loads(state.read_text()) if state.exists() else None)
now = room.findings.number + 1.79e9
step = room.findings.number
while True:
    step += 1
    changes = room.findings.report("watch", [signal(f"drift/delays/1/{step}/")], now + step)
    for change in changes:
        print(change.kind, change.finding.id, change.finding.key, flush=True)
    if step % 7 == 0:
        new = folder / "state.new"
        new.write_text(json.dumps(room.dump_state()))
        new.rename(state)
"""


def test_kill_9_in_a_loop(tmp_path: Path) -> None:
    """What anybody was told is known after each kill, under the same id, and closed once."""
    heard: list[list[str]] = []
    for run in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _LIFE, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert process.stdout is not None
        for _ in range(17 + run):
            heard.append(process.stdout.readline().split())
        process.send_signal(signals.SIGKILL)
        heard += [
            line.split()
            for line in process.stdout.read().splitlines(keepends=True)
            if line[-1] == "\n"
        ]
        process.wait()
    made = FindingsService(tmp_path, LIMITS)
    made.load_state(json.loads((tmp_path / "state.json").read_text()))
    opened = [(id_, key) for kind, id_, key in heard if kind == "opened"]
    closed = [id_ for kind, id_, _ in heard if kind == "closed"]
    assert len({id_ for id_, _ in opened}) == len(opened) > 40
    assert len(set(closed)) == len(closed)
    known = {f.id: f for f in made.findings.all()}
    assert dict(opened) == {id_: known[id_].key for id_, _ in opened}
    assert all(not known[id_].open for id_ in closed)
    assert len(made.findings.open()) <= 1
