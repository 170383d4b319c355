"""How exactly a fault is timed, and whether it is undone when its runner is killed.

A pause of a known length begins at a known moment of the load: the time to detect and to recover,
from the requests alone, must be right to 50 ms. Then the runner is killed with SIGKILL while a
process is paused and another one burns a core, a hundred times: all must be undone.

    python -m benchmarks load-faults [--quick]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, Result, environment
from benchmarks.load.server import Serving
from understudy.loadtest.chaos.recovery import recovery
from understudy.loadtest.engine.pool import Open, Target, drive
from understudy.loadtest.payloads.request import Payload
from understudy.loadtest.scenarios.shapes import steady

LIMIT = 0.05
_RUNNER = """
import sys, time
from pathlib import Path
from understudy.loadtest.chaos import actions
from understudy.loadtest.chaos.guard import Guard
actions.guard = Guard(Path(sys.argv[2]))
actions.pause_process(pid=int(sys.argv[1]))
actions.cpu_pressure(1, 60.0)
print("ready", flush=True)
time.sleep(60)
"""


def timed(port: int, pid: int, pause: float, seed: int) -> dict[str, float]:
    moments: dict[str, float] = {}

    def stop_and_go() -> None:
        time.sleep(2.5)
        os.kill(pid, signal.SIGSTOP)
        moments["begin"] = time.time()
        time.sleep(pause)
        os.kill(pid, signal.SIGCONT)
        moments["end"] = time.time()

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    load = Open(steady(500.0, 6.0 + pause), seed=seed)
    requests = [Payload(b"{}").to_bytes("bench")]
    outcome = drive(Target("127.0.0.1", port, connections=2048), requests, load)
    thread.join()
    begin, end = (moments[k] - outcome.begun for k in ("begin", "end"))
    result = recovery(outcome, begin, end, LIMIT)
    # The first request of the pause is known to be bad once its limit is over; requests that are
    # due in the last LIMIT seconds of the pause are answered in time, all others are not.
    return {
        "pause": pause,
        "detect_error": abs((result.detected_after or 0.0) - LIMIT),
        "recover_error": abs((result.recovered_after or 0.0) + LIMIT),
        "lost": float(result.lost),
    }


def killed(number: int, folder: Path) -> bool:
    journal = folder / f"{number}.json"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        with subprocess.Popen(
            [sys.executable, "-c", _RUNNER, str(victim.pid), str(journal)], stdout=subprocess.PIPE
        ) as runner:
            assert runner.stdout is not None
            runner.stdout.readline()
            runner.send_signal(signal.SIGKILL)
        until = time.monotonic() + 10.0
        while not journal.exists() and time.monotonic() < until:
            time.sleep(0.01)
        state = Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
        victim.kill()
    if not journal.exists():
        return False
    report: dict[str, Any] = json.loads(journal.read_text())
    return state != "T" and len(report["undone"]) == 2 and not report["failed"]


def run(quick: bool = False) -> Result:
    result = Result("load-faults", environment(quick=quick))
    serving = Serving("plain")
    rows = []
    with serving as port:
        assert serving.process is not None
        result.environment |= serving.scheduled
        for number in range(2 if quick else 10):
            rows.append(timed(port, serving.process.pid, (0.5, 1.0, 2.0)[number % 3], number))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    trials = 10 if quick else 100
    with tempfile.TemporaryDirectory() as folder:
        undone = sum(killed(number, Path(folder)) for number in range(trials))
    result.tables.append(
        ("A pause of the server, 500 requests per second",
         ["pause s", "time to detect off by s", "time to recover off by s", "lost"],
         [list(row.values()) for row in rows])
    )  # fmt: skip
    result.measurements = {"pauses": rows, "rollbacks": [undone, trials]}
    detect = max(row["detect_error"] for row in rows)
    recover = max(row["recover_error"] for row in rows)
    result.claims = [
        Claim("time to detect, off by (s, largest)", detect, 0.05, "<="),
        Claim("time to recover, off by (s, largest)", recover, 0.05, "<="),
        Claim("share of faults undone after kill -9 of the runner", undone / trials, 1.0, ">="),
    ]
    return result
