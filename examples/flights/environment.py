"""The model servers' environment: made once, below ``.demo/``, and used again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOME = HERE.parent.parent / ".demo"


class StepFailed(Exception):
    """A step of the demo failed; the message says which, and holds the end of its output."""


def run_step(title: str, command: list[str], log: Path, say: Callable[[str], None]) -> float:
    """Run ``command``, its output in ``log``, saying now and then that it is at work; return
    seconds.

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
                    code = process.wait(timeout=60)
                    break
                except subprocess.TimeoutExpired:
                    say(f"{title}: still at it after {time.monotonic() - started:.0f} s")
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code != 0:
        tail = "\n    ".join(log.read_text(errors="replace").splitlines()[-8:])
        raise StepFailed(f"{title} failed (exit code {code}, all of it in {log}):\n    {tail}")
    seconds = time.monotonic() - started
    say(f"{title}: done in {seconds:.0f} s")
    return seconds


def prepare(say: Callable[[str], None]) -> Path:
    """Make the environment if it is not there; return its Python."""
    requirements = HERE / "requirements.txt"
    mark = HOME / "server" / ".ready"
    python = HOME / "server" / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        mark.touch()
        return python
    run_step(
        "making an environment for the model servers, in .demo/",
        [sys.executable, "-m", "venv", "--clear", str(HOME / "server")],
        HOME / "logs" / "venv.log",
        say,
    )
    run_step(
        "installing MLServer, scikit-learn and the flights",
        ["sh", "-c", _INSTALL, str(python), str(requirements)],
        HOME / "logs" / "install.log",
        say,
    )
    mark.write_text(wanted)
    return python


# uv installs several times faster; where it cannot be had, or knows no way to the index, pip does it.
_INSTALL = """
"$0" -m pip install -q uv && "$0" -m uv pip install -q --python "$0" -r "$1" \
  || "$0" -m pip install -q -r "$1"
"""


def train(python: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Train if that has not been done; what the training says of the models."""
    models = HOME / "models"
    done = models / "summary.json"
    source = HERE / "train.py"
    if not done.exists() or done.stat().st_mtime < source.stat().st_mtime:
        done.unlink(missing_ok=True)
        command = [str(python), str(source), str(models)]
        run_step("training on the first half of 2013", command, HOME / "logs" / "train.log", say)
    done.touch()
    summary: dict[str, Any] = json.loads(done.read_text())
    return summary


def main() -> int:
    """``python -m examples.flights.environment``: set up what the demo needs, beside other things
    that are set up."""

    def say(text: str) -> None:
        print(f"demo: {text}", file=sys.stderr, flush=True)

    try:
        train(prepare(say), say)
    except StepFailed as error:
        say(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
