"""For how long a process has been silent, and what it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.patience import eventually
from understudy.monitor.supervisor.watchdog import (
    CHECK_SECONDS,
    MOST_SECONDS,
    Activity,
    Silence,
    activity_of,
    private_bytes,
    usable_memory,
)

WAITS = Activity("S", False, 1.0)


def test_silence_lasts_until_the_next_heartbeat() -> None:
    silence = Silence()
    for beats, seconds in ((7, 0.0), (7, 0.25), (7, 0.5), (8, 0.0), (8, 0.25)):
        silence.observe(beats, CHECK_SECONDS, lambda: WAITS)
        assert silence.seconds == seconds


def test_a_pause_of_the_supervisor_does_not_count() -> None:
    silence = Silence()
    silence.observe(7, CHECK_SECONDS, lambda: WAITS)
    silence.observe(7, 3600.0, lambda: WAITS)
    assert silence.seconds == MOST_SECONDS


@pytest.mark.parametrize(("cpu_share", "counted"), [(0.0, 0.0), (0.1, 1.0), (1.0, 10.0)])
def test_time_without_a_processor_does_not_count(cpu_share: float, counted: float) -> None:
    """An endless loop on a machine that is busy is noticed later, and a process that gets no
    processor at all is not to blame."""
    silence = Silence()
    for check in range(41):
        cpu_seconds = 5.0 + cpu_share * check * CHECK_SECONDS
        silence.observe(7, CHECK_SECONDS, lambda used=cpu_seconds: Activity("R", True, used))
    assert silence.seconds == pytest.approx(counted)


def test_what_a_process_does() -> None:
    loop = "import sys\nprint(flush=True)\nsys.stdin.readline()\nwhile True: pass"
    with subprocess.Popen(
        [sys.executable, "-c", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        waits = eventually(
            lambda: seen if (seen := activity_of(process.pid)).state == "S" else None
        )
        assert not waits.runnable
        process.stdin.write(b"\n")
        process.stdin.flush()
        runs = eventually(lambda: seen if (seen := activity_of(process.pid)).runnable else None)
        eventually(lambda: activity_of(process.pid).cpu_seconds > runs.cpu_seconds)
        process.send_signal(signal.SIGSTOP)
        stopped = eventually(
            lambda: seen if (seen := activity_of(process.pid)).state == "T" else None
        )
        assert stopped.text == "it is stopped"
        process.kill()
        process.wait()
        assert activity_of(process.pid) is None
        assert private_bytes(process.pid) == 0


def test_memory_that_a_process_has_of_its_own() -> None:
    before = private_bytes(os.getpid())
    assert 0 < before < usable_memory()
    held = b"x" * (64 << 20)
    assert private_bytes(os.getpid()) >= before + len(held) // 2
