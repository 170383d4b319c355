"""Injected faults, and that they are undone even when the runner is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chaos import experiment
from tests.support.load_server import Server
from tests.support.patience import eventually, patient
from understudy.loadtest.chaos import actions, probes
from understudy.loadtest.chaos.experiment import load_experiment, run_experiment
from understudy.loadtest.chaos.guard import Guard
from understudy.loadtest.chaos.processes import cpu_seconds, find, listening, process_tree
from understudy.loadtest.chaos.undo import perform, start_time
from understudy.loadtest.errors import LoadTestError, PlanError


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_processes_are_found_by_number_file_and_port(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with Server() as server:
        assert server.process is not None
        assert find(port=server.port) == server.process.pid
        assert listening(server.port) == [server.process.pid]
    file = tmp_path / "pid"
    file.write_text(f"{sleeper.pid}\n")
    assert find(pid_file=str(file)) == find(pid=sleeper.pid) == sleeper.pid
    assert sleeper.pid in process_tree(os.getpid())
    assert cpu_seconds(sleeper.pid) >= 0.0
    for wrong in ({"pid": 2**22 + 5}, {"pid": 1}, {"port": 1}, {"pid_file": str(tmp_path)}, {}):
        with pytest.raises(PlanError):
            find(**wrong)


def test_pause_and_resume(sleeper: subprocess.Popen[bytes]) -> None:
    actions.pause_process(pid=sleeper.pid)
    eventually(lambda: state(sleeper.pid) == "T")
    assert actions.resume_process() == 1
    eventually(lambda: state(sleeper.pid) != "T")
    assert actions.undo() == 0


def test_kill_and_restart(tmp_path: Path) -> None:
    mark = tmp_path / "again"
    code = f"import pathlib, time; pathlib.Path({str(mark)!r}).write_text('x'); time.sleep(5)"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    actions.kill_process(pid=process.pid, restart=[sys.executable, "-c", code])
    assert process.wait(patient(10)) == -signal.SIGKILL
    assert actions.undo() == 1
    eventually(mark.exists)


def test_pressure_ends_when_it_is_undone(tmp_path: Path) -> None:
    pids = actions.cpu_pressure(1, 30.0)
    held = actions.memory_pressure(32, 30.0)
    filler = Path(actions.fill_disk(str(tmp_path), most_mib=8))
    assert filler.stat().st_size == 8 * 2**20
    assert actions.undo() == 3
    assert not filler.exists()
    for pid in (*pids, held):
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists() or state(pid) == "Z")
    with pytest.raises(PlanError, match="too much"):
        actions.memory_pressure(10**9)
    with pytest.raises(PlanError, match="not a folder"):
        actions.fill_disk("/nowhere")
    with pytest.raises(PlanError, match="cores"):
        actions.cpu_pressure(0)
    assert isinstance(actions.partition_possible(), bool)


def test_another_process_with_the_same_number_is_left_alone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    begun = start_time(sleeper.pid)
    assert begun is not None
    assert perform({"end": sleeper.pid, "began": begun - 1}) == ""
    assert sleeper.poll() is None
    assert "unknown undo" in perform({"what": 1})
    assert perform({"unlink": "/nowhere/at/all"}) == ""
    assert "http" in perform(
        {"http": {"method": "GET", "url": "http://127.0.0.1:1/", "json": None}}
    )


RUNNER = """
import os, sys, time
from pathlib import Path
from understudy.loadtest.chaos import actions
from understudy.loadtest.chaos.guard import Guard
actions.guard = Guard(Path(sys.argv[2]))
actions.pause_process(pid=int(sys.argv[1]))
actions.cpu_pressure(1, 60.0)
print("ready", flush=True)
time.sleep(60)
"""


def test_faults_are_undone_when_the_runner_is_killed(tmp_path: Path) -> None:
    for number in range(5):
        journal = tmp_path / f"{number}.json"
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
            runner = subprocess.Popen(
                [sys.executable, "-c", RUNNER, str(victim.pid), str(journal)],
                stdout=subprocess.PIPE,
            )
            assert runner.stdout is not None
            assert runner.stdout.readline() == b"ready\n"
            eventually(lambda: state(victim.pid) == "T")
            runner.send_signal(signal.SIGKILL)
            runner.wait()
            eventually(journal.exists)
            assert state(victim.pid) != "T"
            victim.kill()
        report = json.loads(journal.read_text())
        assert (report["orderly"], len(report["undone"]), report["failed"]) == (False, 2, [])
        pid = next(one["end"] for one in report["undone"] if "end" in one)
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists() or state(pid) == "Z")


def test_a_guard_undoes_only_what_is_left(tmp_path: Path) -> None:
    guard = Guard(tmp_path / "g.json")
    number = guard.begin({"unlink": "/nowhere"})
    guard.done(number)
    guard.begin({"unlink": str(tmp_path / "left")})
    (tmp_path / "left").write_text("x")
    found = guard.end()
    assert (found["orderly"], len(found["undone"])) == (True, 1)
    assert not (tmp_path / "left").exists()


def test_the_hypothesis_is_checked_while_the_method_runs() -> None:
    pytest.importorskip("chaoslib", reason="the Chaos Toolkit is not installed")
    lines: list[str] = []
    with Server() as server:
        ran = run_experiment(experiment(server, 2.5), lines.append)
        assert probes.answers(server.url, body="{}")
    assert (ran.status, ran.deviated, ran.errors) == ("completed", False, [])
    assert ran.checks >= 1
    assert ran.deviations, "the toolkit alone does not look while the method runs"
    ((begin, end, name),) = ran.faults
    assert name == "pause"
    assert ran.begun <= begin < begin + 2.4 <= end <= ran.ended
    assert all(at >= begin - 0.1 for at in ran.deviations), "it held until the fault"
    assert ran.guard["orderly"] is True


def test_faults_without_a_rollback_are_undone() -> None:
    pytest.importorskip("chaoslib", reason="the Chaos Toolkit is not installed")
    lines: list[str] = []
    with Server() as server:
        assert server.process is not None
        careless = experiment(server, 0.5, rollbacks=[])
        careless["method"] = careless["method"][:1]  # type: ignore[index]
        del careless["steady-state-hypothesis"]
        run_experiment(careless, lines.append)
        assert state(server.process.pid) != "T"
    assert any("without a rollback" in text for text in lines)


def test_invalid_experiment_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("chaoslib", reason="the Chaos Toolkit is not installed")
    file = tmp_path / "e.json"
    for text, said in (
        ("{", "not valid JSON"),
        ("[]", "an object"),
        ('{"title": "x"}', "description"),
        ("", "not valid JSON"),
    ):
        file.write_text(text)
        with pytest.raises(PlanError, match=said):
            load_experiment(file)
    with pytest.raises(PlanError, match="cannot be read"):
        load_experiment(tmp_path / "none.json")


def test_an_action_that_cannot_reach_its_proxy_says_so() -> None:
    with pytest.raises(LoadTestError, match="cannot be reached"):
        actions.add_proxy("http://127.0.0.1:1", "p", "127.0.0.1:0", "127.0.0.1:2")
    assert probes.answers("http://127.0.0.1:1/") is False
    assert probes.alert_firing("http://127.0.0.1:1", "Down") is False
