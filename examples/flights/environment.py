"""The model servers' environment: made once, below ``.demo/``, and used again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE.parent.parent / ".demo"


class StepFailed(Exception):
    """A step of the demo failed; the message says which, and holds the end of its output."""


def run_step(title: str, command: list[str], log: Path, say: Callable[[str], None]) -> float:
    """Run ``command``, its output in ``log``, saying that it is still at work; return seconds.

    Raises StepFailed when it ends with an error.
    """
    started = time.monotonic()
    say(f"{title} …")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    code = process.wait(timeout=10)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  still at it after {time.monotonic() - started:.0f} s")
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code != 0:
        tail = "\n    ".join(log.read_text(errors="replace").splitlines()[-8:])
        raise StepFailed(f"{title} failed (exit code {code}, all of it in {log}):\n    {tail}")
    return time.monotonic() - started


def prepare(say: Callable[[str], None]) -> Path:
    """Make the environment if it is not there; return its Python."""
    requirements = HERE / "requirements.txt"
    mark = HOME / "server" / ".ready"
    python = HOME / "server" / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return python
    say("First run: setting up MLServer with scikit-learn in .demo/ (about a minute)")
    run_step(
        "making the environment",
        [sys.executable, "-m", "venv", "--clear", str(HOME / "server")],
        HOME / "logs" / "venv.log",
        say,
    )
    run_step(
        "installing MLServer, scikit-learn and the flights",
        [str(python), "-m", "pip", "install", "-q", "-r", str(requirements)],
        HOME / "logs" / "install.log",
        say,
    )
    mark.write_text(wanted)
    return python
