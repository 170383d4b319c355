"""The history on disk: findings that were notified survive any loss of state."""

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
from understudy.monitor.findings.history import Retention
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService

START = 1_790_000_000.0
LIMITS = Limits(hold=0, grace=0, max_openings=10_000)


def restored(folder: Path, state: object = None, now: float = START) -> FindingsService:
    made = FindingsService(folder, LIMITS, clock=lambda: now)
    made.load_state(state)  # type: ignore[arg-type]
    return made


def saved(one: FindingsService) -> object:
    return json.loads(json.dumps(one.dump_state()))


def dumped(findings: Findings) -> list[dict[str, Any]]:
    """All findings, without when they were seen last: nobody writes that down each time."""
    return [{**f.dump(), "seen": None, "absent": None} for f in findings.all()]


def same(one: Findings, other: Findings) -> None:
    assert dumped(one) == dumped(other)
    assert one.number == other.number
    assert one.totals == other.totals
    assert one.silences.dump_state() == other.silences.dump_state()


def test_the_history_alone_restores_the_findings(tmp_path: Path) -> None:
    one = restored(tmp_path)
    one.ledger.report("watch", [signal(), signal("quality/delays/1//")], START)
    one.ledger.report("watch", [signal()], START + 1)
    one.acknowledge(one.ledger.open()[0].id, "ada", "known")
    one.silence("drift/*", 3600.0, "ada", "maintenance")
    same(restored(tmp_path).ledger, one.ledger)


def test_changes_after_the_saved_state_are_applied_once(tmp_path: Path) -> None:
    one = restored(tmp_path)
    for step in range(10):
        one.ledger.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
        if step == 5:
            state = saved(one)
    again = restored(tmp_path, state)
    same(again.ledger, one.ledger)
    assert again.ledger.totals["delays", "drift"] == 10
    # A second time nothing is left to take in.
    same(restored(tmp_path, saved(again)).ledger, one.ledger)


def test_closed_findings_are_restored_beyond_the_saved_state(tmp_path: Path) -> None:
    one = restored(tmp_path)
    for step in range(200):
        one.ledger.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    state = saved(one)
    assert len(json.dumps(state)) < 120_000
    again = restored(tmp_path, state)
    assert len(again.ledger.closed()) == 199
    same(again.ledger, one.ledger)


def test_the_files_are_bounded(tmp_path: Path) -> None:
    kept = Retention(max_bytes=400_000)
    made = FindingsService(tmp_path, LIMITS, clock=lambda: START, retention=kept)
    made.load_state(None)
    for step in range(400):
        made.ledger.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    files = sorted(tmp_path.glob("findings*.jsonl"))
    assert len(files) == 20
    assert sum(path.stat().st_size for path in files) < 450_000
    again = restored(tmp_path)
    assert again.ledger.open() == made.ledger.open()
    assert again.ledger.number == 400


def test_old_files_of_the_history_are_deleted(tmp_path: Path) -> None:
    kept = Retention(max_bytes=1_000_000, max_days=2)
    made = FindingsService(tmp_path, LIMITS, clock=lambda: START, retention=kept)
    made.load_state(None)
    for step in range(200):
        made.ledger.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    files = sorted(tmp_path.glob("findings.*.jsonl"))
    assert len(files) > 3
    for path in files:
        os.utime(path, (START, START))
    made.ledger.report("watch", [], START + 86_400.0)
    assert len(list(tmp_path.glob("findings.*.jsonl"))) >= len(files)
    made.ledger.report("watch", [signal()], START + 3 * 86_400.0)
    assert list(tmp_path.glob("findings.*.jsonl")) == []
    assert made.history is not None
    assert made.history.page(limit=1)[0][0]["finding"]["key"] == signal().key


@pytest.mark.parametrize("state", [{}, {"findings": 3}, {"findings": {}, "notifier": {}}, None])
def test_an_invalid_state_loses_no_finding(tmp_path: Path, state: object) -> None:
    one = restored(tmp_path)
    one.ledger.report("watch", [signal()], START)
    same(restored(tmp_path, state).ledger, one.ledger)


def test_a_torn_or_damaged_history_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    one = restored(tmp_path)
    for step in range(3):
        one.ledger.report("watch", [signal(f"drift/delays/1/{n}/") for n in range(step + 1)], START)
    path = tmp_path / "findings.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"title"', b'"tilte"')
    path.write_bytes(b"".join(lines) + b'{"half')
    again = restored(tmp_path)
    keys = {f.key for f in again.ledger.open()}
    assert keys == {"drift/delays/1/0/", "drift/delays/1/2/"}
    again.ledger.report("watch", [signal(f"drift/delays/1/{n}/") for n in range(3)], START + 1)
    same(restored(tmp_path).ledger, again.ledger)


def test_a_history_older_than_the_state_is_accepted(tmp_path: Path) -> None:
    one = restored(tmp_path / "a")
    for step in range(5):
        one.ledger.report("watch", [signal(f"drift/delays/1/{step}/")], START + step)
    state = saved(one)
    again = restored(tmp_path / "b", state)
    assert again.ledger.open() == one.ledger.open()
    again.ledger.report("watch", [signal("drift/delays/1/new/")], START + 10)
    same(restored(tmp_path / "b", saved(again)).ledger, again.ledger)


def test_write_failures_are_counted_and_findings_continue(tmp_path: Path) -> None:
    made = restored(tmp_path)
    (tmp_path / "findings.jsonl").mkdir()
    made.ledger.report("watch", [signal()], START)
    assert made.history is not None
    assert made.history.failures == 1
    assert made.history.error
    assert len(made.ledger.open()) == 1
    (tmp_path / "findings.jsonl").rmdir()
    made.ledger.report("watch", [], START + 1)
    assert made.history.error is None


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    made = FindingsService(None, LIMITS)
    made.load_state(None)
    made.ledger.report("watch", [signal()], START)
    assert made.dump_state()["history"] == 0
    assert list(tmp_path.iterdir()) == []


def test_the_version_changes_with_everything_that_should_be_saved(tmp_path: Path) -> None:
    with receiver() as there:
        channel = Notification.model_validate({"kind": "webhook", "url": there.url})
        made = FindingsService(tmp_path, LIMITS, [channel], clock=lambda: START)
        made.load_state(None)
        seen = [made.version]
        made.ledger.report("watch", [signal()], START)
        seen.append(made.version)
        made.ledger.report("watch", [signal()], START + 1)
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
restored = FindingsService(folder, Limits(hold=0, grace=0, max_open=3, max_openings=10**9))
state = folder / "state.json"
restored.load_state(json.loads(state.read_text()) if state.exists() else None)
now = restored.ledger.number + 1.79e9
step = restored.ledger.number
while True:
    step += 1
    changes = restored.ledger.report("watch", [signal(f"drift/delays/1/{step}/")], now + step)
    for change in changes:
        print(change.kind, change.finding.id, change.finding.key, flush=True)
    if step % 7 == 0:
        new = folder / "state.new"
        new.write_text(json.dumps(restored.dump_state()))
        new.rename(state)
"""


def test_findings_survive_repeated_sigkill(tmp_path: Path) -> None:
    """Every notified finding is known after each kill, under the same id, and closed once."""
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
    known = {f.id: f for f in made.ledger.all()}
    assert dict(opened) == {id_: known[id_].key for id_, _ in opened}
    assert all(not known[id_].open for id_ in closed)
    assert len(made.ledger.open()) <= 1
