"""Child processes: they end with their parent, however it ends, and say why they did not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.patience import eventually, patient
from understudy.common.processes import Process, free_port, port_or_free

_PARENT = """
import sys, time
from pathlib import Path
from understudy.common.processes import Process, free_port, port_or_free
child = Process("child", ["sleep", "600"], Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


def _runs(pid: int) -> bool:
    try:
        return "sleep" in Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return False


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "log")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        eventually(lambda: _runs(child))
        parent.send_signal(signal.SIGKILL)
        parent.wait(patient(10))
        eventually(lambda: not _runs(child))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        if _runs(child):
            os.kill(child, signal.SIGKILL)


def test_a_child_has_the_exit_code_of_its_command(tmp_path: Path) -> None:
    child = Process("false", [sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log")
    eventually(lambda: not child.alive)
    assert child.stop() == 7


def test_a_command_that_does_not_exist_is_named_in_the_log(tmp_path: Path) -> None:
    child = Process("nothing", [str(tmp_path / "no-such-program")], tmp_path / "log")
    eventually(lambda: not child.alive)
    assert child.stop() == 1
    assert "no-such-program: No such file" in child.tail()


def test_two_that_start_at_the_same_time_get_different_ports() -> None:
    wanted = free_port()
    assert port_or_free(wanted) == wanted
    assert port_or_free(wanted) != wanted, "the first has not listened there yet"
